"""The study of losses on boxes: its losses, that its branches learn, that it resumes, and its table."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from ebmtrack.boxes import xywh_to_xyxy
from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.studies import box_losses as box_study
from ebmtrack.studies.box_losses import BoxStudySettings, Run
from ebmtrack.training.frozen_features import Features


@pytest.fixture(autouse=True)
def one_thread():
    """Layers this small are slower with two threads, and very much so on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TINY = BoxStudySettings(width=8, train_pairs=12, held_back_pairs=3, steps=3, batch=4)


def make_pairs(count: int, seed: int = 0) -> Features:
    """Pairs whose features show the box: ones inside it, zeros outside, at both strides of a 96 x 96 crop."""
    generator = torch.Generator().manual_seed(seed)
    corner = 20 + 20 * torch.rand(count, 2, 2, generator=generator)
    boxes = torch.cat([corner, 24 + 16 * torch.rand(count, 2, 2, generator=generator)], dim=-1)
    layer2, layer3 = (inside(boxes, stride)[:, :, None].repeat(1, 1, 2, 1, 1).bfloat16() for stride in (8, 16))
    return Features(layer2, layer3, boxes)


def inside(boxes_xywh: torch.Tensor, stride: int) -> torch.Tensor:
    """Share of every cell (96 / stride) ^ 2 that the boxes cover."""
    low, cells = xywh_to_xyxy(boxes_xywh) / stride, torch.arange(96 // stride)
    covered = [
        (torch.minimum(low[..., 2 + axis, None], cells + 1) - torch.maximum(low[..., axis, None], cells)).clamp(0, 1)
        for axis in (1, 0)
    ]
    return covered[0][..., :, None] * covered[1][..., None, :]


@pytest.mark.parametrize("loss", list(box_study.LOSSES))
def test_losses_prefer_energies_that_peak_at_the_truth(loss):
    """An energy -50 |y - truth|^2 in relative coordinates costs less than a flat one, and than one that peaks at a box
    half as large."""
    boxes = torch.tensor([[30.0, 40.0, 20.0, 10.0]])

    def cost(peak_xyxy: torch.Tensor, sharpness: float) -> float:
        scale = torch.tensor([20.0, 10.0, 20.0, 10.0])
        energy = lambda b: -sharpness * ((b - peak_xyxy) / scale).square().sum(-1)  # noqa: E731
        run, generator = Run(loss, 512, 0), torch.Generator().manual_seed(0)
        return box_study.batch_loss(run, BoxStudySettings(), energy, boxes, generator).item()

    truth = xywh_to_xyxy(boxes)
    assert cost(truth, 50.0) < cost(truth, 0.0)
    assert cost(truth, 50.0) < cost(xywh_to_xyxy(torch.tensor([[30.0, 40.0, 10.0, 5.0]])), 50.0)


def test_a_branch_learns_to_find_boxes():
    """Features that show the box are enough to raise the overlap from that of the start boxes (0.67 on average)."""
    settings = BoxStudySettings(width=16, steps=120, batch=8)
    branch = box_study.train_branch(make_pairs(64), Run("nce+", 64, 0), settings)
    held_back = make_pairs(32, seed=1)
    length = box_study.best_step_length(branch, make_pairs(16), settings.bfloat16)
    before, after = (box_study.overlaps(branch, held_back, step, settings.bfloat16).mean() for step in (0.0, length))
    assert after > before + 0.08


def test_a_study_resumes_and_tells_differences(tmp_path):
    """A second call trains nothing; more runs are added; the table holds a line for each loss and M."""
    calls, logged = [], []

    def prepare(settings):
        calls.append(settings)
        return make_pairs(settings.train_pairs), make_pairs(settings.held_back_pairs, 1)

    runs = [Run(loss, 4, seed) for loss in ("nce+", "ml-is") for seed in (0, 1)]
    track = lambda branch, length: {"one": 0.5, "two": 0.75}  # noqa: E731
    first = box_study.box_study(tmp_path, prepare, runs, TINY, track, logged.append)
    assert box_study.box_study(tmp_path, prepare, runs, TINY, track, logged.append) == first
    assert len(calls) == 1 and len(logged) == 4
    assert "| NCE+ | 4 | 2 |" in first and "0.625 (0.500 to 0.750)" in first
    more = box_study.box_study(tmp_path, prepare, [*runs, Run("nce", 2, 0)], TINY, None, logged.append)
    assert len(logged) == 5 and "| NCE | 2 | 1 |" in more
    with pytest.raises(ConfigError, match="other settings"):
        box_study.box_study(tmp_path, prepare, runs, BoxStudySettings(), None)
    other = dataclasses.replace(TINY, bfloat16=not TINY.bfloat16, steps=4)  # a machine of another kind
    with pytest.raises(ConfigError, match=r"other settings \(steps, bfloat16\): choose another folder"):
        box_study.box_study(tmp_path, prepare, runs, other)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3) + "\n")  # the same in another layout
    box_study.box_study(tmp_path, prepare, runs, TINY, track, logged.append)
    assert len(logged) == 5
    before = path.read_bytes()
    for damaged in (b"", b"[]", b"{" + b"\xff}", b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="settings.json .*the file is damaged"):
            box_study.box_study(tmp_path, prepare, runs, TINY)
    path.write_bytes(before)
    with pytest.raises(ConfigError, match="unknown loss 'l2'"):
        box_study.box_study(tmp_path, prepare, [Run("l2", 4, 0)], TINY)


@pytest.mark.parametrize("samples, seeds, name", [((0,), 1, "samples"), ((), 1, "samples"), ((128,), 0, "runs")])
def test_runs_and_samples_are_counts(samples, seeds, name):
    with pytest.raises(ConfigError, match=f"--{name} must be at least 1, got 0"):
        box_study.all_runs((), samples, seeds)


def test_the_same_run_gives_the_same_branch():
    pairs = make_pairs(12)
    one, two = (box_study.train_branch(pairs, Run("kld-is", 8, 3), TINY) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_table_means_over_seeds_and_pairs_differences():
    """Two seeds with IoU (0.2, 0.4) and (0.4, 0.6) on two pairs: mean 0.4, interval from 0.3 to 0.5; a loss that is 0.1
    better on each pair differs by exactly 0.1."""
    record = lambda loss, seed, iou: {  # noqa: E731
        "loss": loss, "samples": 8, "seed": seed, "step_length": 0.001, "iou": iou, "op75": 0.5, "auc": {},
    }  # fmt: skip
    records = [record("nce+", 0, [0.2, 0.4]), record("nce+", 1, [0.4, 0.6]), record("nce", 0, [0.4, 0.6])]
    table = box_study.make_table(records, TINY)
    assert "| NCE+ | 8 | 2 | 0.001 | 0.400 (0.300 to 0.500) |  | 0.500 | 0.141 |" in table
    assert "| NCE | 8 | 1 | 0.001 | 0.500 (0.400 to 0.600) | +0.100 (+0.100 to +0.100) |" in table


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"loss": "nce"})])
def test_damaged_records_are_named(tmp_path, text):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bad.json").write_text(text)
    with pytest.raises(ResultError, match=r"bad\.json is no record"):
        box_study.load_records(tmp_path, box_study.RECORD)


def test_what_was_changed_stands_in_the_table_and_belongs_to_the_folder(tmp_path):
    pairs = lambda settings: (make_pairs(12), make_pairs(6, 1))  # noqa: E731
    changed = dataclasses.replace(TINY, changes=("crops.look.blur=0",))
    runs = [Run("nce+", 4, 0)]
    assert "Pairs with crops.look.blur=0." in box_study.box_study(tmp_path, pairs, runs, changed, log=lambda _: None)
    with pytest.raises(ConfigError, match="other settings"):
        box_study.box_study(tmp_path, pairs, runs, TINY, log=lambda _: None)
    box_study.box_study(tmp_path, pairs, runs, changed, log=lambda _: pytest.fail("ran again"))
