"""Light, colour, blur and noise of whole batches on any device, with the laws of `augment.change_look`.

Saturation 0 is a grey picture, so that one formula serves both. A Gaussian blur is a product with a matrix from each
side, as crops are (see `device_crops`); a motion blur is a convolution with one kernel for each frame.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ebmtrack.data.device_draws import GOLDEN, LookDraws

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as augment.GREY
KERNEL = 9  # side of the largest motion blur


def change_looks(patches: Tensor, draws: LookDraws) -> Tensor:
    """Patches (n, 3, H, W) float32 of whole grey levels, changed as `draws` (n) say: (n, 3, H, W) uint8."""
    device = patches.device
    table = np.stack([draws.saturation, draws.contrast, draws.brightness]).astype(np.float32)
    saturation, contrast, brightness = torch.from_numpy(table).to(device)[..., None, None, None]
    luma = torch.einsum("nchw,c->nhw", patches, patches.new_tensor(LUMA))[:, None]
    x = luma + (patches - luma) * saturation
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * contrast) * brightness
    for change, strength in ((_blur, draws.blur), (_smear, draws.motion), (_add_noise, draws.noise)):
        some = np.flatnonzero(strength)
        if len(some):
            rows = torch.from_numpy(some).to(device)
            x.index_copy_(0, rows, change(x.index_select(0, rows), draws.part(some)))
    return x.clamp_(0, 255).to(torch.uint8)


def _blur(x: Tensor, draws: LookDraws) -> Tensor:
    sigma = torch.from_numpy(draws.blur.astype(np.float32)).to(x.device)
    rows, columns = blur_matrix(sigma, x.shape[2]), blur_matrix(sigma, x.shape[3])
    return rows[:, None] @ x @ columns[:, None].mT


def _smear(x: Tensor, draws: LookDraws) -> Tensor:
    kernels = torch.from_numpy(motion_kernels(draws.motion, draws.angle)).to(x)
    n, channels, height, width = x.shape
    padded = F.pad(x, [KERNEL // 2] * 4, mode="reflect").flatten(0, 1)[None]
    kernels = kernels[:, None].expand(-1, channels, -1, -1).reshape(n * channels, 1, KERNEL, KERNEL)
    return F.conv2d(padded, kernels, groups=n * channels).view(n, channels, height, width)


def _add_noise(x: Tensor, draws: LookDraws) -> Tensor:
    deviation = torch.from_numpy(draws.noise.astype(np.float32)).to(x.device)
    noise = pixel_noise(torch.from_numpy(draws.key).to(x.device), x[0].numel())
    return x + noise.view_as(x) * deviation[:, None, None, None]


def pixel_noise(keys: Tensor, count: int) -> Tensor:
    """Standard normal numbers (n, count) float32 that follow from keys (n,) int64, the same on any device to rounding.

    SplitMix64 on counters; the two halves of each word make two numbers (Box and Muller).
    """
    words = (count + 1) // 2
    counter = torch.arange(1, words + 1, device=keys.device) * _signed(GOLDEN)
    bits = _mix(keys[:, None] + counter)
    radius = (-2 * torch.log1p(-_high_bits(bits, 40) * 2.0**-24)).sqrt()
    angle = _high_bits(bits << 32, 40) * (2.0**-24 * 2 * torch.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def _mix(x: Tensor) -> Tensor:
    """`device_draws.mix` on int64, whose products wrap as those of uint64 do."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by with zeros moving in, also for negative int64."""
    return (x >> by) & (2 ** (64 - by) - 1)


def _high_bits(x: Tensor, drop: int) -> Tensor:
    """The uppermost 64 - drop bits as float32."""
    return _shifted(x, drop).to(torch.float32)


def _signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    return value - 2**64 if value >= 2**63 else value


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blurs of width sigma (n,) along an axis of `size` pixels, as (n, size, size) matrices.

    As cv2.GaussianBlur on float pictures: kernels reach round(4 sigma) pixels and sum to one; beyond the ends the
    picture is mirrored about the middle of the end's pixel (reflect 101). Needs sigma of 2.1 at most and 9 pixels.
    """
    reach = min(KERNEL - 1, size - 1)
    place = torch.arange(size, device=sigma.device)
    far = torch.arange(-reach, size + reach, device=sigma.device)
    distance = (place[:, None] - far).abs()  # (size, size + 2 reach)
    sigma = sigma[:, None, None]
    kernel = torch.exp(-0.5 * (distance / sigma).square()).masked_fill(distance > (4 * sigma).round(), 0.0)
    kernel = kernel / kernel.sum(dim=2, keepdim=True)
    matrix = kernel[..., reach:-reach].clone()
    matrix[..., 1 : reach + 1] += kernel[..., :reach].flip(2)
    matrix[..., -reach - 1 : -1] += kernel[..., -reach:].flip(2)
    return matrix


def motion_kernels(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Lines of `lengths` (n,) pixels, 9 at most, at `angles` (n,): (n, 9, 9) float32, each with the sum one.

    The same pixels as `augment.change_look` blurs over, about the same anchor.
    """
    n, lengths = len(lengths), lengths.astype(np.int64)
    middle = (lengths - 1) / 2
    at = np.minimum(np.arange(2 * KERNEL), 2 * lengths[:, None] - 1)  # points beyond the line repeat its end
    along = -middle[:, None] + at * (2 * middle / (2 * lengths - 1))[:, None]
    shift = KERNEL // 2 - lengths[:, None] // 2
    rows = np.rint(middle[:, None] + along * np.sin(angles)[:, None]).astype(np.int64) + shift
    columns = np.rint(middle[:, None] + along * np.cos(angles)[:, None]).astype(np.int64) + shift
    kernels = np.zeros((n, KERNEL, KERNEL), np.float32)
    kernels[np.arange(n)[:, None], rows, columns] = 1
    return kernels / kernels.sum(axis=(1, 2), keepdims=True)
