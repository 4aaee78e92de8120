"""Options that several verbs share, and what every verb is.

A verb is a frozen dataclass: its fields are the options, its docstring is the help, and `run` does the work. What is
heavy is imported inside `run`, so that `ebmtrack --help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import tyro

from ebmtrack.weights import DEFAULT_SET_UP

if TYPE_CHECKING:
    from ebmtrack.tracking.tracker import MultiTracker, Tracker

VISDOM_SERVER = "http://localhost:8097"

Precision = Literal["auto", "float32", "bfloat16", "int8"]
EngineName = Literal["auto", "torch", "onnx"]

T = TypeVar("T")
Positional = Annotated[T, tyro.conf.Positional]
Repeated = Annotated[tuple[T, ...], tyro.conf.UseAppendAction]  # an option that is given once for each value
Changes = Repeated[tuple[str, ...]]  # --set a=1 b=2 --set c=3
Names = Repeated[tuple[str, ...]]  # --params a b --params c
Flat = Annotated[T, tyro.conf.arg(name="")]  # a group of options without a prefix


def flatten(groups: tuple[tuple[T, ...], ...]) -> tuple[T, ...]:
    """Return the values of an option that was given several times, with several values each, in their order."""
    return tuple(value for group in groups for value in group)


class Verb(Protocol):
    """A verb of the command line with the values of its options."""

    def run(self) -> int | None:
        """Do the work and return the exit code (None is 0)."""


class Group:
    """A verb that has verbs of its own, such as `ebmtrack study 1d`; the docstring is its help."""

    verbs: ClassVar[Mapping[str, Callable[..., Verb]]]


@dataclass(frozen=True)
class TrackerOptions:
    """The tracker: its set-up, its network and the device that computes.

    Attributes:
        params: Tracker set-up: a name in tracker_params, such as dimp18_nce_plus, or the path of a file like those.
        weights: Network weights (.safetensors), the folder of an exported network, or the name of a network that comes
            with ebmtrack, instead of those of the set-up.
        device: auto (a GPU if there is one), cpu, openvino (the fastest on CPUs that multiply bfloat16; needs
            ebmtrack[openvino]), mps, cuda or cuda:N.
        engine: torch, onnx (no torch needed), or auto: onnx on a CPU for networks that ship and for exported ones.
        precision: auto, float32, bfloat16 (on PyTorch or OpenVINO), or int8 (on ONNX Runtime or OpenVINO: faster).
    """

    params: str = DEFAULT_SET_UP
    weights: str | None = None
    device: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "auto"

    def load(self) -> Tracker:
        """Return a tracker of one target."""
        from ebmtrack.tracking.tracker import Tracker

        return Tracker.from_pretrained(**self._values())

    def load_multi(self) -> MultiTracker:
        """Return a tracker of several targets."""
        from ebmtrack.tracking.tracker import MultiTracker

        return MultiTracker.from_pretrained(**self._values())

    def _values(self) -> dict[str, Any]:
        """Return the options as arguments of from_pretrained."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class DatasetOptions:
    """A data set for evaluation.

    Attributes:
        dataset: folder (any directory of sequences), otb100, uav123, nfs30, lasot ...: see `ebmtrack datasets`.
        root: The data set's folder; by default it is looked for below the folder in EBMTRACK_DATA.
    """

    dataset: str
    root: Path | None = None

    def locate(self) -> Path:
        """Return the folder of the data set."""
        from ebmtrack.videos.opening import locate

        return locate(self.dataset, self.root)


@dataclass(frozen=True)
class VisdomOptions:
    """A visdom server that shows what happens.

    Attributes:
        visdom: Show on a visdom server what the tracker sees: frame, score map, energy, candidate boxes, and scores.
        visdom_server: The server's URL.
    """

    visdom: bool = False
    visdom_server: str = VISDOM_SERVER

    @property
    def url(self) -> str | None:
        """The server's URL, or None if nothing is to be shown."""
        return self.visdom_server if self.visdom else None
