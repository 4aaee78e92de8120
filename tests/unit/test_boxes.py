"""Box conversions return, relative coordinates equal golden numbers, overlap obeys its laws."""

from __future__ import annotations

import pytest
import torch

from ebmtrack import boxes as b
from tests.support.golden import arrays

BOXES = torch.rand(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 80 + 1
OTHERS = torch.rand(50, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 80 + 1


@pytest.mark.parametrize(
    "there, back",
    [
        (b.xywh_to_xyxy, b.xyxy_to_xywh),
        (b.xywh_to_cxcywh, b.cxcywh_to_xywh),
        (lambda x: b.xywh_to_rel(x, OTHERS[:, 2:]), lambda x: b.rel_to_xywh(x, OTHERS[:, 2:])),
    ],
)
def test_round_trips(there, back):
    assert torch.allclose(back(there(BOXES)), BOXES)
    assert torch.allclose(there(back(there(BOXES))), there(BOXES))


def test_relative_coordinates_equal_golden_numbers():
    golden = arrays("common")
    got = b.xywh_to_rel(golden["box/xywh"], golden["box/size_norm"])
    assert torch.allclose(got, golden["box/rel"], atol=1e-5)


def test_overlap_is_symmetric_bounded_and_one_with_itself():
    iou = b.iou_xywh(BOXES, OTHERS)
    assert torch.equal(iou, b.iou_xywh(OTHERS, BOXES)) and (iou >= 0).all() and (iou <= 1).all()
    assert torch.allclose(b.iou_xywh(BOXES, BOXES), torch.ones(50, dtype=torch.float64))


def test_overlap_does_not_change_with_shift_and_scale():
    moved, other = (torch.cat([x[:, :2] * 3 + 17, x[:, 2:] * 3], dim=1) for x in (BOXES, OTHERS))
    assert torch.allclose(b.iou_xywh(moved, other), b.iou_xywh(BOXES, OTHERS))


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ((0, 0, 10, 10), (5, 0, 10, 10), 1 / 3),  # 50 shared of 150
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((2, 2, 2, 2), (0, 0, 8, 8), 4 / 64),
    ],
)
def test_overlap_by_hand(first, second, expected):
    got = b.iou_xywh(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64))
    assert got.item() == pytest.approx(expected)


def test_no_boxes_are_fine():
    empty = torch.zeros(0, 4)
    assert b.xywh_to_xyxy(empty).shape == (0, 4) and b.iou_xywh(empty, empty).shape == (0,)
