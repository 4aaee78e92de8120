"""Several videos at once: the boxes of one at a time, whatever the lengths, and no lane waits for one that has left."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ebmtrack.engines.base import no_mark
from ebmtrack.engines.torch_engine import TorchEngine
from ebmtrack.errors import ConfigError
from ebmtrack.evaluation import evaluate, worker
from ebmtrack.evaluation.results import read_result
from ebmtrack.nets.inference import InferenceNet
from ebmtrack.tracking.lockstep import Lockstep
from ebmtrack.tracking.params import load_params
from ebmtrack.tracking.tracker import Tracker
from tests.support.evaluation_stub import StubFactory, make_sequences
from tests.support.golden import FEW_VIEWS, dimp18, image

PARAMS = load_params("dimp18_nce_plus").replace(sample_size=144, not_found_threshold=-10.0, **FEW_VIEWS)
BOX = (90.0, 60.0, 44.0, 52.0)


def video(number: int, frames: int) -> list[np.ndarray]:
    """A picture that slides, of a size of its own."""
    picture = image("walk", 200 + 10 * number, 260)
    return [np.roll(picture, (2 * t, (3 - number) * t), (0, 1)) for t in range(frames)]


VIDEOS = [video(0, 5), video(1, 2), video(2, 4)]


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(InferenceNet(dimp18(), precision="float32"))


def follow(tracker, frames, seed, started=lambda: None) -> np.ndarray:
    """The boxes of a tracker over a video; `started` is called after the first frame."""
    tracker.init(frames[0], BOX, seed=seed)
    started()
    return np.array([tracker.update(frame).box_xywh for frame in frames[1:]])


def follow_all(shared: Lockstep, videos, started=lambda: None) -> dict:
    """Boxes, or the exception, by number of video, each in a thread of its own."""
    answers: dict = {}

    def one(number: int) -> None:
        try:
            with shared.lane() as lane:
                answers[number] = follow(lane, videos[number], number, started)
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(videos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a lane waits for ever"
    return answers


def test_boxes_are_those_of_one_video_at_a_time(engine):
    """To the bit, with videos of other sizes and lengths beside it; a look serves several videos at once."""
    looks: list[int] = []

    class Counting:
        def __getattr__(self, name):
            return getattr(engine, name)

        def look(self, requests, mark=no_mark):
            looks.append(len(requests))
            return engine.look(requests, mark)

    started = threading.Barrier(len(VIDEOS))  # else a lane may be done before the next one has started
    together = follow_all(Lockstep(Counting(), PARAMS), VIDEOS, started.wait)
    for number, frames in enumerate(VIDEOS):
        assert np.array_equal(together[number], follow(Tracker(engine, PARAMS), frames, number))
    assert sum(looks) == sum(map(len, VIDEOS)) and max(looks) > 1  # a start looks at a mirror image


def test_a_lane_that_fails_leaves_the_others_alone(engine):
    """A bad frame is that video's own error; the others end with their boxes."""
    broken = [VIDEOS[0][0], np.zeros((4, 4), np.uint8)]
    answers = follow_all(Lockstep(engine, PARAMS), [broken, VIDEOS[2]])
    assert isinstance(answers[0], ConfigError) and "height, width, 3" in str(answers[0])
    assert np.array_equal(answers[1], follow(Tracker(engine, PARAMS), VIDEOS[2], 1))


def test_an_error_of_the_network_reaches_every_lane(engine):
    """Nobody waits for an answer that cannot come."""

    class Broken:
        info, start, climb = engine.info, engine.start, engine.climb

        def look(self, requests, mark=no_mark):
            raise RuntimeError("out of memory")

    answers = follow_all(Lockstep(Broken(), PARAMS), VIDEOS)
    assert [str(error) for error in answers.values()] == ["out of memory"] * len(VIDEOS)


def test_update_before_init_is_refused(engine):
    with Lockstep(engine, PARAMS).lane() as lane, pytest.raises(ConfigError, match="before init"):
        lane.update(VIDEOS[0][0])


@dataclass(frozen=True)
class Ours(StubFactory):
    """Makes our tracker of a random network."""

    network: TorchEngine | None = None

    def __call__(self, params, device):
        return Tracker(self.network, PARAMS)


def write_sequences(root: Path) -> None:
    """Three sequences as folders of pictures."""
    for number, frames in enumerate(VIDEOS):
        (root / f"v{number}" / "img").mkdir(parents=True)
        for index, frame in enumerate(frames):
            cv2.imwrite(str(root / f"v{number}" / "img" / f"{index:04d}.png"), frame[..., ::-1])
        (root / f"v{number}" / "groundtruth_rect.txt").write_text("90,60,44,52\n" * len(frames))


def test_eval_with_a_batch_writes_the_same_boxes(engine, tmp_path):
    """And says in the result that the frames/s are those of a shared machine."""
    write_sequences(tmp_path / "data")
    for name, batch in (("alone", 1), ("batch", 3)):
        options = {
            "workers": 0,
            "device": "cpu",
            "batch": batch,
            "factory": Ours(network=engine),
            "out": tmp_path / name,
        }
        with open(tmp_path / "log", "a") as stream:
            assert evaluate.evaluate(["stub"], "folder", tmp_path / "data", stream=stream, **options).complete
    for number in range(len(VIDEOS)):
        alone, batch = (read_result(tmp_path / n / "folder" / "stub_000", f"v{number}") for n in ("alone", "batch"))
        assert np.array_equal(alone.boxes_xywh, batch.boxes_xywh)
        assert (alone.workers, batch.workers) == (1, 3)


def test_an_error_beside_the_main_thread_is_raised(tmp_path, monkeypatch):
    """Such as a result of another making: nothing ends well that did not go well."""
    main = threading.current_thread()

    def fail_beside(trackers, send):
        if threading.current_thread() is not main:
            raise ConfigError("made with other weights")

    monkeypatch.setattr(worker, "_work_alone", fail_beside)
    with pytest.raises(ConfigError, match="other weights"):
        worker.work(SimpleNamespace(batch=2), "cpu", print)


def test_a_batch_of_foreign_trackers_is_refused(tmp_path):
    """They know nothing of a shared network; the sequences are reported as failed, with the reason."""
    root = make_sequences(tmp_path / "data")
    with open(tmp_path / "log", "w") as stream:
        options = {"workers": 0, "device": "cpu", "batch": 2, "factory": StubFactory(), "out": tmp_path / "out"}
        done = evaluate.evaluate(["stub"], "folder", root, stream=stream, **options)
    assert done.exit_code == 1 and "batch" in next(iter(done.failed.values()))
    with pytest.raises(ConfigError, match="batch 0"):
        evaluate.evaluate(["stub"], "folder", root, batch=0, out=tmp_path / "none")
