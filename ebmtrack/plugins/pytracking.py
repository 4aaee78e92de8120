"""The tracker as pytracking meets it: class, parameters, training runs; errors are shown before the host hides them.

In a file of your own, `pytracking/parameter/ebmtrack/mine.py` in the checkout:

    from ebmtrack.plugins.pytracking import parameters_of

    def parameters():
        return parameters_of("dimp18_nce_plus", weights="/data/mine.safetensors", ascent_steps=20, device="cpu")
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ebmtrack.checkpoints.native import resolve_weights
from ebmtrack.checkpoints.pytracking import import_pytracking
from ebmtrack.checkpoints.untrusted import kind_of
from ebmtrack.engines.atom_engine import AtomEngine
from ebmtrack.engines.torch_engine import TorchEngine, check_device, load_torch_engine
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.plugins.pytracking_names import NAME, PARAMETERS, TRACKER, TRAINING
from ebmtrack.tracking.params import TrackerParams, load_params
from ebmtrack.tracking.tracker import Tracker, TrackResult, warn_of_other_regions
from ebmtrack.videos.paths import said_place, variable

ENDINGS = (".safetensors", ".pth.tar", ".pth")
FIELDS = tuple(field.name for field in dataclasses.fields(TrackerParams))
ENGINES = {"network": TorchEngine, "atom": AtomEngine}  # by TrackerParams.classifier


class HostParams:
    """A bag of attributes, as the host expects parameters: it reads with get and has, and writes what it likes.

    It holds all fields of TrackerParams, and device ("cpu", "cuda", "cuda:1"; None: a GPU if there is one).
    """

    def __init__(self, params: TrackerParams, device: str | None = None):
        self.set_default_values({name: getattr(params, name) for name in FIELDS})
        self.device = device
        self.object_presence_score_threshold = params.not_found_threshold  # the host hides objects below it

    def get(self, name: str, *default: Any) -> Any:
        """Return the value of `name`; if it is absent the default, or AttributeError without one."""
        if len(default) > 1:
            raise ConfigError(f"get({name!r}) takes one default, got {len(default)}")
        return getattr(self, name, *default)

    def has(self, name: str) -> bool:
        """Return whether there is a value for `name`."""
        return hasattr(self, name)

    def set_default_values(self, values: Mapping[str, Any]) -> None:
        """Set those of `values` that have none yet."""
        for name, value in values.items():
            if not hasattr(self, name):
                setattr(self, name, value)


class HostTracker:
    """One target in pytracking. Images are uint8 (height, width, 3), boxes x, y, w, h in pixels."""

    multiobj_mode = "parallel"  # the host makes one copy for each object; they share the network

    def __init__(self, params: Any):
        self.params, self.frame = params, 0
        self.visdom: Any = None  # the host sets it
        with report_errors("when the tracker was made"):
            set_up = _tracker_params(params)
            self.tracker = Tracker(_network(set_up, getattr(params, "device", None)), set_up)

    def __deepcopy__(self, memo: dict) -> HostTracker:
        twin = copy.copy(self)
        twin.params, twin.tracker = copy.deepcopy(self.params, memo), copy.deepcopy(self.tracker, memo)
        return twin

    def initialize_features(self) -> None:
        """Do nothing: the network is loaded already."""

    def predicts_segmentation_mask(self) -> bool:
        """Return False: there are boxes only."""
        return False

    def initialize(self, image: np.ndarray, info: Mapping[str, Any]) -> dict[str, Any]:
        """Start on info["init_bbox"]; returns that box and a presence of 1."""
        self.frame = 1
        with report_errors("in frame 1"):
            box = info.get("init_bbox")
            if box is None:
                raise ConfigError("the first frame came without init_bbox: this tracker starts from a box")
            seed = _tracker_params(self.params).seed + (getattr(self.params, "run_id", None) or 0)
            self.tracker.init(self._rgb(image), box, seed=seed)
            return {"target_bbox": [float(value) for value in box], "object_presence_score": 1.0}

    def track(self, image: np.ndarray, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the next frame: target_bbox, and object_presence_score from 0 to 1 (the highest classifier score)."""
        self.frame += 1
        with report_errors(f"in frame {self.frame}"):
            result = self.tracker.update(self._rgb(image))
            self._show(result)
            presence = min(max(float(result.score), 0.0), 1.0)
            return {"target_bbox": [float(v) for v in result.box_xywh], "object_presence_score": presence}

    def visdom_draw_tracking(self, image: np.ndarray, box: Any, segmentation: Any = None) -> None:
        """Send the frame with its boxes (a box, a list of boxes, or a dict of them) to visdom."""
        boxes = list(box.values()) if isinstance(box, Mapping) else list(box)
        if boxes and np.ndim(boxes[0]) == 0:
            boxes = [boxes]
        masks = () if segmentation is None else (segmentation,)
        self.visdom.register((image, *boxes, *masks), "Tracking", 1, "Tracking")

    def _rgb(self, image: np.ndarray) -> np.ndarray:
        """Return the image as RGB: from videos and cameras the host hands on BGR."""
        if getattr(self.params, "frames_are_bgr", False) and np.ndim(image) == 3:
            return np.ascontiguousarray(image[:, :, ::-1])
        return image

    def _show(self, result: TrackResult) -> None:
        """Send score map and verdict to visdom, if it is used."""
        if self.visdom is not None:
            self.visdom.register(torch.from_numpy(result.score_map), "heatmap", 2, "Score map")
            status = {"verdict": result.verdict, "score": result.score}
            self.visdom.register(status, "info_dict", 1, "Status")


def fill(module: ModuleType) -> None:
    """Give a module that the hook made what the host looks for in it."""
    package, _, name = module.__name__.rpartition(".")
    if module.__name__ == TRACKER:
        vars(module)["get_tracker_class"] = lambda: HostTracker
    elif package == PARAMETERS:
        with report_errors(f"when the parameters {name!r} were looked up"):
            load_params(name)
        vars(module)["parameters"] = functools.partial(parameters_of, name)
    elif package == TRAINING:
        vars(module)["run"] = functools.partial(train, name)


def parameters_of(name: str, device: str | None = None, **changes: Any) -> HostParams:
    """Return the set-up `name` of tracker_params for the host, with changes to its fields."""
    with report_errors(f"when the parameters {name!r} were read"):
        return HostParams(load_params(name).replace(**changes), device)


def train(name: str, settings: Any) -> Path:
    """Run the training file ltr_settings/<name>.py with the folders that the host's local.py names.

    Args:
        name: Name of the training file.
        settings: The host's object. Used of its `env`: `workspace_dir`; `lasot_dir`, `got10k_dir`, `trackingnet_dir`,
            `coco_dir`; `ebmtrack_dir`, the folder of another pool (else the common folder of the data sets);
            `pretrained_networks`, a folder with backbone weights such as resnet50-0676ba61.pth; `ebmtrack_backbone`, a
            file of backbone weights.

    Returns:
        The path of the trained network.

    Raises:
        ConfigError: If no folder of training data is named.
    """
    from ebmtrack.training.command import load_run, train_named
    from ebmtrack.training.settings import RunSettings

    env, taken = settings.env, take_data_folders(settings.env)
    data = getattr(env, "ebmtrack_dir", "") or _common_folder(env)
    if not data and not taken:
        raise ConfigError(
            f"where is the data of {name}? Set lasot_dir, got10k_dir, trackingnet_dir and coco_dir, or add "
            "self.ebmtrack_dir = 'FOLDER', in ltr/admin/local.py"
        )
    gpu = getattr(settings, "use_gpu", True) and torch.cuda.is_available()
    out = Path(env.workspace_dir) / "checkpoints" / "ltr" / NAME / name  # as the host's own runs
    run = RunSettings(out=out, data=Path(data or taken[0][1]), device="cuda" if gpu else "cpu")
    backbone = _backbone_file(env, str(load_run(name).Settings().backbone))
    if backbone is not None:
        run = dataclasses.replace(run, backbone=str(backbone))
        taken.append(("backbone", str(backbone)))
    for what, path in taken:
        print(f"ebmtrack: {what} from {path} (ltr/admin/local.py)")
    return train_named(name, run)


DATA_FOLDERS = {"lasot": "lasot_dir", "got10k": "got10k_dir", "trackingnet": "trackingnet_dir", "coco": "coco_dir"}


def take_data_folders(env: Any) -> list[tuple[str, str]]:
    """Let training find the data sets in the folders of the host's `env`; return what was taken, (name, folder).

    A folder that EBMTRACK_<NAME> or the file of paths gives counts more. Only folders that exist are taken.
    """
    taken = []
    for name, attribute in DATA_FOLDERS.items():
        folder = getattr(env, attribute, "") or ""
        if folder and os.path.isdir(folder) and said_place(name) is None:
            os.environ[variable(name)] = os.path.abspath(folder)
            taken.append((name, os.path.abspath(folder)))
    return taken


def _backbone_file(env: Any, backbone: str) -> Path | None:
    """Return the file of backbone weights that `env` names or has in its folder; None if there is none."""
    named = getattr(env, "ebmtrack_backbone", "") or ""
    if named:
        return Path(named)
    folder = getattr(env, "pretrained_networks", "") or ""
    if not folder or not os.path.isdir(folder):
        return None
    files = [f for f in sorted(Path(folder).iterdir()) if f.suffix in (".pth", ".safetensors")]
    return next((f for f in files if f.stem == backbone or f.stem.startswith(backbone + "-")), None)


@contextmanager
def report_errors(where: str) -> Iterator[None]:
    """Print one line about an exception on stderr before it goes on: the host may swallow it."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "told_by_ebmtrack", False):
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())
            kind = type(error).__name__
            line = f"ebmtrack: error {where}: {kind}: {text} ({place.filename}, line {place.lineno})"
            print(line, file=sys.stderr, flush=True)
            vars(error)["told_by_ebmtrack"] = True
        raise


def _tracker_params(params: Any) -> TrackerParams:
    """Return the TrackerParams in whatever object the host hands over."""
    return TrackerParams(**{name: getattr(params, name) for name in FIELDS if hasattr(params, name)})


def _network(set_up: TrackerParams, device: str | None) -> TorchEngine:
    """Return the network of a set-up on its device, shared by all trackers of a process."""
    path = find_weights(set_up.weights)
    device = device or "auto"  # of GPUs the one that the host made the current one
    engine = _load(path.resolve(), path.stat().st_mtime_ns, device, set_up.classifier)
    if set_up.softmax_scores != (engine.info.classifier == "prdimp"):
        raise ConfigError(f"{path} holds another kind of classifier (DiMP or PrDiMP) than these parameters are for")
    warn_of_other_regions(set_up, engine.info.trained_on)
    return engine


@functools.lru_cache(maxsize=2)
def _load(path: Path, changed_ns: int, device: str, classifier: str) -> TorchEngine:
    """Return the network of a file of either kind; the time of change is part of its name."""
    kind = ENGINES[classifier]
    if kind_of(path) == "safetensors":
        return load_torch_engine(path, device, kind=kind)
    return kind(InferenceNet(import_pytracking(path)[0], check_device(device)))


def find_weights(name: str | os.PathLike | None) -> Path:
    """Return the file of weights: a path, a network that comes with ebmtrack, or one in the host's network_path."""
    folders = _network_folders()
    files = [folder / f"{name}{ending}" for folder in folders for ending in ("", *ENDINGS)] if name else []
    try:
        return resolve_weights(name)
    except CheckpointError as error:
        found = next((file for file in files if file.is_file()), None)
        if found:
            return found
        looked = ", ".join(map(str, folders)) or "none, as pytracking is not running"
        raise CheckpointError(f"{error}; pytracking's network_path was searched as well: {looked}") from error


def _network_folders() -> list[Path]:
    """Return network_path of the host's evaluation/local.py, one folder or several."""
    environment = sys.modules.get("pytracking.evaluation.environment")
    if environment is None:
        return []
    paths = environment.env_settings().network_path
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [Path(path) for path in paths if path]


def _common_folder(env: Any) -> str:
    """Return the folder that holds the host's tracking data sets together, "" where fewer than two are set."""
    names = ("got10k_dir", "coco_dir", "lasot_dir", "trackingnet_dir")
    folders = [os.path.abspath(folder) for folder in (getattr(env, name, "") for name in names) if folder]
    return os.path.commonpath(folders) if len(folders) > 1 else ""
