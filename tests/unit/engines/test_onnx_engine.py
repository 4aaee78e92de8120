"""The engine on ONNX Runtime against golden numbers and the engine on PyTorch; files that are damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from contextlib import nullcontext
from typing import cast

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from ebmtrack.checkpoints.native import (
    load_checkpoint,
    resolve_weights,
    tensors_sha256,
)
from ebmtrack.commands import main as cli
from ebmtrack.commands.export_network import search_regions
from ebmtrack.engines import choose_engine, engine_facts, load_engine
from ebmtrack.engines.base import Ascent, AspectPrior, WholeLook
from ebmtrack.engines.export.graphs import look_graph
from ebmtrack.engines.export.network import export_network
from ebmtrack.engines.export.quantize import first_layers, quantize_graphs
from ebmtrack.engines.onnx_box_maps import BoxMaps
from ebmtrack.engines.onnx_engine import OnnxEngine, load_onnx_engine
from ebmtrack.engines.onnx_files import find_exported, open_sessions, read_exported
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import CheckpointError, ConfigError
from ebmtrack.nets.backbone import fold_batch_norm
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.nets.tracker_net import NetConfig, TrackerNet
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.viewers.demo_sequence import demo_sequence
from ebmtrack.weights import DEFAULT_WEIGHTS
from tests.support.engine_runs import (
    STEPS,
    assert_close,
    candidates,
    check_copies_learn_alone,
    check_golden_climb,
    first_frame,
    run_through,
    write_exported,
)
from tests.support.golden import FEW_VIEWS, dimp18, fill, image


@pytest.fixture(scope="module")
def engine(folder):
    return load_onnx_engine(folder / "out")


@pytest.fixture(scope="module")
def reference():
    return TorchEngine(InferenceNet(dimp18(), precision="float32"))


def test_the_climb_equals_golden_numbers(engine):
    check_golden_climb(engine)


def test_answers_are_those_of_pytorch(answers, reference):
    assert_close(answers, run_through(reference))


@pytest.mark.parametrize("architecture", ["super_dimp", "prdimp18"])
def test_other_architectures_answer_as_in_pytorch(architecture, tmp_path):
    """ResNet-50 without classifier blocks; PrDiMP's Newton steps."""
    net = TrackerNet(architecture)
    fill(net, {name: value for name, value in net.state_dict().items() if ".filter_optimizer." in name})
    channels = net.config.classifier_channels
    engine = load_onnx_engine(write_exported(net, tmp_path))
    reference = TorchEngine(InferenceNet(net, precision="float32"))
    assert engine.info.classifier == net.config.filter_optimizer and engine.info.channels == channels
    found, expected = (run_through(one, side=160) for one in (engine, reference))
    assert_close(found, expected)


def test_the_same_calls_give_the_same_bits(engine, answers):
    again = run_through(engine)
    assert all(np.array_equal(again[name], answers[name]) for name in answers)


def test_answers_for_a_target_do_not_depend_on_others(engine):
    model, (region, *_) = engine.start(first_frame())
    sights = engine.look([WholeLook(model, image(name, 288, 288)) for name in ("walk", "test0")])
    (alone,) = engine.look([WholeLook(model, image("test0", 288, 288))])
    assert np.array_equal(sights[1].scores, alone.scores)
    prior = AspectPrior(np.array([0.4, -0.3]), 0.5)
    steps = dataclasses.replace(STEPS, prior=prior)
    both = engine.climb([sight.features for sight in sights], candidates().repeat(2, axis=0), steps)
    one = engine.climb(
        [alone.features], candidates(), dataclasses.replace(STEPS, prior=AspectPrior(np.array([-0.3]), 0.5))
    )
    assert np.array_equal(both.boxes_xywh[1], one.boxes_xywh[0]) and np.array_equal(both.energies[1], one.energies[0])


def test_copies_of_a_model_learn_alone(engine):
    check_copies_learn_alone(engine)


def test_boxes_out_of_sight_have_no_energy(engine):
    model, (region, *_) = engine.start(first_frame())
    boxes = np.array([[[np.nan, 0, 5, 5], [1e7, 0, 5, 5], [100, 120, 80, 60], [-np.inf, 0, np.inf, 4]]], np.float32)
    climb = engine.climb([region], boxes, STEPS)
    assert np.isnan(climb.energies[0, [0, 1, 3]]).all() and np.isfinite(climb.boxes_xywh[0, 2]).all()
    alone = engine.climb([region], boxes[:, 2:3], Ascent(0, 0.0, 0.0, False))
    assert np.array_equal(alone.boxes_xywh, boxes[:, 2:3]) and np.isfinite(alone.energies).all()


def test_energies_take_boxes_in_float64(engine):
    _, (region, *_) = engine.start(first_frame())
    boxes = candidates()[0] + [0, 0, 40, 40]
    assert np.array_equal(engine.energies(region, boxes.astype(np.float64)), engine.energies(region, boxes))


def test_windows_of_box_features_equal_the_whole_map(engine):
    """Every window, at the edges of the map as well, holds the values that the whole map has there."""
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((c, n, n)).astype(np.float32) for c, n in ((128, 36), (256, 18))]
    convolve = (engine._convolve8, engine._convolve16)
    for level, total in enumerate((36, 18)):
        maps = BoxMaps(layers, convolve)
        every, _ = maps.part(level, np.zeros(2), np.full(2, total - 1.0))
        assert every.shape == (total, total, 256)
        for x, y in ((0, 0), (total - 5, 2), (total // 2, total - 5)):
            part, first = BoxMaps(layers, convolve).part(level, np.array([x, y]), np.array([x + 4.0, y + 4.0]))
            expected = every[first[1] : first[1] + 5, first[0] : first[0] + 5]
            assert part.shape == expected.shape and np.allclose(part, expected, atol=1e-4 * np.abs(every).max())


def test_a_side_that_is_no_multiple_of_the_stride_is_refused(engine):
    with pytest.raises(ConfigError, match="divisible by 16"):
        engine.start(first_frame(280))


@pytest.fixture
def copied(engine, folder, tmp_path):
    """Return a copy of the exported files that may be damaged."""
    for file in (folder / "out").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def changed(path, **values) -> None:
    """Change fields of a network.json."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_damaged_files_are_refused_in_one_line(copied):
    with open(copied / "look.onnx", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match=r"look.onnx: damaged or of another export"):
        load_onnx_engine(copied)
    (copied / "look.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"look.onnx: No such file"):
        load_onnx_engine(copied)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"format_version": 9}, "format version 9"),
        ({"config": 3}, "lacks a proper config"),
        ({"config": {}}, "lacks 'filter_size'"),
        ({"files": {}}, "lists no look.onnx"),
        ({"files": {"../look.onnx": "0"}}, "lacks a proper ../look.onnx"),
    ],
)
def test_a_wrong_description_is_refused(copied, values, message):
    changed(copied / "network.json", **values)
    with pytest.raises(CheckpointError, match=message):
        load_onnx_engine(copied)


def test_what_is_no_json_is_refused(copied):
    (copied / "network.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load_onnx_engine(copied)


def test_graphs_that_cannot_run_are_refused_in_one_line(copied):
    """A graph in another's place, one of an opset that is too new, and bytes that are no graph."""
    import onnx

    network = read_exported(copied)
    network.graphs["look.onnx"], kept = network.graphs["reference.onnx"], network.graphs["look.onnx"]
    with pytest.raises(CheckpointError, match="has the inputs layer2, layer3, expected patches"):
        open_sessions(network)
    newer = onnx.ModelProto.FromString(kept)
    newer.opset_import[0].version = 99
    for graph in (newer.SerializeToString(), b"no graph"):
        network.graphs["look.onnx"] = graph
        with pytest.raises(CheckpointError, match="look.onnx: ONNX Runtime .* cannot load it") as caught:
            open_sessions(network)
        assert "\n" not in str(caught.value)


def test_graphs_and_arrays_that_do_not_fit_the_description_are_refused(copied):
    network = read_exported(copied)
    config = {**network.description["config"], "classifier_channels": 512}
    other = dataclasses.replace(network, description={**network.description, "config": config})
    with pytest.raises(CheckpointError, match="classification features: 256 channels, but .* say 512; export"):
        OnnxEngine(other)
    swapped = {**network.graphs, "boxes8.onnx": network.graphs["boxes16.onnx"]}
    with pytest.raises(CheckpointError, match="boxes8.onnx, cut: 256 channels, but .* say 128; export"):
        OnnxEngine(dataclasses.replace(network, graphs=swapped))
    arrays = {name: array for name, array in network.arrays.items() if name != "optimizer/mask"}
    with pytest.raises(CheckpointError, match="lacks 'optimizer/mask'; export"):
        OnnxEngine(dataclasses.replace(network, arrays=arrays))


def test_a_provider_that_is_not_there_is_refused(copied):
    with pytest.raises(ConfigError, match="has no provider 'directml'; it has .*cpu"):
        load_onnx_engine(copied, "directml")
    with pytest.raises(ConfigError, match=r"has no provider 'cuda'; .*pip install 'ebmtrack\[train\]'$"):
        load_onnx_engine(copied, "cuda")
    assert load_onnx_engine(copied / "network.json", "CPUExecutionProvider").info.device == "cpu"


def test_a_network_that_is_not_there_is_named():
    assert find_exported("no_such_network") is None
    with pytest.raises(CheckpointError, match="no exported network 'no_such_network'"):
        load_onnx_engine("no_such_network")


@pytest.fixture(scope="module")
def smaller(folder, tmp_path_factory):
    """Return a folder with the network in float16 and in int8, calibrated on one search region."""
    out, lines = tmp_path_factory.mktemp("smaller"), []
    for precision in ("float16", "int8"):
        few = pytest.warns(UserWarning, match="calibrated on 1 search regions.*fewer than 50")
        with few if precision == "int8" else nullcontext():
            export_network(
                folder / "net.safetensors", out / precision, precision, [image("walk", 288, 288)], lines.append
            )
        assert any(line.startswith(f"{precision}: largest differences from PyTorch in float32, your") for line in lines)
    return out


def test_int8_and_float16_stay_near_and_are_smaller(folder, engine, smaller):
    """Weights in half precision; convolutions in 8 bits but for those that compute at half resolution."""
    import onnx

    patch, found, sizes = image("walk", 288, 288), {}, {}
    for precision in ("float16", "int8"):
        other = load_onnx_engine(smaller / precision)
        assert other.info.precision == {"float16": "float32", "int8": "int8+float32"}[precision]
        model, _ = other.start(first_frame())
        found[precision] = other.look([WholeLook(model, patch)])[0].scores
        sizes[precision] = sum(file.stat().st_size for file in (smaller / precision).iterdir())
    expected = engine.look([WholeLook(engine.start(first_frame())[0], patch)])[0].scores
    for precision, limit in (("float16", 0.01), ("int8", 0.1)):
        assert 0 < np.abs(found[precision] - expected).max() < limit * np.abs(expected).max()
    assert sizes["int8"] < 0.85 * sizes["float16"] < 0.45 * sum(f.stat().st_size for f in (folder / "out").iterdir())
    with pytest.raises(ConfigError, match="computes in float32 or int8, not in bfloat16: leave out --precision"):
        load_onnx_engine(smaller / "float16", precision="bfloat16")
    with pytest.raises(ConfigError, match="float16 has no graphs in 8 bits; `ebmtrack export` makes them"):
        load_onnx_engine(smaller / "float16", precision="int8")
    assert load_onnx_engine(smaller / "int8", precision="int8").info.precision == "int8+float32"
    convolutions = [node for node in onnx.load(smaller / "int8" / "look.onnx").graph.node if node.op_type == "Conv"]
    in_8_bits = [node.input[0].endswith("DequantizeLinear_Output") for node in convolutions]
    assert in_8_bits == [False] + [True] * (len(convolutions) - 1)  # the stem alone is at half resolution


def test_float16_and_int8_in_one_folder(folder, smaller, tmp_path, caplog, capfd):
    """Each is what it is alone, to the bit; a damaged graph in 8 bits is refused where it is used."""
    apart, both, target = {}, {}, tmp_path / "float16+int8"
    with caplog.at_level("DEBUG"), pytest.warns(UserWarning, match="calibrated on 1 search regions"):
        export_network(folder / "net.safetensors", target, "float16+int8", [image("walk", 288, 288)], lambda line: None)
    assert capfd.readouterr() == ("", "")  # what the tools print is in their log
    assert {record.name for record in caplog.records if "percentile" in record.msg} == {"onnxruntime.quantization"}
    for precision in ("float16", "int8"):
        wanted = "auto" if precision == "float16" else "int8"
        apart[precision] = read_exported(smaller / precision)
        both[precision] = read_exported(target, wanted)
        assert both[precision].graphs == apart[precision].graphs and both[precision].precision == precision
        assert all(
            np.array_equal(array, apart[precision].arrays[name]) for name, array in both[precision].arrays.items()
        )
    (target / "look.int8.onnx").write_bytes(b"")
    assert read_exported(target).graphs == apart["float16"].graphs
    with pytest.raises(CheckpointError, match="look.int8.onnx: damaged"):
        load_onnx_engine(target, precision="int8")


def test_int8_is_calibrated_on_regions_smaller_than_the_windows(folder, engine):
    """Of 128 pixels, layer2 has 16 cells, of which a window sees 20, and layer3 8, fewer than a window has."""
    import onnx

    exported = read_exported(folder / "out").graphs
    graphs = {name: onnx.ModelProto.FromString(graph) for name, graph in exported.items()}
    with pytest.warns(UserWarning, match="calibrated on 1 search regions"):
        done = quantize_graphs(graphs, [image("walk", 128, 128)], lambda line: None)
    assert {name for name in graphs if done[name] != graphs[name]} == {"boxes16.onnx", "boxes8.onnx", "look.onnx"}


def test_pictures_that_cannot_be_calibrated_on_are_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"no picture")
    (tmp_path / "cat" / "groundtruth.txt").write_text("1,2,3,4\n")
    with pytest.raises(ConfigError, match=f"middle frame to calibrate on: {tmp_path / 'cat' / '1.png'}: "):
        search_regions(tmp_path, load_params("dimp18_nce_plus"))


def test_what_computes_at_half_resolution_stays_out_of_8_bits():
    """Of a ResNet the stem; of EfficientNet-Lite0 also its first block and the expansion of the second one."""
    for arch, expected in (("dimp18", 1), ("ebm_lite", 4)):
        net = cast(TrackerNet, fold_batch_norm(TrackerNet(arch).eval().requires_grad_(False)))
        look = look_graph(net)
        kept = first_layers(look)
        assert sum(node.op_type == "Conv" for node in look.graph.node if node.name in kept) == expected


def test_int8_needs_pictures_and_precisions_are_known(folder, engine, tmp_path):
    with pytest.raises(ConfigError, match="--calibration"):
        export_network(folder / "net.safetensors", tmp_path / "out", "int8", note=lambda line: None)
    with pytest.raises(ConfigError, match="precision must be one of float32, float16, int8"):
        export_network(folder / "net.safetensors", tmp_path / "out", "int4")


def test_an_exported_folder_is_not_taken_for_the_file_beside_it(folder, tmp_path):
    """net/ beside net.safetensors, as the networks that ship are; before, the file was exported."""
    shutil.copy(folder / "net.safetensors", tmp_path / "net.safetensors")
    shutil.copytree(folder / "out", tmp_path / "net")
    with pytest.raises(ConfigError, match="net is an exported network already"):
        export_network(tmp_path / "net", tmp_path / "again", note=None)
    assert not (tmp_path / "again").exists()


def test_the_verb_export_writes_a_network(folder, tmp_path, capsys):
    """The engine reads it, and the lines say how large it is and how far from PyTorch."""
    file, out = str(folder / "net.safetensors"), tmp_path / "out"
    assert cli.main(["export", file, "--out", str(out), "--precision", "float16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out / 'network.json'}: float16, opset")
    assert lines[1].startswith("float16: largest differences from PyTorch in float32, random regions: scores")
    assert load_onnx_engine(out).info.source_sha256 == tensors_sha256(dimp18().state_dict())


@pytest.mark.parametrize(
    "argv, advice",
    [
        (["net.safetensors", "--precision", "int8"], "give a folder of sequences (pictures with groundtruth.txt)"),
        (["out"], "is an exported network already: give it as --weights when tracking"),
        (["ebm_light"], "the path of a .safetensors file (`ebmtrack convert` makes"),
    ],
)
def test_the_verb_export_says_what_it_needs(engine, folder, monkeypatch, capsys, argv, advice):
    """In one line with code 2, which names options of this verb alone."""
    monkeypatch.chdir(folder)
    assert cli.main(["export", *argv, "--out", "none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert advice in line and "`--weights FILE`" not in line and not (folder / "none").exists()


def test_a_network_that_ships_is_exported_beside_a_folder_of_its_name(engine, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "out", "ebm_lite")
    assert cli.main(["export", "ebm_lite", "--out", "half"]) == 0


def test_the_engine_is_chosen_by_name_and_by_folder(folder, engine):
    assert isinstance(load_engine(folder / "out"), OnnxEngine)
    assert isinstance(load_engine(None, engine="onnx"), OnnxEngine)
    assert isinstance(load_engine(folder / "net.safetensors"), TorchEngine)
    for network, file in (("out", "out/network.json"), ("net.safetensors", "net.safetensors")):
        assert engine_facts(folder / network)["weights"] == hashlib.sha256((folder / file).read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="engine must be one of auto, torch, onnx"):
        load_engine(None, engine="tensorflow")


@pytest.mark.parametrize(
    "weights, gpus, options, expected",
    [
        (None, 0, {}, "onnx"),
        ("ebm18_small", 0, {"precision": "float32"}, "onnx"),
        ("ebm_lite", 1, {"device": "cpu"}, "onnx"),
        (None, 1, {"device": "openvino"}, "onnx"),
        (None, 1, {"device": "coreml"}, "onnx"),
        ("FOLDER", 1, {}, "onnx"),
        ("FOLDER", 0, {"precision": "bfloat16"}, "onnx"),
        ("FILE", 0, {}, "torch"),
        ("FILE", 0, {"engine": "onnx"}, "onnx"),
        ("nowhere", 0, {}, "torch"),
        (None, 1, {}, "torch"),
        (None, 2, {"device": "cuda:1"}, "torch"),
        (None, 0, {"precision": "bfloat16"}, "torch"),
        (None, 0, {"classifier": "atom"}, "torch"),
        (None, 0, {"engine": "torch"}, "torch"),
    ],
)
def test_exported_networks_run_on_onnx_runtime_and_the_rest_on_pytorch(
    monkeypatch, folder, weights, gpus, options, expected
):
    """Neither the CPU nor what is installed decides."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    known = {"FILE": resolve_weights("ebm_lite"), "FOLDER": folder / "out"}
    assert choose_engine(known.get(weights, weights), **options) == expected


@pytest.mark.parametrize("weights", [None, "ebm_lite"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "float32"},
        {"precision": "bfloat16"},
        {"engine": "torch"},
        {"engine": "torch", "device": "cpu"},
    ],
)
def test_results_say_what_the_engine_computes_in(weights, options):
    """What is written into markers without loading the network is what the network then computes in."""
    engine, facts = load_engine(weights, **options), engine_facts(weights, **options)
    assert facts["precision"] == engine.info.precision
    assert isinstance(engine, {"onnx": OnnxEngine, "torch": TorchEngine}[facts["engine"]])
    explicit = {"engine": facts["engine"], "precision": facts["precision"]}
    assert engine_facts(weights, **options | explicit) == facts  # auto mixes with what it means


def test_weights_stored_in_float16_are_computed_with_in_float32():
    """Asking for float32 changes nothing."""
    assert engine_facts(None, "cpu", "float32") == engine_facts(None, "cpu")
    patch, first, found = image("test0", 288, 288), first_frame(channels=112), []
    for precision in ("auto", "float32"):
        engine = load_engine("ebm_lite", "cpu", precision)
        found.append(engine.look([WholeLook(engine.start(first)[0], patch)])[0].scores)
    assert np.array_equal(*found)


def test_the_network_for_cpus_runs_on_either_engine():
    chosen, file = load_engine("ebm_lite", "cpu"), load_engine(resolve_weights("ebm_lite"), "cpu", "float32")
    assert isinstance(chosen, OnnxEngine) and isinstance(file, TorchEngine)
    assert isinstance(load_engine("ebm_lite", "cpu", engine="torch"), TorchEngine)  # the user's choice wins
    patch = image("test0", 288, 288)
    first = first_frame(channels=112)
    scores = [one.look([WholeLook(one.start(first)[0], patch)])[0].scores for one in (chosen, file)]
    assert np.abs(scores[0] - scores[1]).max() < 0.02 * np.abs(scores[1]).max()


SHIPPED = sorted(path.stem for path in resolve_weights(None).parent.glob("*.safetensors"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_exported_networks_that_ship_are_those_of_pytorch(name):
    """Made anew by `make exported` after each change of a network."""
    net, shipped = load_checkpoint(resolve_weights(name)), read_exported(find_exported(name)).description
    assert NetConfig(**shipped["config"]) == net.config
    assert shipped["source_sha256"] == tensors_sha256(net.state_dict())


@pytest.mark.parametrize("params", ["dimp18_nce_plus", "lite_nce_plus"])
def test_the_networks_that_ship_have_8_bits_too(params):
    """On the first frames of the built-in film boxes differ from those in float32, but by less than a twentieth."""
    film, set_up = demo_sequence(), load_params(params).replace(**FEW_VIEWS)
    name = set_up.weights
    assert engine_facts(name, "cpu", "int8")["precision"] == "int8+float32"
    boxes = []
    for precision in ("float32", "int8"):
        tracker = Tracker.from_pretrained(set_up, device="cpu", precision=precision)
        assert tracker.engine.info.precision == {"float32": "float32", "int8": "int8+float32"}[precision]
        tracker.init(film.frames[0], film.boxes_xywh[0])
        boxes.append(np.array([tracker.update(film.frames[k]).box_xywh for k in range(1, 9)]))
    apart = np.abs(boxes[0] - boxes[1]).max(axis=1) / boxes[0][:, 2:].min(axis=1)
    assert (apart > 0).all() and apart.max() < 0.05


def test_the_networks_of_the_set_ups_ship():
    """The default one, and the one for CPUs."""
    assert SHIPPED == sorted([DEFAULT_WEIGHTS, load_params("lite_nce_plus").weights])
