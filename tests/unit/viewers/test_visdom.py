"""Windows on a real visdom server, read back by visdom's own client; and life without a server."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import ConfigError
from ebmtrack.evaluation.evaluate import evaluate
from ebmtrack.images import read_rgb
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from ebmtrack.viewers.drawing import ORANGE, SKY, draw_box
from ebmtrack.viewers.track_video import track
from ebmtrack.viewers.tracking_view import ScoreCurves, ShowingFactory, _panel
from ebmtrack.viewers.visdom import VisdomPanel, _Line
from tests.support.evaluation_stub import StubFactory, make_sequences
from tests.support.golden import dimp18, image
from tests.support.ports import own_port

SERVE = """
import sys
sys.modules["torch"] = None  # visdom imports it where it can, which takes seconds
from visdom.server.run_server import start_server
start_server(port=int(sys.argv[1]), env_path=sys.argv[2], base_url="", bind_local=True)
"""


class Server:
    """A visdom server in a process of its own, and a client that reads its windows back."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        command = [sys.executable, "-W", "ignore", "-c", SERVE, str(self.port), str(folder)]
        log = open(folder / "log.txt", "w")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ""})
        log.close()
        self._wait()

    def _wait(self):
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            time.sleep(0.1)
        raise AssertionError("the server does not listen")

    def windows(self, env: str) -> dict:
        """All windows of an environment, by visdom's client."""
        from visdom import Visdom

        client = Visdom(port=self.port, env=env, use_incoming_socket=False, raise_exceptions=True)
        try:
            return json.loads(client.get_window_data())
        finally:
            client.session.close()

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server for all tests; the one that kills it comes last."""
    pytest.importorskip("visdom", reason="visdom is not installed: see docs/visdom.md")
    with own_port() as port:
        server = Server(tmp_path_factory.mktemp("visdom"), port)
        yield server
        server.stop()


def panel_at(port: int, timeout_s: float = 60.0) -> VisdomPanel:
    return VisdomPanel("test", "http://127.0.0.1", port, timeout_s, interval_s=0.0)


@pytest.fixture
def no_server():
    """A port at which nobody listens."""
    with own_port() as port:
        yield port


def settle(panel: VisdomPanel) -> None:
    """Wait until all is sent, or the panel has given up."""
    for _ in range(3000):
        if panel.idle:
            return
        time.sleep(0.01)
    raise AssertionError("the panel is busy for ever")


def picture_of(window: dict) -> np.ndarray:
    """The RGB picture that a window shows."""
    coded = base64.b64decode(window["content"]["src"].removeprefix("data:image/jpeg;base64,"))
    picture = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[..., ::-1]


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Of two pictures; JPEG blurs thin coloured lines."""
    return float(np.abs(first.astype(float) - second).mean())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_windows_come_back_as_they_were_sent(server):
    """Curves hold every point in order; pictures and heat maps hold the last; what is not finite is a gap."""
    red = np.zeros((60, 80, 3), np.uint8)
    red[..., 0] = 200
    with panel_at(server.port) as panel:
        for step in range(50):
            panel.curve("loss", "train", step, 1 / (1 + step))
            panel.image("picture", red // 2 if step < 49 else red, f"frame {step}")
        settle(panel)
        panel.curve("loss", "valid", 0, float("nan"))
        panel.curve("loss", "valid", 1, 0.5)
        panel.curve("loss", "train", 50, 0.0)
        panel.heat_map("score map", np.array([[0.0, 1.0, 2.0], [3.0, np.inf, 5.0]]), "scores")
        panel.frame(red, [(10, 20, 30, 25), (50, 5, 20, 20)], ["a"])
    windows = server.windows("test")
    train, valid = windows["loss"]["content"]["data"]
    assert (train["name"], train["x"]) == ("train", list(range(51)))
    np.testing.assert_allclose(train["y"], [*(1 / (1 + np.arange(50))), 0])
    assert (valid["name"], valid["x"], valid["y"]) == ("valid", [0, 1], [None, 0.5])
    assert windows["picture"]["content"]["caption"] == "frame 49"
    np.testing.assert_allclose(picture_of(windows["picture"]), red, atol=4)
    assert windows["score map"]["content"]["data"][0]["z"] == [[0, 1, 2], [3, None, 5]]
    assert windows["score map"]["content"]["layout"]["title"]["text"] == "scores"
    drawn = draw_box(draw_box(red.copy(), (10, 20, 30, 25), "a", colour=SKY), (50, 5, 20, 20), colour=ORANGE)
    assert mean_difference(picture_of(windows["frame"]), drawn) < 8 < mean_difference(red, drawn) / 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_large_pictures_are_scaled_down(server):
    with panel_at(server.port) as panel:
        panel.image("wide", np.zeros((300, 1600, 3), np.uint8), "")
    assert picture_of(server.windows("test")["wide"]).shape == (150, 800, 3)


def test_no_server(no_server, capfd):
    """One line on stderr, and calls cost next to nothing from the first on."""
    panel = panel_at(no_server)
    began = time.perf_counter()
    for step in range(200):
        panel.curve("loss", "train", step, 0.0)
        panel.image("picture", np.zeros((8, 8, 3), np.uint8), "")
        panel.heat_map("map", np.zeros((3, 3)), "")
        panel.frame(np.zeros((8, 8, 3), np.uint8), [], [])
    settle(panel)
    panel.curve("loss", "train", 201, 0.0)
    panel.close()
    panel.close()
    text = capfd.readouterr().err
    assert text.count("\n") == 1 and "the run goes on" in text and f":{panel._line.connection.port}" in text
    assert time.perf_counter() - began < 20 and panel.idle and not panel.ready


def test_a_server_that_never_answers(capfd):
    """The caller never waits, and `close` at most for the timeout."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        panel = panel_at(deaf.getsockname()[1], timeout_s=1.0)
        began = time.perf_counter()
        panel.image("picture", np.zeros((480, 640, 3), np.uint8), "")
        assert time.perf_counter() - began < 0.8
        panel.close()
        panel._thread.join(10)
        assert time.perf_counter() - began < 10
    assert "timed out" in capfd.readouterr().err


def test_a_server_of_another_kind(capfd):
    """One that answers 404 to everything is no visdom."""
    httpd = http.server.HTTPServer(("127.0.0.1", 0), type("Quiet", (Refuse,), {}))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    panel = panel_at(httpd.server_port)
    settle(panel)
    panel._thread.join(10)
    httpd.shutdown()
    httpd.server_close()
    assert "404" in capfd.readouterr().err and not panel.alive
    panel.close()


class Refuse(http.server.BaseHTTPRequestHandler):
    """Says 404 to every POST."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_candidates_before_and_after_their_climb():
    """Where all candidates count, the box is the mean of the climbed ones; the first starts with the last box's size.

    After a frame without the target there are none.
    """
    params = load_params("dimp18_nce_plus").replace(
        sample_size=144, not_found_threshold=-10.0, max_aspect=1e9, aspect_scale=0.0, average_temperature=1e9
    )
    frames = [np.roll(image("walk", 200, 260), (2 * t, 3 * t), (0, 1)) for t in range(3)]
    tracker = Tracker(TorchEngine(InferenceNet(dimp18(), precision="float32")), params)
    with pytest.raises(ConfigError, match="before init"):
        tracker.candidates()
    tracker.init(frames[0], (90.0, 60.0, 44.0, 52.0))
    assert [boxes.shape for boxes in tracker.candidates()] == [(0, 4), (0, 4)]
    size = (44.0, 52.0)
    for frame in frames[1:]:
        box = tracker.update(frame).box_xywh
        before, after = tracker.candidates()
        assert before.shape == after.shape == (10, 4) and not np.allclose(before, after)
        np.testing.assert_allclose(before[0, 2:], size, rtol=1e-5)
        np.testing.assert_allclose(after.mean(0), box, atol=2e-3)
        size = box[2:]


TINY = {"sample_size": 144, "not_found_threshold": -10.0, "shift_fracs": (), "rotations_deg": (), "blur_sigmas": ()}


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures of four frames, a target that moves by (3, 2) pixels, and its boxes."""
    target = tmp_path / "data" / "walk"
    (target / "img").mkdir(parents=True)
    for number in range(4):
        frame = np.roll(image("walk", 120, 160), (2 * number, 3 * number), (0, 1))
        cv2.imwrite(str(target / f"img/{number:04d}.png"), frame[..., ::-1])
    (target / "groundtruth_rect.txt").write_text("".join(f"{60 + 3 * n},{40 + 2 * n},34,42\n" for n in range(4)))
    return target


def random_tracker() -> Tracker:
    return Tracker(
        TorchEngine(InferenceNet(dimp18(), precision="float32")), load_params("dimp18_nce_plus").replace(**TINY)
    )


def results_of(folder) -> list:
    """What a tracker of its own says of all frames but the first."""
    frames = [read_rgb(path) for path in sorted(folder.iterdir())]
    tracker = random_tracker()
    tracker.init(frames[0], (60, 40, 34, 42))
    return [tracker.update(frame) for frame in frames[1:]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_track_shows_what_the_tracker_sees(server, folder, tmp_path):
    """All five windows; scores of every frame; the maps are the tracker's own; boxes are those without a server."""
    url, tracker = f"http://127.0.0.1:{server.port}", random_tracker()
    paths = [tmp_path / "with.txt", tmp_path / "without.txt"]
    track(folder / "img", lambda: tracker, "60,40,34,42", boxes=paths[0], visdom=url)
    windows = server.windows("ebmtrack_track")
    assert set(windows) == {"score", "frame", "score map", "energy", "candidates"}
    line = windows["score"]["content"]["data"][0]
    assert (line["name"], line["x"]) == ("img", [1, 2, 3])
    number = int(windows["frame"]["content"]["caption"].removeprefix("img, frame "))
    score_map = np.array(windows["score map"]["content"]["data"][0]["z"], np.float32)
    np.testing.assert_array_equal(score_map, results_of(folder / "img")[number - 1].score_map)
    energy = np.array(windows["energy"]["content"]["data"][0]["z"])
    assert energy.shape == (21, 21) and energy.max() == 0 and energy.min() >= -10
    assert picture_of(windows["candidates"]).shape == (480, 480, 3)
    track(folder / "img", random_tracker, "60,40,34,42", boxes=paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_track_goes_on_without_a_server(folder, tmp_path, no_server, capfd):
    url = f"http://127.0.0.1:{no_server}"
    result = track(folder / "img", random_tracker, "60,40,34,42", boxes=tmp_path / "b.txt", visdom=url)
    assert len(result.boxes_xywh) == 4 and capfd.readouterr().err.count("nothing more is shown") == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_eval_shows_scores_and_trackers(server, tmp_path):
    """AUC by sequence and its mean; a tracker that hands out nothing but boxes is shown by these.

    Results are byte for byte those without a server.
    """
    root, url = make_sequences(tmp_path / "data", count=3), f"http://127.0.0.1:{server.port}"
    panel = VisdomPanel("ebmtrack_eval", url, interval_s=0.0)
    options = {"workers": 0, "device": "cpu", "stream": io.StringIO()}
    shown = {"factory": ShowingFactory(StubFactory(), url), "on_score": ScoreCurves(panel)}
    evaluation = evaluate(["stub"], "folder", root, out=tmp_path / "with", **options, **shown)
    for each in (panel, _panel("ebmtrack_eval", url)):
        settle(each)
        each.close()
    windows = server.windows("ebmtrack_eval")
    lines = {line["name"]: line["y"] for line in windows["AUC"]["content"]["data"]}
    aucs = [float(score.success.mean()) for score in evaluation.scores["stub"][0].values()]
    np.testing.assert_allclose(lines["stub run 0, sequence"], aucs)
    np.testing.assert_allclose(lines["stub run 0, mean so far"][-1], np.mean(aucs))
    assert windows["frame"]["content"]["caption"].startswith("seq")
    evaluate(["stub"], "folder", root, out=tmp_path / "without", factory=StubFactory(), **options)
    for name in ("seq0", "seq1", "seq2"):
        first, second = (tmp_path / kind / "folder/stub_000" / f"{name}.txt" for kind in ("with", "without"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("server", ["ftp://x", "http://", "http://host:port", "http://h:99999999"])
def test_urls_that_are_none(server):
    with pytest.raises(ConfigError, match="give a URL"):
        VisdomPanel("test", server)


def test_arrays_that_cannot_be_shown(no_server):
    panel = panel_at(no_server)
    with pytest.raises(ConfigError, match="picture must be"):
        panel.image("grey", np.zeros((8, 8), np.uint8), "")
    with pytest.raises(ConfigError, match="picture must be"):
        panel.frame(np.zeros((8, 8, 3)), [])
    with pytest.raises(ConfigError, match="heat map must be"):
        panel.heat_map("volume", np.zeros((2, 8, 8)))
    panel.close()


def test_urls():
    """A port in the URL wins; a path is where the server lives."""
    for url, expected in (("host", "http://host:8097"), ("https://host:9/base/", "https://host:9/base/")):
        assert _Line(url, 8097, 1.0).url == expected


def test_a_server_that_dies(server, capfd):
    panel = panel_at(server.port)
    panel.image("picture", np.zeros((8, 8, 3), np.uint8), "")
    settle(panel)
    assert panel.alive
    server.stop()
    for step in range(20):
        panel.curve("loss", "train", step, 0.0)
        settle(panel)
    panel.close()
    assert not panel.alive and capfd.readouterr().err.count("\n") == 1
