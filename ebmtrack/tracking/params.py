"""The settings of the online tracker."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import runpy
from pathlib import Path
from typing import Any

from ebmtrack.errors import ConfigError, EbmtrackError
from ebmtrack.files import expand_home
from ebmtrack.names import check_name
from ebmtrack.tracking.limits import plain_values

INTERVAL_SAMPLES = 32  # boxes whose energies give intervals; more cost more than 15 % of a frame
LEAST_SAMPLES = 8  # of them; with fewer, a deviation means nothing


@dataclasses.dataclass(frozen=True)
class TrackerParams:
    """A set-up of the tracker: everything that shapes tracking besides the weights.

    The defaults are SuperDiMP's, with DiMP-NCE+'s box refinement. Sizes are in pixels of the search region's patch
    unless named otherwise. Source of the values: pytracking's parameter files for super_dimp, dimp18/50 and
    prdimp18/50; for the refinement BMVC 2020, supplement D.

    Raises:
        ConfigError: on a value that makes no sense; see `limits.LIMITS`.
    """

    weights: str | None = None  # a file, or None: the network that ships (or must be named when tracking)
    mirrored: bool = False  # energies are means over region and mirror image: better boxes, twice the work
    classifier: str = "network"  # the network's own, or "atom": learned by Gauss-Newton in the first frame
    # search region
    sample_size: int = 352
    search_factor: float = 6.0
    border: str = "inside_major"
    max_scale_change: float = 1.5
    inner_looks: int = 0  # calm frames after each look at the whole search region; see regions.py
    crop_rule: str = "head"  # "pre2022" cuts as when the papers' numbers were made
    # first frame
    shift_fracs: tuple[tuple[float, float], ...] = ((0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (-0.6, -0.6))
    flip: bool = True
    blur_sigmas: tuple[tuple[float, float], ...] = ((3, 1), (1, 3), (2, 2))  # (vertical, horizontal)
    rotations_deg: tuple[float, ...] = (10, -10, 45, -45)
    random_shift_frac: float = 1 / 3
    dropout_copies: int = 2
    dropout: float = 0.2
    initial_iterations: int = 10
    # memory and learning
    memory_size: int = 50
    learning_rate: float = 0.01
    hard_negative_learning_rate: float = 0.02
    initial_samples_least_weight: float = 0.25
    update_every: int = 20
    update_iterations: int = 2
    hard_negative_iterations: int = 1
    # localisation
    softmax_scores: bool = False  # PrDiMP
    not_found_threshold: float = 0.25
    weak_score: float = 0.0  # if above 0: the box of a target that is not found goes to a peak of at least this score
    weak_frames: int = 4  # in a row; then back to where it was last surely found, as from a doubtful place in any case
    distractor_threshold: float = 0.8
    hard_negative_threshold: float = 0.5
    neighbourhood_scale: float = 2.2
    displacement_scale: float = 0.8
    between_cells: bool = False  # a peak is placed between cells, by parabolas through it and its neighbours
    inside_frac: float = 0.2  # of the target that stays inside the image
    looks_around: int = 0  # more search regions in a frame in which the target is not found; see regions.py
    clear_score: float = 0.4  # least classifier score for a target to be found there, or where it was before
    doubtful_frames: int = 0  # frames after that in which it is not learned and may be found where it was before
    # refinement
    candidates: int = 10  # the unperturbed box and nine random ones
    position_jitter: float = 0.1
    size_jitter: float = 0.5
    ascent_steps: int = 10
    position_step: float = 2.5e-3
    size_step: float = 2.5e-3
    ascent_momentum: float = 0.0  # share of each step that is made again in the next one (0 in the papers)
    relative_space: bool = True  # False: DiMP's default space, steps scaled by the box's size
    half_pixel_late: bool = True  # pytracking's way back from the crop: half a crop pixel too far
    average_best: int = 3
    average_temperature: float = 0.0  # T > 0: all climbed boxes are averaged, with weights exp(f / T)
    calibration: float = 0.0  # share of the first frame's error of size that is undone (0 in the papers)
    centre_calibration: tuple[float, float] = (0.0, 0.0)  # the same of the centre's error, down and across
    energy_adaptation: float = 0.0  # how far the energy's last layer learns the first frame; see adaptation.py
    aspect_scale: float = 0.0  # of the density of log(w / h) around the first frame's; 0: none, as in the papers
    max_aspect: float = 6.0
    size_check: int = 0  # every so many frames, in whole looks: is the first frame's size better? 0: never
    # how sure it is; see uncertainty.py
    interval_samples: int = 0  # boxes whose energies give TrackResult.interval() (32 will do); 0: no intervals
    interval_temperature: float = 1.0  # T of the density exp(f / T); 1 is that of training
    interval_scale: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)  # of log deviation, energy, score
    lost_logit: tuple[float, float] | None = None  # of the probability that the target is lost: constant, by score
    # running
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in plain_values(self).items():  # NumPy's float64 would spread to all boxes
            object.__setattr__(self, name, value)
        if 0 < (n := self.interval_samples) < LEAST_SAMPLES:
            raise ConfigError(f"interval_samples={n}: take 0 (no intervals) or a whole number from {LEAST_SAMPLES}")

    def replace(self, **changes: Any) -> TrackerParams:
        """Return a copy with other values. On an unknown name ConfigError suggests the nearest one."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            check_name("tracker parameter", name, known)
        return dataclasses.replace(self, **changes)


def list_params() -> list[str]:
    """Return the names of the set-ups in tracker_params."""
    import ebmtrack.tracker_params as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_params(name: str | os.PathLike[str]) -> TrackerParams:
    """Return a set-up.

    Args:
        name: The name of a file in tracker_params, or the path of a file like those: ending in .py, with a function
            `parameters()` that returns TrackerParams.

    Raises:
        ConfigError: If the name is unknown, or the file is missing, fails, or has no such function.
    """
    if str(name).endswith(".py"):
        return _from_file(expand_home(name))
    check_name("tracker set-up", str(name), list_params())
    return importlib.import_module(f"ebmtrack.tracker_params.{name}").parameters()


def set_up_name(name: str | os.PathLike[str]) -> str:
    """Return the name of a set-up for results and titles: of a path the file's stem."""
    return Path(name).stem if str(name).endswith(".py") else str(name)


def _from_file(path: Path) -> TrackerParams:
    """Run a user's file and return the set-up that its `parameters()` makes."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of a tracker set-up")
    try:
        make = runpy.run_path(str(path)).get("parameters")
        if make is None:
            raise ConfigError("defines no function parameters(); see docs/extending.md")
        params = make()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except EbmtrackError:
        raise
    except Exception as error:  # whatever a user's file may do
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(params, TrackerParams):
        raise ConfigError(f"{path}: parameters() must return TrackerParams, got {type(params).__name__}")
    return params
