"""From a chosen target and frames to training tensors."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ebmtrack.boxes import rel_to_xywh, xywh_to_rel, xywh_to_xyxy
from ebmtrack.data.augment import Jitter, Look, change_look, flip_box, jittered_window, keep_off_cut_edges, scene_frac
from ebmtrack.data.crops import WINDOW_BORDERS, box_in_window, crop_whole_window, crop_window, whole_window
from ebmtrack.data.disturb import Disturbance, Material, disturb, draw_sample_disturbance
from ebmtrack.data.sampling import Choice, Sampler
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError

CropRule = Literal["exact", "dimp"]


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """How search regions are cut for training (defaults: DiMP-18).

    rule "exact" cuts windows of fractions of pixels, averages large ones down and mirrors boxes about the patch's
    middle. "dimp" cuts as pytracking's training does (`whole_window`, `crop_whole_window`) and mirrors x to
    (W - 1) - x, which moves a mirrored box by one pixel; only it knows the borders "inside" and "inside_major".
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
        if self.rule == "exact" and self.border != "replicate":
            raise ConfigError(f"crops: the border {self.border!r} needs the rule 'dimp'")
        if self.output < 16 or self.search_factor <= 0 or self.max_scale_change < 1:
            raise ConfigError(
                f"crops: output must be at least 16, search_factor positive and max_scale_change at least 1, got "
                f"{self.output}, {self.search_factor} and {self.max_scale_change}"
            )


class TrainingSet(Dataset):
    """Samples by number: `crops` (f, 288, 288, 3) uint8 and `boxes_xywh` (f, 4) in crop pixels, train frames first."""

    def __init__(self, sampler: Sampler, settings: CropSettings, length: int, material: Material | None = None):
        self.sampler, self.settings, self.length, self.material = sampler, settings, length, material

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = self.sampler.rng(index)
        choice = self.sampler.choose(rng)
        while rng.random() > self.scene_share(choice):
            choice = self.sampler.choose(rng)
        crops, boxes = self.process(choice, rng)
        return {"crops": torch.from_numpy(crops), "boxes_xywh": torch.from_numpy(boxes)}

    def scene_share(self, choice: Choice) -> float:
        """Area of the picture over that of the search region, at most 1: how much of a crop can be scene, not padding.

        Large objects in photographs are taken less often by it; 1 for video and where `least_scene_frac` is 0.
        """
        if choice.source.is_video or self.settings.least_scene_frac == 0:
            return 1.0
        image, box = choice.source.frame(choice.target, 0), choice.source.boxes_xywh(choice.target)[0]
        area = image.shape[0] * image.shape[1]
        return min(1.0, area / (self.settings.search_factor**2 * box[2] * box[3]))

    def process(self, choice: Choice, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Cut, mirror and colour the frames of one sample."""
        look = self.settings.look if choice.source.is_video else self.settings.still_look
        grey, mirrored = rng.random() < look.grey, rng.random() < look.joint_flip
        crops, boxes = [], []
        width = self.settings.output - (self.settings.rule == "dimp")
        frames = [(f, self.settings.train_jitter) for f in choice.train_frames]
        frames += [(f, self.settings.test_jitter) for f in choice.test_frames]
        shared, settings = None, self.settings.disturbance
        for number, (frame, jitter) in enumerate(frames):
            patch, box = self._crop(choice, frame, jitter, rng)
            if settings != Disturbance():
                shared = shared or draw_sample_disturbance(settings, patch, box, rng)
                occlude = settings.occlude_train if number < len(choice.train_frames) else settings.occlude_test
                patch = disturb(patch, box, shared, occlude, self.material, rng)
            if mirrored != (rng.random() < look.flip):
                patch, box = patch[:, ::-1], flip_box(box, width)
            crops.append(change_look(patch, look, grey, rng))
            boxes.append(box)
        return np.stack(crops), np.stack(boxes).astype(np.float32)

    def _crop(self, choice: Choice, frame: int, jitter: Jitter, rng: np.random.Generator):
        """One search region of one frame, and the target's box in it."""
        settings, source = self.settings, choice.source
        image, box = source.frame(choice.target, frame), source.boxes_xywh(choice.target)[frame]
        for _ in range(5):
            window = jittered_window(box, jitter, settings.search_factor, rng)
            if source.name in settings.cut_at:
                window = keep_off_cut_edges(window, box, image.shape[1::-1], settings.cut_at[source.name])
            if scene_frac(window, image.shape[1::-1]) >= settings.least_scene_frac:
                break
        if settings.rule == "exact":
            return crop_window(image, window, settings.output), box_in_window(box, window, settings.output)
        window = whole_window(window, image.shape[1::-1], settings.border, settings.max_scale_change)
        return crop_whole_window(image, window, settings.output), box_in_window(box, window, settings.output)


def nce_candidates(
    boxes_xywh: Tensor, mixture: GaussianMixture, samples: int, beta: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Noisy true boxes and noise boxes for NCE+ (BMVC 2020, equations 15 and 16), in the relative space of each box.

    boxes_xywh: (..., 4). Returns boxes_xyxy (..., 1 + samples, 4), the noisy truth first, and log q (..., 1 + samples).
    """
    offsets, log_q = nce_plus_samples(mixture, tuple(boxes_xywh.shape[:-1]), samples, beta, generator)
    return displaced_boxes(boxes_xywh, offsets.to(boxes_xywh)), log_q.to(boxes_xywh.device)


def displaced_boxes(boxes_xywh: Tensor, offsets_rel: Tensor) -> Tensor:
    """Boxes_xyxy (..., M, 4) at offsets (..., M, 4) from boxes (..., 4), in the relative space of each box."""
    size = boxes_xywh[..., None, 2:]
    displaced_rel = xywh_to_rel(boxes_xywh[..., None, :], size) + offsets_rel
    return xywh_to_xyxy(rel_to_xywh(displaced_rel, size))
