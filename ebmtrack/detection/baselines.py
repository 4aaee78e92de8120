"""Regression of box offsets without an energy: Gaussian, Laplace, mixtures, and a conditional VAE (ECCV 2020, 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmtrack.names import check_name

BASELINES = {"gaussian": 1, "laplace": 1, "mixture2": 2, "mixture4": 4, "mixture8": 8, "cvae": 1}  # components
LATENT, LATENT_SAMPLES = 10, 128  # of the VAE: ECCV 2020, appendix C


class OffsetModel(nn.Module):
    """A distribution of the four offsets of a box, for each class, from the host's frozen box features."""

    def __init__(self, name: str, features: int, classes: int):
        """Make new layers with weights N(0, 0.001^2).

        Args:
            name: in BASELINES.
            features: width of the box features.
            classes: number of classes, the background included.
        """
        super().__init__()
        check_name("baseline", name, BASELINES)
        self.name, self.classes, self.components = name, classes, BASELINES[name]
        inputs = features + (LATENT if name == "cvae" else 0)
        self.means = nn.Linear(inputs, self.components * classes * 4)
        self.log_scales = nn.Linear(inputs, self.components * classes * 4)
        self.logits = nn.Linear(inputs, self.components * classes) if self.components > 1 else None
        self.encoder = nn.Linear(features + 4, 2 * LATENT) if name == "cvae" else None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.001)
                nn.init.zeros_(layer.bias)

    def loss(
        self, features: Tensor, offsets: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the mean loss: negative log likelihood without constants, or minus the evidence bound of the VAE.

        Gaussian and Laplace have the paper's form, sum of |d - mu|^p / exp(s) + s: twice the likelihood's for p = 2.

        Args:
            features: box features (R, F).
            offsets: encoded offsets (R, 4), d.
            labels: classes (R,).
            generator: of the VAE's samples, on the CPU.
        """
        if self.encoder is not None:
            return self._vae_loss(features, offsets, labels, generator)
        log_p = self._log_p(features, offsets, labels)
        return -(2 if self.name == "gaussian" else 1) * log_p.mean()

    def mean(self, features: Tensor) -> Tensor:
        """Return the mean offsets (R, classes, 4); the VAE's over the same samples of its prior each time."""
        if self.encoder is not None:
            draws = torch.randn(LATENT_SAMPLES, LATENT, generator=torch.Generator().manual_seed(0)).to(features)
            z = draws.mean(dim=0).expand(len(features), -1)  # the decoder is linear
            return self.means(torch.cat([features, z], dim=1)).view(-1, self.classes, 4)
        means = self.means(features).view(-1, self.components, self.classes, 4)
        return (self._log_weights(features).exp()[..., None] * means).sum(dim=1)

    def _log_weights(self, features: Tensor) -> Tensor:
        """Return the log weights (R, K, classes) of the components."""
        if self.logits is None:
            return features.new_zeros(len(features), 1, self.classes)
        return self.logits(features).view(-1, self.components, self.classes).log_softmax(dim=1)

    def _log_p(self, inputs: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
        """Return log p (R,) of offsets, without constants, as members of their classes."""
        shape, rows = (-1, self.components, self.classes, 4), torch.arange(len(labels), device=labels.device)
        means = self.means(inputs).view(shape)[rows, :, labels]  # (R, K, 4)
        s = self.log_scales(inputs).view(shape)[rows, :, labels]
        distance = (offsets[:, None] - means).abs()
        if self.name == "laplace":
            log_parts = -(distance / s.exp() + s).sum(dim=-1)
        else:
            log_parts = -0.5 * (distance.square() / s.exp() + s).sum(dim=-1)
        return torch.logsumexp(log_parts + self._log_weights(inputs)[rows, :, labels], dim=1)

    def _vae_loss(self, features: Tensor, offsets: Tensor, labels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return minus the evidence bound, by 128 samples of the encoder's z."""
        assert self.encoder is not None
        mean, log_variance = self.encoder(torch.cat([features, offsets], dim=1)).chunk(2, dim=1)
        noise = torch.randn(LATENT_SAMPLES, *mean.shape, generator=generator).to(mean)
        z = mean + (0.5 * log_variance).exp() * noise  # (128, R, 10)
        repeated = [each.expand(LATENT_SAMPLES, *each.shape).flatten(0, 1) for each in (features, offsets, labels)]
        log_p = self._log_p(torch.cat([repeated[0], z.flatten(0, 1)], dim=1), repeated[1], repeated[2])
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return divergence.mean() - log_p.mean() + 2 * math.log(2 * math.pi)


class _Predictor(nn.Module):
    """torchvision's box predictor with another model of the offsets."""

    def __init__(self, cls_score: nn.Module, model: OffsetModel):
        super().__init__()
        self.cls_score = cls_score
        self.model = [model]  # in a list: the model is a module of the detector, not of its frozen host

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (R, classes) and offsets (R, 4 classes)."""
        features = features.flatten(1)
        return self.cls_score(features), self.model[0].mean(features).flatten(1)


def as_predictor(cls_score: nn.Module, model: OffsetModel) -> nn.Module:
    """Return a box predictor for torchvision's RoI heads that keeps the host's classifier."""
    return _Predictor(cls_score, model)
