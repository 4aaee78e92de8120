"""--set key=value: typed by the dataclass, nested by dots, errors that name the nearest right key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.files import as_json
from ebmtrack.training.overrides import describe, differences, flat, override


@dataclasses.dataclass(frozen=True)
class Inner:
    """A group inside a group."""

    width: float = 0.5
    sigmas: tuple[float, ...] = (0.05, 0.5)

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ConfigError(f"width must be positive, got {self.width}")


@dataclasses.dataclass(frozen=True)
class Middle:
    """A group."""

    inner: Inner = Inner()
    kind: Literal["dimp", "any"] = "dimp"


@dataclasses.dataclass(frozen=True)
class Outer:
    """One field of every type."""

    steps: int = 10
    rate: float = 1e-3
    fast: bool = False
    name: str = "resnet18"
    out: Path = Path("runs/x")
    limit: float | None = None
    folder: Path | None = None
    size: tuple[int, int] = (3, 4)
    span: tuple[float, float] | None = None
    pairs: tuple[tuple[float, float], ...] = ()
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: {"box": 1e-3, "layer3": 2e-5})
    middle: Middle = Middle()


@pytest.mark.parametrize(
    "change, key, value",
    [
        ("steps=500", "steps", 500),
        ("rate=2e-4", "rate", 2e-4),
        ("rate=1", "rate", 1.0),
        ("fast=true", "fast", True),
        ("fast=0", "fast", False),
        ("name=a=b", "name", "a=b"),
        ("out=/tmp/a b", "out", Path("/tmp/a b")),
        ("limit=2.5", "limit", 2.5),
        ("limit=none", "limit", None),
        ("folder=data/x", "folder", Path("data/x")),
        ("size=7,8", "size", (7, 8)),
        ("size=(7, 8)", "size", (7, 8)),
        ("span=-7,8", "span", (-7.0, 8.0)),
        ("pairs=1,2,3,4", "pairs", ((1.0, 2.0), (3.0, 4.0))),
        ("rates.layer3=0.5", "rates.layer3", 0.5),
        ("middle.kind=any", "middle.kind", "any"),
        ("middle.inner.width=3", "middle.inner.width", 3.0),
        ("middle.inner.sigmas=0.1,1,2", "middle.inner.sigmas", (0.1, 1.0, 2.0)),
        ("middle.inner.sigmas=0.1", "middle.inner.sigmas", (0.1,)),
    ],
)
def test_values_are_read_by_their_field_and_nothing_else_changes(change, key, value):
    changed = override(Outer(), [change])
    got = flat(changed)
    assert got[key] == value and type(got[key]) is type(value)
    assert {k: v for k, v in got.items() if k != key} == {k: v for k, v in flat(Outer()).items() if k != key}
    assert differences(changed, Outer()) == ({} if value == flat(Outer())[key] else {key: value})


@pytest.mark.parametrize(
    "change, why",
    [
        ("step=3", "unknown setting 'step'; did you mean 'steps'[?]$"),
        ("xyz=3", "unknown setting 'xyz'; known are steps, rate, .*, middle.kind$"),
        ("middle.inner.widht=3", "did you mean 'middle.inner.width'"),
        ("widht=3", "did you mean 'middle.inner.width'"),
        ("rates.layer4=3", "did you mean 'rates.layer3'"),
        ("steps.more=3", "unknown setting 'steps.more'"),
        ("=3", "unknown setting ''"),
        ("steps", "takes key=value, got 'steps'; for example --set steps=10"),
        ("steps=3.5", "steps=3.5: expected a whole number"),
        ("steps=", "expected a whole number"),
        ("rate=fast", "expected a number"),
        ("fast=maybe", "expected true or false"),
        ("size=1,2,3", "size=1,2,3: expected 2 whole numbers, with commas between them$"),
        ("span=1", "span=1: expected 2 numbers, with commas between them, or none$"),
        ("pairs=1", "pairs=1: expected groups of 2 numbers, with commas between them$"),
        ("size=1.5,2", "expected"),
        ("middle.inner.sigmas=a,b", "expected numbers, with commas between them$"),
        ("middle.inner.sigmas=__import__('os')", "expected"),
        ("middle.kind=dim", "expected one of dimp, any"),
        ("middle.inner=3", "group of settings: set one of middle.inner.width, middle.inner.sigmas"),
        ("middle.inner.width=-1", "width must be positive, got -1"),
    ],
)
def test_what_cannot_be_set_is_named(change, why):
    with pytest.raises(ConfigError, match=why.replace("(", r"\(")):
        override(Outer(), [change])


def test_the_last_of_several_changes_wins():
    assert override(Outer(), ["steps=1", "rate=2", "steps=3"]).steps == 3


def test_what_is_shown_can_be_set():
    """describe -> override is the identity: other settings with all the lines shown are the settings shown."""
    changes = ["steps=3", "fast=true", "limit=1.5", "size=7,8", "span=1,-2", "rates.box=9"]
    shown = override(Outer(), changes)
    assert override(Outer(), describe(shown).splitlines()) == shown
    assert override(shown, describe(Outer()).splitlines()) == Outer()


def test_settings_as_json():
    got = as_json(override(Outer(), ["folder=a/b"]))
    assert got["middle"] == {"inner": {"width": 0.5, "sigmas": [0.05, 0.5]}, "kind": "dimp"}
    assert got["folder"] == "a/b" and got["limit"] is None and got["rates"] == {"box": 1e-3, "layer3": 2e-5}
    assert json.loads(json.dumps(got)) == got


def test_of_many_keys_the_nearest_ones_are_named():
    """Those that share a word, then those that look alike; a listing is named if there is one."""
    names = [f"{group}_{number}" for group in ("rates", "width", "depth") for number in range(9)]
    many = dataclasses.make_dataclass("Many", [(name, int, 0) for name in names], frozen=True)()
    for key, first in (("learning_rate", "rates_0, rates_1, rates_2"), ("wi", "width_")):
        with pytest.raises(ConfigError, match=f"unknown setting '{key}'; the nearest of 27 are {first}") as caught:
            override(many, [f"{key}=3"], "ask me")
        assert str(caught.value).endswith("; ask me") and str(caught.value).count(", ") == 4
