"""Capture, session and tracking thread of the live view, without a window and without the network."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.live.capture import Capture, Frame, open_capture
from ebmtrack.live.session import GRID, Live, LoadingTracker, Session, corner_heat, fresh_frame
from ebmtrack.live.statistics import Histogram, Rate, Statistics
from ebmtrack.viewers.video_file import VideoWriter
from tests.support.live_stubs import WAIT_S, GatedSource, ListSource, NotingTracker, picture
from tests.support.ports import own_port

BOX = (8.0, 6.0, 20.0, 10.0)
STALL_S = 0.5  # far longer than a busy machine keeps a thread waiting


def wait_for(what, timeout_s: float = WAIT_S):
    """The first true value of what(); fails where none comes in time."""
    end_s = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.002)
    return value


def frames_of(capture: Capture, count: int) -> list:
    """That many frames, each the newest when it was asked for."""
    frames: list[Frame] = []
    while len(frames) < count:
        frame = capture.newest(frames[-1].number if frames else 0, WAIT_S)
        assert frame is not None, "waited in vain"
        frames.append(frame)
    return frames


# Capture


def test_only_the_newest_frame_is_kept():
    """Five frames come while nobody looks: the next look gives the fifth, whose pixels are 4."""
    source = GatedSource()
    with Capture(source, live=True) as capture:
        assert capture.newest() is None and capture.frames == 0
        source.let(5)
        wait_for(lambda: capture.frames == 5)
        frame = capture.newest()
        assert frame.number == 5 and (frame.image == 4).all()
        assert capture.newest(after=5) is None and capture.newest(after=5, timeout_s=0.01) is None
        source.let()
        assert capture.newest(after=5, timeout_s=WAIT_S).number == 6
        source.let(300)


@pytest.mark.parametrize("fps", [50.0, 200.0])
def test_a_video_plays_at_its_own_rate(fps):
    """Frames i < j lie (j - i) / fps apart; one late frame may be made up for, so never less than (j - i - 1) / fps."""
    with Capture(ListSource(20, fps=fps), live=False) as capture:
        frames = []
        while (frame := capture.newest(frames[-1].number if frames else 0, WAIT_S)) is not None:
            frames.append(frame)
    for first in frames:
        for later in frames[first.number :]:
            assert later.time_s - first.time_s >= (later.number - first.number - 1) / fps - 1e-3
    assert frames[-1].number == 20


def test_a_live_source_is_not_held_back():
    """At 1 frame/s, 100 frames would last 100 s; from a camera they come as they are there."""
    with Capture(ListSource(100, fps=1.0), live=True, retry_s=None) as capture:
        wait_for(lambda: capture.frames == 100)


def test_a_looped_video_begins_again_and_its_numbers_go_on():
    """Three frames in a loop: frame n shows picture (n - 1) mod 3."""
    made = []

    def reopen():
        made.append(ListSource(3, fps=200.0))
        return made[-1]

    with Capture(reopen(), live=False, reopen=reopen, loop=True) as capture:
        frames = frames_of(capture, 12)
    assert all((frame.image == (frame.number - 1) % 3).all() for frame in frames)
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    assert frames[-1].number >= 12 and all(source.closed.wait(WAIT_S) for source in made)


def test_a_looped_video_without_frames_ends():
    source = ListSource(0)
    with Capture(source, live=False, reopen=lambda: pytest.fail("opened again"), loop=True) as capture:
        assert wait_for(lambda: capture.state().final)


def test_a_paused_video_gives_its_first_frame_and_stands_still():
    capture = Capture(ListSource(50, fps=500.0), live=False, stall_s=STALL_S)
    capture.paused = True
    with capture:
        assert capture.newest(0, WAIT_S).number == 1
        time.sleep(1.2 * STALL_S)
        assert capture.frames == 1 and capture.state().kind == "running"  # standing still is not stalling
        capture.paused = False
        assert capture.newest(1, WAIT_S).number >= 2


def test_end_failure_and_stall_are_told_apart():
    with Capture(ListSource(3, name="clip.mp4"), live=False) as capture:
        state = wait_for(lambda: capture.state() if capture.state().final else None)
    assert (state.kind, state.message) == ("ended", "clip.mp4 has ended after 3 frames")

    broken = ListSource(3, error=DatasetError("camera0 gave no frame after 3: was it unplugged?"))
    with Capture(broken, live=True, retry_s=None) as capture:
        state = wait_for(lambda: capture.state() if capture.state().final else None)
    assert (state.kind, state.message) == ("failed", "camera0 gave no frame after 3: was it unplugged?")

    silent = GatedSource(name="camera1")
    with Capture(silent, live=True, stall_s=STALL_S) as capture:
        assert capture.state().kind == "waiting"
        silent.let()
        wait_for(lambda: capture.frames)
        state = wait_for(lambda: capture.state() if capture.state().kind == "stalled" else None)
        assert not state.final and state.message.startswith("camera1: no frame for")
        silent.let()
        wait_for(lambda: capture.state().kind == "running")  # and it recovers
        silent.let(300)


def test_the_end_of_a_stream_is_a_failure():
    with Capture(ListSource(2, name="rtsp://door"), live=True, retry_s=None) as capture:
        state = wait_for(lambda: capture.state() if capture.state().final else None)
    assert state.kind == "failed" and "rtsp://door gave no more frames after 2" in state.message


def test_a_camera_that_is_plugged_in_again_goes_on():
    """It fails after 2 frames, twice cannot be opened, then gives 3 more: numbers 3, 4, 5."""
    answers = [DatasetError("no camera number 0"), DatasetError("no camera number 0"), GatedSource(3)]
    second = answers[2]

    def reopen():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    first = ListSource(2, error=DatasetError("unplugged"))
    with Capture(first, live=True, reopen=reopen, retry_s=0.01) as capture:
        state = wait_for(lambda: capture.state() if capture.state().kind == "failed" else None)
        assert not state.final and first.closed.is_set()
        wait_for(lambda: not answers)
        assert capture.state().kind == "failed" and capture.frames == 2  # until a frame has come
        second.let(3)
        wait_for(lambda: capture.frames == 5)
        assert capture.state().kind == "running" and (capture.newest().image == 2).all()
        second.let(300)


def test_an_error_that_is_not_the_sources_is_raised_where_frames_are_asked_for():
    with Capture(ListSource(0, error=ZeroDivisionError("a defect")), live=True) as capture:
        with pytest.raises(ZeroDivisionError, match="a defect"):
            capture.newest(0, WAIT_S)


def test_closing_does_not_wait_for_a_camera_that_hangs():
    source = GatedSource()
    began_s = time.monotonic()
    with Capture(source, live=True):
        assert source.asked.wait(WAIT_S)
    assert time.monotonic() - began_s < WAIT_S and not source.closed.is_set()
    source.let(300)
    assert source.closed.wait(WAIT_S)


def test_a_source_that_is_opened_while_the_capture_is_closed_is_closed_as_well():
    opening, closing, second = threading.Event(), threading.Event(), ListSource(3)

    def reopen():
        opening.set()
        assert closing.wait(WAIT_S)
        return second

    capture = Capture(ListSource(3), live=False, reopen=reopen, loop=True).start()
    assert opening.wait(WAIT_S)
    capture.close()
    closing.set()
    assert second.closed.wait(WAIT_S) and second.frames_read == 0


def test_a_capture_that_is_closed_at_once_closes_its_source():
    """Whether its thread has come to read or not."""
    source = ListSource(1)
    with Capture(source, live=True, retry_s=None):
        pass
    assert source.closed.wait(WAIT_S)


def test_a_capture_that_never_began_closes_its_source():
    source = ListSource(1)
    Capture(source, live=True).close()
    assert source.closed.is_set()


def test_a_file_is_a_video_and_a_missing_one_an_error(tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 100.0) as writer:
        for number in range(6):
            writer.write(picture(40 * number))
    with open_capture(path) as capture:
        assert not capture.live and capture.fps == 100.0 and capture.name == "clip.mp4"
        wait_for(lambda: capture.state().kind == "ended")
    with pytest.raises(DatasetError, match="no such file"):
        open_capture(tmp_path / "none.mp4")


def test_a_camera_that_is_not_there_and_an_unreachable_address_say_so():
    with pytest.raises(DatasetError, match="no camera number 97: is it plugged in"):
        open_capture(97)
    with own_port() as port, pytest.raises(DatasetError, match=rf"http://127.0.0.1:{port}/a.mp4: no video.*reachable"):
        open_capture(f"http://user:secret@127.0.0.1:{port}/a.mp4")


# Session


def session_with(*boxes) -> Session:
    session = Session(NotingTracker())
    for box in boxes:
        session.draw(picture(0), box)
    return session


def numbers(session: Session) -> list[int]:
    return [target.number for target in session.targets()]


def test_a_drawn_target_is_selected_and_has_no_score_before_its_first_update():
    session = session_with(BOX, BOX)
    assert numbers(session) == [1, 2] and session.selected == 2
    assert all(target.box_xywh == BOX and target.score is None and not target.lost for target in session.targets())
    session.step(picture(1))
    assert all(target.score == 0.75 and target.search_xywh == (0, 0, 60, 40) for target in session.targets())


def test_numbers_that_became_free_are_given_again():
    session = session_with(BOX, BOX, BOX)
    session.remove(2)
    session.draw(picture(0), BOX)
    assert numbers(session) == [1, 2, 3] and session.selected == 2


def test_drawing_again_keeps_the_number_and_forgets_the_old_target():
    session = session_with(BOX, BOX)
    session.draw(picture(0), (1.0, 2.0, 3.0, 4.0), 1)
    assert numbers(session) == [1, 2] and session.targets()[0].box_xywh == (1, 2, 3, 4)
    assert sorted(session.tracker.boxes) == [2, 3]
    session.draw(picture(0), BOX, 7)  # removed meanwhile: the box makes a new target
    assert numbers(session) == [1, 2, 3]


def test_a_refused_box_changes_nothing():
    session = session_with(BOX)
    for number in (None, 1):
        with pytest.raises(ConfigError, match="outside"):
            session.draw(picture(0), (-5.0, 0.0, 3.0, 3.0), number)
    assert session.targets() == session_with(BOX).targets() and len(session.tracker.boxes) == 1


def test_a_lost_target_is_said_to_be_lost_and_is_found_again():
    session = session_with(BOX, BOX)
    session.tracker.lost = {1}
    session.step(picture(1))
    assert [target.lost for target in session.targets()] == [True, False]
    session.tracker.lost = set()
    session.step(picture(2))
    assert not any(target.lost for target in session.targets())


def test_the_heat_map_is_that_of_the_selected_target_while_it_is_seen():
    session = session_with(BOX, BOX)
    session.show_energy(True)
    assert all(target.heat is None for target in session.targets())  # no update yet, so no energy
    session.step(picture(1))
    assert [target.heat is not None for target in session.targets()] == [False, True]
    session.select(1)
    assert [target.heat is not None for target in session.targets()] == [True, False]
    session.tracker.lost = {1}
    session.step(picture(2))
    assert all(target.heat is None for target in session.targets())
    session.show_energy(False)
    session.select(2)
    assert all(target.heat is None for target in session.targets())


def test_intervals_come_with_targets_while_they_are_wanted():
    session = session_with(BOX, BOX)
    for wanted in (False, True, False):
        session.show_intervals(wanted)
        session.step(picture(1))
        assert [target.sides is not None for target in session.targets()] == [wanted] * 2
    session.show_intervals()
    session.step(picture(1))
    assert all(target.sides is not None for target in session.targets())


def test_the_heat_map_is_highest_at_the_corner_and_covers_the_area_around_it():
    """With f = -|p - corner|^2 the map is 1 at its middle, which is the corner (28, 6), and exp(-r^2) elsewhere."""
    heat = corner_heat(lambda points: -((points - [28.0, 6.0]) ** 2).sum(axis=1), BOX)
    x, y, w, h = heat.area_xywh
    np.testing.assert_allclose((x + w / 2, y + h / 2), (28.0, 6.0))
    assert heat.values.shape == (GRID, GRID) and heat.values[GRID // 2, GRID // 2] == 1.0
    np.testing.assert_allclose(heat.values[GRID // 2, 0], np.exp(-((w / 2) ** 2)))


COMMANDS = st.one_of(
    st.tuples(st.just("draw"), st.sampled_from([None, 1, 2, 3, 9]), st.booleans()),
    st.tuples(st.just("remove"), st.sampled_from([None, 1, 2, 3, 9])),
    st.tuples(st.just("select"), st.integers(1, 9)),
    st.tuples(st.sampled_from(["clear", "step"])),
)


@settings(max_examples=60)
@given(st.lists(COMMANDS, max_size=25))
def test_whatever_is_done_the_session_and_the_tracker_agree(commands):
    """As many targets on the screen as in the tracker, all numbers different, one selected as long as there is one."""
    session = Session(NotingTracker())
    for name, *arguments in commands:
        if name == "draw":
            number, refused = arguments
            try:
                session.draw(picture(0), (-1.0 if refused else 1.0, 1.0, 5.0, 5.0), number)
            except ConfigError:
                assert refused
        elif name == "step":
            session.step(picture(1))
        else:
            getattr(session, name)(*arguments)
        assert len(session.targets()) == len(session.tracker.boxes) == len(set(numbers(session)))
        assert session.selected in numbers(session) if numbers(session) else session.selected is None


# Live


def test_a_slow_tracker_skips_frames_and_takes_the_newest():
    """While the tracker works on frame 1, frames 2 to 10 come; it goes on with frame 10 (pixels 9), not with 2."""
    source, tracker = GatedSource(), NotingTracker(threading.Semaphore(0))
    capture, session = Capture(source, live=True), Session(tracker)
    session.draw(picture(0), BOX)
    with capture, Live(capture, session) as live:
        source.let()
        assert tracker.updating.wait(WAIT_S)
        source.let(9)
        wait_for(lambda: capture.frames == 10)
        tracker.gate.release(2)
        view = wait_for(lambda: live.newest(after=1, timeout_s=WAIT_S))
        assert view.frame.number == 10 and tracker.images == [0, 9]
        assert live.statistics.frames_used == 2
        source.let(300)
        tracker.gate.release(1000)


class StubCapture:
    """Has frame 1, which came `age_s` before it is asked for, and frame 2 if somebody waits for it; 2 frames/s."""

    frames_per_s = 2.0

    def __init__(self, age_s: float, has_next: bool):
        self.age_s, self.has_next = age_s, has_next
        self.waits_s: list[float] = []

    def newest(self, after: int, timeout_s: float):
        if after < 1:
            return Frame(picture(0), 1, time.monotonic() - self.age_s)
        self.waits_s.append(timeout_s)
        return Frame(picture(1), 2, time.monotonic()) if self.has_next else None


@pytest.mark.parametrize(
    "age_s, has_next, taken, waits",
    [
        (0.0, True, 1, False),  # fresh: taken as it is
        (0.3, True, 2, True),  # 300 of 500 ms old: the next comes in 200 ms
        (0.3, False, 1, True),  # it does not come
        (3.0, True, 1, False),  # overdue: the source stands still, nothing to wait for
    ],
)
def test_an_old_frame_is_left_for_one_that_is_about_to_come(age_s, has_next, taken, waits):
    capture = StubCapture(age_s, has_next)
    assert fresh_frame(capture, 0).number == taken
    assert bool(capture.waits_s) == waits and all(0 < wait_s <= 0.55 - age_s for wait_s in capture.waits_s)


def test_commands_are_obeyed_in_the_tracking_thread_and_seen_in_the_next_view():
    source, tracker = GatedSource(), NotingTracker()
    capture = Capture(source, live=True)
    with capture, Live(capture, Session(tracker)) as live:
        source.let()
        first = live.newest(0, WAIT_S)
        assert first.targets == () and first.selected is None
        live.do(Session.draw, first.frame.image, BOX)
        view = live.newest(first.number, WAIT_S)
        assert view.frame.number == 1 and view.targets[0].box_xywh == BOX and view.selected == 1
        source.let()
        after = wait_for(lambda: live.newest(view.number, WAIT_S))
        assert after.frame.number == 2 and after.targets[0].score == 0.75
        source.let(300)
    assert tracker.threads == {"tracking"}


def test_what_the_session_refuses_is_in_the_future_and_the_run_goes_on():
    source = GatedSource()
    capture = Capture(source, live=True)
    with capture, Live(capture, Session(NotingTracker())) as live:
        source.let()
        live.newest(0, WAIT_S)
        future = live.ask(Session.draw, picture(0), (-1.0, 0.0, 5.0, 5.0))
        assert isinstance(future.exception(WAIT_S), ConfigError)
        with pytest.raises(ConfigError, match="outside"):
            live.do(Session.draw, picture(0), (-1.0, 0.0, 5.0, 5.0))
        source.let()
        assert wait_for(lambda: live.newest(0, WAIT_S).frame.number == 2)
        source.let(300)


def test_a_defect_of_the_tracker_reaches_the_main_thread():
    tracker = NotingTracker()
    tracker.update = lambda image: {}  # a result is missing
    session = Session(tracker)
    session.draw(picture(0), BOX)
    capture = Capture(ListSource(5, fps=100.0), live=False)
    with capture, Live(capture, session) as live, pytest.raises(KeyError):
        wait_for(lambda: live.newest(1000, 0.01))


def test_while_paused_commands_work_and_afterwards_no_old_frame_is_shown():
    """Frame 2 comes during the pause, frame 3 after it: the view goes from 1 to 3."""
    source = GatedSource()
    capture = Capture(source, live=True)
    with capture, Live(capture, Session(NotingTracker())) as live:
        source.let()
        first = live.newest(0, WAIT_S)
        live.paused = True
        source.let()
        wait_for(lambda: capture.frames == 2)
        live.do(Session.draw, first.frame.image, BOX)
        view = live.newest(first.number, WAIT_S)
        assert view.frame.number == 1 and len(view.targets) == 1
        assert live.newest(view.number, 0.1) is None
        live.paused = False
        assert live.newest(view.number, 0.1) is None
        source.let()
        assert live.newest(view.number, WAIT_S).frame.number == 3
        source.let(300)


def test_a_tracker_may_be_loaded_while_pictures_are_shown_already():
    """Views come while loading takes its time; a box drawn meanwhile is learned as soon as the tracker is there."""
    gate = threading.Event()
    tracker = LoadingTracker(lambda: gate.wait(WAIT_S) and NotingTracker())
    source = GatedSource()
    capture = Capture(source, live=True)
    with capture, Live(capture, Session(tracker)) as live:
        source.let()
        view = live.newest(0, WAIT_S)
        tracker.check()
        future = live.ask(Session.draw, view.frame.image, BOX)
        assert not future.done()
        gate.set()
        assert future.result(WAIT_S) is None
        source.let(300)


def test_the_error_of_loading_is_raised_by_check():
    def load():
        raise ConfigError("no such weights")

    tracker = LoadingTracker(load)
    with pytest.raises(ConfigError, match="no such weights"):
        wait_for(lambda: tracker.check())


# Statistics


def test_the_delay_is_the_time_from_arrival_to_screen():
    """40 used every 50 ms (20 frames/s), shown 80 ms after arrival: 1.6 frames; 2 newer ones had arrived by then."""
    statistics = Statistics()
    for number in range(1, 41):
        arrived_s = 0.05 * number
        statistics.count_used(arrived_s + 0.07)
        statistics.count_shown(number, arrived_s, number + 2, arrived_s + 0.08)
        statistics.count_shown(
            number, arrived_s, number + 2, arrived_s + 3.0
        )  # shown again, as when a target is selected
    assert statistics.delay_ms.quantile(0.5) == statistics.delay_ms.quantile(1.0) == 80
    assert statistics.delay_frames.quantile(0.9) == pytest.approx(1.6, abs=0.011)
    assert statistics.newer.quantile(0.99) == 2
    text = statistics.text(frames_arrived=120)
    assert text.startswith("1.9 s, 120 frames arrived, 40 used (20.0 frames/s)\n")
    assert "median 80 ms (1.6 frames as used, 2 of the source)" in text


def test_without_frames_there_is_a_summary_all_the_same():
    assert Statistics().text(0) == "0.0 s, 0 frames arrived, 0 used (0.0 frames/s)"
    assert Statistics().text(1) == "0.0 s, 1 frame arrived, 0 used (0.0 frames/s)"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_a_quantile_of_the_histogram_is_that_of_the_values(values, q):
    """By definition: the smallest value v with at least q n of the n values <= v (the least value for q = 0)."""
    histogram = Histogram(1.0, 40.0)
    for value in values:
        histogram.add(value)
    ranked = sorted(min(value, 40) for value in values)
    assert histogram.quantile(q) == ranked[max(1, int(np.ceil(q * len(ranked)))) - 1]


def test_an_empty_histogram_has_no_quantile():
    assert np.isnan(Histogram(1.0, 10.0).quantile(0.5))


def test_a_rate_is_events_per_second_and_falls_when_they_stop():
    """Every 0.1 s is 10 per second; 5 s after the last one at most one in 5 s. Every 3 s is 1/3, in a window of 2 s."""
    rate, slow = Rate(2.0), Rate(2.0)
    assert rate.per_s(0.0) == 0.0
    for index in range(50):
        rate.mark(0.1 * index)
        slow.mark(3.0 * index)
    assert rate.per_s(4.9) == pytest.approx(10.0) and rate.per_s(9.9) == pytest.approx(0.2)
    assert slow.per_s(147.1) == pytest.approx(1 / 3)
