"""The tracker runs where torch cannot be found."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "onnxruntime"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
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
tracker = Tracker(ScriptedEngine().show(scores((9, 9, 0.9))), load_params("dimp18_nce_plus"))
tracker.init(image, (100, 80, 40, 30))
print(tracker.update(image).verdict, "torch" in sys.modules)
"""


def test_tracking_imports_and_runs_without_torch_and_onnxruntime():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["normal", "False"], done.stderr[-3000:]
