"""What a training step minimises: a classifier loss on every filter iterate plus a box loss on energies."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ebmtrack.boxes import iou_xywh, xywh_to_xyxy, xyxy_to_xywh
from ebmtrack.data.pipeline import displaced_boxes
from ebmtrack.energy import losses
from ebmtrack.energy.noise import BetaReading, GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError
from ebmtrack.nets.backbone import normalize_images
from ebmtrack.nets.classifier import FEATURE_STRIDE, distance_maps
from ebmtrack.nets.tracker_net import TrackerNet

BoxLossName = Literal["nce_plus", "nce", "kld_is", "ml_is", "iou"]
ClassifierLossName = Literal["hinge", "kl", "none"]
INVALID = 99999.0  # boxes with x from here on mark frames without a target (pytracking)


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """Which losses, their weights (super_dimp; BMVC 2020, supplement), and the noise of the box loss.

    box_loss: NCE+, NCE, KLD-IS (PrDiMP's KL box loss) or ML-IS of `energy.losses`, or the squared IoU error of ATOM*.
    classifier_loss: "hinge" is DiMP's, "kl" PrDiMP's, "none" trains trunk and box branch alone.
    """

    box_weight: float = 0.01
    final_weight: float = 100.0
    initial_weight: float = 100.0
    inner_weight: float = 400.0  # shared by the iterates between the first and the last
    hinge_threshold: float = 0.05
    label_sigma: float = 0.9  # feature cells
    sigmas: tuple[float, ...] = (0.05, 0.5)  # BMVC 2020, section 5.3
    beta: float = 0.1  # of NCE+: BMVC 2020, section 5.3
    samples: int = 128
    box_loss: BoxLossName = "nce_plus"
    classifier_loss: ClassifierLossName = "hinge"
    target_sigma: float = 0.05  # of p(y|y_i) in KLD-IS: BMVC 2020, supplement D.2
    beta_reading: BetaReading = "std"  # see GaussianMixture.scaled

    def __post_init__(self) -> None:
        _check_name("box_loss", self.box_loss, get_args(BoxLossName))
        _check_name("classifier_loss", self.classifier_loss, get_args(ClassifierLossName))
        if self.samples < 1 or self.label_sigma <= 0 or self.target_sigma <= 0:
            raise ConfigError(
                f"objective: samples must be at least 1, label_sigma and target_sigma positive, got {self.samples}, "
                f"{self.label_sigma} and {self.target_sigma}"
            )


PRDIMP_WEIGHTS = {  # of PrDiMP's losses (pytracking's prdimp18 and prdimp50)
    "box_weight": 0.0025,
    "final_weight": 0.25,
    "initial_weight": 0.25,
    "inner_weight": 1.0,
    "box_loss": "kld_is",
    "classifier_loss": "kl",
}


def score_labels(boxes_xywh: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Gaussian target scores (..., h', w') centred on boxes (..., 4); sigma in feature cells (DiMP, section 3.4)."""
    centres = (boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2) / FEATURE_STRIDE
    return (-0.5 * (distance_maps(centres, size) / sigma).square()).exp()


def hinge_loss(scores: Tensor, labels: Tensor, threshold: float = 0.05) -> Tensor:
    """Mean squared error, one-sided on the background: there scores below zero cost nothing (DiMP, equation 7)."""
    background = labels < threshold
    target = torch.where(background, 0.0, labels)
    return (torch.where(background, scores.clamp(min=0), scores) - target).square().mean()


def kl_classifier_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """KL divergence of softmax(scores) from the normalised labels, without the labels' entropy: mean over maps.

    scores, labels: (..., h', w'). log sum_k exp s_k - sum_k y_k s_k, where y = labels / (sum of labels + 1e-8) is a
    Gaussian density on the map's cells. A map without a target (labels of zero) lowers all its scores.
    Source: PrDiMP, section 3.
    """
    y = labels / (labels.sum(dim=(-2, -1), keepdim=True) + 1e-8)
    return (torch.logsumexp(scores.flatten(-2), dim=-1) - (y * scores).sum(dim=(-2, -1))).mean()


def classifier_loss(
    scores: list[Tensor], labels: Tensor, settings: ObjectiveSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted losses of all filter iterates; scores: one (t, s, h', w') per iterate, first guess first."""
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
    """Boxes that the energy scores in each frame, and what a loss needs to know of them; all on one device.

    boxes_xyxy (..., P, 4) in crop pixels; offsets_rel (..., P, 4) from the truth in its relative space; log_q (..., P),
    log density of the noise at the offsets; truth_xywh (..., 4). For KLD-IS and IoU they are the M noise samples; for
    the others one more comes first: the truth (ML-IS, NCE) or the noisy truth (NCE+).
    """

    boxes_xyxy: Tensor
    offsets_rel: Tensor
    log_q: Tensor
    truth_xywh: Tensor


def draw_candidates(
    boxes_xywh: Tensor, mixture: GaussianMixture, settings: ObjectiveSettings, generator: torch.Generator | None = None
) -> Candidates:
    """Candidates around true boxes (..., 4). Every loss gets the same noise samples from the same generator."""
    beta = settings.beta if settings.box_loss == "nce_plus" else 0.0
    shape = tuple(boxes_xywh.shape[:-1])
    offsets, log_q = nce_plus_samples(mixture, shape, settings.samples, beta, generator, settings.beta_reading)
    offsets, log_q = offsets.to(boxes_xywh), log_q.to(boxes_xywh.device)
    if settings.box_loss in ("kld_is", "iou"):
        offsets, log_q = offsets[..., 1:, :], log_q[..., 1:]
    return Candidates(displaced_boxes(boxes_xywh, offsets), offsets, log_q, boxes_xywh)


def box_loss(energies: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    """The box loss of each frame (...), from the energies (..., P) of its candidates."""
    return _BOX_LOSSES[settings.box_loss](energies.float(), candidates, settings)


def _nce(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    """NCE and NCE+ differ by what `draw_candidates` puts first."""
    return losses.nce_plus(f, candidates.log_q, reduction="none")


def _kld_is(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    target = GaussianMixture.isotropic((settings.target_sigma,), dims=4, device=f.device)
    return losses.kld_is(f, candidates.log_q, target.log_prob(candidates.offsets_rel), reduction="none")


def _ml_is(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    return losses.ml_is(f[..., 1:], candidates.log_q[..., 1:], f[..., 0], reduction="none")


def _iou(f: Tensor, candidates: Candidates, settings: ObjectiveSettings) -> Tensor:
    """Mean squared error against 2 IoU - 1, in [-1, 1] as in pytracking's ATOM, for which ATOM*'s steps were chosen."""
    overlap = iou_xywh(xyxy_to_xywh(candidates.boxes_xyxy), candidates.truth_xywh[..., None, :])
    return (f - (2 * overlap - 1)).square().mean(dim=-1)


_BOX_LOSSES: dict[str, Callable[[Tensor, Candidates, ObjectiveSettings], Tensor]] = {
    "nce_plus": _nce,
    "nce": _nce,
    "kld_is": _kld_is,
    "ml_is": _ml_is,
    "iou": _iou,
}


class Objective:
    """Batch -> (loss, what to log). A batch holds `crops` (s, f, H, W, 3) uint8 and `boxes_xywh` (s, f, 4).

    The first `train_frames` of the f frames are train frames. Test frames whose box is marked invalid (x >= 99999) have
    labels of zero for the classifier and are left out of the box loss.
    """

    def __init__(self, net: TrackerNet, train_frames: int, settings: ObjectiveSettings, bfloat16: bool = False):
        self.net, self.train_frames, self.settings, self.bfloat16 = net, train_frames, settings, bfloat16
        self.mixture = GaussianMixture.isotropic(settings.sigmas, dims=4)

    def __call__(
        self, batch: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(self.net.parameters()).device
        boxes, n = batch["boxes_xywh"].transpose(0, 1), self.train_frames
        valid = boxes[n:, ..., 0] < INVALID  # (t, s)
        stand_ins = torch.where(valid[..., None], boxes[n:], torch.tensor([0.0, 0.0, 16.0, 16.0]).to(boxes))
        rank, size = batch.get("share", (0, 1))  # see training.run.Plan
        candidates = draw_candidates(stand_ins.repeat(1, size, 1), self.mixture, self.settings, generator)
        ours = (getattr(candidates, field.name).chunk(size, dim=1)[rank] for field in dataclasses.fields(candidates))
        candidates = Candidates(*(value.to(device) for value in ours))
        scores, energies = self._network(batch, boxes[:n].to(device), candidates.boxes_xyxy)
        each = box_loss(energies, candidates, self.settings)
        box = each.mean() if bool(valid.all()) else each[valid.to(device)].sum() / valid.sum().clamp(min=1).item()
        if not scores:
            return self.settings.box_weight * box, {"box": box.detach()}
        labels = score_labels(boxes[n:].to(device), tuple(scores[0].shape[-2:]), self.settings.label_sigma)
        classifier, parts = classifier_loss([s.float() for s in scores], labels, self.settings)
        logs = {**parts, "box": box.detach(), "classifier": classifier.detach()}
        return classifier + self.settings.box_weight * box, logs

    def _network(
        self, batch: dict[str, Tensor], train_boxes_xywh: Tensor, candidates_xyxy: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Scores of the test frames for every filter iterate, none without a classifier loss, and energies."""
        crops = batch["crops"].to(candidates_xyxy.device)
        images = normalize_images(crops.transpose(0, 1).permute(0, 1, 4, 2, 3).flatten(0, 1))
        images = images.contiguous(memory_format=torch.channels_last).unflatten(0, crops.shape[1::-1])
        train_boxes = xywh_to_xyxy(train_boxes_xywh)
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=self.bfloat16):
            train_images, test_images = images[: self.train_frames], images[self.train_frames :]
            if self.settings.classifier_loss == "none":
                return [], box_energies(self.net, train_images[0], train_boxes[0], test_images, candidates_xyxy)
            return self.net(train_images, train_boxes, test_images, candidates_xyxy)


def box_energies(
    net: TrackerNet, reference: Tensor, reference_xyxy: Tensor, test_images: Tensor, candidates_xyxy: Tensor
) -> Tensor:
    """Energies (t, s, P) of candidates by trunk and box branch alone, as in ATOM.

    reference: (s, 3, H, W) with the target's boxes (s, 4); test_images (t, s, 3, H, W), candidates (t, s, P, 4).
    """
    t, s = test_images.shape[:2]
    layer2, layer3 = net.feature_extractor(torch.cat([reference[None], test_images]).flatten(0, 1))
    modulation = net.bb_regressor.modulation(layer2[:s], layer3[:s], reference_xyxy)
    modulation = tuple(vector.repeat(t, 1) for vector in modulation)
    features = net.bb_regressor.features(layer2[s:], layer3[s:])
    return net.bb_regressor(modulation, features, candidates_xyxy.flatten(0, 1)).unflatten(0, (t, s))


def _check_name(key: str, name: str, known: tuple[str, ...]) -> None:
    """ConfigError that names the nearest right one, unless `name` is known."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown {key} {name!r}, known are {', '.join(known)}{hint}")
