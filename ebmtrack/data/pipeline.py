"""Training samples: crops of the chosen frames of a target, and its boxes in them."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ebmtrack.boxes import rel_to_xywh, xywh_to_rel, xywh_to_xyxy
from ebmtrack.data.augment import (
    Jitter,
    Look,
    change_look,
    draw_window,
    flip_box,
    keep_off_cut_edges,
    scene_frac,
    without_augmentation,
)
from ebmtrack.data.crops import WINDOW_BORDERS, box_in_window, crop_whole_window, crop_window, whole_window
from ebmtrack.data.disturb import Disturbance, Material, disturb, draw_sample_disturbance
from ebmtrack.data.sampling import Choice, Sampler
from ebmtrack.errors import ConfigError

CropRule = Literal["exact", "dimp", "atom"]


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """The rules by which search regions are cut for training (defaults: DiMP-18).

    rule "exact" cuts windows of fractions of pixels, averages large ones down and mirrors boxes about the patch's
    middle. "dimp" cuts as pytracking's training does (`whole_window`, `crop_whole_window`) and mirrors x to
    (W - 1) - x, which moves a mirrored box by one pixel; only it knows the borders "inside" and "inside_major". "atom"
    cuts so too, but measures the box from the middle of the region before it was rounded to whole pixels, which it puts
    at pixel (output - 1) / 2: boxes are half a pixel of the crop lower on average.
    """

    output: int = 288
    search_factor: float = 5.0
    train_jitter: Jitter = Jitter(3.0, 0.25)
    test_jitter: Jitter = Jitter(4.5, 0.5)
    look: Look = Look()
    still_look: Look = Look()  # for sources of single images, whose frames are the same picture
    cut_at: dict[str, float] = dataclasses.field(default_factory=dict)  # source name -> target sizes kept around it
    least_scene_frac: float = 0.0  # a window with less of the scene in it is drawn again, up to 5 times
    rule: CropRule = "exact"
    border: Literal["replicate", "inside", "inside_major"] = "replicate"
    disturbance: Disturbance = Disturbance()
    max_scale_change: float = 1.5  # by how much "inside_major" may shrink a search region

    def __post_init__(self) -> None:
        if self.rule not in get_args(CropRule) or self.border not in WINDOW_BORDERS:
            raise ConfigError(
                f"crops: the rule must be one of {get_args(CropRule)} and the border one of {WINDOW_BORDERS}, "
                f"got {self.rule!r} and {self.border!r}"
            )
        if self.rule != "dimp" and self.border != "replicate":
            raise ConfigError(f"crops: the border {self.border!r} needs the rule 'dimp'")
        if self.output < 16 or self.search_factor <= 0 or self.max_scale_change < 1:
            raise ConfigError(
                f"crops: output must be at least 16, search_factor positive and max_scale_change at least 1, got "
                f"{self.output}, {self.search_factor} and {self.max_scale_change}"
            )

    def jitters(self, choice: Choice) -> list[tuple[int, Jitter]]:
        """Return the frames of a sample, train frames first, each with its jitter."""
        frames = [(frame, self.train_jitter) for frame in choice.train_frames]
        return frames + [(frame, self.test_jitter) for frame in choice.test_frames]

    @property
    def mirrored_width(self) -> int:
        """The width about which x is mirrored: x goes to this number minus x."""
        return self.output - (self.rule != "exact")

    def window_of(
        self, region_xywh: tuple[float, float, float, float], image_wh: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Return the window that is cut for a search region; whole pixels unless the rule is "exact"."""
        if self.rule == "exact":
            return region_xywh
        return whole_window(region_xywh, image_wh, self.border, self.max_scale_change)

    def box_in_crop(
        self,
        box_xywh: np.ndarray,
        region_xywh: tuple[float, float, float, float],
        window_xywh: tuple[float, float, float, float],
    ) -> np.ndarray:
        """Return a box (4,) of the image in the pixels of the crop of a region that became this window."""
        if self.rule == "atom":
            return box_in_window(box_xywh, region_xywh, self.output) - (0.5, 0.5, 0.0, 0.0)
        return box_in_window(box_xywh, window_xywh, self.output)

    def for_validation(self) -> CropSettings:
        """Return the same crops without flips, changes of light or colour, and disturbances (pytracking)."""
        look, still_look = without_augmentation(self.look), without_augmentation(self.still_look)
        return dataclasses.replace(self, look=look, still_look=still_look, disturbance=Disturbance())


class TrainingSet(Dataset):
    """Samples by number: `crops` (f, 288, 288, 3) uint8 and `boxes_xywh` (f, 4) in crop pixels, train frames first."""

    def __init__(self, sampler: Sampler, settings: CropSettings, length: int, material: Material | None = None):
        self.sampler, self.settings, self.length, self.material = sampler, settings, length, material

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = self.sampler.rng(index)
        crops, boxes = self.process(draw_accepted(self.sampler, self.settings, rng), rng)
        return {"crops": torch.from_numpy(crops), "boxes_xywh": torch.from_numpy(boxes)}

    def process(self, choice: Choice, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Cut, mirror and colour the frames of one sample; return crops (f, H, W, 3) uint8 and boxes (f, 4)."""
        look = self.settings.look if choice.source.is_video else self.settings.still_look
        grey, mirrored = rng.random() < look.grey, rng.random() < look.joint_flip
        crops, boxes = [], []
        shared, settings = None, self.settings.disturbance
        for number, (frame, jitter) in enumerate(self.settings.jitters(choice)):
            patch, box = self._crop(choice, frame, jitter, rng)
            if settings != Disturbance():
                shared = shared or draw_sample_disturbance(settings, patch, box, rng)
                occlude = settings.occlude_train if number < len(choice.train_frames) else settings.occlude_test
                patch = disturb(patch, box, shared, occlude, self.material, rng)
            if mirrored != (rng.random() < look.flip):
                patch, box = patch[:, ::-1], flip_box(box, self.settings.mirrored_width)
            crops.append(change_look(patch, look, grey, rng))
            boxes.append(box)
        return np.stack(crops), np.stack(boxes).astype(np.float32)

    def _crop(
        self, choice: Choice, frame: int, jitter: Jitter, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cut one search region of one frame; return it and the target's box in it."""
        settings, source = self.settings, choice.source
        image, box = source.frame(choice.target, frame), source.boxes_xywh(choice.target)[frame]
        size_wh = image.shape[1], image.shape[0]
        region = draw_region(source.name, box, size_wh, jitter, settings, rng)
        window = settings.window_of(region, size_wh)
        cut = crop_window if settings.rule == "exact" else crop_whole_window
        return cut(image, window, settings.output), settings.box_in_crop(box, region, window)


def draw_accepted(sampler: Sampler, settings: CropSettings, rng: np.random.Generator) -> Choice:
    """Draw a sample; large objects in photographs are accepted less often (`scene_share`)."""
    choice = sampler.choose(rng)
    while rng.random() > scene_share(choice, settings):
        choice = sampler.choose(rng)
    return choice


def scene_share(choice: Choice, settings: CropSettings) -> float:
    """Return the area of the picture over that of the search region, at most 1: the most of a crop that can be scene.

    It is 1 for video, and if `least_scene_frac` is 0.
    """
    if choice.source.is_video or settings.least_scene_frac == 0:
        return 1.0
    width, height = choice.source.frame_size_wh(choice.target, 0)
    box = choice.source.boxes_xywh(choice.target)[0]
    return min(1.0, width * height / (settings.search_factor**2 * box[2] * box[3]))


def draw_region(
    source: str,
    box_xywh: np.ndarray,
    image_wh: tuple[int, int],
    jitter: Jitter,
    settings: CropSettings,
    rng: np.random.Generator,
) -> tuple[float, float, float, float]:
    """Draw the search region of a frame: the first of five with enough of the scene in it, else the fifth.

    Args:
        source: The source's name, for `CropSettings.cut_at`.
        box_xywh: The target in the frame, (4,).
        image_wh: Width and height of the frame.
        jitter: Displacement and size of the region.
        settings: How crops are cut.
        rng: The sample's generator.

    Returns:
        The region (x, y, w, h) in the frame's pixels, before `CropSettings.window_of`.
    """
    for _ in range(5):
        window = draw_window(box_xywh, jitter, settings.search_factor, rng)
        if source in settings.cut_at:
            window = keep_off_cut_edges(window, box_xywh, image_wh, settings.cut_at[source])
        if scene_frac(window, image_wh) >= settings.least_scene_frac:
            break
    return window


def displaced_boxes(boxes_xywh: Tensor, offsets_rel: Tensor) -> Tensor:
    """Return boxes_xyxy (..., M, 4) at offsets (..., M, 4) from boxes (..., 4), in the relative space of each box."""
    size = boxes_xywh[..., None, 2:]
    displaced_rel = xywh_to_rel(boxes_xywh[..., None, :], size) + offsets_rel
    return xywh_to_xyxy(rel_to_xywh(displaced_rel, size))
