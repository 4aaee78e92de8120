"""The online tracker: init(image, box), then update(image) -> TrackResult for every further frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ebmtrack.checkpoints.native import load_checkpoint, resolve_weights
from ebmtrack.errors import ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import TrackerParams, load_params
from ebmtrack.tracking.step import Mark, Target, TrackResult, no_mark, update_targets

__all__ = ["TrackResult", "Tracker", "check_box", "check_device", "check_image"]


class Tracker:
    """Follows one target. Images are uint8 RGB (height, width, 3); boxes x, y, w, h in pixels.

    >>> tracker = Tracker.from_pretrained()                          # doctest: +SKIP
    >>> tracker.init(first_image, (80, 60, 40, 90))                  # doctest: +SKIP
    >>> for image in images: print(tracker.update(image).box_xywh)   # doctest: +SKIP

    The same seed gives the same boxes to the bit on the same machine; `init` forgets everything about earlier targets.
    Deep copies share the network.
    """

    def __init__(self, net: InferenceNet, params: TrackerParams):
        self.net, self.params = net, params
        self.mark: Mark = no_mark  # called with each stage's name when it is done (see bench.py)
        self.watch: Callable | None = None  # viewers' place: called with name, frame number, image and result
        self._target: Target | None = None

    @classmethod
    def from_pretrained(
        cls,
        params: str | TrackerParams = "dimp18_nce_plus",
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: str = "auto",
    ) -> Tracker:
        """The tracker of a set-up in tracker_params (by name), with its weights or those of another file."""
        params = load_params(params) if isinstance(params, str) else params
        path = resolve_weights(params.weights if weights is None else weights)
        net = load_checkpoint(path)
        if params.softmax_scores != (net.config.filter_optimizer == "prdimp"):
            kind = "PrDiMP" if params.softmax_scores else "DiMP"
            raise ConfigError(f"these parameters are for a {kind} classifier, which {path} does not hold")
        return cls(InferenceNet(net, check_device(device), precision), params)

    @torch.inference_mode()
    def init(self, image: np.ndarray, box_xywh, seed: int | None = None) -> None:
        """Start on a target: its box in its first frame. `seed` overrides the parameters' one."""
        image, box = check_image(image), check_box(box_xywh, image.shape)
        self._target = Target(self.net, self.params, image, box, seed)

    @torch.inference_mode()
    def update(self, image: np.ndarray) -> TrackResult:
        """Find the target in the next frame."""
        if self._target is None:
            raise ConfigError("update() before init(): give the tracker a first image and a box")
        return update_targets(self.net, [self._target], check_image(image), self.mark)[0]

    @torch.inference_mode()
    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """The candidate boxes (R, 4) of the last frame in image pixels, before and after their climb on the energy.

        Both hold no boxes where the target was not found. The climb is computed anew.
        """
        if self._target is None:
            raise ConfigError("candidates() before init(): there is no target")
        return self._target.climbed_candidates()

    @torch.inference_mode()
    def corner_log_density(self, points_xy: np.ndarray) -> np.ndarray:
        """Energy f of the boxes whose top right corner lies at points (n, 2) of the last image, (n,).

        The bottom left corner stays that of the last box (ECCV 2020, figure 1). Up to a constant, f is log p(y|x).
        Boxes without area have -inf.
        """
        if self._target is None or self._target.energy is None:
            raise ConfigError("corner_log_density() before update(): there is no energy to look at")
        return self._target.corner_log_density(np.asarray(points_xy, np.float64))


def check_device(device: str) -> torch.device:
    """The device if this machine has it, else ConfigError."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}: use cpu, cuda, cuda:1 or mps") from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (chosen.index or 0) >= there.get(chosen.type, 0):
        raise ConfigError(f"this machine has no device {device!r}; --device cpu always works")
    return chosen


def check_image(image: np.ndarray) -> np.ndarray:
    """The image if it is uint8 RGB (height, width, 3), else ConfigError."""
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"an image must be a numpy array (height, width, 3) of uint8 RGB, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(f"an image must be (height, width, 3), got shape {image.shape}")
    if image.dtype != np.uint8:
        raise ConfigError(f"an image must be uint8 with values 0..255, got {image.dtype}")
    return image


def check_box(box_xywh, shape: tuple[int, ...]) -> np.ndarray:
    """The box as four floats if it has at least one pixel's area inside an image of `shape`, else ConfigError."""
    try:
        box = np.asarray(box_xywh, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a box must be four numbers x, y, w, h, got {box_xywh!r}") from error
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ConfigError(f"a box must be four finite numbers x, y, w, h, got {box_xywh!r}")
    text = ", ".join(f"{v:g}" for v in box)
    if min(box[2:]) < 1:
        raise ConfigError(f"box ({text}) must be at least one pixel wide and high")
    h, w = shape[:2]
    if box[0] >= w or box[1] >= h or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise ConfigError(f"box ({text}) lies outside of the image, which is {w} x {h}")
    return box
