"""The VOT plugin: regions, images, the protocol with several objects, trackers.ini, and the toolkit itself."""

from __future__ import annotations

import configparser
import functools
import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.boxes import iou_xywh
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.plugins import vot_setup
from ebmtrack.tracking.tracker import MultiTracker
from ebmtrack.viewers.demo_sequence import demo_sequence
from tests.support import REPOSITORY

trax = pytest.importorskip("trax", reason="vot-trax is not installed: pip install 'ebmtrack[vot]'")

from ebmtrack.plugins import vot  # noqa: E402

# Regions and images


def test_regions_become_the_boxes_around_them():
    """By hand: the polygon spans x 1..7, y 2..8; the mask's pixels span columns 12..14 and rows 21..21."""
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2:5] = 1
    assert vot.region_to_xywh(trax.Rectangle.create(1.5, 2.5, 3, 4)) == (1.5, 2.5, 3, 4)
    assert vot.region_to_xywh(trax.Polygon.create([(1, 5), (4, 2), (7, 5), (4, 8)])) == (1, 2, 6, 6)
    assert vot.region_to_xywh(trax.Mask.create(mask, x=10, y=20)) == (12, 21, 3, 1)
    assert vot.region_to_xywh(trax.Rectangle.create(5, 6, 0, 0.25)) == (5, 6, 1, 1)


def test_a_rectangle_as_polygon_or_mask_is_the_same_box():
    mask = np.zeros((30, 40), np.uint8)
    mask[6:16, 5:25] = 1
    corners = [(5.0, 6.0), (25.0, 6.0), (25.0, 16.0), (5.0, 16.0)]
    boxes = {vot.region_to_xywh(region) for region in (trax.Polygon.create(corners), trax.Mask.create(mask))}
    assert boxes == {vot.region_to_xywh(trax.Rectangle.create(5, 6, 20, 10))}


@pytest.mark.parametrize(
    "region", [trax.Mask.create(np.zeros((3, 3), np.uint8)), trax.region.Special.create(0)], ids=["mask", "special"]
)
def test_regions_without_a_place_are_refused(region):
    with pytest.raises(ConfigError, match="empty mask|type 'special'"):
        vot.region_to_xywh(region)


def test_images_of_every_kind_are_rgb(tmp_path):
    """A picture that is red on disk, in memory and in a buffer; grey of 8 and 16 bits."""
    red = np.zeros((8, 9, 3), np.uint8)
    red[..., 0] = 200
    cv2.imwrite(str(tmp_path / "p.png"), red[..., ::-1])
    kinds = [
        trax.FileImage.create(str(tmp_path / "p.png")),
        trax.MemoryImage.create(red),
        trax.BufferImage.create((tmp_path / "p.png").read_bytes()),
    ]
    for kind in kinds:
        np.testing.assert_array_equal(vot.image_of({"color": kind}), red)
    grey = [np.full((8, 9), 100, np.uint8), np.full((8, 9), 100 * 257, np.uint16)]
    for values in grey:
        np.testing.assert_array_equal(vot.image_of({"color": trax.MemoryImage.create(values)}), np.full_like(red, 100))


def test_images_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for name, why in (("missing.jpg", "No such file"), ("text.jpg", "not a readable image")):
        with pytest.raises(DatasetError, match=rf"{name}: {why}"):
            vot.image_of({"color": trax.FileImage.create(str(tmp_path / name))})
    with pytest.raises(DatasetError, match="no colour image, but depth"):
        vot.image_of({"depth": trax.MemoryImage.create(np.zeros((2, 2), np.uint8))})


# The protocol


class Drift:
    """A MultiTracker whose boxes move right by their id + 1 with each frame, sure of itself by brightness."""

    def __init__(self, engine, params, inner_looks):
        self.engine, self.params, self.inner_looks, self.boxes = engine, params, inner_looks, {}

    def add(self, image_rgb, box_xywh):
        self.boxes[len(self.boxes)] = box_xywh
        return len(self.boxes) - 1

    def update(self, image_rgb):
        self.boxes = {i: (x + i + 1, y, w, h) for i, (x, y, w, h) in self.boxes.items()}
        score = float(image_rgb[0, 0, 0]) / 256
        return {i: SimpleNamespace(box_xywh=box, score=score) for i, box in self.boxes.items()}


@pytest.fixture
def client(monkeypatch):
    """A real TraX client on a socket, with our server in a thread."""
    from trax.client import Client

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        monkeypatch.setenv("TRAX_SOCKET", str(listening.getsockname()[1]))
        thread = threading.Thread(target=lambda: served(vot.open_server("test")), daemon=True)
        thread.start()
        client = Client(stream=listening.fileno(), timeout=60, log=lambda text: None)
        yield client
        client.quit()
        thread.join(60)
        assert not thread.is_alive()


def served(server):
    vot.serve(server, Drift(None, None, 0))
    server.quit()


def sent(brightness: int) -> dict:
    return {"color": trax.MemoryImage.create(np.full((4, 4, 3), brightness, np.uint8))}


def boxes_of(answer) -> list:
    return [tuple(region.bounds()) for region, _ in answer[0]]


def test_several_objects_join_and_keep_their_order(client):
    """What exists comes first, in its order; what is new follows with the box it was given; a restart forgets all."""
    assert client.get("multiobject") and set(client.region_formats) == {"rectangle", "polygon", "mask"}
    box = trax.Rectangle.create(10, 20, 5, 6)
    polygon = trax.Polygon.create([(30.0, 40.0), (36.0, 40.0), (36.0, 47.0), (30.0, 47.0)])
    first = client.initialize(sent(0), [(box, {}), (polygon, {})], {})
    assert boxes_of(first) == [(10, 20, 5, 6), (30, 40, 6, 7)]
    second = client.frame(sent(128), {}, [])
    assert boxes_of(second) == [(11, 20, 5, 6), (32, 40, 6, 7)]
    assert [float(properties["confidence"]) for _, properties in second[0]] == [0.5, 0.5]
    assert boxes_of(client.frame(sent(0), {}, [(box, {})])) == [(12, 20, 5, 6), (34, 40, 6, 7), (10, 20, 5, 6)]
    assert boxes_of(client.frame(sent(0), {}, [])) == [(13, 20, 5, 6), (36, 40, 6, 7), (13, 20, 5, 6)]
    assert boxes_of(client.initialize(sent(0), [(box, {})], {})) == [(10, 20, 5, 6)]
    assert boxes_of(client.frame(sent(0), {}, [])) == [(11, 20, 5, 6)]


# trackers.ini


def section(path: Path, name: str = "ebmtrack_dimp18_nce_plus") -> dict[str, str]:
    """An entry as the toolkit reads it."""
    parser = configparser.ConfigParser()
    parser.read(path)
    return dict(parser[name])


def test_init_writes_an_entry_that_runs_this_python(tmp_path):
    said = vot_setup.init("dimp18_nce_plus", tmp_path, device="cuda:1")
    entry = section(tmp_path / "trackers.ini")
    assert entry["protocol"] == "trax" and entry["label"] == "ebmtrack dimp18_nce_plus"
    command = [sys.executable, "-m", "ebmtrack.plugins.vot", "--params", "dimp18_nce_plus", "--device", "cuda:1"]
    assert shlex.split(entry["command"]) == command
    assert "is no workspace yet" in said and "vot evaluate" in said


def test_init_keeps_what_others_wrote(tmp_path):
    """Their entries and comments stay to the letter; ours is replaced in its place; names with % and blanks survive."""
    path, weights = tmp_path / "trackers.ini", tmp_path / "100% mine"  # an exported network
    weights.mkdir()
    (weights / "network.json").touch()
    before, after = "# my trackers\n[A]\ncommand = a\n\n", "# the last\n[B]\ncommand: b --x\n"
    path.write_text(before + after)
    vot_setup.init("dimp18_nce_plus", tmp_path)
    assert path.read_text().startswith(before + after + "\n[ebmtrack_")
    path.write_text(before + vot_setup.entry("x", "ebmtrack_dimp18_nce_plus") + "\n" + after)
    for _ in range(2):
        vot_setup.init("dimp18_nce_plus", tmp_path, weights=weights)
        text = path.read_text()
        assert text.startswith(before) and text.endswith("\n\n" + after) and text.count("[ebmtrack_") == 1
    assert shlex.split(section(path)["command"])[-2:] == ["--weights", str(weights)]


def test_init_takes_a_network_that_ships_by_its_name(tmp_path, monkeypatch):
    """A folder of that name which is no exported network does not stand in its way; a file of that name is a path."""
    monkeypatch.chdir(tmp_path)
    for make, expected in [(lambda: None, "ebm_lite"), (lambda: Path("ebm_lite").mkdir(), "ebm_lite")]:
        make()
        vot_setup.init("dimp18_nce_plus", tmp_path, weights="ebm_lite")
        assert shlex.split(section(tmp_path / "trackers.ini")["command"])[-2:] == ["--weights", expected]
    Path("ebm_lite").rmdir()
    Path("ebm_lite").touch()
    vot_setup.init("dimp18_nce_plus", tmp_path, weights="ebm_lite")
    assert shlex.split(section(tmp_path / "trackers.ini")["command"])[-1] == str(tmp_path / "ebm_lite")


def test_init_takes_a_set_up_by_its_path(tmp_path, monkeypatch):
    """The toolkit runs the tracker elsewhere: its path is absolute, and the entry has the set-up's name."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "tracker_params/dimp18_nce_plus.py", "mine.py")
    vot_setup.init("./mine.py", tmp_path)
    entry = section(tmp_path / "trackers.ini", "ebmtrack_mine")
    assert entry["label"] == "ebmtrack mine"
    command = shlex.split(entry["command"])
    assert command[command.index("--params") + 1] == str(tmp_path / "mine.py")


def test_init_replaces_an_entry_with_comments(tmp_path):
    """One after the name, and one between options, which stays; the entry after it stays to the letter."""
    path, after = tmp_path / "trackers.ini", "# the last\n[B]\ncommand: b --x\n"
    old = "[ebmtrack_dimp18_nce_plus]  # mine\n# faster\ncommand = python -m ebmtrack.plugins.vot\nlabel = x\n\n"
    path.write_text(old + after)
    for _ in range(2):
        vot_setup.init("dimp18_nce_plus", tmp_path)
        entry, text = section(path), path.read_text()
        assert entry["label"] == "ebmtrack dimp18_nce_plus" and shlex.split(entry["command"])[0] == sys.executable
        assert text.count("# faster") == 1 and text.endswith("\n\n" + after) and text.count("command") == 2


@pytest.mark.parametrize(
    ("options", "present", "message"),
    [
        ({"params": "dimp18_nce_plu"}, "", "did you mean 'dimp18_nce_plus'"),
        ({"weights": Path("nowhere.safetensors")}, "", "no such file of weights"),
        ({"weights": Path("nowhere/network.json")}, "", "no such file of weights"),
        ({"name": "two words"}, "", "letters, digits"),
        ({"name": "A"}, "[A]\ncommand = a\n", "another tracker called A"),
        ({}, "command = a\n", "is no .ini file"),
        ({"workspace": Path("/proc/nowhere")}, "", "cannot write here"),
    ],
)
def test_init_refuses(tmp_path, options, present, message):
    (tmp_path / "trackers.ini").write_text(present)
    with pytest.raises(ConfigError, match=message):
        vot_setup.init(**{"params": "dimp18_nce_plus", "workspace": tmp_path, **options})
    assert (tmp_path / "trackers.ini").read_text() == present


def test_init_says_when_the_truth_is_masks(tmp_path):
    folder = tmp_path / "sequences/a"
    folder.mkdir(parents=True)
    (tmp_path / "config.yaml").touch()
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")
    assert "masks" not in vot_setup.init("dimp18_nce_plus", tmp_path)
    (folder / "groundtruth_x.txt").write_text("m0,0,3,2,1,2,3\n")
    assert "groundtruth_x.txt gives targets as masks" in vot_setup.init("dimp18_nce_plus", tmp_path)


# The toolkit itself

LATE = 2  # frame in which the second target appears
STACK = {
    "title": "test",
    "experiments": {
        "baseline": {
            "type": "unsupervised",
            "multiobject": "true",
            "analyses": [{"type": "average_accuracy", "name": "accuracy", "burnin": 1}],
        }
    },
}


@functools.cache
def scene() -> tuple[list[np.ndarray], list[tuple[int, ...]]]:
    """Six frames of the built-in sequence, four apart, and the true boxes in whole pixels."""
    sequence = demo_sequence()
    frames = list(itertools.islice(sequence.frames, 0, 24, 4))
    return frames, [tuple(int(round(value)) for value in box) for box in sequence.boxes_xywh[:24:4]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Two sequences: one target, given as polygons; and two, one given as masks, and a rectangle that comes later."""
    pytest.importorskip("vot", reason="the toolkit is not installed: pip install vot-toolkit 'attributee<0.1.10'")
    root, (frames, boxes) = tmp_path_factory.mktemp("vot"), scene()
    config = {"registry": ["./trackers.ini"], "stack": "./stack.yaml"}
    (root / "config.yaml").write_text(json.dumps(config))
    (root / "stack.yaml").write_text(json.dumps(STACK))
    for name in ("one", "two"):
        (root / "sequences" / name / "color").mkdir(parents=True)
        (root / "sequences" / name / "sequence").write_text("name=x\nfps=30\nchannels.color=color/%08d.png\n")
        for number, frame in enumerate(frames, 1):
            cv2.imwrite(str(root / f"sequences/{name}/color/{number:08d}.png"), frame[..., ::-1])
    (root / "sequences/list.txt").write_text("one\ntwo\n")
    (root / "sequences/one/groundtruth.txt").write_text("".join(map(as_polygon, boxes)))
    (root / "sequences/two/groundtruth_a.txt").write_text("".join(map(as_mask, boxes)))
    later = ["{},{},{},{}\n".format(*box) for box in boxes[LATE:]]
    (root / "sequences/two/groundtruth_b.txt").write_text("".join(["0\n"] * LATE + later))
    return root


def as_polygon(box) -> str:
    x, y, w, h = box
    return f"{x},{y},{x + w},{y},{x + w},{y + h},{x},{y + h}\n"


def as_mask(box) -> str:
    """VOT's run lengths: no pixel outside of the mask's own rectangle, then all inside."""
    x, y, w, h = box
    return f"m{x},{y},{w},{h},0,{w * h}\n"


def toolkit(*arguments: str) -> str:
    """What a command of the toolkit says; the exit code is 0 even where it fails."""
    command = [sys.executable, "-W", "ignore", "-m", "vot", *map(str, arguments)]
    plain = {**os.environ, "VOT_RESULTS_BINARY": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=plain)
    return done.stdout + done.stderr


def stored(root: Path, tracker: str, sequence: str, name: str) -> np.ndarray:
    """Boxes (n, 4) that the toolkit stored; NaN where it stored a code instead."""
    text = (root / "results" / tracker / "baseline" / sequence / name).read_text()
    rows = [[float(value) for value in line.split(",")] for line in text.split()]
    return np.array([row if len(row) == 4 else [np.nan] * 4 for row in rows])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_toolkit_runs_and_scores_it(workspace):
    """Its files hold our boxes to the protocol's four decimals, one target or two, also for the one that comes late.

    Accuracy is the mean overlap of answers and truth, drawn as pixels; our own with the exact boxes is close to it.
    """
    vot_setup.init("dimp18_nce_plus", workspace, name="ours")
    said = toolkit("evaluate", "--workspace", workspace, "ours")
    assert "concluded successfuly" in said, said
    ours = {0: followed(0), LATE: followed(LATE)}
    for sequence, name, start in (("one", "one", 0), ("two", "two_a", 0), ("two", "two_b", LATE)):
        boxes = stored(workspace, "ours", sequence, f"{name}_001.txt")[start + 1 :]
        np.testing.assert_allclose(boxes, ours[start], atol=2e-3)
    said = toolkit("analysis", "--workspace", workspace, "--format", "json", "--name", "result", "ours")
    assert "Analysis successful" in said, said
    scored = json.loads((workspace / "analysis/result.json").read_text())["results"]["baseline"]["results"]
    accuracy = np.ravel(scored).astype(float)
    assert accuracy.size == 1 and accuracy[0] > 0.6
    assert abs(accuracy[0] - np.mean([overlap(ours[0], 1), overlap(ours[LATE], LATE + 1)])) < 0.05


def followed(start: int) -> list:
    """Boxes of the tracker in all frames after `start`, where it starts with the truth."""
    tracker, (frames, boxes) = MultiTracker.from_pretrained(), scene()
    target = tracker.add(frames[start], boxes[start])
    return [tracker.update(frame)[target].box_xywh for frame in frames[start + 1 :]]


def overlap(boxes: list, first: int) -> float:
    """Mean overlap with the truth from frame `first` on."""
    truth = torch.tensor(scene()[1][first:], dtype=torch.float64)
    return float(iou_xywh(torch.tensor(boxes, dtype=torch.float64), truth).mean())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_fails_reaches_the_user(workspace, tmp_path):
    """The toolkit prints our reason, which names file and cause, and exits as if nothing were wrong."""
    weights = tmp_path / "broken.safetensors"
    weights.write_text("not weights")
    vot_setup.init("dimp18_nce_plus", workspace, name="broken", weights=weights)
    said = toolkit("evaluate", "--workspace", workspace, "broken")
    assert "ebmtrack: " in said and "broken.safetensors" in said, said
