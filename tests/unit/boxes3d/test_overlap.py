"""Overlaps of rotated boxes against shapely, and cases made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ebmtrack.boxes3d.overlap import corners_bev, intersection_area, overlap_matrix, overlap_pairs


def random_boxes(number: int, seed: int) -> torch.Tensor:
    """Boxes that are near each other, some thin."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(number, 7, generator=generator).double()
    low, high = (torch.tensor(v).double() for v in ([-2, -2, -1, 0.1, 0.1, 0.5, -7], [2, 2, 1, 3, 6, 3, 7.0]))
    return low + (high - low) * uniform


def test_against_shapely():
    """10,000 random pairs; every twentieth pair shares its angle, every fiftieth is one box twice."""
    shapely = pytest.importorskip("shapely")
    first, second = random_boxes(10_000, 1), random_boxes(10_000, 2)
    second[::20, 6] = first[::20, 6]
    second[::50] = first[::50]
    a, b = corners_bev(first), corners_bev(second)
    ours = intersection_area(a, b)
    polygons = [shapely.polygons(each.numpy()) for each in (a, b)]
    theirs = torch.from_numpy(shapely.area(shapely.intersection(*polygons)))
    assert (ours - theirs).abs().max() < 1e-8
    assert 0.1 < (theirs == 0).double().mean() < 0.9


def test_corners_are_anticlockwise_and_turn_as_the_grid():
    from ebmtrack.boxes3d.energy import rotated_grid

    boxes = random_boxes(50, 3)
    corners, grid = corners_bev(boxes), rotated_grid(boxes)
    edges = corners.roll(-1, dims=1) - corners
    assert (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0] > 0).all()
    expected = torch.stack([grid[:, 3, 0], grid[:, 3, 6], grid[:, 0, 6], grid[:, 0, 0]], dim=1)
    torch.testing.assert_close(corners, expected, atol=1e-6, rtol=0)


def test_cases_by_hand():
    """Itself, half shifted, a quarter turn, a square turned by 45 degrees, apart, above each other, stacked half."""
    square = torch.tensor([0.0, 0, 0, 2, 2, 2, 0])
    changes = torch.tensor(
        [
            [0.0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, math.pi / 2],
            [0, 0, 0, 0, 0, 0, math.pi / 4],
            [5, 0, 0, 0, 0, 0, 0],
            [0, 0, 2, 0, 0, 0, 0],
            [0, 0, 1, 0, 0, 0, 0],
            [2, 0, 0, 0, 0, 0, 0],
        ]
    )
    octagon = 8 * (math.sqrt(2) - 1)  # of a square of side 2 and itself turned
    eighth = octagon / (8 - octagon)
    flat, space = overlap_pairs(square.expand(8, 7), square + changes)
    assert flat.tolist() == pytest.approx([1, 1 / 3, 1, eighth, 0, 1, 1, 0], abs=1e-7)
    assert space.tolist() == pytest.approx([1, 1 / 3, 1, eighth, 0, 0, 1 / 3, 0], abs=1e-7)


def test_matrix_is_all_pairs_and_symmetric():
    first, second = random_boxes(4, 5), random_boxes(3, 6)
    for ours, back in zip(overlap_matrix(first, second), overlap_matrix(second, first)):
        assert ours.shape == (4, 3) and torch.allclose(ours, back.T) and (0 <= ours).all() and (ours <= 1).all()
    assert overlap_matrix(first[:0], second)[0].shape == (0, 3)
    pair = overlap_pairs(first[1:2], second[2:3])
    assert overlap_matrix(first, second)[1][1, 2] == pytest.approx(pair[1].item())


def test_the_conversions_of_the_page_on_other_toolboxes():
    """A box of (dx, dy) turned by yaw, anticlockwise from x, has our corners, and its heading is that of KITTI's ry."""
    x, y, z, dx, dy, dz, yaw = torch.tensor([4.0, -2, 0.5, 3.9, 1.6, 1.5, 0.7]).double()
    boxes = torch.stack([x, y, z - dz / 2, dy, dx, dz, -yaw - torch.pi / 2])
    turn = torch.tensor([[yaw.cos(), -yaw.sin()], [yaw.sin(), yaw.cos()]]).double()
    local = torch.tensor([[dx / 2, dy / 2], [-dx / 2, dy / 2], [-dx / 2, -dy / 2], [dx / 2, -dy / 2]]).double()
    expected = local @ turn.T + torch.stack([x, y])
    distance = torch.cdist(corners_bev(boxes), expected)
    assert distance.min(dim=0).values.max() < 1e-9 and distance.min(dim=1).values.max() < 1e-9
    ry = boxes[6]  # KITTI: the car's front is at (cos ry, -sin ry) in the camera's x and z, that is -y and x here
    torch.testing.assert_close(torch.stack([-ry.sin(), -ry.cos()]), torch.stack([yaw.cos(), yaw.sin()]))
