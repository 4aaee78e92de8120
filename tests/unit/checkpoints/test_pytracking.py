"""pytracking's checkpoints: exact round trips, both containers, and hostile files that run nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import random
import subprocess
import sys
import types
import zlib
from collections import OrderedDict

import pytest
import torch

from ebmtrack.checkpoints.convert import convert
from ebmtrack.checkpoints.native import architecture_name, load_checkpoint, read_metadata, save_checkpoint
from ebmtrack.checkpoints.pytracking import STAND_INS, export_pytracking, import_pytracking
from ebmtrack.checkpoints.untrusted import build_net, expected_entries, read_torch
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.nets.tracker_net import ARCHITECTURES, TrackerNet
from ebmtrack.tracking.params import load_params
from tests.support.golden import DATA, dimp18

DIMP18 = {  # what pytracking's training script for DiMP-18 passes
    "filter_size": 4,
    "backbone_pretrained": True,
    "optim_iter": 5,
    "clf_feat_norm": True,
    "final_conv": True,
    "optim_init_step": 0.9,
    "optim_init_reg": 0.1,
    "init_gauss_sigma": 0.9,
    "num_dist_bins": 100,
    "bin_displacement": 0.1,
    "mask_init_factor": 3.0,
    "target_mask_act": "sigmoid",
    "score_act": "relu",
}
DIMP50 = {**DIMP18, "clf_feat_blocks": 0, "out_feature_dim": 512}
SUPER_DIMP = {
    **DIMP50,
    "init_gauss_sigma": 0.25 / 6 * 22,
    "frozen_backbone_layers": ["conv1", "bn1", "layer1"],
}
PRDIMP18 = {
    "filter_size": 4,
    "backbone_pretrained": True,
    "optim_iter": 5,
    "clf_feat_norm": True,
    "final_conv": True,
    "optim_init_step": 1.0,
    "optim_init_reg": 0.05,
    "optim_min_reg": 0.05,
    "gauss_sigma": 0.9,
    "alpha_eps": 0.05,
    "normalize_label": True,
    "init_initializer": "zero",
}
PRDIMP50 = {**PRDIMP18, "clf_feat_blocks": 0, "out_feature_dim": 512, "gauss_sigma": 0.9}
KNOWN = {
    "dimp18": ("dimpnet18", DIMP18),
    "dimp50": ("dimpnet50", DIMP50),
    "super_dimp": ("dimpnet50", SUPER_DIMP),
    "prdimp18": ("klcedimpnet18", PRDIMP18),
    "prdimp50": ("klcedimpnet50", PRDIMP50),
}
PACKAGES = ("ltr.admin", "dlframework.common.utils")
CLASSES = {
    "model_constructor": ["NetConstructor"],
    "stats": ["AverageMeter", "StatValue"],
    "settings": ["Settings"],
    "local": ["EnvironmentSettings"],
}


class Foreign:
    """Base of the classes that stand for pytracking's while a test writes its files."""

    def __init__(self, **values):
        vars(self).update(values)


@pytest.fixture(params=PACKAGES)
def package(request, monkeypatch):
    """The name of a package, importable for as long as the test lasts, with the classes that checkpoints mention."""
    return make_package(request.param, monkeypatch)


@pytest.fixture
def ltr(monkeypatch):
    """The package under its present name."""
    return make_package("ltr.admin", monkeypatch)


PYTRACKINGS = [name for name, config in ARCHITECTURES.items() if config.backbone.startswith("resnet")]


def make_package(name: str, monkeypatch) -> types.SimpleNamespace:
    for depth in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:depth])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    found = types.SimpleNamespace()
    for leaf, kinds in CLASSES.items():
        module = types.ModuleType(f"{name}.{leaf}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for kind in kinds:
            setattr(module, kind, type(kind, (Foreign,), {"__module__": module.__name__, "__qualname__": kind}))
            setattr(found, kind, getattr(module, kind))
    return found


def light_state(name: str) -> OrderedDict:
    """All entries of a network, each one stored number that its name determines; with some of layer4 and fc."""
    entries = expected_entries(ARCHITECTURES[name])
    state = OrderedDict()
    for key, entry in entries.items():
        number = zlib.crc32(key.encode()) / 2**32
        state[key] = torch.tensor(number).to(entry.dtype).expand(entry.shape)
    state["feature_extractor.layer4.0.conv1.weight"] = torch.zeros(()).expand(512, 256, 3, 3)
    state["feature_extractor.fc.bias"] = torch.full((1000,), torch.nan)
    return state


def content(package, function="dimpnet18", kwds=DIMP18, net=None, **changes) -> dict:
    """What pytracking's trainer saves."""
    constructor = package.NetConstructor(
        fun_name=function, fun_module="ltr.models.tracking.dimpnet", args=(), kwds=dict(kwds)
    )
    meter = package.AverageMeter(val=1.0, avg=0.5, history=[1.0, 0.5], has_new_data=False)
    env = package.EnvironmentSettings(workspace_dir="/somewhere", lasot_dir="")
    return {
        "epoch": 50,
        "actor_type": "DiMPActor",
        "net_type": "DiMPnet",
        "net": {} if net is None else net,
        "net_info": None,
        "constructor": constructor,
        "optimizer": {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
        "stats": OrderedDict(train=OrderedDict({"Loss/total": meter, "LR": package.StatValue(history=[2.0])})),
        "settings": package.Settings(env=env, batch_size=26, center_jitter_factor={"train": 3, "test": 4.5}),
        **changes,
    }


def write(path, stored, zipped=True):
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    return path


def random_net(name: str) -> TrackerNet:
    """A network with random values in every entry."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    entries = expected_entries(ARCHITECTURES[name])
    values = {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(11)
        for key, value in entries.items()
    }
    return build_net(ARCHITECTURES[name], values, name)


def same_entries(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(map(torch.equal, first.values(), second.values()))


def keywords_fit(written: dict, script: dict) -> bool:
    """Written are the keywords of pytracking's training script, except what only starts the training, and besides at
    most keywords that every version of its functions has."""
    starts = {"mask_init_factor", "init_initializer", "frozen_backbone_layers"}
    expected = {key: value for key, value in script.items() if key not in starts} | {"backbone_pretrained": False}
    more = {"classification_layer", "feat_stride", "init_filter_norm", "clf_feat_blocks", "out_feature_dim"}
    return {k: v for k, v in written.items() if k in expected} == expected and set(written) - set(expected) <= more


@pytest.mark.parametrize("name", PYTRACKINGS)
def test_round_trip_is_exact(tmp_path, name):
    """Ours -> pytracking -> ours: every bit, the configuration and so the architecture. dimp50 and super_dimp have the
    same tensors: only the configuration tells them apart. Names and shapes in between are the published ones."""
    net = dimp18() if name == "dimp18" else random_net(name)
    export_pytracking(tmp_path / "a.pth.tar", net, epoch=9)
    back, origin = import_pytracking(tmp_path / "a.pth.tar")
    assert same_entries(back, net) and back.config == net.config and architecture_name(back.config) == name
    assert origin == {"format": "pytracking", "function": KNOWN[name][0], "epoch": 9}
    stored = read_torch(tmp_path / "a.pth.tar", STAND_INS)
    assert keywords_fit(stored["constructor"].kwds, KNOWN[name][1])
    listing = {"dimp18": "dimp18", "dimp50": "super_dimp", "super_dimp": "super_dimp"}.get(name)
    if listing:
        rows = [line.split("\t") for line in (DATA / f"{listing}_state_dict.txt").read_text().splitlines()]
        described = [
            [key, str(tuple(v.shape)), str(v.dtype).removeprefix("torch.")] for key, v in stored["net"].items()
        ]
        assert sorted(described) == sorted(rows)


@pytest.mark.parametrize("name", PYTRACKINGS)
def test_reads_every_architecture(tmp_path, ltr, name):
    reads_what_pytracking_writes(tmp_path, ltr, name, zipped=True)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_reads_both_containers_and_module_paths(tmp_path, package, zipped):
    reads_what_pytracking_writes(tmp_path, package, "prdimp18", zipped)


def reads_what_pytracking_writes(tmp_path, package, name, zipped):
    """The network comes back, from among the objects that the trainer stores beside it."""
    function, kwds = KNOWN[name]
    path = write(tmp_path / "DiMPnet_ep0050.pth.tar", content(package, function, kwds, light_state(name)), zipped)
    net, origin = import_pytracking(path)
    assert net.config == ARCHITECTURES[name] and origin["function"] == function and origin["epoch"] == 50
    got, expected = net.state_dict(), light_state(name)
    assert all(torch.equal(value, expected[key]) for key, value in got.items())
    assert len(got) == len(expected) - 2


def test_export_leaves_the_process_as_it_was(tmp_path):
    """A module that is already imported under pytracking's name stays; none is left where there was none."""
    before = dict(sys.modules)
    export_pytracking(tmp_path / "a.pth.tar", dimp18())
    assert not [name for name in sys.modules if name.split(".")[0] == "ltr" and name not in before]
    own = types.ModuleType("ltr.admin.model_constructor")
    sys.modules[own.__name__] = own
    try:
        export_pytracking(tmp_path / "b.pth.tar", dimp18())
        assert sys.modules[own.__name__] is own
    finally:
        del sys.modules[own.__name__]
    assert (tmp_path / "a.pth.tar").read_bytes() == (tmp_path / "b.pth.tar").read_bytes()


LOADER = """
import json, sys, importlib, torch
content = torch.load(sys.argv[1], map_location="cpu", weights_only=False)
made = content["constructor"]
net = getattr(importlib.import_module(made.fun_module), made.fun_name)(*made.args, **made.kwds)
net.load_state_dict(content["net"], strict=True)
rest = {key: content[key] for key in ("epoch", "actor_type", "net_type", "net_info", "optimizer", "stats", "settings")}
kind = type(made)
print(json.dumps([kind.__module__, kind.__qualname__, made.fun_name, made.kwds, rest, net.probe()]))
"""
PLAIN_CONSTRUCTOR = """
class NetConstructor:
    def __init__(self, fun_name, fun_module, args, kwds):
        self.fun_name, self.fun_module, self.args, self.kwds = fun_name, fun_module, args, kwds
"""
PLAIN_NET = """
import torch
def dimpnet18(**kwds):
    net = torch.nn.Module()
    for line in open(LISTING):
        *path, leaf = (row := line.rstrip().split("\\t"))[0].split(".")
        module = net
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_buffer(leaf, torch.ones(eval(row[1]), dtype=getattr(torch, row[2])))
    net.probe = lambda: [net.bb_regressor.iou_predictor.bias.item(), net.feature_extractor.fc.bias.abs().sum().item()]
    return net
"""


def test_export_loads_where_pytracking_is(tmp_path):
    """A loader like pytracking's, in a process where a package `ltr` exists: unpickles the constructor, calls the
    function that it names, and loads strictly into a network with the published entries, layer4 and fc included."""
    export_pytracking(tmp_path / "a.pth.tar", dimp18(), epoch=3)
    for folder in ("ltr/admin", "ltr/models/tracking"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ltr/admin/model_constructor.py").write_text(PLAIN_CONSTRUCTOR)
    (tmp_path / "ltr/models/tracking/dimpnet.py").write_text(
        f"LISTING = {str(DATA / 'dimp18_state_dict.txt')!r}\n{PLAIN_NET}"
    )
    command = [sys.executable, "-c", LOADER, str(tmp_path / "a.pth.tar")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    module, kind, function, kwds, rest, probe = json.loads(done.stdout)
    assert (module, kind, function) == ("ltr.admin.model_constructor", "NetConstructor", "dimpnet18")
    differing = {key for key, value in DIMP18.items() if key not in kwds or kwds[key] != value}
    assert differing == {
        "backbone_pretrained",
        "mask_init_factor",
    }  # nothing to download; starts training only
    assert rest == {
        "epoch": 3,
        "actor_type": "DiMPActor",
        "net_type": "DiMPnet",
        "net_info": None,
        "optimizer": {},
        "stats": {},
        "settings": None,
    }
    assert probe == [dimp18().bb_regressor.iou_predictor.bias.item(), 0]


REFUSED = {
    "unknown function": ({"function": "tompnet50"}, "built by 'tompnet50'.*known are dimpnet18, dimpnet50"),
    "function no text": ({"function": ["x"]}, r"built by \['x'\]"),
    "another activation": (
        {"kwds": {**DIMP18, "score_act": "bentpar"}},
        "score_act 'bentpar' instead of 'relu'",
    ),
    "another mask": (
        {"kwds": {**DIMP18, "target_mask_act": "none"}},
        "target_mask_act 'none' instead of 'sigmoid'",
    ),
    "no norm": ({"kwds": {**DIMP18, "clf_feat_norm": False}}, "clf_feat_norm False instead of True"),
    "other bins": ({"kwds": {**DIMP18, "bin_displacement": 0.5}}, "bin_displacement 0.5 instead of 0.1"),
    "two faults": (
        {"kwds": {**DIMP18, "feat_stride": 8, "final_conv": False}},
        "feat_stride 8 .*final_conv False",
    ),
    "bins by default": ({"kwds": {"filter_size": 4}}, r"num_dist_bins 5 \(by default\) instead of 100"),
    "unnormalised": (
        {"function": "klcedimpnet18", "kwds": {**PRDIMP18, "normalize_label": False}},
        "normalize_label",
    ),
    "shrunk": ({"function": "klcedimpnet18", "kwds": {**PRDIMP18, "label_shrink": 0.1}}, "label_shrink 0.1"),
    "bottlenecks": ({"function": "dimpnet50", "kwds": {**DIMP50, "clf_feat_blocks": 1}}, "clf_feat_blocks"),
    "unknown keyword": ({"kwds": {**DIMP18, "depth": 3}}, "keywords unknown to ebmtrack: 'depth'"),
    "keyword of the other family": (
        {"kwds": {**DIMP18, "alpha_eps": 0.05}},
        "unknown to ebmtrack: 'alpha_eps'",
    ),
    "no number": ({"kwds": {**DIMP18, "filter_size": "4"}}, "filter_size of its network is '4'"),
    "a tensor": ({"kwds": {**DIMP18, "bin_displacement": torch.ones(2)}}, "bin_displacement of type Tensor"),
    "enormous": ({"kwds": {**DIMP18, "filter_size": 10**9}}, "filter_size of its network is 1000000000"),
    "other width": (
        {"kwds": {**DIMP18, "out_feature_dim": 128}},
        r"shape \(256, 256, 3, 3\), expected \(128, 256, 3",
    ),
    "other family": (
        {"function": "klcedimpnet18", "kwds": PRDIMP18},
        "has unknown 'classifier.filter_optimizer",
    ),
    "other backbone": ({"function": "dimpnet50", "kwds": DIMP50}, "does not fit the network: lacks"),
    "no net": ({"net": 3}, "no pytracking checkpoint"),
    "no constructor": ({"constructor": None}, "constructor is None"),
    "constructor is a dict": ({"constructor": {"fun_name": "dimpnet18"}}, "constructor is of type dict"),
    "entries with odd names": ({"net": {3: torch.zeros(2)}}, "has unknown 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_configurations(tmp_path, ltr, name):
    changes, message = REFUSED[name]
    stored = content(ltr, **{"net": light_state("dimp18"), **changes})
    with pytest.raises(CheckpointError, match=message) as caught:
        import_pytracking(write(tmp_path / "a.pth.tar", stored))
    assert str(tmp_path / "a.pth.tar") in str(caught.value)


def test_arguments_without_names_are_refused(tmp_path, ltr):
    stored = content(ltr)
    stored["constructor"].args = (4,)
    with pytest.raises(CheckpointError, match="arguments without names"):
        import_pytracking(write(tmp_path / "a.pth.tar", stored))


@pytest.mark.parametrize("field", ["fun_name", "kwds"])
def test_incomplete_constructor(tmp_path, ltr, field):
    stored = content(ltr)
    delattr(stored["constructor"], field)
    with pytest.raises(CheckpointError, match="a.pth.tar"):
        import_pytracking(write(tmp_path / "a.pth.tar", stored))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(backbone="resnet50", classifier_blocks=1), "clf_feat_blocks"),
        (dict(minimum_regularization=0.01), "has minimum_regularization=0.001 and no keyword"),
        (dict(alpha_eps=0.1), "has alpha_eps=0.0 and no keyword"),
    ],
)
def test_networks_that_pytracking_cannot_build(tmp_path, change, message):
    """The check comes before any tensor is looked at, so that an empty network will do."""
    with torch.device("meta"):
        net = TrackerNet(dataclasses.replace(ARCHITECTURES["dimp18"], **change))
    with pytest.raises(CheckpointError, match=message):
        export_pytracking(tmp_path / "a.pth.tar", net)
    assert not list(tmp_path.iterdir())


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


class HostileEval(Hostile):
    """The same through a builtin."""

    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({self.canary!r})",)


def hidden(where: str, evil, ltr) -> object:
    """A checkpoint with `evil` in one of its corners."""
    stored = content(ltr, net=OrderedDict(w=torch.zeros(2)))
    if where == "settings":
        stored["settings"].env.deep = [{"x": (1, evil)}]
    elif where == "keywords":
        stored["constructor"].kwds["act_param"] = evil
    elif where == "net":
        stored["net"]["w"] = evil
    elif where == "stats":
        stored["stats"]["train"]["Loss/total"].history.append(evil)
    return evil if where == "top" else stored


@pytest.mark.parametrize("kind, refused", [(Hostile, f"{os.mkdir.__module__}.mkdir"), (HostileEval, "eval")])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("where", ["top", "net", "settings", "keywords", "stats"])
def test_hostile_files_run_nothing(tmp_path, ltr, where, zipped, kind, refused):
    """The folder that the file would make is not there, the error names what was refused; and the file is armed:
    loaded carelessly, it does make the folder."""
    canary = tmp_path / "canary"
    path = write(tmp_path / "a.pth.tar", hidden(where, kind(canary), ltr), zipped)
    for read in (import_pytracking, load_checkpoint, lambda p: convert(p, tmp_path / "b.safetensors")):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert read is load_checkpoint or f"refers to {refused}, " in str(caught.value)
    assert not canary.exists() and not (tmp_path / "b.safetensors").exists()
    torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bare_pickles_run_nothing(tmp_path, protocol):
    path = tmp_path / "a.pth.tar"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "canary"), protocol))
    with pytest.raises(CheckpointError, match="a.pth.tar"):
        import_pytracking(path)
    assert not (tmp_path / "canary").exists()


def test_refused_names_that_are_harmless_are_named(tmp_path, ltr):
    """A file from somewhere else may mention a class that we do not expect: the user learns which."""
    stored = content(ltr, settings={"when": types.SimpleNamespace(a=1)})
    with pytest.raises(CheckpointError, match="refers to types.SimpleNamespace, which is not on the list"):
        import_pytracking(write(tmp_path / "a.pth.tar", stored))


def test_stand_ins_do_nothing_when_called(tmp_path, ltr):
    """An allowed class, called with arguments by the file, is an error, not a call."""

    class Calls:
        def __reduce__(self):
            return ltr.Settings, ("x",)

    with pytest.raises(CheckpointError, match="TypeError"):
        import_pytracking(write(tmp_path / "a.pth.tar", content(ltr, settings=Calls())))


def test_endless_and_deep_values_are_refused_shortly(tmp_path, ltr):
    """Lists that contain themselves, where a plain value is expected."""
    endless: list = []
    endless.append(endless)
    for name in ("score_act", "iou_input_dim", "filter_size"):
        stored = content(ltr, kwds={**DIMP18, name: endless}, net=light_state("dimp18"))
        with pytest.raises(CheckpointError, match=f"{name}.* of type list"):
            import_pytracking(write(tmp_path / "a.pth.tar", stored))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_truncated_anywhere(tmp_path, ltr, zipped):
    """The whole file loads; no shorter one does."""
    path = write(tmp_path / "a.pth.tar", content(ltr, net=light_state("dimp18")), zipped)
    import_pytracking(path)
    whole = path.stat().st_size
    for size in [whole - 1, *sorted((whole * k // 30 for k in range(30)), reverse=True), 20, 9, 3, 2, 1]:
        os.truncate(path, size)
        with pytest.raises(CheckpointError, match="a.pth.tar"):
            import_pytracking(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_flipped_bytes_never_escape_as_another_error(tmp_path, ltr, zipped):
    """The file lacks most entries, so that each of its damaged versions must end in a CheckpointError."""
    data = write(tmp_path / "a.pth.tar", content(ltr, net=OrderedDict(w=torch.zeros(2))), zipped).read_bytes()
    rng = random.Random(3)
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "b.pth.tar").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="b.pth.tar"):
            import_pytracking(tmp_path / "b.pth.tar")


def test_pictures_folders_and_our_own_format_are_refused(tmp_path):
    (tmp_path / "a.pth.tar").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    with pytest.raises(CheckpointError, match="a JPEG picture"):
        import_pytracking(tmp_path / "a.pth.tar")
    with pytest.raises(CheckpointError, match="is a folder"):
        import_pytracking(tmp_path)
    save_checkpoint(tmp_path / "ours.safetensors", dimp18(), run={}, dtype=torch.float16)
    with pytest.raises(CheckpointError, match="a safetensors file, but a PyTorch"):
        import_pytracking(tmp_path / "ours.safetensors")


def test_convert_there_and_back(tmp_path):
    """Ours -> pytracking -> ours by file name; the last file says where it comes from."""
    save_checkpoint(tmp_path / "a.safetensors", dimp18(), run={"seed": 1}, settings={"x": 2})
    text = convert(tmp_path / "a.safetensors", tmp_path / "b.pth.tar")
    assert "dimp18 network with 189 entries" in text and "b.pth.tar, 43.1 MB" in text
    convert(tmp_path / "b.pth.tar", tmp_path / "c.safetensors")
    assert same_entries(load_checkpoint(tmp_path / "c.safetensors"), dimp18())
    origin = {"file": "b.pth.tar", "format": "pytracking", "function": "dimpnet18", "epoch": 0}
    assert read_metadata(tmp_path / "c.safetensors")["run"] == {"converted_from": origin}
    convert(tmp_path / "a.safetensors", tmp_path / "d.safetensors", half=True)
    metadata = read_metadata(tmp_path / "d.safetensors")
    assert (metadata["dtype"], metadata["run"], metadata["settings"]) == ("float16", {"seed": 1}, {"x": 2})


def test_convert_writes_parameters_that_fit_beside_networks_of_ours(tmp_path):
    """Relative space, ten steps of 1e-3, the default set-up's length; none beside one that came from pytracking.

    (pytracking has no momentum, with which the default set-up takes seven.)
    """
    params = load_params("dimp18_nce_plus")
    save_checkpoint(tmp_path / "a.safetensors", dimp18(), run={"seed": 1})
    text = convert(tmp_path / "a.safetensors", tmp_path / "mine.pth.tar")
    written = (tmp_path / "mine_parameters.py").read_text()
    assert "pytracking/parameter/dimp/mine.py" in text and 'net_path="mine.pth.tar"' in written
    assert params.relative_space and 'box_refinement_space = "relative"' in written
    assert "box_refinement_iter = 10\n" in written and (params.ascent_steps, params.ascent_momentum) == (7, 0.5)
    assert f"step_length = {params.position_step:g}".replace("0.001", "1e-3") in written
    compile(written, "mine_parameters.py", "exec")
    convert(tmp_path / "mine.pth.tar", tmp_path / "back.safetensors")
    convert(tmp_path / "back.safetensors", tmp_path / "again.pth.tar")
    assert not (tmp_path / "again_parameters.py").exists()


def test_convert_leaves_edited_parameters_alone(tmp_path):
    """And says so; unedited ones are written again without a word."""
    save_checkpoint(tmp_path / "a.safetensors", dimp18(), run={}, dtype=torch.float16)
    path = tmp_path / "mine_parameters.py"
    for _ in range(2):
        assert "is left" not in convert(tmp_path / "a.safetensors", tmp_path / "mine.pth.tar")
    path.write_text(path.read_text() + "# my own change\n")
    text = convert(tmp_path / "a.safetensors", tmp_path / "mine.pth.tar")
    assert "mine_parameters.py is left as it is" in text and path.read_text().endswith("# my own change\n")


def test_convert_refuses_odd_targets(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", dimp18(), run={}, dtype=torch.float16)
    before = (tmp_path / "a.safetensors").read_bytes()
    for target, options, message in [
        ("a.onnx", {}, "name the target .safetensors"),
        ("a.pth.tar", {"half": True}, "half precision is for .safetensors"),
        ("a.safetensors", {}, "is the source itself"),
    ]:
        with pytest.raises(ConfigError, match=message):
            convert(tmp_path / "a.safetensors", tmp_path / target, **options)
    assert (tmp_path / "a.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(CheckpointError, match="no such file"):
        convert(tmp_path / "none.pth.tar", tmp_path / "b.safetensors")


def test_a_network_that_pytracking_does_not_have_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="pytracking has no 'dimp' network on 'efficientnet_lite0'"):
        export_pytracking(tmp_path / "net.pth.tar", TrackerNet("ebm_lite"))
    assert not list(tmp_path.iterdir())
