"""The branch, the level of a box, guided suppression and the ascent."""

from __future__ import annotations

import pytest
import torch

from ebmtrack.detection.branch import DetectionEnergy, box_levels
from ebmtrack.detection.host import FeatureMaps
from ebmtrack.detection.refine import STEP_LENGTHS, StepLengths, guided_nms, refine_boxes
from ebmtrack.errors import ConfigError

TARGET = torch.tensor([30.0, 20.0, 90.0, 70.0])


def feature_maps(images: int = 2, channels: int = 3, dtype=torch.float64) -> FeatureMaps:
    """Random maps of 256 x 256 images at four strides."""
    torch.manual_seed(0)
    maps = [torch.randn(images, channels, 256 // s, 256 // s, dtype=dtype) for s in (4, 8, 16, 32)]
    return FeatureMaps(maps, [4, 8, 16, 32], torch.ones(images, 2, dtype=dtype))


def small_branch(**more) -> DetectionEnergy:
    torch.manual_seed(1)
    branch = DetectionEnergy(3, classes=5, hidden=8, canonical=64.0, **more).double()
    torch.nn.init.normal_(branch.scores.weight)
    return branch


@pytest.mark.parametrize(
    "side, level", [(112, 1), (224, 2), (448, 3), (896, 3), (111, 0), (10, 0), (223, 1), (2000, 3)]
)
def test_level_of_a_square_box(side, level):
    """The spec's cases: areas 112^2, 224^2, 448^2, 896^2 -> P3, P4, P5, P5."""
    assert box_levels(torch.tensor([[5.0, 7.0, 5.0 + side, 7.0 + side]]), [4, 8, 16, 32]).tolist() == [level]


def test_level_counts_area_and_strides_that_exist():
    boxes = torch.tensor([[0.0, 0, 56, 224], [0, 0, 20, 20], [0, 0, 0, 10]])
    assert box_levels(boxes, [4, 8, 16, 32]).tolist() == [1, 0, 0]
    assert box_levels(boxes, [8, 16]).tolist() == [0, 0, 0]


def test_gradient_in_the_box_is_that_of_finite_differences():
    """Boxes of three levels and two images; the level itself has no gradient."""
    maps, branch = feature_maps(), small_branch()
    boxes = torch.tensor([[10.3, 12.1, 29.7, 34.2], [40, 50, 81.3, 90.1], [20.2, 31, 180.7, 201.4]]).double()
    images, labels = torch.tensor([0, 1, 0]), torch.tensor([1, 4, 2])
    assert box_levels(boxes, maps.strides, 64.0).tolist() == [0, 1, 3]
    assert torch.autograd.gradcheck(lambda b: branch(maps, b, images, labels), boxes.requires_grad_(), atol=1e-6)


def test_each_box_has_the_score_of_its_label_image_and_level():
    """A batch of boxes equals its boxes one by one, and the label picks the column."""
    maps, branch = feature_maps(), small_branch()
    boxes = torch.tensor([[20.2, 31, 180.7, 201.4], [10.3, 12.1, 29.7, 34.2], [40, 50, 81.3, 90.1]]).double()
    images, labels = torch.tensor([1, 0, 1]), torch.tensor([3, 0, 4])
    together = branch(maps, boxes, images, labels)
    for row in range(3):
        alone = maps.image(int(images[row]))
        features = branch.pool(alone, boxes[row : row + 1], torch.zeros(1, dtype=torch.long))
        scores = branch.scores(branch.fc2(branch.fc1(features).relu()).relu())
        torch.testing.assert_close(together[row], scores[0, labels[row]])
    assert branch(maps, boxes[:0], images[:0], labels[:0]).shape == (0,)


def test_pooling_a_ramp_gives_the_bins_centres():
    """On maps whose value is the column in pixels, the mean over a bin is the bin's centre."""
    ramps = [torch.arange(256 // s).double().expand(1, 1, 256 // s, 256 // s) * s for s in (4, 8)]
    maps = FeatureMaps(ramps, [4, 8], torch.ones(1, 2).double())
    branch = DetectionEnergy(1, canonical=224.0).double()
    for box in ([40.0, 60.0, 68.0, 88.0], [33.0, 41.0, 173.0, 181.0]):
        pooled = branch.pool(maps, torch.tensor([box]).double(), torch.tensor([0])).view(7, 7)
        centres = box[0] + (torch.arange(7) + 0.5).double() * (box[2] - box[0]) / 7
        torch.testing.assert_close(pooled, centres.expand(7, 7), atol=1e-6, rtol=0)


def test_guided_nms_orders_by_energy_and_inherits_the_score():
    """Of three overlapping boxes the one with the highest energy stays, with the best score; the far one stays too."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 1, 10, 11], [50, 50, 60, 60]])
    scores, f = torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([1.0, 3.0, 2.0, 5.0])
    stay, best = guided_nms(boxes, scores, f)
    assert stay.tolist() == [3, 1] and best.tolist() == pytest.approx([0.4, 0.9])


def test_guided_nms_edge_cases():
    """An absorbed box absorbs nothing; ties go by index; exactly 0.5 stays; no boxes and boxes without area pass."""
    chain = torch.tensor([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])  # overlaps 7/13, 7/13, 4/16
    stay, best = guided_nms(chain, torch.tensor([0.1, 0.8, 0.3]), torch.tensor([3.0, 2.0, 1.0]))
    assert stay.tolist() == [0, 2] and best.tolist() == pytest.approx([0.8, 0.3])
    assert guided_nms(chain[[0, 0]], torch.tensor([0.1, 0.2]), torch.tensor([1.0, 1.0]))[0].tolist() == [0]
    half = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    assert guided_nms(half, torch.ones(2), torch.tensor([1.0, 0.0]))[0].tolist() == [0, 1]
    assert guided_nms(half[:0], torch.ones(0), torch.ones(0))[0].shape == (0,)
    assert guided_nms(torch.zeros(1, 4), torch.ones(1), torch.ones(1))[1].tolist() == [1.0]


def gaussian(boxes_xyxy: torch.Tensor) -> torch.Tensor:
    """Log density of a Gaussian of width 0.05 of the target's size around TARGET's corners."""
    return -0.5 * ((boxes_xyxy - TARGET.to(boxes_xyxy)) / 3.0).square().sum(dim=-1)


@pytest.mark.parametrize("lengths", [StepLengths(0.0008, 0.0032), StepLengths(0.05, 0.05, 0.1, "pixels")])
def test_boxes_climb_to_the_mode_and_never_fall(lengths):
    torch.manual_seed(3)
    start = TARGET + 4 * torch.randn(20, 4)
    end = refine_boxes(gaussian, start, lengths, steps=60)
    assert (gaussian(end) >= gaussian(start)).all()
    assert (end - TARGET).abs().max() < 0.5 < (start - TARGET).abs().max()
    torch.testing.assert_close(refine_boxes(gaussian, start[3:4], lengths, steps=60)[0], end[3])


def test_refinement_with_nothing_to_do():
    lengths = STEP_LENGTHS["nce_plus"]
    start = TARGET[None] + 3
    torch.testing.assert_close(refine_boxes(gaussian, start, lengths, steps=0), start)
    assert refine_boxes(gaussian, start[:0], lengths).shape == (0, 4)
    with pytest.raises(ConfigError, match="box 1 has no area"):
        refine_boxes(gaussian, torch.tensor([[0.0, 0, 1, 1], [5, 5, 5, 9]]), lengths)
