"""Miniature: sequences of an OTB folder."""

import os

import numpy as np
from pytracking.evaluation.environment import env_settings


class Sequence:
    def __init__(self, name, frames, ground_truth):
        self.name, self.frames, self.ground_truth = name, frames, ground_truth

    def init_info(self):
        return {"init_bbox": list(self.ground_truth[0])}


def get_dataset(name):
    root = getattr(env_settings(), f"{name}_path")
    return [_sequence(root, name) for name in sorted(os.listdir(root))]


def _sequence(root, name):
    folder = os.path.join(root, name, "img")
    frames = [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
    return Sequence(name, frames, np.loadtxt(os.path.join(root, name, "groundtruth_rect.txt"), delimiter=","))
