"""The objective of a training step: a classifier loss on every filter iterate plus a box loss on energies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ebmtrack.boxes import iou_xywh, xywh_to_xyxy, xyxy_to_xywh
from ebmtrack.data.pipeline import displaced_boxes
from ebmtrack.energy import losses
from ebmtrack.energy.noise import BetaReading, GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError
from ebmtrack.names import check_name
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.classifier import FEATURE_STRIDE, distance_maps
from ebmtrack.nets.tracker_net import Layers, look_at_both
from ebmtrack.training.plan import Batch, Logs, Share

BoxLossName = Literal["nce_plus", "nce", "kld_is", "ml_is", "iou"]
ClassifierLossName = Literal["hinge", "kl", "none"]
Statistics = Literal["apart", "together"]
Proposals = Literal["mixture", "overlapping"]
PLACEHOLDER_XYWH = (0.0, 0.0, 16.0, 16.0)  # the box of a frame without a target; nothing depends on it
ALL_OF_US = Share()
LAYERS = ("layer2", "layer3")


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """The losses, their weights (super_dimp; BMVC 2020, supplement) and the noise of the box loss.

    Attributes:
        box_weight: weight of the box loss.
        final_weight: weight of the last filter iterate's classifier loss.
        initial_weight: weight of the first iterate's.
        inner_weight: weight that the iterates between them share.
        hinge_threshold: labels below it are background (DiMP, equation 7).
        label_sigma: width of the classifier's labels in feature cells.
        sigmas: widths of the noise in relative box coordinates.
        beta: factor on the widths for the noise of the labels in NCE+.
        samples: number of noise boxes of a frame, M.
        box_loss: NCE+, NCE, KLD-IS (PrDiMP's box loss) or ML-IS of `energy.losses`, or the squared IoU error of ATOM.
        classifier_loss: "hinge" is DiMP's, "kl" PrDiMP's; "none" trains trunk and box branch alone.
        target_sigma: width of p(y|y_i) in KLD-IS.
        beta_reading: see `GaussianMixture.scale`.
        statistics: "apart" sends train and test images through trunk and classifier features one after the other, so
            that batch norm has the statistics of each group, as in pytracking; "together" sends all of them at once.
        proposals: "mixture" draws the noise boxes from the mixture of `sigmas`; "overlapping" draws them as ATOM and
            DiMP do for the IoU error (`overlapping_boxes`), with a width chosen from `proposal_sigmas`.
        proposal_sigmas: widths of "overlapping", in units of the target's size.
    """

    box_weight: float = 0.01
    final_weight: float = 100.0
    initial_weight: float = 100.0
    inner_weight: float = 400.0
    hinge_threshold: float = 0.05
    label_sigma: float = 0.9
    sigmas: tuple[float, ...] = (0.05, 0.5)  # BMVC 2020, section 5.3
    beta: float = 0.1  # BMVC 2020, section 5.3
    samples: int = 128
    box_loss: BoxLossName = "nce_plus"
    classifier_loss: ClassifierLossName = "hinge"
    target_sigma: float = 0.05  # BMVC 2020, supplement D.2
    beta_reading: BetaReading = "std"
    statistics: Statistics = "apart"
    proposals: Proposals = "mixture"
    proposal_sigmas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.3)  # ATOM (pytracking)

    def __post_init__(self) -> None:
        for key, known in (
            ("box_loss", BoxLossName),
            ("classifier_loss", ClassifierLossName),
            ("statistics", Statistics),
            ("proposals", Proposals),
        ):
            check_name(key, getattr(self, key), get_args(known))
        if self.samples < 1 or self.label_sigma <= 0 or self.target_sigma <= 0:
            raise ConfigError(
                f"objective: samples must be at least 1, label_sigma and target_sigma positive, got {self.samples}, "
                f"{self.label_sigma} and {self.target_sigma}"
            )
        if self.proposals == "overlapping" and self.box_loss != "iou":
            raise ConfigError(
                f"objective: proposals=overlapping has no density; box_loss={self.box_loss} needs mixture"
            )


PRDIMP_WEIGHTS: Mapping[str, Any] = {  # of PrDiMP's losses (pytracking's prdimp18 and prdimp50)
    "box_weight": 0.0025,
    "final_weight": 0.25,
    "initial_weight": 0.25,
    "inner_weight": 1.0,
    "box_loss": "kld_is",
    "classifier_loss": "kl",
}


def score_labels(boxes_xywh: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Return Gaussian target scores (..., h', w') centred on boxes (..., 4) (DiMP, section 3.4).

    Args:
        boxes_xywh: boxes in crop pixels.
        size: (h', w') of the score map.
        sigma: width in feature cells.
    """
    centres = (boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2) / FEATURE_STRIDE
    return (-0.5 * (distance_maps(centres, size) / sigma).square()).exp()


def hinge_loss(scores: Tensor, labels: Tensor, threshold: float = 0.05) -> Tensor:
    """Return the mean squared error, one-sided on the background: scores below zero cost nothing (DiMP, equation 7)."""
    background = labels < threshold
    target = torch.where(background, 0.0, labels)
    return (torch.where(background, scores.clamp(min=0), scores) - target).square().mean()


def kl_classifier_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the KL divergence of softmax(scores) from the normalised labels, without the labels' entropy.

    It is the mean over maps of log sum_k exp s_k - sum_k y_k s_k, in which y = labels / (sum of labels + 1e-8) is a
    Gaussian density on the map's cells. A map without a target (labels of zero) lowers all its scores. Source: PrDiMP,
    section 3.

    Args:
        scores: (..., h', w').
        labels: (..., h', w').
    """
    y = labels / (labels.sum(dim=(-2, -1), keepdim=True) + 1e-8)
    return (torch.logsumexp(scores.flatten(-2), dim=-1) - (y * scores).sum(dim=(-2, -1))).mean()


def classifier_loss(scores: list[Tensor], labels: Tensor, settings: ObjectiveSettings) -> tuple[Tensor, Logs]:
    """Return the weighted sum of the losses of all filter iterates, and the losses of the first and the last.

    Args:
        scores: one (t, s, h', w') for each iterate, the first guess first.
        labels: (t, s, h', w').
        settings: the loss and its weights.
    """
    if settings.classifier_loss == "kl":
        each = [kl_classifier_loss(s, labels) for s in scores]
    else:
        each = [hinge_loss(s, labels, settings.hinge_threshold) for s in scores]
    total = settings.final_weight * each[-1] + settings.initial_weight * each[0]
    if len(each) > 2:
        total = total + settings.inner_weight / (len(each) - 2) * sum(each[1:-1])
    return total, {"first": each[0].detach(), "last": each[-1].detach()}


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The boxes that the energy scores in each frame, and what a loss needs of them; all on one device.

    For KLD-IS and IoU they are the M noise samples; for the others one more comes first: the truth (ML-IS, NCE) or the
    noisy truth (NCE+).

    Attributes:
        boxes_xyxy: (..., P, 4) in crop pixels.
        offsets_rel: (..., P, 4), offsets from the truth in its relative space.
        log_q: (..., P), log density of the noise at the offsets.
        truth_xywh: (..., 4).
    """

    boxes_xyxy: Tensor
    offsets_rel: Tensor
    log_q: Tensor
    truth_xywh: Tensor


def draw_candidates(
    boxes_xywh: Tensor, settings: ObjectiveSettings, generator: torch.Generator | None = None, share: Share = ALL_OF_US
) -> Candidates:
    """Draw candidates around true boxes; every loss gets the same noise samples from the same generator.

    Args:
        boxes_xywh: (..., s, 4), this process's true boxes.
        settings: the box loss and its noise.
        generator: seeded equally in all processes.
        share: this process's part. Noise is drawn for the samples of all processes.
    """
    if settings.proposals == "overlapping":
        return _overlapping_candidates(boxes_xywh, settings, generator, share)
    mixture = GaussianMixture.isotropic(settings.sigmas, dims=4)
    beta = settings.beta if settings.box_loss == "nce_plus" else 0.0
    shape = (*boxes_xywh.shape[:-2], share.size * boxes_xywh.shape[-2])
    offsets, log_q = nce_plus_samples(mixture, shape, settings.samples, beta, generator, settings.beta_reading)
    offsets, log_q = share.of(offsets, -3).to(boxes_xywh), share.of(log_q, -2).to(boxes_xywh.device)
    if settings.box_loss in ("kld_is", "iou"):
        offsets, log_q = offsets[..., 1:, :], log_q[..., 1:]
    return Candidates(displaced_boxes(boxes_xywh, offsets), offsets, log_q, boxes_xywh)


def _overlapping_candidates(
    boxes_xywh: Tensor, settings: ObjectiveSettings, generator: torch.Generator | None, share: Share
) -> Candidates:
    """Return the candidates of `overlapping_boxes`, which have neither relative offsets nor a density."""
    everyone = boxes_xywh.repeat(*(1,) * (boxes_xywh.dim() - 2), share.size, 1)
    boxes = share.of(overlapping_boxes(everyone, settings.samples, settings.proposal_sigmas, generator), -3)
    nothing = torch.zeros_like(boxes)
    return Candidates(xywh_to_xyxy(boxes), nothing, nothing[..., 0], boxes_xywh)


def overlapping_boxes(
    boxes_xywh: Tensor, number: int, sigmas: tuple[float, ...], generator: torch.Generator | None = None
) -> Tensor:
    """Return boxes (..., number, 4) whose IoU with the true boxes (..., 4) is above 0.1 (ATOM, section 3.2).

    Gaussian noise is added to centre and size; its deviation is one of `sigmas`, chosen anew for each box, times the
    root of the true area. A box without enough overlap, or smaller than a pixel, is drawn again with 0.9 of the
    deviation; that this is how ATOM draws again is an assumption.

    Args:
        boxes_xywh: true boxes (..., 4).
        number: boxes for each of them.
        sigmas: deviations in units of the root of the area.
        generator: source of the noise; its device is the CPU.
    """
    truth = boxes_xywh[..., None, :].expand(*boxes_xywh.shape[:-1], number, 4)
    shape = truth.shape[:-1]
    chosen = torch.randint(len(sigmas), shape, generator=generator)
    deviation = torch.tensor(sigmas)[chosen].to(boxes_xywh) * truth[..., 2:].prod(-1).sqrt()
    centre, boxes = truth[..., :2] + truth[..., 2:] / 2, truth.clone()
    missing = torch.ones(shape, dtype=torch.bool, device=boxes_xywh.device)
    while bool(missing.any()):
        noise = torch.randn(*shape, 4, generator=generator).to(boxes_xywh) * deviation[..., None]
        size = truth[..., 2:] + noise[..., 2:]
        drawn = torch.cat([centre + noise[..., :2] - size / 2, size], dim=-1)
        boxes = torch.where(missing[..., None], drawn, boxes)
        usable = (size > 1).all(-1) & (iou_xywh(drawn, truth) > 0.1)
        missing, deviation = missing & ~usable, 0.9 * deviation
    return boxes


BoxLoss = Callable[[Tensor, Candidates, ObjectiveSettings], Tensor]
"""Energies (..., P) of candidates -> the loss of each frame (...)."""


def box_loss(energies: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    """Return the box loss of each frame (...), from the energies (..., P) of its candidates."""
    return _BOX_LOSSES[settings.box_loss](energies.float(), candidates, settings)


def _nce(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    """Return NCE's or NCE+'s loss; they differ in the box that `draw_candidates` puts first."""
    return losses.nce_plus(f, candidates.log_q, reduction="none")


def _kld_is(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    target = GaussianMixture.isotropic((settings.target_sigma,), dims=4, device=f.device)
    return losses.kld_is(f, candidates.log_q, target.log_prob(candidates.offsets_rel), reduction="none")


def _ml_is(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    return losses.ml_is(f[..., 1:], candidates.log_q[..., 1:], f[..., 0], reduction="none")


def _iou(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    """Return the mean squared error against 2 IoU - 1, in [-1, 1] as in pytracking's ATOM."""
    overlap = iou_xywh(xyxy_to_xywh(candidates.boxes_xyxy), candidates.truth_xywh[..., None, :])
    return (f - (2 * overlap - 1)).square().mean(dim=-1)


_BOX_LOSSES: dict[str, BoxLoss] = {"nce_plus": _nce, "nce": _nce, "kld_is": _kld_is, "ml_is": _ml_is, "iou": _iou}


class Objective:
    """The loss of a batch of image sequences, the first frames of which are train frames and the others test frames.

    A batch holds `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4) in crop pixels. It may hold `has_target`
    (s, f) bool: test frames without a target have labels of zero for the classifier and no part in the box loss. In
    place of `crops` it may hold features of a trunk that is frozen so far: `layer2` (s, f, c, h, w) and `layer3`, or
    `layer2` alone if the trunk goes on from there.
    """

    def __init__(
        self, train_frames: int, settings: ObjectiveSettings, bfloat16: bool = False, box_loss: BoxLoss = box_loss
    ):
        """Take the losses.

        Args:
            train_frames: number of train frames in a sequence.
            settings: the losses and their noise.
            bfloat16: whether the network's convolutions are computed in bfloat16.
            box_loss: a loss of one's own, instead of the one that the settings name; its candidates are drawn as the
                settings say.
        """
        self.train_frames, self.settings, self.bfloat16 = train_frames, settings, bfloat16
        self.box_loss = box_loss

    def __call__(
        self, net: nn.Module, batch: Batch, generator: torch.Generator | None = None, share: Share = ALL_OF_US
    ) -> tuple[Tensor, Logs]:
        """Return the mean loss and its parts for the log; see `plan.StepObjective`."""
        device, n = next(net.parameters()).device, self.train_frames
        boxes = batch["boxes_xywh"].transpose(0, 1)  # (f, s, 4)
        known = torch.ones(boxes[n:].shape[:2], dtype=torch.bool, device=boxes.device)
        if "has_target" in batch:
            known = batch["has_target"].T[n:].to(boxes.device)
        placed = torch.where(known[..., None], boxes[n:], torch.tensor(PLACEHOLDER_XYWH).to(boxes))
        drawn = draw_candidates(placed, self.settings, generator, share)
        candidates = Candidates(*(getattr(drawn, field.name).to(device) for field in dataclasses.fields(drawn)))
        scores, energies = self.answers(net, batch, boxes[:n].to(device), candidates.boxes_xyxy)
        box = _mean_of_known(self.box_loss(energies, candidates, self.settings), known.to(device))
        if not scores:
            return self.settings.box_weight * box, {"box": box.detach()}
        height, width = scores[0].shape[-2:]
        labels = score_labels(placed.to(device), (height, width), self.settings.label_sigma)
        labels = labels * known.to(device)[..., None, None]
        classifier, parts = classifier_loss([s.float() for s in scores], labels, self.settings)
        logs = {**parts, "box": box.detach(), "classifier": classifier.detach()}
        return classifier + self.settings.box_weight * box, logs

    def answers(
        self, net: nn.Module, batch: Batch, train_boxes_xywh: Tensor, candidates_xyxy: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return scores of the test frames for every filter iterate, none without a classifier loss, and energies."""
        if LAYERS[0] in batch:
            return self._behind_trunk(net, batch, xywh_to_xyxy(train_boxes_xywh), candidates_xyxy)
        crops = batch["crops"].to(candidates_xyxy.device)
        trunk = getattr(getattr(net, "module", net), "feature_extractor", None)  # within DistributedDataParallel too
        images = normalize_images(crops.transpose(0, 1).permute(0, 1, 4, 2, 3).flatten(0, 1), trunk)
        images = images.contiguous(memory_format=torch.channels_last).unflatten(0, crops.shape[1::-1])
        train_images, test_images = images[: self.train_frames], images[self.train_frames :]
        train_boxes, apart = xywh_to_xyxy(train_boxes_xywh), self.settings.statistics == "apart"
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=self.bfloat16):
            if self.settings.classifier_loss == "none":
                return [], box_energies(net, train_images[0], train_boxes[0], test_images, candidates_xyxy, apart)
            return net(train_images, train_boxes, test_images, candidates_xyxy, apart)

    def _behind_trunk(
        self, net: Any, batch: Batch, train_boxes_xyxy: Tensor, candidates_xyxy: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return what `answers` does, from features of the trunk."""
        n, boxes_only = self.train_frames, self.settings.classifier_loss == "none"
        kept = [batch[name].to(candidates_xyxy.device).transpose(0, 1) for name in LAYERS if name in batch]
        train, test = tuple(layer[: 1 if boxes_only else n] for layer in kept), tuple(layer[n:] for layer in kept)

        def look(*kept: Tensor) -> Layers:
            layers = _layers(net.feature_extractor, *kept)
            return layers if boxes_only else net.with_features(*layers)

        with torch.autocast(candidates_xyxy.device.type, torch.bfloat16, enabled=self.bfloat16):
            train, test = look_at_both(look, train, test, self.settings.statistics == "apart")
            if boxes_only:
                return [], net.compare_boxes(train, train_boxes_xyxy[0], test, candidates_xyxy)
            return net.compare(train, train_boxes_xyxy, test, candidates_xyxy)


def _layers(trunk: Any, *kept: Tensor) -> Layers:
    """Return layer2 and layer3 (m, s, c, h, w) in float32; without a kept layer3 the trunk goes on from layer2."""
    flat = [layer.flatten(0, 1).float().contiguous(memory_format=torch.channels_last) for layer in kept]
    pair = flat if len(flat) == len(LAYERS) else trunk.body(*flat)
    return tuple(layer.unflatten(0, kept[0].shape[:2]) for layer in pair)


def _mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of the values (t, s) of frames with a target, 0 if there are none."""
    return values.mean() if bool(known.all()) else values[known].sum() / known.sum().clamp(min=1)


def box_energies(
    net: Any,
    reference: Tensor,
    reference_xyxy: Tensor,
    test_images: Tensor,
    candidates_xyxy: Tensor,
    apart: bool = True,
) -> Tensor:
    """Return the energies (t, s, P) of candidates by trunk and box branch alone, as in ATOM.

    Args:
        net: a `TrackerNet`.
        reference: images (s, 3, H, W) that modulate.
        reference_xyxy: the target's boxes (s, 4) in them.
        test_images: (t, s, 3, H, W).
        candidates_xyxy: (t, s, P, 4).
        apart: whether the trunk's batch norm has the statistics of reference and test images apart.
    """
    first, rest = look_at_both(net.layers, (reference[None],), (test_images,), apart)
    return net.compare_boxes(first, reference_xyxy, rest, candidates_xyxy)
