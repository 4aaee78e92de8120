"""Puts the miniature of pytracking (tests/host) and an OTB folder into a temporary folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from tests.support import HOST

LOCAL = """
class Paths:
    results_path = {root!r} + "/results"
    network_path = [{root!r} + "/networks"]
    otb_path = {root!r} + "/otb"


def local_env_settings():
    return Paths()
"""
LOCAL_TRAINING = """
class EnvironmentSettings:
    def __init__(self):
        self.workspace_dir = {root!r} + "/workspace"
        self.got10k_dir = {root!r} + "/data/got10k/train"
        self.coco_dir = {root!r} + "/data/coco"
        self.lasot_dir = ""
"""
TINY = {"sample_size": 144, "not_found_threshold": -10.0, "shift_fracs": (), "rotations_deg": (), "blur_sigmas": ()}
OWN_SET_UP = f"""
from ebmtrack.plugins.pytracking import parameters_of


def parameters():
    return parameters_of("dimp18_nce_plus", "cpu", weights="random", **{TINY})
"""


def make_host(root: Path) -> Path:
    """A checkout in `root`, with packages, local paths, and one set-up of the user's own, called tiny."""
    shutil.copytree(HOST, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "ltr/train_settings").mkdir(exist_ok=True)  # git keeps no empty folder
    for folder in [root / "pytracking", root / "ltr", *root.glob("*/*/"), *root.glob("*/*/*/")]:
        if folder.is_dir():
            (folder / "__init__.py").touch()
    (root / "pytracking/evaluation/local.py").write_text(LOCAL.format(root=str(root)))
    (root / "ltr/admin/local.py").write_text(LOCAL_TRAINING.format(root=str(root)))
    own = root / "pytracking/parameter/ebmtrack/tiny.py"
    own.parent.mkdir()
    own.write_text(OWN_SET_UP)
    return root


def write_sequence(root: Path, name: str, frames_rgb: list[np.ndarray], box_xywh: tuple[float, ...]) -> None:
    """A sequence in the OTB folder of the checkout; the truth of later frames is not used."""
    folder = root / "otb" / name / "img"
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames_rgb, 1):
        cv2.imwrite(str(folder / f"{index:04d}.png"), frame[:, :, ::-1])
    np.savetxt(folder.parent / "groundtruth_rect.txt", [box_xywh] * len(frames_rgb), delimiter=",")
