"""Every settings file: its figures, the command it opens with, and one optimiser step on a tiny source."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ebmtrack.checkpoints.native import load_checkpoint, read_metadata, resolve_weights, save_checkpoint
from ebmtrack.commands import main as cli
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.data.packing import write_pack
from ebmtrack.device import pick_device
from ebmtrack.errors import CheckpointError, ConfigError, EbmtrackError
from ebmtrack.nets.backbone import ResNetTrunk
from ebmtrack.nets.tracker_net import TrackerNet
from ebmtrack.studies import box_losses_parts as box_study_parts
from ebmtrack.studies.box_losses import BoxStudySettings
from ebmtrack.training import command
from ebmtrack.training import run as running
from ebmtrack.training.command import list_runs, load_run, settings_for, train_named
from ebmtrack.training.objective import ObjectiveSettings
from ebmtrack.training.overrides import describe, flat, override
from ebmtrack.training.plan import Data, Network, Plan
from ebmtrack.training.run import _Run, train
from ebmtrack.training.settings import RunSettings
from ebmtrack.videos.paths import variable
from tests.support.trees import (
    coco_content,
    coco_tree,
    got10k_tree,
    lasot_tree,
    material_tree,
    save_image,
    save_text,
    trackingnet_tree,
)
from tests.unit.data.test_dimp_crops import Block
from tests.unit.training.test_validation import write_sequence

REGRESSIONS = [name for name in list_runs() if settings_for(name).arch == "regression"]  # see tests/unit/regression
PUBLIC = [name for name in list_runs() if hasattr(settings_for(name), "vot_list")]
ON_POOL = [
    name for name in list_runs() if name not in (*PUBLIC, *REGRESSIONS, "coco_energy")
]  # see tests/unit/detection
SMALL = ["crops.output=64", "objective.samples=4", "validate_every=1", "validation_samples=2", "bfloat16=false"]


@pytest.mark.parametrize(
    ("device", "has_it", "trains_in_it"), [("cpu", False, False), ("cpu", True, True), ("cuda", False, True)]
)
def test_runs_train_in_bfloat16_where_it_is_fast(monkeypatch, device, has_it, trains_in_it):
    """A CPU without instructions for it would take four times as long; the papers' runs stay in float32 everywhere."""
    monkeypatch.setattr("ebmtrack.training.settings.pick_device", lambda _: device)
    monkeypatch.setattr("ebmtrack.training.settings.cpu_has_bfloat16", lambda: has_it)
    assert settings_for("ebm18").bfloat16 is trains_in_it
    assert not settings_for("dimp50_nce_plus").bfloat16
    assert settings_for("dimp50_nce_plus", {}, ["bfloat16=true"]).bfloat16


class Named(Block):
    """The moving block under the name of a data set."""

    def __init__(self, name: str, is_video: bool = True):
        self.name, self.is_video = name, is_video

    def boxes_xywh(self, index):
        return super().boxes_xywh(index)[: 24 if self.is_video else 1]

    def visible(self, index):
        return np.ones(24 if self.is_video else 1, bool)


def blocks() -> dict[str, Named]:
    return {name: Named(name, name != "coco") for name in ("lasot", "got10k", "trackingnet", "coco")}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, str]:
    """Files of random backbones, as torchvision's would be."""
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    for name in ("resnet18", "resnet50"):
        save_file(ResNetTrunk(name).state_dict(), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in ("resnet18", "resnet50")}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A pool of two sequences, two photographs and 24 cut-outs."""
    got10k_tree(tmp_path / "got10k" / "train", ("DAVIS_libby", "DAVIS_camel"))
    content = coco_content()
    content["images"][1]["file_name"] = "web_elephant_2.jpg"
    content["annotations"][1]["iscrowd"] = 0
    coco_tree(tmp_path / "coco")
    (tmp_path / "coco/train2017/web_set_2.jpg").rename(tmp_path / "coco/train2017/web_elephant_2.jpg")
    save_text(tmp_path / "coco" / "annotations" / "instances_train2017.json", json.dumps(content))
    material_tree(tmp_path)
    return tmp_path


def small(name: str, out: Path, backbones: dict[str, str], *changes: str, **chosen):
    """Settings for one step on two small samples."""
    backbone = backbones[Path(settings_for(name).backbone).name]
    usual = {"out": out, "backbone": backbone, "steps": 1, "batch": 2, "workers": 0, "device": "cpu"}
    known = flat(settings_for(name))
    return settings_for(name, usual | chosen, [c for c in SMALL if c.partition("=")[0] in known] + list(changes))


def state_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed_parts(before: dict[str, torch.Tensor], net: TrackerNet) -> set[str]:
    """First two parts of the names of weights, and of batch norm statistics, that a step has changed."""
    after = net.state_dict()
    changed = (name for name, value in before.items() if not torch.equal(value, after[name]))
    return {".".join(name.split(".")[: 2 if name.startswith(("feature", "classifier")) else 1]) for name in changed}


def public_plan(name: str, settings, monkeypatch, sources: dict | None = None, held_back: Named | None = None) -> Plan:
    """Return a run's plan on the sources that take the place of the public data sets."""
    base = load_run("dimp50_nce_plus")
    if sources is not None:
        monkeypatch.setattr(base, "public_sources", lambda settings: sources)
        monkeypatch.setattr(base, "validation_source", lambda: held_back)
    return load_run(name).plan(settings)


def network_of(name: str, settings, monkeypatch) -> Network:
    """Return a run's network, without data."""
    if name in PUBLIC:
        return public_plan(name, settings, monkeypatch, blocks()).network
    return load_run(name).network(settings)


ALL_BUT_EARLY = {
    "bb_regressor",
    "classifier.feature_extractor",
    "classifier.filter_initializer",
    "classifier.filter_optimizer",
    "feature_extractor.layer3",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_one_step_trains_what_the_file_says(name, tmp_path, backbones, monkeypatch):
    """The parts that have a rate train, and batch norm statistics of what is not frozen move.

    Without a rate for the whole backbone all but conv1, bn1, layer1 and layer2 train. ATOM's trunk has no rate, but its
    statistics move. Only one of the runs on ResNet-50 is done at its size, and no checkpoint is written.
    """
    monkeypatch.setattr(running, "save_checkpoint", lambda *_: None)
    usual = settings_for(name)
    lighter = {"arch": usual.arch.replace("super_dimp", "dimp18").replace("50", "18")}
    lighter |= {"backbone": backbones["resnet18"]}
    settings = dataclasses.replace(small(name, tmp_path, backbones), **({} if name == "dimp50_nce_plus" else lighter))
    plan = public_plan(name, settings, monkeypatch, blocks(), Named("held_back"))
    net = plan.network.net
    before = state_of(net)
    train(plan, settings)
    early = {f"feature_extractor.{part}" for part in ("conv1", "bn1", "layer1", "layer2")}
    trunk = early | {"feature_extractor.layer3"}
    expected = ALL_BUT_EARLY | early if "backbone" in settings.rates else ALL_BUT_EARLY
    if "classifier" not in settings.rates:
        expected = {"bb_regressor"} | trunk - {"feature_extractor.conv1"}
        weights = {key: value for key, value in before.items() if "running" not in key and "num_batches" not in key}
        assert changed_parts(weights, net) == {"bb_regressor"}
    assert changed_parts(before, net) == expected
    with open(tmp_path / "log.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert all(np.isfinite(float(row[key])) for key in ("loss", "box", "val_loss", "val_box", "val_iou"))
    assert ("last" in row) == ("classifier" in settings.rates)


def test_the_training_file_of_the_page_on_extending_trains_with_its_own_loss(tmp_path, backbones, monkeypatch):
    """The file of docs/extending.md, found by its path: one step with the loss that it defines."""
    page = (Path(__file__).parents[3] / "docs" / "extending.md").read_text()
    path = tmp_path / "mine.py"
    path.write_text(next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "box_loss=" in code))
    settings = small(str(path), tmp_path, backbones)
    plan = public_plan(str(path), settings, monkeypatch, blocks(), Named("held_back"))
    monkeypatch.setattr(running, "save_checkpoint", lambda *_: None)
    train(plan, settings)
    with open(tmp_path / "log.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert plan.objective.box_loss.__name__ == "absolute_iou_error" and 0 < float(row["box"]) < 100


@pytest.mark.parametrize("name", ["dimp18_nce_plus", "atom18_ml_is"])
def test_batches_may_come_from_packs_or_from_the_device(name, tmp_path, backbones):
    """Packs, and packs in the device's memory: crops of the right size whose boxes lie in them, at the scale of
    the search factor, 64 / 5 pixels, within the jitter of three deviations."""
    base, names = load_run("dimp50_nce_plus"), ["lasot", "coco"]
    away = ["sampling.shares.got10k=0", "sampling.shares.trackingnet=0"]
    for each in names:
        write_pack(blocks()[each], tmp_path / "packs" / each, PackSettings(context=15, output=192))
    for change in (f"packs={tmp_path / 'packs'}", f"prepared={tmp_path / 'packs'}"):
        settings = small(name, tmp_path, backbones, change, *away)
        sources = base.public_sources(settings)
        assert list(sources) == (names if change.startswith("packs") else [])
        data = base.data(settings, sources).train
        assert len(data) == settings.samples == 2
        for sample in (data[0], data[1]):
            frames = settings.sampling.train_frames + settings.sampling.test_frames
            assert sample["crops"].shape == (frames, 64, 64, 3) and sample["crops"].float().std() > 5
            size = sample["boxes_xywh"][:, 2:].prod(dim=1).sqrt()
            assert (size > 64 / 5 / 4).all() and (size < 64 / 5 * 4).all()


def test_one_step_of_the_shipped_network(tmp_path, pool, backbones, monkeypatch):
    """The trunk's batch norm keeps its statistics; with thaw=0 its early layers train as well."""
    module = load_run("ebm18_small")
    monkeypatch.setattr(running, "save_checkpoint", lambda *_: None)
    monkeypatch.setattr(module.held_back, "__defaults__", (2,))
    settings = small("ebm18_small", tmp_path / "a", backbones, "warmup=1", data=pool)
    monkeypatch.setattr(_Run, "_make_checks", lambda run: [])
    plan = module.plan(settings)
    before = state_of(plan.network.net)
    assert changed_parts(before, train(plan, settings)) == ALL_BUT_EARLY
    settings = dataclasses.replace(settings, thaw=0.0, out=tmp_path / "b")
    plan = module.plan(settings)
    train(plan, settings)
    early = {f"feature_extractor.{part}" for part in ("conv1", "layer1", "layer2")}
    assert changed_parts(before, plan.network.net) == ALL_BUT_EARLY | early
    statistics = [name for name in before if name.startswith("feature") and "running" in name]
    assert all(torch.equal(before[name], plan.network.net.state_dict()[name]) for name in statistics)


def test_the_second_stage_goes_on_with_the_box_branch_alone(tmp_path, pool, monkeypatch):
    """From the weights in `start`; a new round after each step."""
    module = load_run("ebm18_small_boxes")
    monkeypatch.setattr(running, "save_checkpoint", lambda *_: None)
    monkeypatch.setattr(_Run, "_make_checks", lambda run: [])
    monkeypatch.setattr(module.ebm18_small, "held_back", lambda *_, **__: None)
    torch.manual_seed(3)
    first = TrackerNet("dimp18")
    save_checkpoint(tmp_path / "first.safetensors", first, run={}, dtype=torch.float32)
    changes = [f"start={tmp_path / 'first.safetensors'}", "round_steps=1", "round_samples=2", "crops.output=64"]
    usual = {"out": tmp_path / "a", "data": pool, "steps": 2, "batch": 2, "workers": 0, "bfloat16": False}
    settings = settings_for("ebm18_small_boxes", usual, [*changes, "objective.samples=4"])
    settings = dataclasses.replace(settings, start_share=0.0)
    trained = train(module.plan(settings), settings)
    assert changed_parts(state_of(first), trained) == {"bb_regressor"}
    settings = dataclasses.replace(settings, out=tmp_path / "b", start_share=0.25)
    mixed = train(module.plan(settings), settings)
    weight = "bb_regressor.fc3_rt.linear.weight"
    expected = 0.25 * first.state_dict()[weight] + 0.75 * trained.state_dict()[weight]
    assert torch.allclose(mixed.state_dict()[weight], expected, atol=1e-6)
    assert not torch.allclose(mixed.state_dict()[weight], trained.state_dict()[weight], atol=1e-6)
    with pytest.raises(ConfigError, match="give the pool's folder"):
        module.plan(dataclasses.replace(settings, data=tmp_path / "none"))
    with pytest.raises(ConfigError, match="classifier_loss=hinge .*set objective.classifier_loss=none"):
        module.plan(dataclasses.replace(settings, objective=ObjectiveSettings()))


def one_step(name: str, tmp_path, pool, *changes: str, batch: int = 2):
    """Settings of a run of one step on the pool, from random weights of the run's own architecture."""
    torch.manual_seed(3)
    first = tmp_path / "first.safetensors"
    save_checkpoint(first, TrackerNet(settings_for(name).arch), run={}, dtype=torch.float32)
    usual = {"out": tmp_path / "a", "data": pool, "steps": 1, "batch": batch, "workers": 0, "bfloat16": False}
    return settings_for(name, usual, [f"start={first}", "crops.output=64", "average=0.0", *changes])


LITE_BRANCHES = ALL_BUT_EARLY - {"feature_extractor.layer3"}


@pytest.mark.parametrize("frozen, learns", [(5, {"feature_extractor.blocks"}), (11, set())])
def test_a_network_for_cpus_learns_on_kept_features(frozen, learns, tmp_path, pool, monkeypatch):
    """What is not frozen learns: the blocks beyond stride 8 from kept features at stride 8, or the branches alone."""
    pytest.importorskip("onnxruntime")
    module = load_run("ebm_lite")
    monkeypatch.setattr(running, "save_checkpoint", lambda *_: None)
    monkeypatch.setattr(_Run, "_make_checks", lambda run: [])
    changes = [f"frozen_blocks={frozen}", "kept=2", "objective.samples=4", "compile=false"]
    settings = one_step("ebm_lite", tmp_path, pool, *changes)
    plan = module.plan(settings)
    before = state_of(plan.network.net)
    train(plan, settings)
    changed = changed_parts(before, plan.network.net)
    assert changed == LITE_BRANCHES | learns
    blocks = {
        name.split(".")[2]
        for name, value in plan.network.net.state_dict().items()
        if name.startswith("feature_extractor.blocks") and not torch.equal(before[name], value)
    }
    assert blocks == {str(number) for number in range(frozen, 11)}


def test_a_network_for_cpus_learns_a_trained_networks_answers(tmp_path, pool, monkeypatch):
    """Every part but the frozen blocks moves, and the teacher does not; kept features are no crops."""
    module = load_run("ebm_lite")
    monkeypatch.setattr(_Run, "_make_checks", lambda run: [])
    settings = one_step("ebm_lite", tmp_path, pool, "teacher=ebm18_small", "objective.samples=4", "compile=false")
    plan = module.plan(settings)
    before, teacher = state_of(plan.network.net), state_of(plan.objective.teacher)
    train(plan, settings)
    assert changed_parts(before, plan.network.net) == LITE_BRANCHES | {"feature_extractor.blocks"}
    assert not changed_parts(teacher, plan.objective.teacher)
    after = plan.network.net.state_dict()
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 20 and all(torch.equal(before[name], after[name]) for name in statistics)
    with pytest.raises(ConfigError, match="teacher=ebm18_small, kept=2: .* give kept=0"):
        module.plan(dataclasses.replace(settings, kept=2))
    with pytest.raises(CheckpointError, match="none.safetensors"):
        module.plan(dataclasses.replace(settings, teacher="none.safetensors"))
    alone = dataclasses.replace(settings.objective, classifier_loss="none")
    with pytest.raises(ConfigError, match="scores are learned too"):
        module.plan(dataclasses.replace(settings, objective=alone))
    for key, value in (("filter_size", 5), ("optimizer_iterations", 2)):
        other = TrackerNet(dataclasses.replace(TrackerNet("ebm_lite").config, **{key: value}))
        save_checkpoint(tmp_path / f"{key}.safetensors", other, run={}, dtype=torch.float32)
        with pytest.raises(ConfigError, match=f"{key}={value}, the network's .*give a teacher with the same"):
            module.plan(dataclasses.replace(settings, teacher=str(tmp_path / f"{key}.safetensors")))


def test_heads_are_fitted_once_and_only_if_there_is_nothing_to_go_on_from(tmp_path, pool, monkeypatch):
    """The run begins with the heads of the network that ships; its checkpoint, or `start`, is not fitted again."""
    pytest.importorskip("onnxruntime")
    module, net = load_run("ebm_lite2"), TrackerNet("ebm_lite2")
    save_file(net.feature_extractor.state_dict(), tmp_path / "lite2.safetensors")
    save_checkpoint(tmp_path / "start.safetensors", net, run={}, dtype=torch.float32)
    usual = {"data": pool, "out": tmp_path / "a", "backbone": str(tmp_path / "lite2.safetensors"), "steps": 1}
    changes = ["fitted=2", "crops.output=64"]
    settings = settings_for("ebm_lite2", usual, changes)
    heads = load_checkpoint(resolve_weights(None)).bb_regressor.state_dict()
    parts = ("conv3_2t.0.weight", "fc3_rt.linear.weight", "iou_predictor.weight")

    def shipped(settings) -> list[bool]:
        found = module.plan(settings).network.net.bb_regressor.state_dict()
        return [bool(torch.equal(found[name], heads[name])) for name in parts]

    assert shipped(settings) == [True] * 3
    settings.checkpoint.parent.mkdir()
    settings.checkpoint.touch()
    assert shipped(dataclasses.replace(settings, resume=False)) == [True] * 3  # --restart
    monkeypatch.setattr(module, "fit_heads", None)
    start = dataclasses.replace(settings, start=str(tmp_path / "start.safetensors"))
    assert shipped(start) == [False] * 3
    assert shipped(settings) == [False] * 3


def test_a_trunk_learns_the_features_of_a_trained_network_and_the_rest_stays(tmp_path, pool, monkeypatch):
    """The trunk's later blocks and the heads' first convolutions move, and no statistics of batch norm."""
    module = load_run("ebm_lite2")
    monkeypatch.setattr(_Run, "_make_checks", lambda run: [])
    settings = one_step("ebm_lite2", tmp_path, pool, "frozen_blocks=14")
    plan = module.plan(settings)
    before = state_of(plan.network.net)
    after = train(plan, settings).state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    first = {f"bb_regressor.conv{n}_1{kind}.0.{part}" for n in "34" for kind in "rt" for part in ("weight", "bias")}
    final = {"classifier.feature_extractor.0.weight"}
    assert {name for name in moved if not name.startswith("feature_extractor.blocks")} == first | final
    learning = {name for name in before if name.startswith("feature_extractor.blocks.14.")}
    assert {name for name in moved if name in learning} == {n for n in learning if n.endswith(("weight", "bias"))}
    assert not any(name.startswith("feature_extractor.blocks.13.") for name in moved)
    with pytest.raises(ConfigError, match="objective"):  # it has none of these losses
        settings_for("ebm_lite2", {}, ["objective.samples=4"])
    wrong: list[tuple[dict, str]] = [
        ({"fitted": 0}, "fitted=0"),
        ({"rate": -1.0}, "rate=-1.0.*more than 0"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"average": 2.0}, "average=2.0: .*less than 1"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"arch": "dimp18"}, "arch=dimp18: give one on an EfficientNet-Lite"),
    ]
    for change, message in wrong:
        with pytest.raises(ConfigError, match=message):
            module.plan(dataclasses.replace(settings, **change))
    with pytest.raises(ConfigError, match="frozen_blocks=16: the trunk has 15 blocks"):
        module.plan(dataclasses.replace(settings, frozen_blocks=16))


@pytest.mark.parametrize("wrong", ["frozen_blocks=7 kept=2", "frozen_blocks=99", "kept=-1", "kept=2 uses=0"])
def test_wrong_blocks_are_refused_before_any_weights_are_asked_for(wrong):
    settings = settings_for("ebm_lite", {}, wrong.split())  # nor for training data
    with pytest.raises(ConfigError, match="kept=.*frozen_blocks=.*the trunk has 11 blocks"):
        load_run("ebm_lite").plan(settings)


def test_a_study_changes_its_training_pairs_and_not_those_held_back(pool, monkeypatch):
    monkeypatch.setattr(box_study_parts, "compute_features", lambda net, samples, bfloat16: list(samples))
    study, large = BoxStudySettings(train_pairs=3, held_back_pairs=2), ["crops.search_factor=2"]
    photographs = ["sampling.shares.video=0", "sampling.shares.synthetic=0"]
    usual, changed = (
        box_study_parts.pool_pairs(pool, None, override(settings_for("ebm18_small"), changes), study)
        for changes in ([], [*photographs, *large])
    )
    sizes = [[pair["boxes_xywh"][:, 2:].prod(-1).sqrt().mean().item() for pair in part[0]] for part in (usual, changed)]
    assert max(sizes[0]) < 288 / 5 * 2 and min(sizes[1]) > 288 / 2 / 2
    for one, other in zip(usual[1], changed[1]):
        assert torch.equal(one["crops"], other["crops"]) and torch.equal(one["boxes_xywh"], other["boxes_xywh"])


def test_the_kinds_of_a_pool_that_are_not_there_are_done_without(tmp_path, monkeypatch):
    """Runs and the study of boxes take compositions alone, of which some are held back."""
    material_tree(tmp_path)
    module, settings = load_run("ebm18_small"), settings_for("ebm18_small", {"data": tmp_path})
    assert [source.name for source in module.held_back(settings).sampler.sources] == ["synthetic"]
    got10k_tree(tmp_path / "got10k" / "train", ("a", "b"))
    monkeypatch.setattr(box_study_parts, "compute_features", lambda net, samples, bfloat16: len(list(samples)))
    study = BoxStudySettings(train_pairs=3, held_back_pairs=2)
    assert box_study_parts.pool_pairs(tmp_path, None, settings, study) == (3, 2)


def test_the_paper_run_has_the_papers_figures():
    """BMVC 2020, supplement D.1: 50 epochs of 40,000 samples in batches of 20; x 0.2 after 15, 30 and 45 epochs."""
    settings = settings_for("dimp50_nce_plus")
    assert settings.steps * settings.batch == 50 * 40_000 and settings.batch == 20
    assert set(settings.sampling.shares.values()) == {1.0}
    assert (settings.sampling.train_frames, settings.sampling.test_frames, settings.sampling.max_gap) == (3, 3, 200)
    losses = {name: settings_for(name).objective for name in ("dimp50_nce_plus", "dimp50_nce", "dimp50_kld_is")}
    assert [loss.box_loss for loss in losses.values()] == ["nce_plus", "nce", "kld_is"]
    assert all(dataclasses.replace(loss, box_loss="nce") == losses["dimp50_nce"] for loss in losses.values())
    atom = [settings_for(name) for name in ("atom18_ml_is", "atom18_iou")]
    assert [each.objective.box_loss for each in atom] == ["ml_is", "iou"]
    assert override(atom[1], ["objective.box_loss=ml_is", "out=runs/atom18_ml_is"]).objective == atom[0].objective


def test_prdimps_run_has_pytrackings_figures():
    """26,000 samples an epoch, LaSOT a quarter as often, the weights of its KL divergences, its learning rates."""
    settings = settings_for("prdimp18")
    assert settings.steps * settings.batch == 50 * 26_000 and settings.sampling.shares["lasot"] == 0.25
    loss = settings.objective
    assert (loss.classifier_loss, loss.box_loss, loss.target_sigma) == ("kl", "kld_is", 0.05)
    assert (loss.box_weight, loss.final_weight, loss.initial_weight, loss.inner_weight) == (0.0025, 0.25, 0.25, 1.0)
    assert settings.rates == {"classifier": 1e-3, "box": 1e-3, "backbone": 2e-4}


def test_the_rates_fall_after_fifteen_thirty_and_forty_five_epochs(tmp_path, backbones, monkeypatch):
    """2,000 steps an epoch. Adam's groups: every parameter that trains, once."""
    settings = settings_for("dimp50_nce_plus", {"out": tmp_path, "backbone": backbones["resnet50"]})
    plan = public_plan("dimp50_nce_plus", settings, monkeypatch, blocks())
    steps = [0, 29_999, 30_000, 59_999, 60_000, 90_000]
    assert [plan.network.rate(step) for step in steps] == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.008])
    grouped = [parameter for group in plan.network.groups for parameter in group["params"]]
    wanted = {id(p) for p in plan.network.net.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped}) and {id(p) for p in grouped} == wanted
    assert len(plan.data.train) == 2_000_000


@pytest.mark.parametrize("name", list_runs())
def test_a_file_opens_with_its_command(name, capsys):
    """The first line of code in the docstring is a command line of `ebmtrack train NAME` that is understood."""
    lines = [line.strip() for line in load_run(name).__doc__.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("ebmtrack train ")]
    assert commands and all(argv[:2] == ["train", name] for argv in commands)
    for argv in commands:
        at = argv.index("--set") if "--set" in argv else len(argv)
        assert cli.main([*argv[:at], "--show", *argv[at:]]) == 0
    assert "steps=" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, start", [("ebm18", "ebm18_small"), ("ebm18_small_boxes", "ebm18_small"), ("ebm18_small", "None")]
)
def test_show_names_the_network_that_training_begins_with(name, start, capsys):
    """Of a run that begins with a new network there is none; one that is given stays."""
    for words, expected in ([], start), (["--set", "start=mine.safetensors"], "mine.safetensors"):
        assert cli.main(["train", name, "--show", *words]) == 0
        assert f"\nstart={expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", list_runs())
def test_settings_survive_show_and_set(name):
    """What --show prints is what --set takes, for the settings of every run."""
    settings = settings_for(name)
    assert override(settings, describe(settings).splitlines()) == settings and settings.device == "auto"


def test_changes_are_recorded_in_the_network(tmp_path, backbones, monkeypatch):
    """The file's header: what was changed, and all settings; the weights are those that were trained."""
    base = load_run("dimp50_nce_plus")
    monkeypatch.setattr(base, "public_sources", lambda settings: blocks())
    monkeypatch.setattr(base, "validation_source", lambda: None)
    changes = "objective.beta=0.3", "sampling.shares.lasot=0.25"
    settings = small("dimp18_nce_plus", tmp_path, backbones, *changes, device="auto")
    path = train_named("dimp18_nce_plus", settings)
    metadata = read_metadata(path)
    assert path == tmp_path / "dimp18_nce_plus.safetensors" and metadata["architecture"] == "dimp18"
    changes = metadata["run"]["changes"]
    assert changes["objective.beta"] == 0.3 and changes["sampling.shares.lasot"] == 0.25 and changes["steps"] == 1
    assert "sampling.shares.coco" not in changes and "rates.box" not in changes
    assert metadata["settings"]["objective"]["beta"] == 0.3 and metadata["settings"]["crops"]["rule"] == "dimp"
    assert metadata["run"]["steps"] == 1 and metadata["run"]["seed"] == 0
    assert metadata["run"]["device"] == pick_device()  # and not "auto"
    assert torch.isfinite(load_checkpoint(path).bb_regressor.iou_predictor.weight).all()


def test_atom_can_begin_with_a_trained_classifier(tmp_path, backbones):
    """start: trunk and classifier are the file's, the box branch is not, or its last layer is not (new_box=false)."""
    torch.manual_seed(3)
    first = TrackerNet("dimp18")
    save_checkpoint(tmp_path / "first.safetensors", first, run={})
    start = f"start={tmp_path / 'first.safetensors'}"
    module = load_run("atom18_ml_is")
    network = module.network(small("atom18_ml_is", tmp_path, backbones, start))
    assert changed_parts(state_of(first), network.net) == {"bb_regressor"}
    network.set_mode(network.net)
    assert not network.net.feature_extractor.training and network.net.bb_regressor.training
    shorter = module.network(small("atom18_ml_is", tmp_path, backbones, start, "new_box=false")).net.state_dict()
    new = {name for name, value in state_of(first).items() if not torch.equal(value, shorter[name])}
    assert new == {"bb_regressor.iou_predictor.weight", "bb_regressor.iou_predictor.bias"}
    with pytest.raises(ConfigError, match="--set start=ebm18_small"):
        module.network(small("atom18_ml_is", tmp_path, backbones, "new_box=false"))
    with pytest.raises(CheckpointError, match="nowhere"):
        module.network(small("atom18_ml_is", tmp_path, backbones, "start=nowhere"))


@pytest.mark.parametrize("name", [*PUBLIC, *ON_POOL])
def test_missing_data_are_noticed_before_weights_are_downloaded(name, tmp_path, monkeypatch):
    """Nothing says where the public data sets are; the folder of a pool is empty."""
    monkeypatch.setattr("ebmtrack.training.plan.backbone_weights", lambda *_: pytest.fail("downloads"))
    settings = settings_for(name, {"out": tmp_path / "out", "data": None if name in PUBLIC else tmp_path})
    with pytest.raises(EbmtrackError, match="where is lasot|nothing to train on"):
        load_run(name).plan(settings)


def test_a_pools_short_compositions_are_left_out_by_dimps_rules(tmp_path, pool, monkeypatch):
    """The rule "any" takes clips of six frames; the other rules want 20 and would find none."""
    module, seen = load_run("dimp50_nce_plus"), []
    monkeypatch.setattr(module, "training_set", lambda settings, sources: seen.append(settings.sampling.shares))
    monkeypatch.setattr(module, "held_back_of", lambda *_: None)
    for rule in ("any", "dimp", "interval"):
        settings = settings_for("dimp50_nce_plus", {"out": tmp_path / "o"}, [f"sampling.rule={rule}"])
        module.data_of_folder(settings, pool)
    assert [set(each) for each in seen] == [{"video", "stills", "synthetic"}, *2 * [{"video", "stills"}]]


@pytest.mark.parametrize("name", [name for name in list_runs() if settings_for(name).arch == "dimp18"])
def test_every_run_can_begin_with_trained_weights(name, tmp_path, monkeypatch):
    """start: trunk and classifier are the file's, and so is the box branch unless the run makes a new one."""
    torch.manual_seed(3)
    first = TrackerNet("dimp18")
    save_checkpoint(tmp_path / "first.safetensors", first, run={}, dtype=torch.float32)
    settings = settings_for(name, {"start": str(tmp_path / "first.safetensors"), "out": tmp_path})
    if name == "ebm18_small_boxes":
        return  # its own test below begins so
    if name == "ebm18":
        settings = dataclasses.replace(settings, compile=False)
    net = network_of(name, settings, monkeypatch).net
    state, wanted = net.state_dict(), first.state_dict()
    key = "classifier.filter_initializer.filter_conv.weight"
    assert torch.equal(state[key], wanted[key])
    box = "bb_regressor.fc3_rt.linear.weight"
    assert torch.equal(state[box], wanted[box]) == (not name.startswith("atom"))


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_checkpoint(tmp_path / "first.safetensors", TrackerNet("dimp18"), run={})
    settings = settings_for("prdimp18", {"start": str(tmp_path / "first.safetensors")})
    with pytest.raises(ConfigError, match="architecture dimp18, this run trains prdimp18"):
        load_run("prdimp18").network(settings)


OWN_FILE = """
import dataclasses
from ebmtrack.ltr_settings import dimp18_nce_plus as base
from ebmtrack.training.plan import Plan

@dataclasses.dataclass(frozen=True)
class Settings(base.Settings):
    steps: int = 7

def plan(settings):
    made = base.plan(settings)
    return dataclasses.replace(made, params="dimp18")
"""


def test_a_training_file_is_found_by_its_path(tmp_path, monkeypatch):
    """Its folder of results has its name; a file without Settings or plan, or none at all, is refused."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "my_own_run.py"
    path.write_text(OWN_FILE)
    settings = settings_for(str(path), {}, ["objective.beta=0.3"])
    assert (settings.steps, settings.objective.beta, settings.out) == (7, 0.3, Path("runs/my_own_run"))
    assert load_run(str(path)) is load_run(str(path)) and load_run(str(path)).plan is not None
    (tmp_path / "half_a_run.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="needs a class Settings"):
        load_run(str(tmp_path / "half_a_run.py"))
    with pytest.raises(ConfigError, match="no such training file"):
        load_run(str(tmp_path / "none.py"))
    (tmp_path / "json.py").write_text(OWN_FILE)
    with pytest.raises(ConfigError, match="another name"):
        load_run(str(tmp_path / "json.py"))


@pytest.mark.parametrize("name", ["ebm18_small", "dimp18_nce_plus"])
def test_a_single_sample_is_refused_in_one_line(name, tmp_path, backbones, monkeypatch):
    settings = small(name, tmp_path, backbones, batch=1)
    network = network_of(name, settings, monkeypatch)
    with pytest.raises(ConfigError, match="^--batch 1: batch norm needs at least 2 samples in a step"):
        train(Plan(network, Data([]), load_run("ebm18_small").objective(settings)), settings)


def test_a_single_sample_is_enough_where_batch_norm_keeps_its_statistics(tmp_path, pool, monkeypatch):
    module = load_run("ebm_lite2")
    monkeypatch.setattr(_Run, "_make_checks", lambda run: [])
    settings = one_step("ebm_lite2", tmp_path, pool, batch=1)
    plan = module.plan(settings)
    statistics = plan.network.net.feature_extractor.blocks[14].bn3.running_mean.clone()
    trained = train(plan, settings)
    assert torch.equal(trained.feature_extractor.blocks[14].bn3.running_mean, statistics)


def test_public_sources_come_from_the_paths(tmp_path, monkeypatch):
    """Sets 0 to 3 of TrackingNet; a share of 0 leaves a data set out, and it need not be there."""
    module = load_run("dimp50_nce_plus")
    settings = settings_for("dimp50_nce_plus", {}, ["sampling.shares.coco=0"])
    with pytest.raises(ConfigError, match="where is lasot"):
        module.public_sources(settings)
    lasot_tree(tmp_path / "lasot")
    got10k_tree(tmp_path / "got10k" / "train")
    trackingnet_tree(tmp_path / "trackingnet")
    for number in (2, 3):
        save_text(tmp_path / "trackingnet" / f"TRAIN_{number}" / "anno" / f"gh_{number}.txt", "1,2,30,40\n")
    for name in ("lasot", "got10k", "trackingnet"):
        monkeypatch.setenv(variable(name), str(tmp_path / name))
    sources = module.public_sources(settings)
    assert {name: len(source) for name, source in sources.items()} == {"lasot": 2, "got10k": 2, "trackingnet": 5}
    assert module.validation_source() is None
    got10k_tree(tmp_path / "got10k" / "val")
    assert module.validation_source().name == "got10k_val"
    save_text(tmp_path / "vot.txt", "GOT-10k_Train_000001\n")
    listed = override(settings, [f"vot_list={tmp_path / 'vot.txt'}"])
    assert len(module.public_sources(listed)["got10k"]) == 1


def test_plain_settings_change_what_they_say_and_nothing_else(monkeypatch, tmp_path):
    """A RunSettings with its own out and device leaves the run's 100,000 steps."""
    module, seen = load_run("dimp18_nce_plus"), []
    monkeypatch.setattr(module, "plan", lambda settings: SimpleNamespace(save=None))
    monkeypatch.setattr(command, "train", lambda plan, settings: seen.append(settings) or TrackerNet("dimp18"))
    train_named("dimp18_nce_plus", RunSettings(out=tmp_path, device="cuda"))
    assert seen == [module.Settings(out=tmp_path, device="cuda")] and seen[0].steps == 100_000


def test_the_command_line(monkeypatch, tmp_path, capsys):
    """Options and --set end in the settings; --resume wants a checkpoint; faults are one line and code 2."""
    asked = []
    monkeypatch.setattr(command, "train_named", lambda name, settings: asked.append((name, settings)) or "file")
    argv = ["train", "dimp50_nce", "--out", str(tmp_path), "--batch", "5", "--set", "objective.samples=64", "thaw=1"]
    assert cli.main(argv) == 2
    assert "unknown setting 'thaw'" in capsys.readouterr().err
    assert cli.main([*argv[:-1], "clip_norm=1", "--set", "bfloat16=true"]) == 0  # a second --set adds to the first
    name, settings = asked.pop()
    assert name == "dimp50_nce" and (settings.batch, settings.objective.samples, settings.clip_norm) == (5, 64, 1.0)
    assert settings.bfloat16 and settings.steps == 100_000 and settings.resume and settings.out == tmp_path
    assert cli.main(["train", "dimp50_nce", "--out", str(tmp_path), "--resume"]) == 2
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "checkpoint.pt").touch()
    assert cli.main(["train", "dimp50_nce", "--out", str(tmp_path), "--resume"]) == 0
    assert cli.main(["train", "dimp50_nce", "--out", str(tmp_path), "--resume", "--restart"]) == 2
    assert cli.main(["train", "dimp50_ncee"]) == 2 and "did you mean 'dimp50_nce'" in capsys.readouterr().err


def test_own_sequences_are_training_data(tmp_path):
    """A folder of NAME/{img,groundtruth_rect.txt}: one of three is held back; kinds that are missing have no share."""
    for name in ("cat", "dog", "cow"):
        write_sequence(tmp_path / name, 8, 3)
    settings = settings_for("ebm18_small", {"data": tmp_path, "steps": 1, "batch": 2}, ["crops.output=64"])
    data = load_run("ebm18_small").data(settings)
    train, held_back = data.train.sampler.sources, data.held_back.samples.sampler.sources
    assert [len(source) for source in train] == [2] and [len(source) for source in held_back] == [1]
    names = {source.target_name(index) for source in train for index in range(2)}
    assert names | {held_back[0].target_name(0)} == {"cat", "dog", "cow"}
    assert data.train[0]["crops"].shape == (4, 64, 64, 3)
    spawned = pickle.loads(pickle.dumps(data.train))  # as workers get it on Windows and macOS
    assert torch.equal(torch.as_tensor(spawned[0]["crops"]), torch.as_tensor(data.train[0]["crops"]))
    with pytest.raises(ConfigError, match="two sequences or more"):
        load_run("ebm18_small").data(dataclasses.replace(settings, data=tmp_path / "cat"))


@pytest.mark.parametrize("name", ["dimp18", "atom18_iou"])
def test_the_papers_runs_train_on_own_sequences(name: str, tmp_path: Path) -> None:
    """`--data` takes the place of the public data sets: three folders, of which one is held back."""
    for sequence in "abc":
        for frame in range(24):
            save_image(tmp_path / sequence / "img" / f"{frame + 1:04d}.jpg", size_wh=(80, 60))
        (tmp_path / sequence / "groundtruth_rect.txt").write_text("30,20,16,12\n" * 24)
    settings = dataclasses.replace(load_run(name).Settings(), data=tmp_path, backbone="", validation_samples=2, steps=2)
    made = load_run("dimp50_nce_plus").data(settings)
    assert made.held_back is not None and len(made.train.sampler.sources) == 1
    sample = made.train[0]
    frames = settings.sampling.train_frames + settings.sampling.test_frames
    assert sample["crops"].shape == (frames, 288, 288, 3) and sample["boxes_xywh"].shape == (frames, 4)
    assert len(made.train.sampler.sources[0]) == 2
