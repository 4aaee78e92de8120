"""Noise around a target: equal-weight Gaussian mixtures, samples and log densities, and the noise of NCE+.

Mixtures are centred on zero and are about offsets from the target; `sample_around` adds the target. Source:
the proposal q(y|y_i) and the noise p_N(y|y_i) of BMVC 2020, eqs. 4 and 11; p_beta is eq. 15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ebmtrack.errors import ConfigError

BetaReading = Literal["std", "variance"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """q(y) = (1/K) sum_k N(y; 0, diag(sigmas[k]^2)), with K components over D dimensions.

    sigmas: (K, D), the standard deviation of every component in every dimension; positive and finite. Samples
    and densities live on its device and in its dtype. Raises ConfigError for any other sigmas.

    >>> q = GaussianMixture.isotropic(sigmas=(0.1, 0.8))
    >>> q.sample((5,), torch.Generator().manual_seed(0)).shape
    torch.Size([5, 1])
    >>> round(q.log_prob(torch.zeros(1)).exp().item(), 4)  # (1/2) (1/0.1 + 1/0.8) / sqrt(2 pi)
    2.2441
    """

    sigmas: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.sigmas.shape)
        if self.sigmas.dim() != 2 or 0 in shape:
            raise ConfigError(f"GaussianMixture: sigmas must be (components, dimensions), got shape {shape}")
        good = (self.sigmas > 0) & self.sigmas.isfinite()
        if not self.sigmas.is_floating_point() or not bool(good.all()):
            raise ConfigError(f"GaussianMixture: sigmas must be positive floats, got {self.sigmas.tolist()}")

    @classmethod
    def isotropic(
        cls,
        sigmas: Sequence[float],
        dims: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> GaussianMixture:
        """Return the mixture whose k-th component has the width sigmas[k] in each of `dims` dimensions."""
        return cls(torch.tensor(list(sigmas), dtype=dtype, device=device).unsqueeze(-1).repeat(1, dims))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianMixture:
        """Return the same mixture on another device or in another dtype."""
        return GaussianMixture(self.sigmas.to(device=device, dtype=dtype))

    def sample(self, shape: Sequence[int], generator: Generator | None = None) -> Tensor:
        """Draw independent offsets (*shape, D); the generator must be on the mixture's device."""
        shape, (K, D) = tuple(shape), self.sigmas.shape
        device, dtype = self.sigmas.device, self.sigmas.dtype
        component = torch.randint(K, shape, generator=generator, device=device)
        return self.sigmas[component] * torch.randn((*shape, D), generator=generator, device=device, dtype=dtype)

    def sample_around(self, target: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Return samples (..., M, D) around targets (..., D), `num_samples` = M independent ones for each target."""
        self._check_dims(target)
        return target.unsqueeze(-2) + self.sample((*target.shape[:-1], num_samples), generator)

    def log_prob(self, offsets: Tensor) -> Tensor:
        """Return log q (...) of offsets (..., D) from the centre, in float32 at least."""
        self._check_dims(offsets)
        dtype = torch.promote_types(torch.promote_types(offsets.dtype, self.sigmas.dtype), torch.float32)
        sigmas, (K, D) = self.sigmas.to(dtype), self.sigmas.shape
        z = offsets.to(dtype).unsqueeze(-2) / sigmas  # (..., K, D)
        log_scale = sigmas.log().sum(dim=-1) + 0.5 * D * math.log(2 * math.pi)  # (K,)
        return torch.logsumexp(-0.5 * z.square().sum(dim=-1) - log_scale, dim=-1) - math.log(K)

    def scale(self, beta: float, reading: BetaReading = "std") -> GaussianMixture:
        """Return p_beta, the narrower mixture from which NCE+ draws the noise of the label; beta > 0.

        reading "std" (default) multiplies the standard deviations by beta: so does the authors' published 1D
        code, with which all their values of beta were chosen (0.025 in 1D, 0.1 for boxes). reading "variance"
        is the letter of BMVC 2020, eq. 15: variances beta sigma_k^2, hence standard deviations sqrt(beta)
        sigma_k.
        """
        if beta == 0:
            raise ConfigError("GaussianMixture.scale: beta must not be 0, a mixture needs some width")
        return GaussianMixture(self.sigmas * _width_factor(beta, reading))

    def _check_dims(self, y: Tensor) -> None:
        """Raise ConfigError unless the last axis of y fits the mixture."""
        if y.dim() == 0 or y.shape[-1] != self.sigmas.shape[-1]:
            D = self.sigmas.shape[-1]
            raise ConfigError(f"GaussianMixture: the last axis must have {D} entries, got {tuple(y.shape)}")


def nce_plus_samples(
    mixture: GaussianMixture,
    shape: Sequence[int],
    num_samples: int,
    beta: float,
    generator: Generator | None = None,
    reading: BetaReading = "std",
) -> tuple[Tensor, Tensor]:
    """Draw the samples of NCE+: offsets (*shape, 1 + M, D) from the label and their log q (*shape, 1 + M).

    Index 0 is the label plus nu ~ p_beta, the others are M = num_samples draws from q. log q uses the
    unscaled mixture everywhere, index 0 included (BMVC 2020, eq. 16). beta = 0 puts index 0 on the label
    itself: plain NCE.
    """
    if num_samples < 1:
        raise ConfigError(f"nce_plus_samples: num_samples must be at least 1, got {num_samples}")
    noise = mixture.sample((*shape, num_samples), generator)
    nu = _width_factor(beta, reading) * mixture.sample((*shape, 1), generator)
    offsets = torch.cat([nu, noise], dim=-2)
    return offsets, mixture.log_prob(offsets)


def _width_factor(beta: float, reading: BetaReading) -> float:
    """Return the ratio of p_beta's standard deviations to those of q; see `GaussianMixture.scale`."""
    if not (math.isfinite(beta) and beta >= 0):
        raise ConfigError(f"beta must be finite and not negative, got {beta}")
    if reading not in ("std", "variance"):
        raise ConfigError(f"the reading of beta must be 'std' or 'variance', got {reading!r}")
    return beta if reading == "std" else math.sqrt(beta)
