"""The got10k toolkit itself runs the tracker on an OTB folder of one short sequence, and scores it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.checkpoints.native import save_checkpoint
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from tests.support.golden import dimp18, image
from tests.support.miniature_host import TINY

otb = pytest.importorskip("got10k.experiments.otb")
PARAMS = load_params("dimp18_nce_plus").replace(**TINY)
FRAMES = [np.roll(image("walk", 120, 160), (2 * t, 3 * t), (0, 1)) for t in range(4)]
BOXES = np.array([[60.0 + 3 * t, 40.0 + 2 * t, 34.0, 42.0] for t in range(4)])


@pytest.fixture
def folder(tmp_path):
    """OTB-2013 in which all sequences but Deer are empty folders; the toolkit passes over those."""
    for name in otb.OTB._OTB__version_dict[2013]:
        (tmp_path / name).mkdir()
    (tmp_path / "Deer/img").mkdir()
    for index, frame in enumerate(FRAMES, 1):
        cv2.imwrite(str(tmp_path / f"Deer/img/{index:04d}.jpg"), frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    np.savetxt(tmp_path / "Deer/groundtruth_rect.txt", BOXES, delimiter=",")
    return tmp_path


def test_experiment(folder, tmp_path):
    """The toolkit's file holds the boxes of the tracker on the same pictures, to its three decimals."""
    from ebmtrack.plugins.got10k import EbmTracker

    weights = tmp_path / "random.safetensors"
    save_checkpoint(weights, dimp18(), run={}, dtype=torch.float16)
    tracker = EbmTracker(PARAMS, weights, name="ours")
    experiment = otb.ExperimentOTB(str(folder), 2013, str(tmp_path / "results"), str(tmp_path / "reports"))
    experiment.run(tracker)
    stored = np.loadtxt(tmp_path / "results/OTB2013/ours/Deer.txt", delimiter=",")
    pictures = [cv2.imread(str(path))[:, :, ::-1] for path in sorted((folder / "Deer/img").iterdir())]
    alone = Tracker(tracker.tracker.engine, PARAMS)
    alone.init(pictures[0], BOXES[0])
    expected = np.array([BOXES[0], *(alone.update(picture).box_xywh for picture in pictures[1:])])
    assert np.abs(stored - expected).max() <= 5.1e-4
    assert tracker.is_deterministic


def test_names(monkeypatch):
    """Results of different set-ups get different folders."""
    from ebmtrack.plugins.got10k import EbmTracker

    monkeypatch.setattr(Tracker, "from_pretrained", lambda *chosen: chosen)
    assert EbmTracker().name == "ebmtrack_dimp18_nce_plus"
    assert EbmTracker("super_dimp", "a.safetensors", "cuda").tracker == ("super_dimp", "a.safetensors", "cuda")
    assert EbmTracker("/my set-ups/mine.py").name == "ebmtrack_mine"
    assert EbmTracker(PARAMS).name == "ebmtrack_custom" and EbmTracker(name="mine").name == "mine"
