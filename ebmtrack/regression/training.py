"""Training of regressions through `training.run`: settings, examples, batches, and the plan of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from ebmtrack.errors import ConfigError
from ebmtrack.files import write_text
from ebmtrack.names import check_name, match_spelling
from ebmtrack.regression.examples import LAYOUTS, Examples, parts_of, read_csv, splits_of
from ebmtrack.regression.heads import METHODS, RegressionConfig, TeacherHead
from ebmtrack.regression.measures import choose_step_on, evaluate
from ebmtrack.regression.network import RegressionNet, save_regression
from ebmtrack.regression.networks import load_trunk_weights
from ebmtrack.regression.synthetic import DRAWINGS, draw_examples
from ebmtrack.training.plan import Batch, Data, Logs, Network, Plan, Share
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings

PARTS_OF_CSV = (0.8, 0.1, 0.1)  # train, validation, test, of files without a column "split"
STAND_IN = (2000, 200, 500)  # drawn images to train on, to validate and to test


@dataclasses.dataclass(frozen=True)
class RegressionSettings(RunSettings):
    """The settings of a regression; the defaults are Paper IV's.

    Attributes:
        source: a layout of `examples.LAYOUTS` in the folder `data`, csv (`data` is the file), or drawn images:
            drawn-cells, drawn-steering, drawn-age, drawn-headpose.
        method: name in `heads.METHODS`.
        trunk: backbone: small, resnet18 or resnet50.
        backbone: torchvision's weights of a ResNet: a file, or resnet18 or resnet50 to download them; empty for none.
        image_size: side of the images in pixels.
        parts: shares of training, validation and test, if the data set does not say.
        standardise: whether numbers are shifted and scaled by mean and deviation of the training labels.
        low: least value of each number, for grids and classes; empty for a fifth of the labels' range below them.
        high: greatest value of each number; empty for a fifth of the labels' range above them.
        sigmas: widths of the fixed noise, in deviations of the labels if `standardise`.
        beta: width of NCE+'s noise around the label, in parts of these.
        components: K of learned mixtures.
        classes: classes of a softmax, from `low` to `high`.
        noise: samples M for each label.
        rate: Adam's learning rate.
        schedule: constant, as in the papers, or cosine: a linear warm-up, then half a cosine to zero.
        decay: weight decay, as a part of the loss (Adam's, not AdamW's).
        frozen_frac: part of the steps in which the backbone is frozen.
        warm_up: steps in which an MDN with teacher learns from the labels alone.
        augment: whether training images are flipped, scaled and cropped.
        flip_signs: factor of each number when the image is flipped; empty for 1.
        scales: least and greatest factor of scaling.
        step: length of a step of refinement (Algorithm S2); 0 to choose it on the validation images.
    """

    arch: str = "regression"
    backbone: str = ""
    source: str = "csv"
    method: str = "proposal"
    trunk: Literal["small", "resnet18", "resnet50"] = "resnet18"
    image_size: int = 64
    parts: tuple[float, float, float] = PARTS_OF_CSV
    standardise: bool = True
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    sigmas: tuple[float, ...] = (0.1, 0.8)
    beta: float = 0.1
    components: int = 4
    classes: int = 101
    noise: int = 1024
    rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    decay: float = 0.0
    frozen_frac: float = 0.0
    warm_up: int = 0
    augment: bool = False
    flip_signs: tuple[float, ...] = ()
    scales: tuple[float, float] = (0.7, 1.4)
    step: float = 0.0
    batch: int = 32
    steps: int = 2000
    workers: int = 0
    bfloat16: bool = False
    channels_last: bool = False
    checkpoint_every: int = 500
    validate_every: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("method of regression", self.method, METHODS)
        for name, least in {"image_size": 1, "noise": 1, "components": 1, "classes": 2}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")


def _checked_source(settings: RegressionSettings) -> str:
    """Return the name of the source of examples; ConfigError if it is unknown."""
    known = ["csv", *LAYOUTS, *(f"drawn-{name}" for name in DRAWINGS)]
    return check_name("source of examples", match_spelling(settings.source, known), known)


def seed_chooses_test(settings: RegressionSettings) -> bool:
    """Return whether the seed chooses the test images, as it does unless the data set says which they are."""
    source = _checked_source(settings)
    if source.startswith("drawn-") or settings.data is None:
        return True
    return not splits_of(settings.data) if source == "csv" else "test" not in parts_of(source, settings.data)


def open_examples(settings: RegressionSettings) -> tuple[Examples, Examples, Examples]:
    """Return training, validation and test examples; ConfigError for an unknown source or a missing folder."""
    source, size = _checked_source(settings), settings.image_size
    if source.startswith("drawn-"):
        train, validation, test = (draw_examples(source[6:], n, size, settings.seed) for n in STAND_IN)
        return train, validation, test
    if settings.data is None:
        raise ConfigError(f"source {source!r} needs --data: " + ("the CSV file" if source == "csv" else "its folder"))
    named = splits_of(settings.data) if source == "csv" else set()
    if named:
        train, test = read_csv(settings.data, size, "train"), read_csv(settings.data, size, "test")
        if "validation" in named:
            return train, read_csv(settings.data, size, "validation"), test
    elif source != "csv" and parts_of(source, settings.data) == ("train", "test"):
        train, test = (LAYOUTS[source](settings.data, size, part) for part in ("train", "test"))
    else:
        examples = read_csv(settings.data, size) if source == "csv" else LAYOUTS[source](settings.data, size, "all")
        train, validation, test = examples.split(settings.parts, settings.seed)
        return train, validation, test
    share = settings.parts[1] / (settings.parts[0] + settings.parts[1])
    train, validation = train.split((1 - share, share), settings.seed)
    return train, validation, test


def config_of(settings: RegressionSettings, train: Examples) -> RegressionConfig:
    """Return what the network is, with units and range from the settings or the training labels."""
    low, high = train.labels.min(axis=0), train.labels.max(axis=0)
    margin = 0.2 * np.maximum(high - low, 1e-3)
    D = len(train.targets)
    if len(settings.flip_signs) not in (0, D):
        raise ConfigError(f"flip_signs={settings.flip_signs}: give one factor for each of {', '.join(train.targets)}")
    shift, scale = np.zeros(D), np.ones(D)
    if settings.standardise:
        shift, scale = train.labels.mean(axis=0), train.labels.std(axis=0).clip(min=1e-6)
    return RegressionConfig(
        method=settings.method,
        targets=train.targets,
        trunk=settings.trunk,
        image_size=settings.image_size,
        low=settings.low or tuple((low - margin).tolist()),
        high=settings.high or tuple((high + margin).tolist()),
        shift=tuple(shift.tolist()),
        scale=tuple(scale.tolist()),
        sigmas=settings.sigmas,
        beta=settings.beta,
        components=settings.components,
        noise=settings.noise,
        classes=settings.classes,
        warm_up=settings.warm_up,
    )


class ShuffledExamples(Dataset):
    """Samples by number: epoch after epoch, each in its own random order, so that runs can be resumed.

    A batch may reach into the next epoch; the released code has a smaller last batch instead.
    """

    def __init__(self, examples: Examples, settings: RegressionSettings):
        self.examples, self.settings, self.length = examples, settings, settings.samples
        self._epoch, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, place = divmod(number, len(self.examples))
        if epoch != self._epoch:
            order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.examples))
            self._epoch, self._order = epoch, order
        row = self._order[place]
        image, label = self.examples.images[row], self.examples.labels[row]
        if self.settings.augment:
            rng = np.random.default_rng([self.settings.seed, epoch, place])
            image, label = augment(image, label, self.settings, rng)
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return {"images": torch.from_numpy(image), "labels": torch.from_numpy(label.copy())}


def augment(
    image: np.ndarray, label: np.ndarray, settings: RegressionSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H, W, 3), flipped, scaled and cropped at random, and its label (D,).

    The scaled image is padded with zeros at the bottom and on the right. Source: ECCV 2020, supplement E.
    """
    size = settings.image_size
    if rng.random() < 0.5:
        image = image[:, ::-1]
        label = label * np.array(settings.flip_signs or (1.0,) * len(label), np.float32)
    side = max(1, round(size * rng.uniform(*settings.scales)))
    scaled = cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=cv2.INTER_LINEAR)
    canvas = np.zeros((max(side, size), max(side, size), 3), np.uint8)
    canvas[:side, :side] = scaled
    y, x = rng.integers(0, len(canvas) - size + 1, 2)
    return canvas[y : y + size, x : x + size], label


def objective(net: nn.Module, batch: Batch, generator: Generator, share: Share) -> tuple[Tensor, Logs]:
    """Return the loss of a batch."""
    device = next(net.parameters()).device
    return net(batch["images"].to(device), batch["labels"].to(device), generator), {}


def plan_of(settings: RegressionSettings, examples: tuple[Examples, Examples, Examples] | None = None) -> Plan:
    """Return the run of a regression; `examples` are those of `open_examples` by default."""
    train_part, validation, test = examples or open_examples(settings)
    torch.manual_seed(settings.seed)
    net = RegressionNet(config_of(settings, train_part))
    trunks = [net.trunk] + ([net.head.teacher_trunk] if isinstance(net.head, TeacherHead) else [])
    if settings.backbone:
        for trunk in trunks:
            load_trunk_weights(trunk, settings.backbone)
    thaw = (settings.frozen_frac, trunks) if settings.frozen_frac else (1.0, [])
    network = Network(
        net,
        [{"params": list(net.parameters()), "lr": settings.rate}],
        thaw=thaw,
        rate=None if settings.schedule == "cosine" else lambda step: 1.0,
        optimizer=lambda groups: torch.optim.Adam(groups, weight_decay=settings.decay),
        finish=lambda net: set_refinement_step(net, validation, settings.step),
    )
    data = Data(ShuffledExamples(train_part, settings))
    return Plan(network, data, objective, validate=lambda net: _figures(net, validation), save=_save(test))


def set_refinement_step(net: RegressionNet, validation: Examples, step: float = 0.0) -> RegressionNet:
    """Return the trained network with its step of refinement, by default the best one on the validation images."""
    net.eval()
    if hasattr(net.head, "energy"):
        net.config = dataclasses.replace(net.config, step=step or choose_step_on(net, validation))
    return net


def train_regression(
    settings: RegressionSettings, examples: tuple[Examples, Examples, Examples] | None = None
) -> tuple[RegressionNet, dict[str, float]]:
    """Train, write regression.safetensors and figures.md into `settings.out`; return network and test figures."""
    examples = examples or open_examples(settings)
    net = train(plan_of(settings, examples), settings)
    if not isinstance(net, RegressionNet):
        raise ConfigError(f"{type(net).__name__} is no network of regression")
    figures = evaluate(net, examples[2])
    run = {"source": settings.source, "seed": settings.seed, "figures": figures}
    save_regression(settings.out / "regression.safetensors", net, run)
    write_text(settings.out / "figures.md", table_of(figures))
    return net, figures


def table_of(figures: dict[str, float]) -> str:
    """Return figures as a table in Markdown."""
    return "| figure | value |\n|---|---|\n" + "".join(f"| {name} | {v:.4g} |\n" for name, v in figures.items())


def steps_for(examples: int, batch: int, epochs: float) -> int:
    """Return the optimiser steps of some epochs."""
    return max(1, math.ceil(examples / batch * epochs))


def _figures(net: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the validation figures; the network's mode stays as it was."""
    training = net.training
    figures = evaluate(net.eval(), examples)  # type: ignore[arg-type]
    net.train(training)
    return {f"val_{name}": value for name, value in figures.items()}


def _save(test: Examples) -> Callable[[Path, nn.Module, dict[str, Any]], None]:
    """Return the function that writes the network with its test figures."""

    def save(path: Path, net: nn.Module, run: dict[str, Any]) -> None:
        figures = evaluate(net.eval(), test)  # type: ignore[arg-type]
        save_regression(path, net, {**run, "figures": figures})

    return save
