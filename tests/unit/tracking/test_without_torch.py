"""The tracker runs where torch cannot be found."""

from __future__ import annotations

from tests.support.hidden import run_without

TORCH = ("torch", "torchvision")
PROGRAM = """
import sys
import importlib, pkgutil
import numpy as np
import ebmtrack.tracking, ebmtrack.tracker_params
for package in (ebmtrack.tracking, ebmtrack.tracker_params):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
from ebmtrack import MultiTracker, Tracker
from ebmtrack.tracking.params import load_params
from tests.support.scripted_engine import ScriptedEngine, scores
image = np.zeros((200, 300, 3), np.uint8)
params = load_params("dimp18_nce_plus").replace(energy_adaptation=0.0)
tracker = Tracker(ScriptedEngine().show(scores((9, 9, 0.9))), params)
tracker.init(image, (100, 80, 40, 30))
print(tracker.update(image).verdict, "torch" in sys.modules)
"""


def test_tracking_imports_and_runs_without_torch_and_onnxruntime():
    assert run_without((*TORCH, "onnxruntime"), PROGRAM).split() == ["normal", "False"]


TRACK = """
import sys
from ebmtrack import Tracker
from ebmtrack.errors import EbmtrackError
import numpy as np

yy, xx = np.mgrid[:240, :320]
inside = (abs(xx - 130) < 30) & (abs(yy - 105) < 25)
scene = np.stack([np.where(inside, (xx * 13 + yy * k) % 256, 120 + xx // 8) for k in (3, 7, 11)], axis=-1)
scene = scene.astype(np.uint8)
tracker = Tracker.from_pretrained(device="cpu")
tracker.init(scene, (100, 80, 60, 50))
boxes = [tracker.update(scene).box_xywh for _ in range(2)]
print(tracker.engine.info.device, tracker.engine.info.precision, "torch" in sys.modules)
print(*boxes[-1])
"""
WRONG = """
for wrong in ({"weights": "mine.safetensors"}, {"weights": __import__("sys").argv[1]}, {"engine": "torch"}):
    try:
        Tracker.from_pretrained(**wrong)
    except EbmtrackError as error:
        print(error)
"""


def test_boxes_on_a_cpu_do_not_depend_on_whether_torch_is_installed():
    """They are equal to the bit, and torch is not imported."""
    with_torch, without = (run_without(packages, TRACK) for packages in ((), TORCH))
    assert with_torch == without and with_torch.startswith("cpu float32 False\n")


def test_the_network_that_ships_tracks_without_torch(tmp_path):
    (tmp_path / "there.safetensors").touch()
    printed = run_without(TORCH, TRACK + WRONG, str(tmp_path / "there.safetensors"))
    info, box, absent, not_exported, no_torch = printed.splitlines()
    device, precision, has_torch = info.split()
    assert (device, precision, has_torch) == ("cpu", "float32", "False")
    x, y, w, h = map(float, box.split())
    assert 60 < x < 140 and 40 < y < 120 and 20 < w < 140 and 20 < h < 140
    assert "mine.safetensors: no such file of weights" in absent
    assert "there.safetensors --out FOLDER" in not_exported and "ebmtrack[export]" in not_exported
    assert "ebmtrack[train]" in no_torch
