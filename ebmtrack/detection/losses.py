"""Training of the energy branch: boxes around true boxes, and all losses of ECCV and BMVC 2020 in detection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ebmtrack.boxes import iou_xywh, rel_to_xywh, xywh_to_rel, xywh_to_xyxy, xyxy_to_xywh
from ebmtrack.data.pipeline import displaced_boxes
from ebmtrack.energy.losses import denoising_score_matching, langevin, ml_mcmc
from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name
from ebmtrack.training.objective import ALL_OF_US, BoxLossName, ObjectiveSettings, box_loss, draw_candidates
from ebmtrack.training.plan import Share

LossName = Literal["ml_is", "kld_is", "nce", "nce_plus", "dsm", "ml_mcmc", "iou_net", "iou_net_star"]
Energies = Callable[[Tensor], Tensor]  # boxes_xyxy (G, P, 4), P for each true box -> energies (G, P)
UNIFORM_SIGMAS = (0.004, 0.01, 0.05, 0.1, 0.2, 0.3)  # IoU-Net's jitter: ECCV 2020, appendix C


@dataclass(frozen=True)
class EnergyLoss:
    """A loss and its noise, in relative box coordinates.

    Attributes:
        name: which loss.
        sigmas: widths of the noise; DSM uses the first.
        samples: boxes for each true box, M; in ML-IS, NCE and NCE+ the (noisy) label is one of them.
        beta: factor on the widths for the label's noise in NCE+.
        target_sigma: width of p(y|y_i) in KLD-IS.
        alpha: step of the Langevin chains in ML-MCMC.
        chain: their length, L.
    """

    name: LossName = "nce_plus"
    sigmas: tuple[float, ...] = (0.075, 0.15, 0.3)
    samples: int = 128
    beta: float = 0.1
    target_sigma: float = 0.0225
    alpha: float = 1e-5
    chain: int = 1

    def __post_init__(self) -> None:
        check_name("loss", self.name, get_args(LossName))
        if self.samples < 2 or self.chain < 1:
            raise ConfigError(f"loss: samples must be at least 2 and chain 1, got {self.samples} and {self.chain}")


SIGMAS: dict[str, tuple[float, ...]] = {  # BMVC 2020, appendix C
    "ml_is": (0.0375, 0.075, 0.15),
    "kld_is": (0.0375, 0.075, 0.15),
    "iou_net_star": (0.0375, 0.075, 0.15),
    "dsm": (0.075,),
}


def paper_loss(name: str, samples: int = 128) -> EnergyLoss:
    """Return a loss with the paper's noise; ConfigError for an unknown name."""
    check_name("loss", name, get_args(LossName))
    return EnergyLoss(cast(LossName, name), SIGMAS.get(name, EnergyLoss.sigmas), samples)


def energy_loss(
    energies: Energies,
    boxes_xyxy: Tensor,
    loss: EnergyLoss,
    generator: Generator | None = None,
    share: Share = ALL_OF_US,
) -> Tensor:
    """Return the mean loss over true boxes.

    Args:
        energies: the branch's scores of boxes around each true box.
        boxes_xyxy: true boxes (G, 4), G at least 1.
        loss: which one, with its noise.
        generator: of the noise, on the CPU; equal in all processes.
        share: this process's part.
    """
    truth = xyxy_to_xywh(boxes_xyxy)
    if loss.name == "ml_mcmc":
        return _ml_mcmc(energies, truth, loss, generator)
    if loss.name == "iou_net":
        offsets = uniform_overlap_offsets((share.size * len(truth), loss.samples), generator)
        drawn = displaced_boxes(truth, share.of(offsets, 0).to(truth))
        return _iou_loss(energies(drawn), drawn, truth)
    settings = _box_settings(loss)
    candidates = draw_candidates(truth, settings, generator, share)
    if loss.name == "dsm":
        size = truth[:, 2:]
        y_true = xywh_to_rel(truth, size)
        y_noisy = y_true[:, None] + candidates.offsets_rel
        return denoising_score_matching(relative(energies, truth), y_true, y_noisy, loss.sigmas[0])
    f = energies(candidates.boxes_xyxy)
    if loss.name == "iou_net_star":
        return _iou_loss(f, candidates.boxes_xyxy, truth)
    return box_loss(f, candidates, settings).mean()


def relative(energies: Energies, truth_xywh: Tensor) -> Energies:
    """Return the energies as a function of y (G, P, 4), boxes relative to the sizes of true boxes (G, 4)."""
    size = truth_xywh[:, None, 2:]
    return lambda y: energies(xywh_to_xyxy(rel_to_xywh(y, size)))


def _box_settings(loss: EnergyLoss) -> ObjectiveSettings:
    """Return the settings of the tracker's box losses; "iou" stands for those that score noise boxes alone."""
    shared = {"nce_plus", "nce", "ml_is", "kld_is"}
    counts_label = loss.name in ("nce_plus", "nce", "ml_is")
    return ObjectiveSettings(
        box_loss=cast(BoxLossName, loss.name if loss.name in shared else "iou"),
        sigmas=loss.sigmas,
        beta=loss.beta,
        samples=loss.samples - counts_label,
        target_sigma=loss.target_sigma,
    )


def _ml_mcmc(energies: Energies, truth_xywh: Tensor, loss: EnergyLoss, generator: Generator | None) -> Tensor:
    """Return ML-MCMC's loss; the chains start at the labels, in relative coordinates."""
    f = relative(energies, truth_xywh)
    label = xywh_to_rel(truth_xywh, truth_xywh[:, 2:])[:, None]  # (G, 1, 4)
    samples = langevin(f, label.expand(-1, loss.samples, -1), loss.alpha, loss.chain, generator)
    return ml_mcmc(f(samples), f(label)[:, 0])


def _iou_loss(f: Tensor, boxes_xyxy: Tensor, truth_xywh: Tensor) -> Tensor:
    """Return the Huber loss between scores (G, P) and overlaps."""
    overlap = iou_xywh(xyxy_to_xywh(boxes_xyxy), truth_xywh[:, None])
    return functional.smooth_l1_loss(f.float(), overlap.detach())


def uniform_overlap_offsets(shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
    """Return offsets (*shape, 4), relative to a box, of boxes whose overlap with it is spread evenly over [0.5, 1]."""
    offsets, weights = _overlapping_unit_boxes()
    number = torch.Size(shape).numel()
    return offsets[torch.multinomial(weights, number, replacement=True, generator=generator)].reshape(*shape, 4)


@functools.cache
def _overlapping_unit_boxes(number: int = 50_000, bins: int = 100) -> tuple[Tensor, Tensor]:
    """Return relative offsets (n, 4) of jittered unit boxes with overlap of 0.5 or more, and weights (n,) to draw them.

    A box's weight is 1 / (1 + number of boxes in its bin of overlap). Source: ECCV 2020, appendix C.
    """
    generator = Generator().manual_seed(0)
    sigma = torch.tensor(UNIFORM_SIGMAS)[torch.randint(len(UNIFORM_SIGMAS), (number, 1), generator=generator)]
    boxes = torch.tensor([0.5, 0.5, 1.0, 1.0]) + sigma * torch.randn(number, 4, generator=generator)
    boxes = boxes[(boxes[:, 2:] > 0).all(dim=1)]
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], dim=1)
    overlap = iou_xywh(corners, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand_as(corners))
    boxes, overlap = boxes[overlap >= 0.5], overlap[overlap >= 0.5]
    place = (overlap * bins).long().clamp(max=bins - 1)
    weights = 1 / (1 + torch.bincount(place, minlength=bins)[place].float())
    return torch.cat([boxes[:, :2] - 0.5, boxes[:, 2:].log()], dim=1), weights
