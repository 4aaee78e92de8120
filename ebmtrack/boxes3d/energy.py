"""The energy f(x, y) of rotated 3D boxes on a bird's-eye-view map, its training by NCE and its ascent.

A box is (x, y, z, w, l, h, theta) in the LiDAR's frame, x forward, y left, z up, in metres: centre x, y; z of the
bottom; theta is KITTI's ry. Source: Gustafsson et al., "Accurate 3D Object Detection using Energy-Based Models", CVPR
workshops 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ebmtrack.energy.ascent import ascent_s1
from ebmtrack.energy.losses import nce
from ebmtrack.energy.noise import GaussianMixture, nce_plus_samples
from ebmtrack.errors import ConfigError

GRID = (4, 7)  # points across the width and along the length
STEP_LENGTH, STEPS = 2e-4, 10  # for all seven numbers
LEAST_SIZE = 0.05  # metres, of noisy boxes
BASE_SIGMAS = (0.05, 0.05, 0.025, 0.025, 0.025, 0.025, 0.0125)  # x y z w l h theta, first component; others x 2, x 4
NOISE_SCALE = 1.25
SAMPLES = 128  # noise boxes for each true box, M


@dataclass(frozen=True)
class BevFrame:
    """The place of a map's cells in the LiDAR's frame.

    Attributes:
        cell: side of a cell in metres.
        origin_xy: corner of the first cell.
        centred: whether index 0 is the centre of the first cell. SA-SSD was trained with index 0 at its corner, half a
            cell off: False for its weights.
    """

    cell: float = 0.4
    origin_xy: tuple[float, float] = (0.0, -40.0)
    centred: bool = True

    def to_index(self, points_xy: Tensor) -> Tensor:
        """Return (column, row) of points (..., 2) in metres, in index units."""
        index = (points_xy - points_xy.new_tensor(self.origin_xy)) / self.cell
        return index - 0.5 if self.centred else index


SA_SSD_FRAME = BevFrame(centred=False)


def rotated_grid(boxes: Tensor, across: int = GRID[0], along: int = GRID[1]) -> Tensor:
    """Return points (N, across, along, 2), x and y in metres, on the rotated rectangles of boxes (N, 7).

    The outermost points are on the edges. At theta 0 the width is along x and the length along y.
    """
    x, y, _, w, length, _, theta = boxes.unbind(-1)
    a = torch.linspace(-0.5, 0.5, across).to(boxes)[:, None] * w[:, None, None]  # (N, across, 1)
    b = torch.linspace(-0.5, 0.5, along).to(boxes) * length[:, None, None]  # (N, 1, along)
    cos, sin = theta.cos()[:, None, None], theta.sin()[:, None, None]
    return torch.stack([x[:, None, None] + a * cos + b * sin, y[:, None, None] - a * sin + b * cos], dim=-1)


def sample_bev(bev: Tensor, points_xy: Tensor, frame: BevFrame) -> Tensor:
    """Return the map's values (N, C, A, B) at points (N, A, B, 2) in metres: bilinear, zero outside of the map.

    bev: (C, H, W), rows along y and columns along x.
    """
    index = frame.to_index(points_xy)
    height, width = bev.shape[-2:]
    place = 2 * index / index.new_tensor([width - 1, height - 1]) - 1
    n, a, b, _ = place.shape
    values = functional.grid_sample(bev[None], place.reshape(1, n, a * b, 2), padding_mode="zeros", align_corners=True)
    return values[0].reshape(len(bev), n, a, b).transpose(0, 1)


class BoxEnergy3D(nn.Module):
    """Energies of rotated boxes: map features on a 4 x 7 grid, small networks for z and h, and three layers."""

    def __init__(self, channels: int = 256, hidden: int = 1024, frame: BevFrame = SA_SSD_FRAME):
        """Make a branch with random weights; the last layer's are N(0, 0.001^2).

        Args:
            channels: of the bird's-eye-view map.
            hidden: width of the two hidden layers.
            frame: place of the map's cells.
        """
        super().__init__()
        self.frame = frame
        self.z_net, self.h_net = (
            nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()) for _ in range(2)
        )
        inputs = channels * GRID[0] * GRID[1] + 32
        self.head = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        for number in (0, 2, 4):
            nn.init.zeros_(self.head.get_parameter(f"{number}.bias"))
        for number in (0, 2):
            nn.init.kaiming_uniform_(self.head.get_parameter(f"{number}.weight"), a=1)
        nn.init.normal_(self.head.get_parameter("4.weight"), std=0.001)

    def forward(self, bev: Tensor, boxes: Tensor) -> Tensor:
        """Return the energies (N,) of boxes (N, 7) on a map (C, H, W)."""
        if boxes.dim() != 2 or boxes.shape[1] != 7 or bev.dim() != 3:
            raise ConfigError(f"3D energy: wants a map (C, H, W) and boxes (N, 7), got {bev.shape} and {boxes.shape}")
        pooled = sample_bev(bev, rotated_grid(boxes), self.frame).flatten(1)
        return self.head(torch.cat([pooled, self.z_net(boxes[:, 2:3]), self.h_net(boxes[:, 5:6])], dim=1))[:, 0]


def noise_mixture(scale: float = NOISE_SCALE) -> GaussianMixture:
    """Return the noise: three Gaussians with a width for each of the seven numbers, one component for all of them."""
    return GaussianMixture(scale * torch.tensor([1.0, 2.0, 4.0])[:, None] * torch.tensor(BASE_SIGMAS))


def wrap_angle(theta: Tensor) -> Tensor:
    """Return angles (...) in [-pi, pi).

    >>> [round(each, 3) for each in wrap_angle(torch.tensor([0.0, 4.0, -3.5])).tolist()]
    [0.0, -2.283, 2.783]
    """
    return torch.remainder(theta + math.pi, 2 * math.pi) - math.pi


def nce_loss(
    energy: BoxEnergy3D, bev: Tensor, truth: Tensor, samples: int = SAMPLES, generator: Generator | None = None
) -> Tensor:
    """Return NCE's loss of a scene, the mean over its true boxes.

    The noise is drawn once and shared by the scene's boxes, as in the paper's code. Sizes are at least 0.05 m and
    angles wrapped after the noise; the density is not corrected for either.

    Args:
        energy: the branch.
        bev: map (C, H, W).
        truth: true boxes (G, 7), at least one.
        samples: noise boxes for each true box.
        generator: of the noise, on the CPU.
    """
    # (1 + M, 7) and (1 + M,); the label is first
    offsets, log_q = nce_plus_samples(noise_mixture(), (), samples, beta=0.0, generator=generator)
    boxes = truth[:, None] + offsets.to(truth)
    sizes, theta = boxes[..., 3:6].clamp(min=LEAST_SIZE), wrap_angle(boxes[..., 6:])
    boxes = torch.cat([boxes[..., :3], sizes, theta], dim=-1)
    f = energy(bev, boxes.flatten(0, 1)).view(boxes.shape[:2])
    return nce(f, log_q.to(truth).expand_as(f))


def refine(
    energy: BoxEnergy3D, bev: Tensor, boxes: Tensor, step: float | Tensor = STEP_LENGTH, steps: int = STEPS
) -> Tensor:
    """Return boxes (N, 7) after Algorithm S1; their scores and their number stay the detector's.

    Args:
        energy: the branch.
        bev: map (C, H, W) of the scene.
        boxes: the detector's boxes after its own suppression.
        step: first step length, a number or one for each of the seven (7,).
        steps: number of steps.
    """
    return ascent_s1(lambda y: energy(bev, y), boxes, step, steps).y if len(boxes) else boxes
