"""The network of a regression, its answers in the targets' units, its refinement, and its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from ebmtrack.checkpoints.untrusted import fit_entries, read_safetensors
from ebmtrack.energy.ascent import ClimbResult, ascent_s2
from ebmtrack.energy.proposals import LEAST_ESS
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.files import replacing
from ebmtrack.images import read_rgb
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.regression.answers import Prediction, by_grid, even_grid
from ebmtrack.regression.examples import resize
from ebmtrack.regression.heads import GRID, RegressionConfig, make_head
from ebmtrack.regression.networks import FeatureEnergy, make_trunk


class RegressionNet(nn.Module):
    """Images (B, 3, H, W), RGB with values 0..255 -> answers about D numbers."""

    def __init__(self, config: RegressionConfig):
        super().__init__()
        self.config = config
        self.trunk = make_trunk(config.trunk)
        self.head = make_head(config, self.trunk.features)  # type: ignore[arg-type]

    @property
    def shift(self) -> Tensor:
        """Return the values (D,) that are subtracted from the numbers."""
        return torch.tensor(self.config.shift, device=next(self.parameters()).device)

    @property
    def scale(self) -> Tensor:
        """Return the values (D,) by which the numbers are divided afterwards."""
        return torch.tensor(self.config.scale, device=next(self.parameters()).device)

    def forward(self, images: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        """Return the mean training loss of labels (B, D)."""
        images = normalize_images(images)
        z = (labels - self.shift) / self.scale
        return self.head.loss(self.trunk(images), z, images, generator).mean()

    @torch.no_grad()
    def answer(self, images: Tensor, num_samples: int = 1024, generator: Generator | None = None) -> Prediction:
        """Return the answers for images, in the targets' units.

        Args:
            images: (B, 3, H, W), RGB, 0..255.
            num_samples: M, samples of a density that is not summed on a grid.
            generator: of the samples.
        """
        answer = self.head.answer(self.trunk(normalize_images(images)), num_samples, generator)
        return answer.in_units(self.shift, self.scale)

    def energy(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Return f(y) (B, N) as a function of y (B, N, D) in the targets' units; ConfigError without an energy."""
        found = getattr(self.head, "energy", None)
        if not isinstance(found, FeatureEnergy):
            raise ConfigError(
                f"method {self.config.method} has no energy; train one with the method proposal or energy-nce"
            )
        energy: FeatureEnergy = found
        with torch.no_grad():
            g = self.trunk(normalize_images(images))
        shift, scale = self.shift, self.scale
        return lambda y: energy(g, (y - shift) / scale)

    @torch.no_grad()
    def grid_answer(self, images: Tensor) -> Prediction:
        """Return the energy's answers by a sum over a grid, also if there is a proposal."""
        low, high = (torch.tensor(v, device=images.device) for v in (self.config.low, self.config.high))
        points, volume = even_grid(low, high, GRID[self.config.dims])
        return by_grid(self.energy(images), points, volume)


def refine(net: RegressionNet, images: Tensor, start: Tensor, step: float | None = None) -> Tensor:
    """Return predictions (B, D) of any method after five steps uphill on the energy of `net` (Algorithm S2).

    It is a nudge, not a search: with a density of width s, a step moves by step / s^2 of the way.

    Args:
        net: a network with an energy.
        images: (B, 3, H, W).
        start: predictions (B, D).
        step: length of a step; that of the network's file by default (3 for ages, 0.1 for poses in the paper).

    Raises:
        ConfigError: the network has no energy, or no step is known.
    """
    step = net.config.step if step is None else step
    if step <= 0:
        raise ConfigError("refine: this network was trained without a step length; choose one by `choose_step`")
    result: ClimbResult = ascent_s2(net.energy(images), start.unsqueeze(1), step)
    return result.y.squeeze(1)


def choose_step(net: RegressionNet, images: Tensor, labels: Tensor, start: Tensor) -> float:
    """Return the step length, of 1e-5 to 1 times the squared scale, whose refinement has the least MAE of labels."""
    steps = [net.scale.square().mean().item() * 10 ** (k / 2) for k in range(-10, 1)]
    errors = [(refine(net, images, start, step) - labels).abs().nan_to_num(torch.inf).mean().item() for step in steps]
    return steps[min(range(len(steps)), key=errors.__getitem__)]


def predict_file(net: RegressionNet, path: str | Path, probability: float = 0.9, seed: int = 0) -> list[str]:
    """Return one line for each number that the network reads off an image file, with its interval if there is one.

    Args:
        net: the network.
        path: the image.
        probability: of the interval.
        seed: of the samples.
    """
    image = torch.from_numpy(resize(read_rgb(path), net.config.image_size)).permute(2, 0, 1).unsqueeze(0)
    device = next(net.parameters()).device
    answer = net.answer(image.to(device), 4096, Generator(device).manual_seed(seed))
    lines = [f"{name} {value:.4g}" for name, value in zip(net.config.targets, answer.point[0].tolist())]
    if answer.samples is None or answer.ess is None:
        return lines
    low, high = answer.interval(probability)[0].tolist()
    note = "" if answer.ess[0] >= LEAST_ESS else f"; unsure: only {answer.ess[0]:.1f} effective samples"
    ends = zip(lines, low, high)
    return [f"{line} ({100 * probability:g} % interval {a:.4g} to {b:.4g}{note})" for line, a, b in ends]


# Files


def save_regression(path: Path, net: nn.Module, run: Mapping[str, Any]) -> None:
    """Write a network (.safetensors), with its config and the facts of its run as JSON in the header."""
    if not isinstance(net, RegressionNet):
        raise ConfigError(f"{path}: a {type(net).__name__} is no network of regression")
    header = {"ebmtrack_regression": json.dumps({"config": dataclasses.asdict(net.config), "run": dict(run)})}
    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, header)


def trained_seed(path: str | Path) -> int | None:
    """Return the seed that a file of `save_regression` was trained with; None if it does not say."""
    try:
        seed = json.loads(read_safetensors(path)[0]["ebmtrack_regression"])["run"]["seed"]
    except (ValueError, KeyError, TypeError):
        return None
    return seed if isinstance(seed, int) else None


def load_regression(path: str | Path, device: str | torch.device = "cpu") -> RegressionNet:
    """Return a network that `save_regression` wrote, in evaluation mode; CheckpointError if the file is another."""
    header, tensors = read_safetensors(path)
    if "ebmtrack_regression" not in header:
        raise CheckpointError(f"{path}: no network of regression; `ebmtrack regress train` writes one")
    try:
        values = json.loads(header["ebmtrack_regression"])["config"]
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        net = RegressionNet(RegressionConfig(**values))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the config in its header is damaged: {error}; train again") from error
    net.load_state_dict(fit_entries(tensors, net.state_dict(), path))
    return net.eval().to(device)
