"""Regressions end to end: the paper's files make a step, files of networks, refinement, coverage, the command line."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ebmtrack.commands import main as cli
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.images import write_picture
from ebmtrack.regression import measures, network
from ebmtrack.regression.answers import Prediction, of_samples
from ebmtrack.regression.examples import Examples
from ebmtrack.regression.network import RegressionNet, load_regression, refine, save_regression
from ebmtrack.regression.networks import PooledResNet, load_trunk_weights
from ebmtrack.regression.synthetic import draw_examples
from ebmtrack.regression.training import (
    RegressionSettings,
    ShuffledExamples,
    augment,
    open_examples,
    plan_of,
    train_regression,
)
from ebmtrack.training.command import load_run, settings_for, train_named
from tests.unit.regression.test_examples import biwi_tree, picture, write_csv
from tests.unit.regression.test_heads import IMAGES, generator, net_of

TINY = RegressionSettings(
    source="drawn-age",
    trunk="small",
    image_size=16,
    noise=16,
    steps=2,
    batch=4,
    checkpoint_every=10,
    validate_every=10,
    device="cpu",
)


def drawn(name: str = "age", number: int = 12, size: int = 16):
    return tuple(draw_examples(name, number, size, seed) for seed in range(3))


def test_every_training_example_is_used_once_in_an_epoch():
    examples = Examples(np.zeros((5, 4, 4, 3), np.uint8), np.arange(5.0, dtype=np.float32)[:, None], ("y",))
    data = ShuffledExamples(examples, dataclasses.replace(TINY, steps=5))
    labels = [float(data[i]["labels"]) for i in range(20)]
    assert all(sorted(labels[i : i + 5]) == [0, 1, 2, 3, 4] for i in (0, 5, 10))
    assert float(data[3]["labels"]) == labels[3]  # also out of order


def test_augmentation_flips_angles_and_keeps_the_label_of_the_data():
    """Yaw and roll change sign in half of the draws, on copies."""
    settings = dataclasses.replace(TINY, flip_signs=(-1.0, 1.0, -1.0))
    label, image = np.array([10.0, 20.0, 30.0], np.float32), np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    rng = np.random.default_rng(0)
    found = [augment(image, label, settings, rng) for _ in range(40)]
    assert {tuple(y) for _, y in found} == {(10, 20, 30), (-10, 20, -30)}
    assert all(x.shape == (16, 16, 3) for x, _ in found) and label.tolist() == [10, 20, 30]


def test_training_writes_a_network_that_answers_as_before(tmp_path):
    settings = dataclasses.replace(TINY, out=tmp_path, method="proposal")
    net, figures = train_regression(settings, drawn())
    again = load_regression(tmp_path / "regression.safetensors")
    one, other = (n.answer(IMAGES, 64, generator()).point for n in (net, again))
    torch.testing.assert_close(one, other)
    assert again.config == net.config and again.config.step > 0
    assert {"mae", "nll", "nll_is", "nll_q", "ess", "coverage_50", "coverage_90"} <= set(figures)
    assert "coverage_90" in (tmp_path / "figures.md").read_text()


def test_damaged_files_are_refused(tmp_path):
    save_regression(tmp_path / "a.safetensors", net_of("mdn"), {})
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(data.replace(b'\\"trunk\\": \\"small\\"', b'\\"trunk\\": \\"smell\\"'))
    with pytest.raises((CheckpointError, ConfigError), match="small"):
        load_regression(tmp_path / "b.safetensors")
    header = json.dumps({"config": {"method": "mdn", "components": -1}, "run": {}})
    save_file({}, tmp_path / "c.safetensors", {"ebmtrack_regression": header})
    with pytest.raises(CheckpointError, match="c.safetensors: the config in its header is damaged"):
        load_regression(tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="a.safetensor"):
        load_regression(tmp_path / "nowhere_a.safetensor")


PAPERS = {
    "age_energy": {"method": "energy-ml-is", "sigmas": (0.1, 20.0), "decay": 0.001, "noise": 1024, "steps": 27_000},
    "headpose_energy": {
        "method": "energy-ml-is",
        "sigmas": (1.0, 20.0),
        "decay": 0.001,
        "noise": 1024,
        "steps": 22_575,
    },
    "cells_proposal": {"method": "proposal", "components": 4, "decay": 0.0, "noise": 1024, "steps": 23_475},
    "steering_proposal": {"method": "proposal", "components": 4, "decay": 0.0, "noise": 1024, "image_size": 64},
}


def real_tree(name: str, folder) -> None:
    """Write a miniature of the data set that a training file reads."""
    if name == "headpose_energy":
        biwi_tree(folder, 12)
    elif name == "age_energy":
        for i in range(12):
            picture(folder / f"{21 + 3 * i}_0_0_{i}.jpg", 20 * i, 200)
    else:
        h5py = pytest.importorskip("h5py", reason="CcGAN's files are HDF5")
        file, images, labels, channels = {
            "cells_proposal": ("Cell200_64x64.h5", "IMGs_grey", "CellCounts", 1),
            "steering_proposal": ("SteeringAngle_64x64.h5", "images", "labels", 3),
        }[name]
        with h5py.File(folder / file, "w") as arrays:
            arrays[images] = np.random.default_rng(0).integers(0, 255, (100, channels, 64, 64)).astype(np.uint8)
            arrays[labels] = np.linspace(1, 90, 100)


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_files_make_a_step_with_the_papers_settings(name, tmp_path):
    """One step on a miniature of the real data, with a small backbone and a batch of 4; everything else is theirs."""
    real_tree(name, tmp_path)
    usual = settings_for(name)
    assert {key: getattr(usual, key) for key in PAPERS[name]} == PAPERS[name] and usual.rate == 1e-3
    settings = settings_for(
        name, {"out": tmp_path / "run", "data": tmp_path, "device": "cpu"}, ["steps=1", "batch=4", "trunk=small"]
    )
    net = load_regression(train_named(name, settings))
    assert net.config.sigmas == usual.sigmas and net.config.shift == (0.0,) * net.config.dims
    assert net.config.step == usual.step or usual.step == 0
    assert load_run(name).__doc__


def test_the_backbone_is_frozen_at_first_and_its_statistics_move():
    """Paper IV: 20 of 75 epochs with detached features, in training mode."""
    settings = dataclasses.replace(TINY, frozen_frac=20 / 75)
    plan = plan_of(settings, drawn())
    assert plan.network.thaw == (20 / 75, [plan.network.net.trunk])
    plan.network.set_mode(plan.network.net)
    assert plan.network.net.trunk.training


def test_whole_resnets_are_torchvisions(tmp_path):
    """The same features as torchvision's network without its classifier, and its file of weights fits."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(weights=None).eval()
    ours = PooledResNet("resnet18").eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    load_trunk_weights(ours, tmp_path / "resnet18.pth")
    theirs.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 64, 64, generator=generator())
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours.features == 512


class GaussianNet(RegressionNet):
    """A network whose energy is that of N(3, 2^2), for every image."""

    def energy(self, images):
        return lambda y: -0.5 * ((y - 3) / 2).square().sum(dim=-1)


def gaussian_net() -> GaussianNet:
    return GaussianNet(net_of("energy-nce").config).eval()


def test_refinement_climbs_the_density():
    """With the step s^2 one step reaches the mode; a tenth of it goes a tenth of the way in each of five steps."""
    start = torch.tensor([[9.0], [1.0], [3.0]])
    torch.testing.assert_close(refine(gaussian_net(), IMAGES, start, 4.0), torch.full((3, 1), 3.0))
    moved = refine(gaussian_net(), IMAGES, start, 0.4)
    torch.testing.assert_close(moved[0, 0], torch.tensor(3 + 6 * 0.9**5))
    with pytest.raises(ConfigError, match="choose_step"):
        refine(gaussian_net(), IMAGES, start)


def test_the_step_is_chosen_by_the_error():
    """Labels at the mode: of the steps offered, one near s^2 = 4 is best."""
    labels = torch.full((3, 1), 3.0)
    step = network.choose_step(gaussian_net(), IMAGES, labels, labels + torch.tensor([[1.0], [-2.0], [0.5]]))
    assert step == pytest.approx(25 * 10**-1) or step == pytest.approx(25 * 10**-0.5)


def test_coverage_counts_labels_in_their_intervals(monkeypatch):
    """A density that is right covers 50 and 90 %; one twice as wide covers 74 and 99.9 %."""
    rng = torch.Generator().manual_seed(1)
    labels = torch.randn(2000, 1, generator=rng).numpy()
    examples = Examples(np.zeros((2000, 4, 4, 3), np.uint8), labels, ("y",))
    for width, expected in ((1.0, (0.5, 0.9)), (2.0, (0.8226, 0.999))):
        net = net_of("mdn")

        def answer(images, num_samples, generator, width=width) -> Prediction:
            B = len(images)
            z = width * torch.randn(B, 512, 1, generator=generator)
            log_prob = lambda y: -0.5 * (y.squeeze(-1) / width).square() - math.log(width * math.sqrt(2 * math.pi))  # noqa: E731
            return of_samples(torch.zeros(B, 1), z, log_prob)

        monkeypatch.setattr(net, "answer", answer)
        figures = measures.evaluate(net, examples)
        assert (figures["coverage_50"], figures["coverage_90"]) == pytest.approx(expected, abs=0.03)
        assert figures["width_90"] == pytest.approx(2 * 1.645 * width, rel=0.03)
        assert figures["mae"] == pytest.approx(math.sqrt(2 / math.pi), abs=0.04)


def test_command_line_from_csv_to_one_image(tmp_path, capsys):
    """train, eval and predict on a CSV file; the interval is printed; wrong options are one line."""
    examples = draw_examples("age", 20, 24, 0)
    rows = [("image", "age")]
    for i, (image, label) in enumerate(zip(examples.images, examples.labels)):
        write_picture(tmp_path / f"{i}.png", image)
        rows.append((f"{i}.png", float(label[0])))
    write_csv(tmp_path / "labels.csv", rows)
    common = ["--csv", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    more = ["--size", "16", "--epochs", "1", "--set", "noise=8", "batch=4"]
    assert cli.main(["regress", "train", *common, *more]) == 0
    assert "16 + 2 + 2 images" in capsys.readouterr().out
    assert cli.main(["regress", "eval", *common]) == 0
    assert "| coverage_90 |" in (out := capsys.readouterr().out) and "note" not in out
    assert cli.main(["regress", "predict", str(tmp_path / "3.png"), "--out", str(tmp_path / "run")]) == 0
    assert "age " in (out := capsys.readouterr().out) and "(90 % interval" in out
    assert cli.main(["regress", "train"]) == 2 and "--csv" in capsys.readouterr().err
    assert cli.main(["regress", "predict", "--out", str(tmp_path / "run")]) == 2
    capsys.readouterr()
    for epochs in ("0", "nan", "inf"):
        assert cli.main(["regress", "train", *common, "--epochs", epochs]) == 2
        assert f"--epochs must be above 0 and finite, got {epochs}" in capsys.readouterr().err
    assert cli.main(["regress", "train", *common, "--size", "0"]) == 2
    assert "image_size must be at least 1, got 0" in capsys.readouterr().err
    assert cli.main(["regress", "train", "--csv", str(tmp_path / "none.csv"), "--method", "mdm"]) == 2
    assert "did you mean 'mdn'" in capsys.readouterr().err


def test_eval_takes_the_seed_of_the_training(tmp_path, capsys):
    """Another one would test on training images; a file that does not say its seed is evaluated with a note."""
    settings = dataclasses.replace(TINY, out=tmp_path, method="gaussian", seed=3)
    train_regression(settings, drawn())
    argv = ["regress", "eval", "--source", "drawn-age", "--out", str(tmp_path), "--size", "16", "--device", "cpu"]
    seeds = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ebmtrack.regression.training.open_examples", lambda s: seeds.append(s.seed) or drawn())
        assert cli.main(argv) == cli.main([*argv, "--seed", "3"]) == 0 and "note" not in capsys.readouterr().out
        for other in (["--seed", "1"], ["--set", "seed=0"]):
            assert cli.main([*argv, *other]) == 2
            assert "was trained with seed 3, which chose its test images: leave --seed out" in capsys.readouterr().err
        net = load_regression(tmp_path / "regression.safetensors")
        for run in ({}, {"seed": "3"}):
            save_regression(tmp_path / "regression.safetensors", net, run)
            assert cli.main([*argv, "--seed", "1"]) == 0 and "does not say its seed" in capsys.readouterr().out
    assert seeds == [3, 3, 1, 1]


def test_eval_takes_any_seed_where_the_data_set_names_its_test_images(tmp_path, capsys):
    """The seed chooses no test image then: nothing is refused, and nothing noted of a file without a seed."""
    rows = [("image", "age", "split")]
    for i, split in enumerate(["train"] * 8 + ["validation", "test"]):
        picture(tmp_path / f"{i}.png", 20 * i)
        rows.append((f"{i}.png", i, split))
    write_csv(tmp_path / "named.csv", rows)
    write_csv(tmp_path / "random.csv", [row[:2] for row in rows])
    settings = dataclasses.replace(TINY, out=tmp_path, method="gaussian", seed=3, source="csv")
    settings = dataclasses.replace(settings, data=tmp_path / "named.csv", steps=2)
    net = train_regression(settings)[0]
    argv = ["regress", "eval", "--out", str(tmp_path), "--device", "cpu", "--seed", "1", "--csv"]
    assert cli.main([*argv, str(tmp_path / "named.csv")]) == 0 and "1 test images" in capsys.readouterr().out
    assert cli.main([*argv, str(tmp_path / "random.csv")]) == 2 and "trained with seed 3" in capsys.readouterr().err
    save_regression(tmp_path / "regression.safetensors", net, {})
    assert cli.main([*argv, str(tmp_path / "named.csv")]) == 0 and "note" not in capsys.readouterr().out
    assert cli.main([*argv, str(tmp_path / "random.csv")]) == 0 and "does not say its" in capsys.readouterr().out


def test_utkface_is_split_at_random_unless_lists_say_how(tmp_path):
    """No image trains and tests, with coral-cnn's lists and without."""
    for i in range(20):
        picture(tmp_path / f"{21 + i}_0_0_{i}.jpg", 10 * i)
    settings = dataclasses.replace(TINY, source="utkface", data=tmp_path, parts=(0.7, 0.1, 0.2))
    parts = [part.labels[:, 0].tolist() for part in open_examples(settings)]
    assert [len(part) for part in parts] == [14, 2, 4] and sorted(sum(parts, [])) == [21 + i for i in range(20)]
    for name, rows in (("train", range(15)), ("test", range(15, 20))):
        write_csv(
            tmp_path / f"utk_{name}.csv",
            [("", "file", "label"), *((i, f"{21 + i}_0_0_{i}.jpg", i) for i in rows)],
        )
    train, validation, test = (part.labels[:, 0].tolist() for part in open_examples(settings))
    assert sorted(train + validation) == [21 + i for i in range(15)] and test == [36, 37, 38, 39, 40]


def test_wrong_settings_are_refused_before_data_are_read():
    with pytest.raises(ConfigError, match="did you mean 'mdn'"):
        dataclasses.replace(TINY, method="mdm")
    with pytest.raises(ConfigError, match="steps must be at least 1, got 0"):
        dataclasses.replace(TINY, steps=0)
    with pytest.raises(ConfigError, match="validate_every must be at least 1"):
        dataclasses.replace(TINY, validate_every=0)
    for name, least in (("image_size", 1), ("noise", 1), ("components", 1), ("classes", 2)):
        with pytest.raises(ConfigError, match=f"{name} must be at least {least}, got {least - 1}"):
            dataclasses.replace(TINY, **{name: least - 1})
    with pytest.raises(ConfigError, match="flip_signs=.*one factor for each of age"):
        plan_of(dataclasses.replace(TINY, flip_signs=(-1.0, 1.0, -1.0)), drawn())


def test_classes_of_a_softmax_are_a_setting():
    """The paper's classes are one year or one degree wide."""
    for name in ("age_energy", "headpose_energy"):
        usual = settings_for(name)
        assert usual.high[0] - usual.low[0] == usual.classes - 1
    assert plan_of(dataclasses.replace(TINY, method="softmax", classes=7), drawn()).network.net.config.classes == 7


def test_sources_need_their_data():
    with pytest.raises(ConfigError, match="did you mean 'cell200'"):
        open_examples(dataclasses.replace(TINY, source="cell20"))
    with pytest.raises(ConfigError, match="needs --data"):
        open_examples(dataclasses.replace(TINY, source="biwi"))


@pytest.mark.slow
def test_on_a_multimodal_task_the_energy_beats_its_own_proposal(tmp_path):
    """Angles that are +a or -a, which one Gaussian cannot say: NLL of the energy below that of its proposal, K = 1;
    and Algorithm S2 lowers the error of a biased start."""
    rng = np.random.default_rng(0)
    brightness = rng.uniform(0.2, 1, 1200)
    images = np.broadcast_to((255 * brightness)[:, None, None, None], (1200, 16, 16, 3)).astype(np.uint8)
    labels = (rng.choice([-1, 1], 1200) * 10 * brightness + rng.normal(0, 0.4, 1200)).astype(np.float32)
    both = Examples(np.ascontiguousarray(images), labels[:, None], ("angle",))
    parts = tuple(both.split((0.8, 0.1, 0.1)))
    settings = dataclasses.replace(TINY, out=tmp_path, method="proposal", components=1, noise=128, steps=600, batch=32)
    net, figures = train_regression(settings, parts)
    assert figures["nll"] < figures["nll_q"] - 0.2
    assert figures["nll_is"] == pytest.approx(figures["nll"], abs=0.15)
    labels = torch.from_numpy(parts[2].labels)
    start = labels + 1.0
    assert measures.refined_error(net, parts[2], start) < 0.8
