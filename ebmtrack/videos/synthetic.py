"""Clips composed of cut-outs over photographs; each follows from a seed and its index, boxes are exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.compose import (
    Layer,
    alpha_box_xywh,
    blend,
    clean_cutout,
    motion_kernel,
    relit,
    resized_cutout,
    shown_frac,
    warped_layer,
)
from ebmtrack.videos.image_store import MEBIBYTE, ImageStore, LimitedCache
from ebmtrack.videos.motion import (
    Motion,
    draw_camera,
    draw_distractor_motion,
    draw_light,
    draw_occluder_motion,
    draw_target_motion,
    linear_map,
    random_walk,
)
from ebmtrack.videos.sequence import visible_paths
from ebmtrack.videos.source import Source

LEAST_SHOWN = 0.4  # of the target's solid pixels; less counts as not visible
MOST_ELONGATED = 5.0  # cut-outs longer than this times their width are not used
LEAST_SOLID = 0.25  # of a cut-out's bounding box; less is wire or a broken mask
LEAST_BACKGROUND = 220  # pixels of the shorter side; smaller photographs would be blurred by enlarging


@dataclass(frozen=True)
class Clip:
    """A composed clip without its pixels: the layers of each of n frames, back to front."""

    target: str  # name of the target's cut-out
    size_wh: tuple[int, int]
    background: Path
    cameras: np.ndarray  # (n, 2, 3), from background to frame
    light: np.ndarray  # (n, 2), gain and offset (grey levels) of the whole frame
    scene_blur: float  # Gaussian width in pixels of the background
    layers: list[list[Layer]]  # n lists
    boxes_xywh: np.ndarray  # (n, 4)
    visible: np.ndarray  # (n,)


class SyntheticSource(Source):
    """Short clips: a target in motion, distractors, occluders, a moving camera, changing light."""

    is_video = True

    def __init__(
        self,
        cutouts_dir: str | Path,
        backgrounds_dir: str | Path,
        clip_length: int = 6,
        length: int = 100_000,
        seed: int = 0,
        name: str = "synthetic",
        keep: Callable[[Path], bool] | None = None,
        store: ImageStore | None = None,
    ) -> None:
        """Take cut-outs (any image with alpha) and backgrounds from two folders.

        `length` is the number of clips it says it has; a clip depends on `seed`, its index and the files.
        `keep` chooses among the files of cut-outs and backgrounds. `store` caches what is decoded.
        """
        if clip_length < 1 or length < 1 or seed < 0:
            raise ConfigError(f"synthetic clips: length {length}, {clip_length} frames, seed {seed} must be positive")
        self.name, self._length, self._clip_length, self._seed = name, length, clip_length, seed
        self._store = store if store is not None else ImageStore(256 * MEBIBYTE, 256 * MEBIBYTE)
        self._cutouts = _image_files(Path(cutouts_dir), keep)
        self._backgrounds = _image_files(Path(backgrounds_dir), keep)
        self._groups = _groups(self._cutouts)
        self._odds = _odds(self._cutouts)
        self._clips = LimitedCache(64 * MEBIBYTE)

    def __len__(self) -> int:
        return self._length

    def target_name(self, index: int) -> str:
        """Return seed and index of the clip."""
        return f"{self.name}-{self._seed}-{index}"

    def boxes_xywh(self, index: int) -> np.ndarray:
        return self.clip(index).boxes_xywh

    def visible(self, index: int) -> np.ndarray:
        """Return (n,) bool: at least `LEAST_SHOWN` of the target is inside the frame and not covered."""
        return self.clip(index).visible

    def frame(self, index: int, frame: int) -> np.ndarray:
        clip = self.clip(index)
        if not 0 <= frame < len(clip.layers):
            raise DatasetError(f"{self.target_name(index)}: frame {frame} of {len(clip.layers)} does not exist")
        return render(clip, frame, self._store.rgb(clip.background))

    def clip(self, index: int) -> Clip:
        """Return the plan of clip `index`, with its warped cut-outs; the last few are kept."""
        return self._clips.get(index, lambda: self._compose(index), _clip_bytes)

    def draw_cutout(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random solid cut-out (h, w, 4) uint8 RGBA, not premultiplied."""
        cutout = self._usable_cutout(rng, None)[1]
        alpha = cutout[..., 3:]
        straight = np.where(alpha > 0, cutout[..., :3] / np.maximum(alpha, 1e-6), 0)
        return np.dstack([np.clip(straight, 0, 255), alpha * 255]).round().astype(np.uint8)

    def draw_photograph(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random background (H, W, 3) uint8 RGB."""
        return self._background(rng)[1]

    def preload(self) -> None:
        """Read all files into the store now."""
        self._store.preload([*self._cutouts, *self._backgrounds])

    @property
    def files(self) -> tuple[list[Path], list[Path]]:
        """The files of cut-outs and of backgrounds."""
        return self._cutouts, self._backgrounds

    def faults(self, every_frame: bool = False) -> Iterator[str]:
        """Yield a line for each cut-out and background that cannot be decoded; all are tried."""
        for read, paths in ((self._store.rgba, self._cutouts), (self._store.rgb, self._backgrounds)):
            for path in paths:
                try:
                    read(path)
                except DatasetError as error:
                    yield str(error)

    def _compose(self, index: int) -> Clip:
        """Draw all that is random about clip `index`."""
        if not 0 <= index < self._length:
            raise DatasetError(f"{self.name}: clip {index} of {self._length} does not exist")
        rng = np.random.default_rng([self._seed, index])
        frames = self._clip_length
        background, photo = self._background(rng)
        size_wh = _frame_size(rng, photo.shape[1::-1])
        cameras, drift = draw_camera(rng, frames, size_wh, photo.shape[1::-1])
        tint = np.array(cv2.mean(photo)[:3])
        target, cutout = self._usable_cutout(rng, None)
        path = draw_target_motion(rng, frames, size_wh)
        layers = _object_layers(rng, cutout, path, tint)
        behind, before = self._others(rng, target, path, drift, tint)
        order = [[*(o[t] for o in behind), layers[t], *(o[t] for o in before)] for t in range(frames)]
        boxes, visible = _annotation(layers, before, size_wh)
        return Clip(
            target=self._cutouts[target].stem,
            size_wh=size_wh,
            background=background,
            cameras=cameras,
            light=draw_light(rng, frames),
            scene_blur=float(rng.uniform(0.0, 1.6)) if rng.random() < 0.15 else 0.0,
            layers=order,
            boxes_xywh=boxes,
            visible=visible,
        )

    def _usable_cutout(self, rng: np.random.Generator, like: int | None) -> tuple[int, np.ndarray]:
        """Return number and prepared pixels of a random cut-out, of the group of cut-out `like` if that is given."""
        for _ in range(100):
            if like is None:
                number = int(rng.choice(len(self._cutouts), p=self._odds))
            else:
                number = int(rng.choice(self._groups[_group(self._cutouts[like].stem)]))
            cutout = clean_cutout(self._store.rgba(self._cutouts[number]))
            if cutout is not None and _is_compact(cutout):
                return number, cutout
        raise DatasetError(f"{self._cutouts[0].parent}: no solid, compact cut-out among a hundred drawn")

    def _others(
        self, rng: np.random.Generator, target: int, path: Motion, drift: np.ndarray, tint: np.ndarray
    ) -> tuple[list, list]:
        """Return layers (n,) of each object behind the target, and of each in front: distractors and an occluder."""
        behind: list[list[Layer]] = []
        before: list[list[Layer]] = []
        for _ in range(rng.integers(1, 4)):
            cutout = self._distractor(rng, target)
            layers = _object_layers(rng, cutout, draw_distractor_motion(rng, path, drift), tint)
            (before if rng.random() < 0.15 else behind).append(layers)
        if rng.random() < 0.35:
            cutout = self._usable_cutout(rng, None)[1]
            before.append(_object_layers(rng, cutout, draw_occluder_motion(rng, path), tint))
        return behind, before

    def _distractor(self, rng: np.random.Generator, target: int) -> np.ndarray:
        """Return a prepared cut-out: in three of twenty cases the target's own, in seven of its group, else any."""
        choice = rng.random()
        own = clean_cutout(self._store.rgba(self._cutouts[target])) if choice < 0.15 else None
        if own is not None:
            return own
        return self._usable_cutout(rng, target if choice < 0.5 else None)[1]

    def _background(self, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
        """Return a random background and its pixels; small photographs only after several draws."""
        for _ in range(5):
            path = self._backgrounds[rng.integers(len(self._backgrounds))]
            photo = self._store.rgb(path)
            if min(photo.shape[:2]) >= LEAST_BACKGROUND:
                break
        return path, photo


def open_synthetic(root: Path, split: str | None, store: ImageStore) -> SyntheticSource:
    """Open the cut-outs and backgrounds of a folder for training. ConfigError for a split: there are none."""
    if split is not None:
        raise ConfigError(f"compositions have no splits, got {split!r}")
    return SyntheticSource(root / "cutouts", root / "backgrounds", store=store)


def render(clip: Clip, frame: int, background: np.ndarray) -> np.ndarray:
    """Draw frame number `frame` of a clip, (H, W, 3) uint8 RGB, over the photograph `background`."""
    image = cv2.warpAffine(background, clip.cameras[frame], clip.size_wh, borderMode=cv2.BORDER_REFLECT_101)
    if clip.scene_blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), clip.scene_blur)
    for layer in clip.layers[frame]:
        blend(image, layer)
    gain, offset = clip.light[frame]
    table = np.clip(np.arange(256) * gain + offset, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table)


def _frame_size(rng: np.random.Generator, photo_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of a clip's frames: a little larger than the photograph, which stays sharp."""
    larger = rng.uniform(1.1, 1.5) / max(1.0, max(photo_wh) / 440)
    return max(64, round(photo_wh[0] * larger)), max(64, round(photo_wh[1] * larger))


def _object_layers(rng: np.random.Generator, cutout: np.ndarray, motion: Motion, tint: np.ndarray) -> list[Layer]:
    """Return the object's layer in each frame, with its blur and light; its colour is drawn towards `tint` (3,)."""
    frames, own_size = len(motion.sizes), np.sqrt(cutout.shape[0] * cutout.shape[1])
    shrink = min(1.0, float(motion.sizes.max()) * 1.1 / own_size)
    small = resized_cutout(cutout, shrink, rng.uniform(0.2, 0.9))
    gains = _gains(rng, frames, cutout, tint)
    offset = rng.normal(0, 8.0)
    blur = float(rng.uniform(0.5, 2.0)) if rng.random() < 0.33 else 0.0  # Gaussian, in pixels
    exposure = rng.uniform(0.0, 0.5) * (rng.random() < 0.5)
    speeds = np.gradient(motion.centres, axis=0) if frames > 1 else np.zeros((1, 2))
    layers = []
    for t in range(frames):
        smear = speeds[t] * exposure * min(1.0, 0.5 * motion.sizes[t] / (1e-9 + np.linalg.norm(speeds[t])))
        linear = linear_map(motion, t, shrink * own_size)
        layers.append(relit(_blur(small, linear, motion.centres[t], smear, blur), gains[t], offset))
    return layers


def _gains(rng: np.random.Generator, frames: int, cutout: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """Return colour gains (n, 3) of an object: its own look, partly matched to the scene, drifting."""
    own = cutout[..., :3].sum(axis=(0, 1)) / max(1.0, float(cutout[..., 3].sum()))
    matched = np.log((tint + 20) / (own + 20)).clip(-0.6, 0.6) * max(0.0, rng.uniform(-0.4, 0.8))
    return np.exp(matched + rng.normal(0, 0.08, 3) + rng.normal(0, 0.12) + random_walk(rng, frames, 0.03)[:, None])


def _blur(cutout: np.ndarray, linear: np.ndarray, centre: np.ndarray, smear: np.ndarray, blur: float) -> Layer:
    """Return the warped cut-out with motion blur along `smear` (2,) pixels and Gaussian blur of width `blur`."""
    length = float(np.hypot(*smear))
    margin = 2 + int(np.ceil(length / 2 + 2 * blur))
    layer = warped_layer(cutout, linear, centre, margin)
    pixels = layer.pixels
    if length > 1.5:
        kernel = motion_kernel(length, float(np.arctan2(smear[1], smear[0])))
        pixels = cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    if blur > 0.2:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur, borderType=cv2.BORDER_CONSTANT)
    return Layer(pixels, layer.x, layer.y)


def _annotation(
    layers: list[Layer], before: list[list[Layer]], size_wh: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (n, 4) of the target, clipped at the frame, and whether it is visible (n,)."""
    boxes, visible = np.zeros((len(layers), 4)), np.zeros(len(layers), dtype=bool)
    for t, layer in enumerate(layers):
        box = alpha_box_xywh(layer)
        if box is None:
            continue
        low, high = np.clip(box[:2], 0, size_wh), np.clip(box[:2] + box[2:], 0, size_wh)
        boxes[t] = np.concatenate([low, high - low])
        shown = shown_frac(layer, [other[t] for other in before], *size_wh)
        visible[t] = shown >= LEAST_SHOWN and bool((boxes[t, 2:] >= 1).all())
    return boxes, visible


def _is_compact(cutout: np.ndarray) -> bool:
    """Return whether a cut-out is neither a stick nor a scatter of pieces."""
    height, width = cutout.shape[:2]
    solid = float((cutout[..., 3] > 0.5).mean())
    return max(height, width) <= MOST_ELONGATED * min(height, width) and solid >= LEAST_SOLID


def _image_files(folder: Path, keep: Callable[[Path], bool] | None) -> list[Path]:
    """Return the image files of a folder, by name."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: the folder of images is missing; make it, or correct the path of the material")
    kinds = (".webp", ".png", ".jpg", ".jpeg")
    files = [path for path in visible_paths(folder.iterdir()) if path.suffix.lower() in kinds]
    files = [path for path in files if keep is None or keep(path)]
    if not files:
        raise DatasetError(f"{folder}: no image ({', '.join(kinds)}) to use; add some, or remove the folder")
    return files


def _group(stem: str) -> str:
    """Return the group of a cut-out: its name up to the number."""
    return stem.rstrip("0123456789").rstrip("_-")


def _groups(files: list[Path]) -> dict[str, list[int]]:
    """Return the numbers of the cut-outs of each group."""
    groups: dict[str, list[int]] = {}
    for number, path in enumerate(files):
        groups.setdefault(_group(path.stem), []).append(number)
    return groups


def _odds(files: list[Path]) -> np.ndarray:
    """Return the probability (n,) of each cut-out: groups weigh by the root of their size, so that none dominates."""
    sizes = {name: len(numbers) for name, numbers in _groups(files).items()}
    odds = np.array([sizes[_group(path.stem)] ** -0.5 for path in files])
    return odds / odds.sum()


def _clip_bytes(clip: Clip) -> int:
    return 2000 + sum(layer.pixels.nbytes for layers in clip.layers for layer in layers)
