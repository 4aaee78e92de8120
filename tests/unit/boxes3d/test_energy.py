"""The rotated grid, sampling, the branch, its noise and its ascent."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from ebmtrack.boxes3d import energy as module
from ebmtrack.boxes3d.energy import (
    SA_SSD_FRAME,
    BevFrame,
    BoxEnergy3D,
    nce_loss,
    noise_mixture,
    refine,
    rotated_grid,
    sample_bev,
)
from ebmtrack.errors import ConfigError

FRAME = BevFrame(0.5, (0.0, -10.0))  # 40 x 40 cells
BOX = torch.tensor([10.2, 1.3, -1.7, 1.6, 3.9, 1.5, 0.4]).double()


def smooth_map(channels: int = 3) -> torch.Tensor:
    """A map of smooth functions of the place (C, 40, 40)."""
    place = torch.arange(40).double() / 8
    row, column = place[:, None], place[None]
    return torch.stack([(row * (k + 1) + column).sin() + (column - k * row).cos() for k in range(channels)])


def test_grid_at_angle_zero_is_a_plain_raster():
    """The width is along x and the length along y, the outermost points are on the edges."""
    box = BOX.clone()
    box[6] = 0
    points = rotated_grid(box[None])[0]
    assert points.shape == (4, 7, 2)
    xs = torch.linspace(10.2 - 0.8, 10.2 + 0.8, 4).double()
    ys = torch.linspace(1.3 - 1.95, 1.3 + 1.95, 7).double()
    torch.testing.assert_close(points, torch.stack(torch.meshgrid(xs, ys, indexing="ij"), dim=-1), atol=1e-6, rtol=0)


def test_a_quarter_turn_puts_the_length_along_x():
    box = BOX.clone()
    box[6] = math.pi / 2
    points = rotated_grid(box[None])[0]
    span = points.flatten(0, 1).amax(0) - points.flatten(0, 1).amin(0)
    torch.testing.assert_close(span, torch.tensor([3.9, 1.6]).double(), atol=1e-6, rtol=0)
    back = rotated_grid((box + torch.tensor([0, 0, 0, 0, 0, 0, math.pi]))[None])[0]
    torch.testing.assert_close(back, points.flip(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("frame, shift", [(FRAME, 0.5), (BevFrame(0.5, (0.0, -10.0), centred=False), 0.0)])
def test_linear_map_is_sampled_exactly(frame, shift):
    """The map's value is its column, then its row; SA-SSD's frame is half a cell off."""
    index = torch.arange(40).double()
    bev = torch.stack([index.expand(40, 40), index[:, None].expand(40, 40)])
    points = rotated_grid(BOX[None])
    values = sample_bev(bev, points, frame)[0]
    torch.testing.assert_close(values[0], points[0, ..., 0] / 0.5 - shift, atol=1e-9, rtol=0)
    torch.testing.assert_close(values[1], (points[0, ..., 1] + 10) / 0.5 - shift, atol=1e-9, rtol=0)
    assert not SA_SSD_FRAME.centred and SA_SSD_FRAME.origin_xy == (0.0, -40.0) and SA_SSD_FRAME.cell == 0.4


def test_a_box_outside_of_the_map_gives_zeros():
    boxes = torch.stack([BOX, BOX]).clone()
    boxes[1, 0] = 500
    values = sample_bev(smooth_map() + 5, rotated_grid(boxes), FRAME)
    assert (values[0] != 0).all() and (values[1] == 0).all()


def test_turning_box_and_map_together_changes_nothing():
    """A map turned by a quarter about its middle, (10, 0), and the box with it: the same features."""
    bev = smooth_map()
    turned = bev.rot90(1, dims=(1, 2))  # (row, column) -> (39 - column, row): x' = 10 + y, y' = -(x - 10)
    x, y = BOX[0] - 10, BOX[1]
    box = torch.cat([torch.stack([10 + y, -x]), BOX[2:6], BOX[6:] + math.pi / 2])
    first, second = (sample_bev(m, rotated_grid(b[None]), FRAME) for m, b in ((bev, BOX), (turned, box)))
    torch.testing.assert_close(first, second, atol=1e-9, rtol=0)


def branch(channels: int = 3) -> BoxEnergy3D:
    torch.manual_seed(0)
    net = BoxEnergy3D(channels, hidden=8, frame=FRAME).double()
    torch.nn.init.normal_(net.head.get_parameter("4.weight"))
    return net


def test_gradients_in_all_seven_numbers():
    net, bev = branch(), smooth_map()
    boxes = torch.stack([BOX, BOX + torch.tensor([3.33, -4.1, 0.2, 0.1, 0.2, 0.1, 2.0])]).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: net(bev, b), boxes, eps=1e-7, atol=1e-5)
    gradient = torch.autograd.grad(net(bev, boxes).sum(), boxes)[0]
    assert (gradient != 0).all()


def test_height_reaches_the_energy_through_its_networks_alone():
    net, bev = branch(), smooth_map()
    for network, column in ((net.z_net, 2), (net.h_net, 5)):
        torch.nn.init.zeros_(network[2].weight)
        boxes = BOX[None].clone().requires_grad_()
        gradient = torch.autograd.grad(net(bev, boxes).sum(), boxes)[0]
        assert gradient[0, column] == 0 and gradient[0, 0] != 0


def test_sizes_of_the_papers_branch():
    """Features of 28 points in 256 channels and 16 each for z and h: 7200 inputs; the last layer is small."""
    net = BoxEnergy3D()
    assert [layer.weight.shape for layer in net.head[::2]] == [(1024, 7200), (1024, 1024), (1, 1024)]
    assert net.head[4].weight.std() < 0.0012
    with pytest.raises(ConfigError, match="boxes \\(N, 7\\)"):
        net(torch.zeros(256, 4, 4), torch.zeros(2, 6))
    assert net(torch.zeros(256, 4, 4), torch.zeros(0, 7)).shape == (0,)
    assert doctest.testmod(module).failed == 0


def test_noise_has_the_papers_widths_and_one_component_for_all_numbers():
    mixture = noise_mixture()
    rows = [[0.0625, 0.125, 0.25], [0.03125, 0.0625, 0.125], [0.015625, 0.03125, 0.0625]]
    expected = torch.tensor([rows[0], rows[0], rows[1], rows[1], rows[1], rows[1], rows[2]]).T
    torch.testing.assert_close(mixture.sigmas, expected)
    offsets = mixture.sample((60_000,), torch.Generator().manual_seed(0))
    torch.testing.assert_close(offsets.std(0), expected.square().mean(0).sqrt(), rtol=0.02, atol=0)
    squares = (offsets / expected[2]).square()
    assert torch.corrcoef(squares.T)[0, 6] > 0.1  # wide in one number, wide in all


def test_loss_of_an_energy_that_knows_nothing_is_that_of_chance_by_density():
    """With f = 0 the loss is -log of the label's share of 1 / q; sizes and angles stay proper."""
    seen = []

    class Blind:
        def __call__(self, bev, boxes):
            seen.append(boxes)
            return torch.zeros(len(boxes))

    truth = torch.tensor([[5.0, 0, -1, 0.06, 3.9, 1.5, 3.14], [9, 2, -1, 1.6, 3.9, 1.5, -3.14]])
    loss = nce_loss(Blind(), smooth_map(), truth, 200, torch.Generator().manual_seed(0))
    assert loss > math.log(201)  # the label is where the noise is densest, so its share is the smallest
    assert seen[0].shape == (402, 7) and torch.equal(seen[0][0], truth[0])
    assert seen[0][:, 3:6].min() == pytest.approx(0.05)
    assert seen[0][:, 6].abs().max() <= math.pi + 1e-5
    offsets = (seen[0].view(2, 201, 7) - truth[:, None])[..., :3]
    torch.testing.assert_close(offsets[0], offsets[1], atol=1e-5, rtol=0)  # shared by the scene's boxes


def test_refinement_never_lowers_the_energy():
    net, bev = branch(), smooth_map()
    torch.manual_seed(1)
    boxes = BOX + 0.2 * torch.randn(9, 7).double()
    after = refine(net, bev, boxes, 0.01)
    assert (net(bev, after) >= net(bev, boxes)).all() and (net(bev, after) > net(bev, boxes)).any()
    torch.testing.assert_close(refine(net, bev, boxes[2:3], 0.01)[0], after[2])
    assert refine(net, bev, boxes[:0]).shape == (0, 7)
