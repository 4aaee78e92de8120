"""What is random about a batch, drawn for all samples at once with the laws of `sampling`, `pipeline` and `augment`.

Frames are numbered by rank: all visible frames of all targets in one list, target by target, in order of time. NumPy on
the host: a batch needs a few hundred numbers here, and they are the same whatever the device.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import TYPE_CHECKING

import numpy as np

from ebmtrack.errors import ConfigError

if TYPE_CHECKING:
    from ebmtrack.data.augment import Jitter, Look

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, the step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)
DIMP_LEAST_FRAMES = 20  # of a video, with rule "dimp" (sampling.LEAST_FRAMES)


class SampleRandom:
    """Random numbers of many samples at once: each depends on the seed, its sample's number and its topic alone.

    SplitMix64 as a counter-based generator, so that a sample is the same in any batch and on any machine.
    """

    def __init__(self, keys: np.ndarray):
        """keys: (s,) uint64, as `of` makes them."""
        self.keys = keys

    @classmethod
    def of(cls, seed: int, numbers: np.ndarray) -> SampleRandom:
        """For samples number (s,) of a run."""
        own = mix(np.array([seed], np.int64).view(np.uint64) + np.uint64(1))
        return cls(mix(own ^ mix(np.asarray(numbers, np.int64).view(np.uint64) + np.uint64(GOLDEN))))

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rows: np.ndarray) -> SampleRandom:
        """Those of some of the samples."""
        return SampleRandom(self.keys[rows])

    def bits(self, topic: str, *shape: int) -> np.ndarray:
        """Random bits (s, *shape) uint64."""
        start = mix(self.keys ^ np.uint64(GOLDEN * zlib.crc32(topic.encode()) % 2**64))
        steps = np.arange(1, 1 + int(np.prod(shape)), dtype=np.uint64) * np.uint64(GOLDEN)
        return mix(start[:, None] + steps).reshape(len(self.keys), *shape)

    def uniform(self, topic: str, *shape: int) -> np.ndarray:
        """Uniform over [0, 1), (s, *shape) float64."""
        return (self.bits(topic, *shape) >> np.uint64(11)) * 2.0**-53

    def normal(self, topic: str, *shape: int) -> np.ndarray:
        """Standard normal, (s, *shape) float64 (Box and Muller)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(topic + " radius", *shape)))
        return radius * np.cos(2 * np.pi * self.uniform(topic, *shape))


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's output function on uint64 (n,): every bit in changes about half of the bits out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Targets and their visible frames, without pixels.

    Per target (t,): count of visible frames, length of the video in frames, source (its number), is_video, weight
    within the source. Per visible frame (v,): number in its video, ascending within a target.
    """

    count: np.ndarray
    length: np.ndarray
    source: np.ndarray
    is_video: np.ndarray
    weight: np.ndarray
    number: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Rank (t,) of each target's first frame."""
        return np.cumsum(self.count) - self.count

    @property
    def target(self) -> np.ndarray:
        """Target (v,) of each frame."""
        return np.repeat(np.arange(len(self.count)), self.count)


def target_odds(
    tracks: Tracks, shares: np.ndarray, acceptance: np.ndarray, usable: np.ndarray, rule: str
) -> np.ndarray:
    """Cumulative probability (t,) of each target: share of its source, weight within it, acceptance (t,) by area.

    A target that is not `usable` (t,) is drawn again: from the same source with rule "dimp", else from all.
    """
    odds = np.where(usable, tracks.weight, 0.0)
    pool = odds if rule == "dimp" else tracks.weight
    totals = np.bincount(tracks.source, pool, len(shares))
    missing = [number for number, share in enumerate(shares) if share > 0 and not totals[number] > 0]
    if missing:
        raise ConfigError(f"sources number {missing} have a share but no target to draw: check the prepared frames")
    odds = odds * (shares / np.where(totals > 0, totals, 1.0))[tracks.source] * acceptance
    if not odds.sum() > 0:
        raise ConfigError("no target can be drawn: check the shares and the prepared frames")
    return np.cumsum(odds) / odds.sum()


class FramePicker:
    """Train and test frames of many targets at once, by the laws `causal_frames` and `dimp_frames` of `sampling`."""

    def __init__(self, tracks: Tracks, train: int, test: int, max_gap: int, rule: str):
        self.tracks, self.train, self.test, self.max_gap, self.rule = tracks, train, test, max_gap, rule
        self.first, self.target = tracks.first, tracks.target
        self.longest = int(tracks.length.max(initial=1)) + 5
        self.stride = self.longest + max_gap + self.longest + 2
        self.keys = self.target * self.stride + tracks.number
        self.dimp = tracks.is_video & (rule == "dimp")
        self._causal_ranges()
        self._dimp_bases()

    @property
    def usable(self) -> np.ndarray:
        """Targets (t,) from which frames can be drawn; rule "dimp" leaves short videos out (`sampling.long_enough`)."""
        long = (self.tracks.length >= DIMP_LEAST_FRAMES) & (self.tracks.count > 2 * (self.train + self.test))
        return np.where(self.dimp, long & (self.bases[:, 1] > self.bases[:, 0]), self.tracks.count > 0)

    def draw(self, target: np.ndarray, rng: SampleRandom) -> np.ndarray:
        """Ranks (s, train + test) of the frames of targets (s,), train frames first."""
        ranks = self._causal(target, rng)
        dimp = np.flatnonzero(self.dimp[target])
        if len(dimp):
            ranks[dimp] = self._dimp(target[dimp], rng.part(dimp))
        return ranks

    def _rank(self, target: np.ndarray, number: np.ndarray) -> np.ndarray:
        """The rank of the first frame of `target` whose number is at least `number`."""
        return np.searchsorted(self.keys, target * self.stride + np.clip(number, 0, self.stride - 1))

    def _causal_ranges(self) -> None:
        """For each frame as base the ranks of earlier and later ones; for each target the ranks of its bases."""
        tracks, number = self.tracks, self.tracks.number
        same = np.diff(self.target) == 0
        step = np.where(same, np.diff(number), np.inf)
        need = np.maximum(np.append(np.inf, step)[: len(number)], np.append(step, np.inf)[: len(number)])
        growths = np.minimum(np.ceil(np.maximum(need - self.max_gap, 0) / 5), tracks.length[self.target] // 5)
        gap = self.max_gap + 5 * growths.astype(np.int64)
        self.low, self.high = self._rank(self.target, number - gap), self._rank(self.target, number + gap + 1)
        targets = np.arange(len(tracks.count))
        early, late = number[self.first], number[self.first + tracks.count - 1]
        room_start = self._rank(targets, np.minimum(early + self.train - 1, late))
        room_stop = self._rank(targets, np.maximum(late - self.test + 1, early + 1))
        empty = room_stop <= room_start
        self.room = np.stack(
            [np.where(empty, self.first, room_start), np.where(empty, self.first + tracks.count, room_stop)], axis=1
        )

    def _dimp_bases(self) -> None:
        """Ranks from which `dimp_frames` draws the base frame, (t, 2)."""
        targets, end = np.arange(len(self.first)), self.first + self.tracks.count
        start = np.maximum(self._rank(targets, np.full(len(targets), self.train - 1)), self.first + (self.train > 1))
        stop = np.minimum(self._rank(targets, self.tracks.length - self.test), end - 1)
        self.bases = np.stack([start, np.maximum(stop, start)], axis=1)

    def _causal(self, target: np.ndarray, rng: SampleRandom) -> np.ndarray:
        base = _between(*self.room[target].T, rng.uniform("base", 1))
        before = _between(self.low[base[:, 0]], base[:, 0], rng.uniform("before", self.train - 1))
        after = _between(base[:, 0] + 1, self.high[base[:, 0]], rng.uniform("after", self.test))
        before = np.where(before < 0, base, before)
        after = np.where(after < 0, base, after)
        return np.concatenate([np.sort(np.concatenate([base, before], 1), 1), np.sort(after, 1)], axis=1)

    def _dimp(self, target: np.ndarray, rng: SampleRandom) -> np.ndarray:
        base, tries = np.full(len(target), -1), 0
        before, after = np.zeros((2, len(target), 2), np.int64)
        while (left := base < 0).any():
            gap = self.max_gap + min(5 * tries, self.longest)
            drawn = _between(*self.bases[target].T, rng.uniform(f"base {tries}", 1))[:, 0]
            number = self.tracks.number[drawn]
            earlier = np.stack([self._rank(target, number - gap), drawn], 1)
            later = np.stack([drawn + 1, self._rank(target, number + gap)], 1)
            found = left & (later[:, 1] > later[:, 0]) & ((earlier[:, 1] > earlier[:, 0]) | (self.train == 1))
            base[found], before[found], after[found] = drawn[found], earlier[found], later[found]
            tries += 1
        earlier = _between(*before.T, rng.uniform("before", self.train - 1))
        later = _between(*after.T, rng.uniform("after", self.test))
        return np.concatenate([base[:, None], earlier, later], axis=1)


def _between(start: np.ndarray, stop: np.ndarray, at_frac: np.ndarray) -> np.ndarray:
    """Whole numbers (n, k) at fractions (n, k) of start..stop-1 (n,); -1 where that is empty."""
    room = np.maximum(stop - start, 0)[:, None]
    return np.where(room > 0, start[:, None] + np.floor(at_frac * room).astype(np.int64), -1)


def jittered_windows(
    boxes_xywh: np.ndarray, jitters: list[Jitter], search_factor: float, rng: SampleRandom, attempt: int = 0
) -> np.ndarray:
    """Search regions (s, f, 4) around boxes (s, f, 4), as `augment.jittered_window`; jitters: f of them."""
    frames = len(jitters)
    centre, scale, stretch = np.array([(j.centre, j.scale, j.stretch) for j in jitters]).T
    size = np.sqrt(boxes_xywh[..., 2] * boxes_xywh[..., 3]) * np.exp(rng.normal(f"scale {attempt}", frames) * scale)
    shift = (size * centre)[..., None] * (rng.uniform(f"centre {attempt}", frames, 2) - 0.5)
    side = np.ceil(size * search_factor)
    longer = np.exp(rng.normal(f"stretch {attempt}", frames) * stretch / 2)
    window_wh = np.stack([side * longer, side / longer], axis=-1)
    middle = boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2 + shift
    return np.concatenate([middle - window_wh / 2, window_wh], axis=-1)


def keep_off(windows_xywh: np.ndarray, images_wh: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Windows (..., 4) shrunk and moved off the edges where an image was cut, as `augment.keep_off_cut_edges`.

    images_wh: (..., 2). cut: (..., 4) bool for left, top, right and bottom.
    """
    start, size = windows_xywh[..., :2], windows_xywh[..., 2:]
    low = np.where(cut[..., :2], 0.0, -np.inf)
    high = np.where(cut[..., 2:], images_wh.astype(np.float64), np.inf)
    shrink = np.minimum(1.0, ((high - low) / size).min(axis=-1, keepdims=True))
    start, size = start + size * (1 - shrink) / 2, size * shrink
    return np.concatenate([np.maximum(low, np.minimum(start, high - size)), size], axis=-1)


def scene_fracs(windows_xywh: np.ndarray, images_wh: np.ndarray) -> np.ndarray:
    """The part (...) of the area of windows (..., 4) inside images of (..., 2) pixels, as `augment.scene_frac`."""
    start, size = windows_xywh[..., :2], windows_xywh[..., 2:]
    inside = np.minimum(start + size, images_wh) - np.maximum(start, 0)
    return (np.maximum(inside, 0) / size).prod(axis=-1)


def whole_windows(windows_xywh: np.ndarray, images_wh: np.ndarray, border: str, max_scale_change: float) -> np.ndarray:
    """Square windows (..., 4) of whole pixels for search regions (..., 4), as `crops.whole_window`."""
    side = windows_xywh[..., 2:].max(axis=-1, keepdims=True)
    if border == "inside_major":
        side = np.floor(side / np.clip((side / images_wh).min(axis=-1, keepdims=True), 1.0, max_scale_change))
    low = np.round(windows_xywh[..., :2] + windows_xywh[..., 2:] / 2 - side / 2)
    if border != "replicate":
        low = _moved_inside(low, low + side, images_wh)
    return np.trunc(np.concatenate([low, side, side], axis=-1))


def _moved_inside(low: np.ndarray, high: np.ndarray, images_wh: np.ndarray) -> np.ndarray:
    """Where windows low..high (..., 2) begin once shifted inside; what does not fit sticks out alike at both ends."""
    shift = np.maximum(-low, 0) - np.maximum(high - images_wh, 0)
    low, high = low + shift, high + shift
    excess = np.floor((np.maximum(-low, 0) + np.maximum(high - images_wh, 0)) / 2)
    return np.where(excess > 0, -excess, low)


def boxes_in_windows(boxes_xywh: np.ndarray, windows_xywh: np.ndarray, output: int) -> np.ndarray:
    """Boxes (n, 4) of the images in the pixels of crops, as `crops.box_in_window`."""
    scale = output / windows_xywh[:, 2:]
    return np.concatenate([(boxes_xywh[:, :2] - windows_xywh[:, :2]) * scale, boxes_xywh[:, 2:] * scale], axis=1)


@dataclasses.dataclass(frozen=True)
class LookDraws:
    """How n frames are changed, each array (n,): see `augment.change_look`.

    saturation, contrast, brightness: factors. blur: sigma in pixels, motion: length in pixels, noise: deviation in grey
    levels; each 0 where there is none. angle: of the motion, radians. key: int64, from which the pixel noise is drawn.
    """

    saturation: np.ndarray
    contrast: np.ndarray
    brightness: np.ndarray
    blur: np.ndarray
    motion: np.ndarray
    angle: np.ndarray
    noise: np.ndarray
    key: np.ndarray

    def part(self, rows: np.ndarray) -> LookDraws:
        """The draws of some of the frames."""
        return LookDraws(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def draw_looks(
    looks: tuple[Look, Look], is_video: np.ndarray, frames: int, rng: SampleRandom
) -> tuple[LookDraws, np.ndarray]:
    """Changes of s * frames frames, sample by sample, and which (s * frames,) are mirrored.

    looks: of video and of photographs; is_video: (s,).
    """

    def of(name: str) -> np.ndarray:
        return np.where(is_video, getattr(looks[0], name), getattr(looks[1], name))[:, None]

    def happens(name: str, count: int = frames) -> np.ndarray:
        return rng.uniform(name, count) < of(name)

    def factor(name: str) -> np.ndarray:
        return 1 + of(name) * (2 * rng.uniform(name, frames) - 1)

    def strength(name: str, low: float, high: float) -> np.ndarray:
        return low + (high - low) * rng.uniform(name + " strength", frames)

    draws = {
        "saturation": np.where(happens("grey", 1), 0.0, factor("saturation")),
        "contrast": factor("contrast"),
        "brightness": factor("brightness"),
        "blur": happens("blur") * strength("blur", 0.3, 2.0),
        "motion": happens("motion_blur") * np.floor(strength("motion_blur", 3, 10)),
        "angle": strength("angle", 0, np.pi),
        "noise": happens("noise") * strength("noise", 0, 8),
        "key": rng.bits("noise", frames).view(np.int64),
    }
    mirrored = happens("joint_flip", 1) != happens("flip")
    return LookDraws(**{name: values.reshape(-1) for name, values in draws.items()}), mirrored.reshape(-1)
