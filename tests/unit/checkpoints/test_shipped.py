"""The network that ships: what its file says, and that it tracks; the real sequences in a slow check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ebmtrack.boxes import iou_xywh
from ebmtrack.checkpoints.native import read_metadata, resolve_weights
from ebmtrack.engines.base import read_trained_on
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.viewers.demo_sequence import demo_sequence
from tests.support import SEQUENCES
from tests.support.golden import FEW_VIEWS


def overlaps(got, truth) -> np.ndarray:
    return iou_xywh(torch.tensor(np.array(got)), torch.tensor(np.array(truth))).numpy()


def test_the_file_says_what_it_is():
    metadata = read_metadata(resolve_weights())
    assert metadata["architecture"] == "dimp18" and metadata["dtype"] == "float16"
    assert sum(part["share"] for part in metadata["run"]["mean of"]) == pytest.approx(1)
    trained, params = read_trained_on(metadata["settings"]), load_params("dimp18_nce_plus")
    assert trained is not None and trained.search_factor == 5
    size = trained.sample_size / trained.search_factor  # of a target, in pixels of the patch
    assert params.sample_size / params.search_factor == pytest.approx(size, rel=0.01)
    assert resolve_weights().stat().st_size < 23e6
    assert resolve_weights().with_suffix(".md").exists()


@pytest.fixture(scope="module")
def sequence():
    return demo_sequence()


@pytest.fixture(scope="module")
def boxes(sequence):
    return boxes_of(sequence, 52, device="cpu")


def boxes_of(sequence, end: int, **options) -> list[tuple[float, ...]]:
    """Return the boxes in frames 1 to `end` - 1."""
    tracker = Tracker.from_pretrained(**options)
    tracker.init(sequence.frames[0], sequence.boxes_xywh[0])
    return [tracker.update(sequence.frames[t]).box_xywh for t in range(1, end)]


def test_it_follows_the_built_in_sequence(sequence, boxes):
    """Forty frames of motion, then eleven that the cup grows in: every box overlaps, the mean is over 0.7."""
    iou = overlaps(boxes, sequence.boxes_xywh[1:52])
    assert iou.min() > 0.5 and iou.mean() > 0.7


@pytest.mark.parametrize("precision, end", [("float32", 13), ("bfloat16", 4)])
def test_precision_changes_no_more_than_noise(sequence, boxes, precision, end):
    """PyTorch follows the same target as ONNX Runtime in float32: boxes overlap by over 0.8 in twelve frames.

    Bfloat16, which CPUs without it emulate, has two views of the first frame, three frames, and learns from each.
    """
    params = load_params("dimp18_nce_plus")
    if precision == "bfloat16":
        params = params.replace(update_every=1, **FEW_VIEWS)
    others = boxes_of(sequence, end, params=params, engine="torch", precision=precision)
    assert overlaps(boxes[: end - 1], others).min() > 0.8


@pytest.mark.slow
@pytest.mark.skipif(not SEQUENCES.is_dir(), reason=f"needs the test sequences: none at {SEQUENCES}")
def test_success_on_real_sequences(tmp_path):
    """Mean AUC over the ten development sequences, three seeds, first frame left out: at least 0.68."""
    from ebmtrack.evaluation.evaluate import evaluate

    evaluation = evaluate(["dimp18_nce_plus"], "folder", SEQUENCES, runs=3, out=tmp_path)
    runs = evaluation.scores["dimp18_nce_plus"]
    means = [np.mean([score.auc for score in run.values()]) for run in runs]
    assert evaluation.complete and len(runs) == 3 and all(len(run) == 10 for run in runs)
    assert np.mean(means) >= 0.68
