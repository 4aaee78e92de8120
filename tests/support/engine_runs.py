"""What every engine must answer: golden numbers, and one run through all calls to compare with another engine's."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from ebmtrack.checkpoints.native import save_checkpoint
from ebmtrack.engines.base import Ascent, Engine, FirstFrame, InnerLook, WholeLook
from ebmtrack.nets.tracker_net import TrackerNet
from tests.support.golden import arrays, image

BOX = np.array([100.0, 120, 180, 180], np.float32)
NO_COPIES = (np.zeros((0, 256), np.float32), 1, 1)
STEPS = Ascent(10, 2.5e-3, 2.5e-3, True)


def write_exported(net: TrackerNet, folder: Path) -> Path:
    """Write a network as `net.safetensors`, and exported in float32 in the folder `out`, which is returned."""
    from ebmtrack.engines.export.network import export_network

    save_checkpoint(folder / "net.safetensors", net, run={})
    export_network(folder / "net.safetensors", folder / "out", note=None)
    return folder / "out"


def first_frame(side: int = 288, channels: int = 256) -> FirstFrame:
    """Return a first frame with two views and a copy whose even channels are dropped."""
    factors = np.tile(np.array([0, 2], np.float32), (1, channels // 2))
    views = np.stack([image(name, side, side) for name in ("train0", "train1")]).astype(np.float32)
    return FirstFrame(views, np.stack([BOX, BOX + 4]), factors, 3, 5)


def candidates(count: int = 10) -> np.ndarray:
    """Return boxes (1, count, 4) around the target."""
    rng = np.random.default_rng(0)
    low, size = BOX[:2] + rng.uniform(-12, 12, (count, 2)), rng.uniform(40, 90, (count, 2))
    return np.concatenate([low, size], axis=1)[None].astype(np.float32)


def check_golden_climb(engine: Engine) -> None:
    """Check ten relative steps of 2.5e-3 from the golden boxes, and the energies before the last step."""
    golden = arrays("dimp18")
    model, _ = engine.start(FirstFrame(image("train0", 288, 288)[None].astype(np.float32), BOX[None], *NO_COPIES))
    (sight,) = engine.look([WholeLook(model, image("test0", 288, 288))])
    boxes = golden["energy/boxes_xywh"].numpy()
    climb = engine.climb([sight.features], boxes[None], STEPS)
    assert climb.boxes_xywh.dtype == climb.energies.dtype == np.float32
    expected, values = golden["energy/ascent10_boxes_xywh"], golden["energy/ascent10_values_before_last_step"]
    assert np.allclose(climb.boxes_xywh[0], expected, rtol=1e-4, atol=1e-2)
    assert np.allclose(climb.energies[0], values, rtol=1e-4, atol=1e-4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    assert np.allclose(engine.energies(sight.features, corners), golden["energy/values"], rtol=1e-4, atol=1e-4)


def check_copies_learn_alone(engine: Engine) -> None:
    """Check that a copy of a model learns without the model; regions and engines are shared, not copied."""
    model, (region, *_) = engine.start(first_frame(channels=engine.info.channels))
    twin = copy.deepcopy(model)
    engine.remember(twin, 0, region, BOX + 5)
    engine.learn(twin, np.ones(3) / 3, 1)
    assert not np.array_equal(twin.filter, model.filter) and not np.array_equal(twin.boxes_xyxy, model.boxes_xyxy)
    assert model.boxes_xyxy[0].tolist() == BOX.tolist()
    assert copy.deepcopy(region) is region and copy.deepcopy(engine) is engine


def run_through(engine: Engine, side: int = 288) -> dict[str, np.ndarray]:
    """Return what an engine answers: first frame, looks of both kinds, climbs in both spaces, a sample, learning."""
    margin, first = 3, first_frame(side, engine.info.channels)
    edge = 16 * margin
    model, (region, *_) = engine.start(first)
    patch = image("walk", side, side)
    (whole,) = engine.look([WholeLook(model, patch)])
    (inner,) = engine.look([InnerLook(model, patch[edge:-edge, edge:-edge], margin, whole.features)])
    found = {"whole": whole.scores, "inner": inner.scores}
    for name, space in (("relative", True), ("default", False)):
        for sight in ("whole", "inner"):
            features = {"whole": whole, "inner": inner}[sight].features
            climb = engine.climb([features], candidates(), Ascent(10, 1e-3, 1e-3, space))
            found[f"boxes {name} {sight}"], found[f"energies {name} {sight}"] = climb
    engine.remember(model, 3, whole.features, BOX + 8)
    engine.learn(model, np.array([0.4, 0.1, 0.2, 0.3]), 2)
    found["learned"] = engine.look([WholeLook(model, patch)])[0].scores
    far = np.array([[-300, -200, -250, -150], [0, 0, side, side], [-40, -40, 20, 30], [10, 10, 10, 50]], np.float32)
    found["far energies"] = engine.energies(region, far)
    layer = engine.last_layer(model)
    engine.use_last_layer(model, layer * np.linspace(0.5, 1.5, len(layer), dtype=np.float32))
    found["far energies, another last layer"] = engine.energies(region, far)
    return found


def check_hidden_units(engine: Engine) -> None:
    """Check that energies are hidden units times the last layer, up to a constant, before and after a change of it.

    Regions that were looked at before have the new energy, too; boxes out of sight have no hidden units.
    """
    model, (region, *_) = engine.start(first_frame(channels=engine.info.channels))
    (sight,) = engine.look([WholeLook(model, image("walk", 288, 288))])
    boxes = candidates()[0]
    boxes[:, 2:] += boxes[:, :2]
    own = engine.last_layer(model)
    for layer in (own, own[::-1].copy()):
        engine.use_last_layer(model, layer)
        assert np.array_equal(engine.last_layer(model), layer)
        for one in (region, sight.features):
            energies, hidden = engine.energies(one, boxes), engine.hidden_units(one, boxes)
            assert hidden.shape == (len(boxes), len(own)) and hidden.dtype == np.float32 and (hidden >= 0).all()
            rest = energies - hidden @ layer
            assert np.abs(energies - energies.mean()).max() > 0.05
            assert np.allclose(rest, rest[0], rtol=0, atol=1e-3 * (1 + np.abs(energies).max()))
    lost = np.array([[np.nan, 0, 1, 1], [0, 0, 1e8, 1]], np.float32)
    assert not engine.hidden_units(sight.features, lost).any()


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest difference of each answer."""
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Scores and energies agree to 1e-3, boxes to 0.05 pixels."""
    gaps = differences(found, expected)
    assert all(gap < (0.05 if name.startswith("boxes") else 1e-3) for name, gap in gaps.items()), gaps
