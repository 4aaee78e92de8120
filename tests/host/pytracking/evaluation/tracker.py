"""Miniature: the wrapper through which the host sees every tracker."""

import importlib
import os
import time
from collections import OrderedDict

import cv2 as cv
import numpy as np
from pytracking.evaluation.environment import env_settings
from pytracking.evaluation.multi_object_wrapper import MultiObjectWrapper


class Tracker:
    def __init__(self, name, parameter_name, run_id=None, display_name=None):
        self.name, self.parameter_name, self.run_id, self.display_name = name, parameter_name, run_id, display_name
        results_path = env_settings().results_path
        suffix = "" if run_id is None else f"_{run_id:03d}"
        self.results_dir = f"{results_path}/{name}/{parameter_name}{suffix}"
        folder = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "tracker", name))
        if os.path.isdir(folder):
            self.tracker_class = importlib.import_module(f"pytracking.tracker.{name}").get_tracker_class()
        else:
            self.tracker_class = None
        self.visdom = None

    def create_tracker(self, params):
        tracker = self.tracker_class(params)
        tracker.visdom = self.visdom
        return tracker

    def get_parameters(self):
        return importlib.import_module(f"pytracking.parameter.{self.name}.{self.parameter_name}").parameters()

    def run_sequence(self, seq, debug=None):
        params = self.get_parameters()
        params.visualization, params.debug = False, debug
        params.tracker_name, params.param_name = self.name, self.parameter_name  # run_id: in the VOT methods only
        return self._track_sequence(self.create_tracker(params), seq, seq.init_info())

    def _track_sequence(self, tracker, seq, init_info):
        output = {"target_bbox": [], "time": [], "object_presence_score": []}
        first = {"target_bbox": init_info["init_bbox"], "object_presence_score": 1.0}
        previous = None
        for index, frame in enumerate(seq.frames):
            image = self._read_image(frame)
            start = time.time()
            if index == 0:
                out = tracker.initialize(image, init_info) or {}
            else:
                out = tracker.track(image, {"previous_output": previous})
            previous = OrderedDict(out)
            out = {**({} if index else first), "time": time.time() - start, **out}
            for key in output:
                if key in out:
                    output[key].append(out[key])
        lengths = {key: len(values) for key, values in output.items()}
        assert set(lengths.values()) == {len(seq.frames)}, f"lengths differ: {lengths}"
        return output

    def run_video_generic(self, videofilepath, boxes, save_results=False):
        params = self.get_parameters()
        params.tracker_name, params.param_name = self.name, self.parameter_name
        if getattr(params, "multiobj_mode", getattr(self.tracker_class, "multiobj_mode", "default")) != "parallel":
            raise ValueError("video needs multiobj_mode parallel")
        tracker = MultiObjectWrapper(self.tracker_class, params, self.visdom, fast_load=True)
        threshold = params.get("object_presence_score_threshold", 0.55)
        ids = list(range(1, len(boxes) + 1))
        info = {"init_bbox": OrderedDict(zip(ids, boxes)), "object_ids": ids, "sequence_object_ids": ids}
        stored, self.drawn = {key: [] for key in ids}, {key: 0 for key in ids}
        capture = cv.VideoCapture(videofilepath)
        out = None
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            if out is None:
                out = tracker.initialize(frame, {**info, "init_other": OrderedDict()})
            else:
                out = tracker.track(frame, {"previous_output": OrderedDict(out), "sequence_object_ids": ids})
            for key, box in out["target_bbox"].items():
                stored[key].append([int(value) for value in box])
                self.drawn[key] += out["object_presence_score"][key] > threshold
        self.wrapper = tracker
        if save_results:
            self._save_video(videofilepath, stored)

    def _save_video(self, path, stored):
        os.makedirs(self.results_dir, exist_ok=True)
        stem = os.path.splitext(os.path.basename(path))[0]
        for key, boxes in stored.items():
            np.savetxt(f"{self.results_dir}/video_{stem}_{key}.txt", boxes, delimiter="\t", fmt="%d")

    def _read_image(self, path):
        return cv.cvtColor(cv.imread(path), cv.COLOR_BGR2RGB)
