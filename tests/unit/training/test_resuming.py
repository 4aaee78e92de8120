"""A run goes on under its own settings alone, so that what the trained file's header says was used was used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ebmtrack.data.pipeline import CropSettings
from ebmtrack.errors import CheckpointError
from ebmtrack.training.command import list_runs, settings_for
from ebmtrack.training.objective import ObjectiveSettings
from ebmtrack.training.overrides import override
from ebmtrack.training.resuming import check_same_settings, read_checkpoint, settings_text
from ebmtrack.training.run import train
from ebmtrack.training.settings import RunSettings
from tests.unit.training.test_run import stop_after
from tests.unit.training.test_training import settings_in, tiny_plan, weights_of

FREE = {
    "workers": 2,
    "data": Path("elsewhere"),
    "checkpoint_every": 7,
    "validate_every": 3,
    "track_every": 5,
    "track_frames": 9,
    "visdom_server": "http://far",
    "visdom_port": 1,
}


@dataclasses.dataclass(frozen=True)
class Nested(RunSettings):
    """Settings as the files in ltr_settings have them."""

    crops: CropSettings = CropSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: {"box": 1e-3, "rest": 1e-4})
    packs: Path | None = None
    start: str | None = None


def refusal(before: RunSettings, now: RunSettings) -> str:
    """The message with which a run under `before` refuses to go on under `now`."""
    with pytest.raises(CheckpointError) as caught:
        check_same_settings(Path("runs/x/checkpoint.pt"), settings_text(before), now)
    return str(caught.value)


OTHER = not RunSettings().bfloat16  # which this machine does not train in by default


@pytest.mark.parametrize("change", [{"warmup": 9}, {"bfloat16": OTHER}, {"clip_norm": 1.5}, {"backbone": "resnet50"}])
def test_a_checkpoint_under_other_settings_is_refused(tmp_path, change):
    """In one line, with both values, and nothing is written."""
    train(tiny_plan(), settings_in(tmp_path, steps=10))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ((key, value),) = change.items()
    usual = getattr(settings_in(tmp_path), key)
    with pytest.raises(CheckpointError, match=rf"{key} is {value} and was {usual}; .*--restart.*--out") as caught:
        train(tiny_plan(), settings_in(tmp_path, steps=20, **change))
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_restart_takes_other_settings(tmp_path):
    train(tiny_plan(), settings_in(tmp_path, steps=10))
    train(tiny_plan(), settings_in(tmp_path, steps=10, warmup=2, resume=False))
    train(tiny_plan(), settings_in(tmp_path, steps=20, warmup=2))
    assert json.loads(read_checkpoint(tmp_path / "checkpoint.pt")["settings"])["warmup"] == 2


def test_what_does_not_touch_the_weights_may_change(tmp_path):
    """Resumed with other workers, folders and intervals, the run ends with the bits of one that never stopped."""
    straight = train(tiny_plan(), settings_in(tmp_path / "a"))
    stop_after(settings_in(tmp_path / "b"), 20)
    (tmp_path / "b").rename(tmp_path / "moved")
    resumed = train(tiny_plan(), settings_in(tmp_path / "moved", **FREE))
    assert torch.equal(weights_of(straight), weights_of(resumed))


def test_a_checkpoint_without_settings_resumes(tmp_path):
    """As earlier versions wrote them."""
    settings = settings_in(tmp_path, steps=10)
    train(tiny_plan(), settings)
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    del state["settings"]
    torch.save(state, tmp_path / "checkpoint.pt")
    train(tiny_plan(), dataclasses.replace(settings, steps=20, warmup=9))
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 20


def test_the_first_differences_are_named_by_their_dotted_keys():
    changes = ["crops.search_factor=6", "objective.sigmas=0.1,1", "objective.beta=5", "rates.box=1"]
    message = refusal(Nested(), override(Nested(), changes))
    assert "crops.search_factor is 6.0 and was 5.0, " in message and " and 1 more; " in message
    assert "objective.sigmas is [0.1, 1.0] and was [0.05, 0.5]" in message and "rates" not in message


def test_files_may_move_and_packs_may_not_come_in():
    """The name of a weights file counts, not its folder; of packs it counts whether there are any."""
    here = Nested(start="/a/first.safetensors", packs=Path("/a/packs"))
    moved = Nested(start="/b/first.safetensors", packs=Path("/b/copies"))
    check_same_settings(Path("x"), settings_text(here), moved)
    assert "start is second.safetensors and was first" in refusal(here, Nested(start="/a/second.safetensors"))
    assert "packs is given and was none" in refusal(Nested(), Nested(packs=Path("/a/packs")))


def test_settings_that_the_earlier_version_did_not_know_are_not_compared():
    stored = json.loads(settings_text(Nested()))
    del stored["warmup"], stored["objective"]["beta"]
    check_same_settings(Path("x"), json.dumps(stored), override(Nested(), ["warmup=3", "objective.beta=2"]))


@pytest.mark.parametrize("name", list_runs())
def test_the_settings_of_every_run_come_back_from_json(name):
    """Each equals itself, and differs from itself with another seed."""
    settings = settings_for(name)
    check_same_settings(Path("x"), settings_text(settings), settings)
    assert "seed is 1 and was 0" in refusal(settings, dataclasses.replace(settings, seed=1))


@pytest.mark.parametrize(
    "content, reason", [(b"a text", "IndexError: .*"), (None, "it holds something else than arrays")]
)
def test_a_file_that_is_no_checkpoint_is_told_without_advice_to_run_it(content, reason, tmp_path):
    """A text, and objects, of which PyTorch says how to load them all the same."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"path": path}, path) if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"is no checkpoint \({reason}\); move it away") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
