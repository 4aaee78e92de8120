"""The verb that regresses numbers from images: regress train, regress eval, regress predict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ebmtrack.commands.options import Changes, Positional, flatten
from ebmtrack.errors import ConfigError

if TYPE_CHECKING:
    from ebmtrack.regression.training import RegressionSettings


@dataclass(frozen=True, kw_only=True)
class Regress:
    """Regress one to three numbers from an image, with an interval for each: train on a CSV file, evaluate, predict.

    Attributes:
        action: train a network, evaluate one on labelled images, or predict the numbers of one image.
        image: The image to predict.
        csv: File with a header, a column of image paths (relative to it) and one to three columns of numbers; a column
            split (train, validation, test) is used if there is one.
        source: Instead of a CSV file: utkface, utkface-h5, biwi, steering or cell200 (in the folder --data), or
            drawn-cells, drawn-steering, drawn-age, drawn-headpose, which need no data.
        data: Folder of that source.
        method: mdn (a mixture of Gaussians), proposal (an energy with a learned proposal, which needs more steps),
            teacher (an MDN that learns from an energy), gaussian, laplace, softmax, l2, huber,
            energy-nce, energy-ml-is and others.
        trunk: Backbone: small (for images of 32 to 64 pixels), resnet18 or resnet50.
        backbone: torchvision's ImageNet weights for a ResNet: a file, or resnet18 or resnet50 to download them.
        size: Side to which images are scaled, in pixels.
        epochs: Passes over the training images.
        out: Folder of the run: checkpoint, log.csv, regression.safetensors, figures.md.
        weights: The network to evaluate or predict with (that in --out by default).
        probability: Probability of the interval that predict prints.
        seed: Seed of split, weights and noise (0 by default; eval takes that of the network's training).
        device: auto (a GPU if there is one), cpu, mps, cuda or cuda:N.
        restart: Start afresh even if there is a checkpoint.
        set: Other changes of the settings, key=value, such as components=8 (see docs/regression.md).
    """

    action: Positional[Literal["train", "eval", "predict"]]
    image: Annotated[Positional[Path | None], tyro.conf.arg(metavar="IMAGE")] = None
    csv: Path | None = None
    source: str | None = None
    data: Path | None = None
    method: str = "mdn"
    trunk: Literal["small", "resnet18", "resnet50"] = "small"
    backbone: str = ""
    size: int = 64
    epochs: float = 20.0
    out: Path = Path("runs/regression")
    weights: Path | None = None
    probability: float = 0.9
    seed: int | None = None
    device: str = "auto"
    restart: bool = False
    set: Changes = ()

    def run(self) -> None:
        """Train, evaluate or predict."""
        {"train": self._train, "eval": self._eval, "predict": self._predict}[self.action]()

    def _settings(self, seed: int = 0) -> RegressionSettings:
        """Return the settings that the options mean; the seed is for want of one."""
        from ebmtrack.device import pick_device
        from ebmtrack.regression.training import RegressionSettings
        from ebmtrack.training.overrides import override

        if (self.csv is None) == (self.source is None):
            raise ConfigError("give the labelled images: --csv FILE, or --source NAME (with --data FOLDER)")
        settings = RegressionSettings(
            out=self.out,
            data=self.csv or self.data,
            source=self.source or "csv",
            method=self.method,
            trunk=self.trunk,
            backbone=self.backbone,
            image_size=self.size,
            seed=seed if self.seed is None else self.seed,
            device=pick_device(self.device),
            resume=not self.restart,
            schedule="cosine",
        )
        return override(settings, flatten(self.set))

    def _train(self) -> None:
        """Train, and print the figures on the test images."""
        from ebmtrack.regression.training import open_examples, steps_for, table_of, train_regression
        from ebmtrack.training.overrides import override

        if not 0 < self.epochs < math.inf:
            raise ConfigError(f"--epochs must be above 0 and finite, got {self.epochs:g}")
        settings = self._settings()
        examples = open_examples(settings)
        print(" + ".join(str(len(part)) for part in examples) + " images to train, validate, test")
        steps = steps_for(len(examples[0]), settings.batch, self.epochs)
        warmup = min(settings.warmup, steps // 10)  # the rate falls to zero in short trainings, too
        settings = override(replace(settings, steps=steps, warmup=warmup), flatten(self.set))
        figures = train_regression(settings, examples)[1]
        print(table_of(figures) + f"the network is in {settings.out / 'regression.safetensors'}")

    def _eval(self) -> None:
        """Print the figures on the test images: the rows with split test, or a random part that did not train."""
        from ebmtrack.regression.measures import evaluate
        from ebmtrack.regression.network import load_regression, trained_seed
        from ebmtrack.regression.training import open_examples, seed_chooses_test, table_of

        trained, weights = trained_seed(self._weights()), self._weights()
        settings = self._settings(trained or 0)
        matters = settings.seed != trained and seed_chooses_test(settings)
        if matters and trained is None:
            print(f"note: {weights} does not say its seed; with another --seed images that it trained on are tested")
        elif matters:
            raise ConfigError(
                f"{weights} was trained with seed {trained}, which chose its test images: leave --seed out"
            )
        net = load_regression(weights, settings.device)
        test = open_examples(replace(settings, image_size=net.config.image_size))[2]
        if test.targets != net.config.targets:
            raise ConfigError(f"the network regresses {net.config.targets}, the images have {test.targets}")
        print(f"{len(test)} test images\n\n{table_of(evaluate(net, test))}", end="")

    def _predict(self) -> None:
        """Print the numbers of one image, each with its interval if the method has a density."""
        from ebmtrack.device import pick_device
        from ebmtrack.regression.network import load_regression, predict_file

        if self.image is None:
            raise ConfigError("which image? For example: ebmtrack regress predict face.jpg")
        if not 0 < self.probability < 1:
            raise ConfigError(f"--probability must be between 0 and 1, got {self.probability}")
        net = load_regression(self._weights(), pick_device(self.device))
        for line in predict_file(net, self.image, self.probability):
            print(line)

    def _weights(self) -> Path:
        """Return the network's file."""
        return self.weights or self.out / "regression.safetensors"
