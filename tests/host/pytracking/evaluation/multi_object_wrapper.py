"""Miniature: one tracker made, one deep copy for each object."""

import copy
from collections import OrderedDict


class MultiObjectWrapper:
    def __init__(self, base_tracker_class, params, visdom=None, fast_load=False):
        self.base_tracker_class, self.params = base_tracker_class, params
        self.visdom, self.fast_load = visdom, fast_load
        self.trackers = OrderedDict()
        if fast_load:
            self.tracker_copy = base_tracker_class(params)
            if hasattr(self.tracker_copy, "initialize_features"):
                self.tracker_copy.initialize_features()

    def create_tracker(self):
        tracker = None
        if self.fast_load:
            try:
                tracker = copy.deepcopy(self.tracker_copy)
            except Exception:
                print("deep copy failed")
        tracker = tracker or self.base_tracker_class(self.params)
        tracker.visdom = self.visdom
        return tracker

    def initialize(self, image, info):
        merged = OrderedDict()
        for key in info["object_ids"]:
            self.trackers[key] = self.create_tracker()
            out = self.trackers[key].initialize(image, {**info, "init_bbox": info["init_bbox"][key]})
            self._merge(merged, key, out or {})
        return merged

    def track(self, image, info):
        merged = OrderedDict()
        for key in info["sequence_object_ids"]:
            previous = {name: value[key] for name, value in info["previous_output"].items()}
            out = self.trackers[key].track(image, {**info, "previous_output": previous})
            self._merge(merged, key, out)
        return merged

    @staticmethod
    def _merge(merged, key, out):
        for name, value in out.items():
            merged.setdefault(name, OrderedDict())[key] = value
