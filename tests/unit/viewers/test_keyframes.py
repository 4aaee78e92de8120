"""Key frames: frames in any order, tracks in both directions between key frames, and how they are joined."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.evaluation.overlap import iou
from ebmtrack.images import write_picture
from ebmtrack.viewers import seekable
from ebmtrack.viewers.follow import track
from ebmtrack.viewers.frames import open_frames
from ebmtrack.viewers.keyframes import KeyFrame, KeyFrameTracks, blend, conflict, mean_box, switch_point
from ebmtrack.viewers.results import FrameResult
from ebmtrack.viewers.seekable import SeekableFrames
from ebmtrack.viewers.selection import as_key_frames, checked_key_frames, key_frame_texts, parse_key_frames
from ebmtrack.viewers.track_video import track as track_video
from ebmtrack.viewers.video_file import VideoWriter

BOX = (10.0, 5.0, 8.0, 6.0)


class Drifter:
    """A tracker of a target that moves right by 2 pixels a frame; it reads the frame's number from the picture.

    From `drift_after` frames after its start on it stands still. `starts` notes the frames it was started in.
    """

    def __init__(self, drift_after: int = 1000):
        self.drift_after = drift_after
        self.starts: list[int] = []

    def __deepcopy__(self, memo):
        copy = Drifter(self.drift_after)
        copy.starts = self.starts
        return copy

    def init(self, image, box_xywh, seed=None):
        self.first, self.box = int(image[0, 0, 0]), box_xywh
        self.starts.append(self.first)

    def update(self, image):
        moved = int(image[0, 0, 0]) - self.first
        moved = max(-self.drift_after, min(self.drift_after, moved))
        box = (self.box[0] + 2 * moved, *self.box[1:])
        return type("Answer", (), dict(box_xywh=box, score=0.6, verdict="normal", found=True))()


def true_box(frame: int) -> tuple[float, ...]:
    return (10.0 + 2 * frame, 5.0, 8.0, 6.0)


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        write_picture(tmp_path / "frames" / f"{number}.png", np.full((40, 60, 3), number, np.uint8))
    return tmp_path / "frames"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A hundred frames of noise that moves, so that each is different, with few frames to jump to."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (60, 200, 3), np.uint8)
    with VideoWriter(path, 25.0) as writer:
        for number in range(100):
            writer.write(np.ascontiguousarray(noise[:, number : number + 80]))
    return path


# Frames in any order


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_a_frame_is_the_same_in_whatever_order_it_is_asked_for(film, order, monkeypatch):
    monkeypatch.setattr(seekable, "BUDGET", 12 * 60 * 80 * 3)  # twelve frames: most are read a second time
    with open_frames(film) as frames:
        truth = list(frames)
    numbers = {"forward": range(100), "backward": range(99, -1, -1)}.get(order)
    numbers = np.random.default_rng(1).permutation(100) if numbers is None else numbers
    with SeekableFrames(film) as frames:
        assert all((frames.read(int(number)) == truth[number]).all() for number in numbers)
        assert frames.find_length() == 100 and frames.read(100) is None and frames.read(-1) is None


def test_where_a_jump_arrives_elsewhere_the_video_is_read_from_its_front(film, monkeypatch):
    """OpenCV's jump is made wrong by three frames: checksums tell, and the right frames come."""
    monkeypatch.setattr(seekable, "BUDGET", 60 * 80 * 3)
    with open_frames(film) as frames:
        truth = list(frames)
        kind = type(frames)
    jump = kind.skip_to

    def wrong(self, number):
        jump(self, number + 3)
        self.frames_read = number
        return True

    monkeypatch.setattr(kind, "skip_to", wrong)
    with SeekableFrames(film) as frames:
        frames.find_length()
        assert all((frames.read(number) == truth[number]).all() for number in (70, 50, 20))


def test_a_stream_cannot_go_back():
    for source in (0, "0", "rtsp://host/door"):
        with pytest.raises(ConfigError, match="record it first"):
            SeekableFrames(source)


def test_an_unreadable_frame_is_none_and_the_numbers_stay(film, monkeypatch):
    """Reads that fail for frames 30 and 31: the others keep their numbers, also on the way back."""
    from ebmtrack.viewers import frames as room

    with open_frames(film) as whole:
        truth = list(whole)
    read = room._next_rgb

    def failing(capture):
        at = int(round(capture.get(1)))  # CAP_PROP_POS_FRAMES
        image = read(capture)
        return None if at in (30, 31) else image

    monkeypatch.setattr(room, "_next_rgb", failing)
    monkeypatch.setattr(seekable, "BUDGET", 60 * 80 * 3)
    with SeekableFrames(film) as frames:
        assert frames.find_length() == 100 and not frames.complete and "frames 30-31" in str(frames.note)
        assert frames.read(30) is None and frames.read(31) is None
        assert (frames.read(60) == truth[60]).all() and (frames.read(29) == truth[29]).all()


# Joining


def test_a_track_that_is_right_in_both_directions_is_kept(folder):
    rows = list(track(folder, {3: true_box(3), 30: true_box(30)}, Drifter()))
    assert [row.frame for row in rows] == list(range(3, 40))
    assert all(row.box_xywh == pytest.approx(true_box(row.frame)) for row in rows)


@pytest.mark.parametrize("drift_after", [14, 20, 25])
def test_two_tracks_that_drift_are_joined_to_one_that_does_not(folder, drift_after):
    """Each stands still after `drift_after` of 30 frames; together they cover all, so all frames but few are right."""
    keys = {5: true_box(5), 35: true_box(35)}
    rows = list(track(folder, keys, Drifter(drift_after), end=35))
    truth = np.array([true_box(row.frame) for row in rows])
    overlap = iou(np.array([row.box_xywh for row in rows]), truth)
    assert len(rows) == 31 and overlap.mean() > 0.95 and (overlap > 0.2).all()
    alone = list(track(folder, true_box(5), Drifter(drift_after), start=5, end=35))
    assert iou(np.array([row.box_xywh for row in alone]), truth).mean() < 0.9


def test_a_lost_track_gives_way_to_the_other():
    forward = [FrameResult(n, 1, true_box(n), 0.9, "normal" if n < 4 else "not_found") for n in range(1, 10)]
    backward = [FrameResult(n, 1, (10 + 2.0 * n, 6.0, 8.0, 6.0), 0.9, "normal") for n in range(1, 10)]
    joined = blend(forward, backward, 0, 10)
    assert [row.verdict for row in joined] == ["normal"] * 9
    assert all(row.box_xywh[1] == 6.0 for row in joined[3:])  # from the backward track alone
    assert 5 < joined[2].box_xywh[1] < 6  # both were there: their mean, nearer to the forward one
    assert joined[0].box_xywh[1] == pytest.approx(5.1)


def test_boxes_are_averaged_by_the_distance_to_the_key_frames():
    assert mean_box(BOX, (20.0, 5.0, 8.0, 6.0), 0.25) == pytest.approx((12.5, 5.0, 8.0, 6.0))
    assert mean_box((0, 0, 4, 4), (0, 0, 16, 16), 0.5) == pytest.approx((1.0, 1.0, 8.0, 8.0))


def test_the_switch_is_where_it_costs_least():
    assert switch_point([0.0] * 6, [0.0] * 6, [0.1, 0.2, 1.0, 1.0, 0.2, 0.1]) in (2, 3, 4)
    assert switch_point([1.0] * 4, [0.0] * 4, [1.0] * 4) == 0 and switch_point([0.0] * 4, [1.0] * 4, [1.0] * 4) == 4
    assert switch_point([0.5], [0.5], [1.0]) in (0, 1)


# Tracks that do not meet


APART = {3: true_box(3), 33: (true_box(33)[0] + 40, 35.0, 8.0, 6.0)}  # two targets: 40 pixels right and 30 below
NOTE = "target 1: the tracks from frame 3 and frame 33 do not meet: they are 50 pixels apart in frame 18; check"


def rows_at(moves, lost=()):
    """Results of a target of 10 x 10 pixels that is moved to the right by so many pixels, frame by frame."""
    rows = [FrameResult(n, 1, (100.0 + move, 5.0, 10.0, 10.0), 0.9, "normal") for n, move in enumerate(moves, 1)]
    return [FrameResult(row.frame, 1, row.box_xywh, 0.1, "not_found") if row.frame in lost else row for row in rows]


def test_tracks_that_do_not_meet_are_told_and_uncertain(folder):
    with pytest.warns(UserWarning, match=NOTE) as told:
        rows = list(track(folder, APART, Drifter()))
    assert len(told) == 1 and told[0].filename == __file__
    assert [row.frame for row in rows if row.verdict == "uncertain"] == list(range(4, 33))
    assert [row.verdict for row in rows if row.frame in (3, 33, 34)] == ["start", "start", "normal"]


def test_the_command_tells_of_tracks_that_do_not_meet(folder, tmp_path, capsys):
    """One line for each target and stretch, and no error."""
    init = [f"{frame}:{','.join(map(str, box))}" for frame, box in APART.items()]
    init += [f"2@{frame}:{','.join(map(str, true_box(frame)))}" for frame in (3, 33)]
    track_video(folder, lambda: Drifter(), init=init, boxes=tmp_path / "b.csv")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {NOTE}") and ",uncertain\n" in (tmp_path / "b.csv").read_text()


def test_key_frames_by_time_are_named_as_they_were_given(folder):
    with pytest.warns(UserWarning, match=r"from 0.1s \(frame 3\) and frame 33 do not meet"):
        list(track(folder, {"0.1s": APART[3], 33: APART[33]}, Drifter()))


def test_one_box_may_be_twice_as_wide_and_high_as_the_other():
    """That is no other place; nor is the place half a box beside it."""
    forward = rows_at([0] * 8)
    assert conflict(forward, [FrameResult(n, 1, (95.0, 0.0, 20.0, 20.0), 0.9, "normal") for n in range(1, 9)]) is None
    assert conflict(forward, rows_at([5] * 8)) is None


def test_a_track_that_drifts_away_is_no_conflict_while_the_other_is_right():
    forward, backward = rows_at([0, 0, 0, 0, 0, 40, 40, 40]), rows_at([40, 40, 0, 0, 0, 0, 0, 0])
    assert conflict(forward, backward) is None
    assert {row.verdict for row in blend(forward, backward, 0, 9)} == {"normal"}


def test_a_jump_that_both_tracks_lost_the_target_in_is_no_conflict():
    """As at a cut between shots: each says that it is lost beyond."""
    forward, backward = rows_at([0] * 8, lost=range(5, 9)), rows_at([40] * 8, lost=range(1, 5))
    assert conflict(forward, backward) is None
    assert {row.verdict for row in blend(forward, backward, 0, 9)} == {"normal"}
    hidden = conflict(rows_at([0] * 8, lost=range(3, 9)), rows_at([40] * 8, lost=range(1, 7)))
    assert hidden is None  # "not_found" says enough


def test_the_frames_in_doubt_are_those_around_the_joint_in_which_the_tracks_are_apart():
    """Beyond a frame in which they meet they are in doubt no more; a target that is lost stays lost."""
    forward = rows_at([0] * 38 + [40] * 2, lost=[4])
    backward = rows_at([40, 0] + [40] * 38)
    apart = conflict(forward, backward)
    assert apart.doubtful == range(2, 38) and apart.at in (18, 19, 20)
    verdicts = [row.verdict for row in blend(forward, backward, 0, 41)]
    assert verdicts == ["normal"] * 2 + ["uncertain", "not_found"] + ["uncertain"] * 34 + ["normal"] * 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_stretches_of_no_frame_or_few_have_conflicts_too(count):
    apart = conflict(rows_at([0] * count), rows_at([40] * count))
    assert apart is None if count == 0 else apart.doubtful == range(count)


# Directions, spans and several targets


@pytest.mark.parametrize(
    "direction, numbers", [("forward", range(20, 40)), ("backward", range(21)), ("both", range(40))]
)
def test_directions(folder, direction, numbers):
    rows = list(track(folder, {20: true_box(20)}, Drifter(), direction=direction))
    assert [row.frame for row in rows] == list(numbers)
    assert all(row.box_xywh == pytest.approx(true_box(row.frame)) for row in rows)


def test_backward_begins_in_the_last_frame(folder):
    rows = list(track(folder, true_box(30), Drifter(), direction="backward", start=10, end=30))
    assert [row.frame for row in rows] == list(range(10, 31)) and rows[-1].verdict == "start"


@pytest.mark.parametrize("every", [2, 3, 4, 7])
def test_both_tracks_of_a_gap_see_the_same_frames(folder, every):
    """Also if the gap is no multiple of their distance: two tracks that are right are joined to one that is right."""
    rows = list(track(folder, {0: true_box(0), 11: true_box(11)}, Drifter(), end=11, every=every))
    assert [row.frame for row in rows] == [*range(0, 11, every), 11]
    assert all(row.box_xywh == pytest.approx(true_box(row.frame)) for row in rows)


def test_every_third_frame_and_all_key_frames(folder):
    rows = list(track(folder, {0: true_box(0), 10: true_box(10)}, Drifter(), end=20, every=3))
    assert [row.frame for row in rows] == [0, 3, 6, 9, 10, 13, 16, 19]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list, tuple])
def test_boxes_of_several_targets_come_in_any_sequence(kind):
    keys = as_key_frames(kind([BOX, true_box(1)]), round, 3)
    assert [(key.frame, key.id, key.box_xywh) for key in keys] == [(3, 1, BOX), (3, 2, true_box(1))]
    assert [key.box_xywh for key in as_key_frames(kind(BOX), round)] == [BOX]


def test_frames_are_given_as_times_in_python_too(folder, caplog):
    """By 30 frames/s for a folder, which is said."""
    by_number = list(track(folder, {6: true_box(6), 15: true_box(15)}, Drifter(), end=20))
    assert list(track(folder, {"0.2s": true_box(6), "0:00.5": true_box(15)}, Drifter(), end=20)) == by_number
    rows = list(track(folder, true_box(6), Drifter(), start="0.2s", end="0.3s"))
    assert [row.frame for row in rows] == [6, 7, 8, 9]
    note = f"{folder.name} has no time stamps: times are counted at 30 frames/s"
    assert caplog.messages == [note, note]  # once for each call


def test_times_count_by_the_frame_rate_of_the_video(film, tmp_path, monkeypatch):
    """25 frames/s; at 30 frames/s 0.1 s and 3 would be one frame."""
    rows = list(track(film, BOX, Drifter(), start="0.4s", end="0.48s"))
    assert [row.frame for row in rows] == [10, 11, 12]
    init = ["0.1s:10,5,8,6", "3:12,5,8,6"]
    assert len(track_video(film, lambda: Drifter(), init=init, boxes=tmp_path / "b.csv", end="6").rows) == 5


def test_several_targets_have_their_own_key_frames(folder):
    boxes = [{0: true_box(0), 10: true_box(10)}, {5: true_box(5)}]
    rows = list(track(folder, boxes, Drifter(), end=12))
    assert [row.frame for row in rows if row.id == 2] == list(range(5, 13))
    assert [row.frame for row in rows if row.id == 1] == list(range(13))
    assert [(row.frame, row.id) for row in rows] == sorted((row.frame, row.id) for row in rows)


def test_the_tracker_may_be_the_name_or_path_of_a_set_up(folder, tmp_path):
    """What is neither a tracker of one target nor a set-up is refused with what to give."""
    (row,) = track(folder, (10, 5, 8, 6), "lite_nce_plus", end=0)
    assert (row.frame, row.box_xywh) == (0, (10, 5, 8, 6))
    set_up = tmp_path / "mine.py"
    set_up.write_text("from ebmtrack.tracker_params.lite_nce_plus import parameters\n")
    assert [row.box_xywh for row in track(folder, (10, 5, 8, 6), set_up, end=0)] == [(10, 5, 8, 6)]
    with pytest.raises(ConfigError, match="did you mean 'lite_nce_plus'"):
        next(track(folder, (10, 5, 8, 6), "lite_nce_plas"))
    with pytest.raises(
        ConfigError, match="tracker is a Tracker or a set-up's name such as 'lite_nce_plus', not <class 'int'>"
    ):
        next(track(folder, (10, 5, 8, 6), 3))


def test_images_in_a_list_have_key_frames_and_an_iterator_goes_forward_only():
    images = [np.full((40, 60, 3), number, np.uint8) for number in range(20)]
    rows = list(track(images, {10: true_box(10)}, Drifter(), direction="both"))
    assert [row.box_xywh for row in rows] == [pytest.approx(true_box(number)) for number in range(20)]
    rows = list(track(iter(images), true_box(0), Drifter()))
    assert [row.box_xywh for row in rows] == [pytest.approx(true_box(number)) for number in range(20)]
    with pytest.raises(ConfigError, match="iterator cannot go back"):
        list(track(iter(images), {10: true_box(10)}, Drifter(), direction="both"))


@pytest.mark.parametrize("unreadable", [(7, 8), (0,), (39,)])
def test_unreadable_pictures_keep_their_numbers(folder, unreadable):
    """Between key frames as well; the first picture and the last one count."""
    for number in unreadable:
        (folder / f"{number}.png").write_bytes(b"")
    rows = []
    with pytest.raises(DatasetError, match=rf"frames? {unreadable[0]}.*{unreadable[0]}\.png: not a readable image"):
        for row in track(folder, {20: true_box(20)}, Drifter(), direction="both"):
            rows.append(row)
    assert [row.frame for row in rows] == list(range(40))
    assert [row.frame for row in rows if row.verdict == "unreadable"] == [*unreadable]


def test_the_size_of_frames_is_known_if_the_first_one_is_unreadable(folder, tmp_path):
    """YOLO's labels are parts of it, and what was tracked would be lost without it."""
    (folder / "0.png").write_bytes(b"damaged")
    out = tmp_path / "out.yolo"
    with pytest.raises(DatasetError, match="what was tracked is saved"):
        track_video(folder, Drifter, "5:10,5,8,6", both=True, boxes=str(out))
    assert len(list((out / "labels").glob("frame_*.txt"))) == 40


def test_a_key_frame_that_is_unreadable_is_named(folder):
    (folder / "20.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="frame 20"):
        list(track(folder, {20: true_box(20)}, Drifter(), direction="both"))


@pytest.mark.parametrize(
    "boxes, more, message",
    [
        (BOX, dict(direction="sideways"), "direction is one of forward, backward, both, not 'sideways'"),
        (None, {}, "a box is four numbers x, y, w, h in pixels, not None"),
        ("10,5,8,6", {}, "a box is four numbers x, y, w, h in pixels, not '10,5,8,6'"),
        ({"0.4": BOX}, {}, "the frame in {frame: box} is a frame's number such as 90, or a time .*, not '0.4'"),
        ({-1: BOX}, {}, "the frame in {frame: box} is a frame's number .*, not '-1'"),
        ({"10": BOX, "0.3333s": BOX}, {}, r"two boxes in one frame: .* in frame 10, .* in 0.3333s \(frame 10\)"),
        (BOX, dict(every=1.5), "--every is a distance of frames, at least 1, not 1.5"),
        ([], {}, "no box is given"),
        (torch.tensor(5.0), {}, "a box is four numbers"),
        ({1: BOX}.values(), {}, "a box is four numbers"),
        (np.array(5.0), {}, "a box is four numbers"),
        ([[[1, 2], [3]]], {}, "a box is four numbers"),
    ],
)
def test_what_cannot_be_tracked_is_refused(folder, boxes, more, message):
    with pytest.raises(ConfigError, match=message):
        list(track(folder, boxes, Drifter(), **more))


def test_a_key_frame_outside_is_refused(folder):
    with pytest.raises(ConfigError, match="target 1 in frame 50: give a frame from 0 to 39"):
        list(track(folder, {50: BOX}, Drifter()))


def test_legs_are_not_tracked_again_after_a_correction(folder):
    """A second pass over the same key frames starts no tracker; a new key frame starts those of its two gaps."""
    tracker = Drifter()
    with SeekableFrames(folder) as frames:
        labels = KeyFrameTracks(tracker, frames.read, 0, 39)
        keys = [KeyFrame(0, 1, true_box(0)), KeyFrame(30, 1, true_box(30))]
        first = [row for part in labels.track(keys) for row in part]
        assert sorted(tracker.starts) == [0, 30, 30]
        assert [row for part in labels.track(keys) for row in part] == first and len(tracker.starts) == 3
        list(labels.track([*keys, KeyFrame(15, 1, true_box(15))]))
        assert sorted(tracker.starts[3:]) == [15, 15]


# The command line


def test_key_frames_are_written_and_read():
    keys = parse_key_frames(["1,2,3,4", "90:5,6,7,8", "2@3.5s:1,1,9,9"], lambda time_s: round(10 * time_s), 5)
    assert keys == [
        KeyFrame(5, 1, (1, 2, 3, 4)),
        KeyFrame(90, 1, (5, 6, 7, 8)),
        KeyFrame(35, 2, (1, 1, 9, 9)),
    ]
    again = [text for text in key_frame_texts(keys).split() if text != "--init"]
    assert parse_key_frames(again, round, 0) == keys
    assert [key.id for key in parse_key_frames(["1,2,3,4;5,6,7,8", "1,1,2,2"], round, 0)] == [1, 2, 3]
    assert [key.id for key in parse_key_frames(["2@5:1,2,3,4", "1,1,2,2"], round, 0)] == [2, 3]


@pytest.mark.parametrize(
    "texts, message",
    [
        (["x@9:1,2,3,4"], "ID@FRAME:x,y,w,h"),
        (["a:1,2,3,4"], "frame's number"),
        (["9:1,2,3"], "four numbers"),
        (["9:1,2,3,4", "9:1,2,3,5"], r"two boxes in one frame: .* in frame 9, .* in frame 9"),
        (["1s:1,2,3,4", "30:1,2,3,5"], r"two boxes in one frame: .* in 1s \(frame 30\), .* in frame 30"),
    ],
)
def test_what_is_no_key_frame_is_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        checked_key_frames(parse_key_frames(texts, lambda time_s: round(30 * time_s), 0))


def test_the_command_tracks_between_key_frames(folder, tmp_path, capsys):
    boxes = [f"{frame}:{','.join(map(str, true_box(frame)))}" for frame in (4, 30)]
    out, video = tmp_path / "b.csv", tmp_path / "v.mp4"
    result = track_video(folder, lambda: Drifter(12), init=boxes, both=True, boxes=out, save=video)
    lines = out.read_text().splitlines()
    assert len(lines) == 41 and lines[1].startswith("0,1,10.0,5.0") and lines[5].endswith(",,start")
    assert open_frames(video).length == 40 and "40 frames" in capsys.readouterr().out
    assert result.files == [out, video]
    track_video(folder, lambda: Drifter(), init=boxes, boxes=out, max_frames=32)
    assert len(out.read_text().splitlines()) == 1 + 32  # frames 4 to 35
    track_video(folder, lambda: Drifter(), init=boxes[1], backward=True, boxes=out, max_frames=5)
    assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == ["26", "27", "28", "29", "30"]


class Interrupted(Drifter):
    """A Drifter whose user presses Ctrl-C in a frame, forward or backward."""

    def __init__(self, frame: int, forward: bool):
        super().__init__()
        self.frame, self.forward = frame, forward

    def __deepcopy__(self, memo):
        return Interrupted(self.frame, self.forward)

    def update(self, image):
        if int(image[0, 0, 0]) == self.frame and (self.first < self.frame) == self.forward:
            raise KeyboardInterrupt
        return super().update(image)


@pytest.mark.parametrize("forward, last", [(True, 11), (False, 30)])
def test_ctrl_c_between_key_frames_keeps_what_was_tracked(folder, tmp_path, capsys, forward, last):
    """Of the unfinished stretch the forward track is kept, joined with the backward one as far as that has come."""
    boxes = [f"{frame}:{','.join(map(str, true_box(frame)))}" for frame in (4, 30)]
    out, video = tmp_path / "b.csv", tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt):
        track_video(folder, lambda: Interrupted(12, forward), init=boxes, boxes=out, save=video)
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == sorted({*range(4, last + 1), 30})
    assert all(float(row[2]) == true_box(int(row[0]))[0] for row in rows)
    printed = capsys.readouterr().out
    assert f"interrupted; kept what was tracked: {len(rows)} frames" in printed and ", 0.0 frames/s" not in printed
    assert open_frames(video).length == len(rows)


@pytest.mark.parametrize("frame", [12, 1000])
def test_boxes_are_written_before_frames_are_drawn(folder, tmp_path, capsys, monkeypatch, frame):
    """A kill while a long video is drawn loses no box, and a full disk hides no interrupt."""
    boxes = [f"{frame}:{','.join(map(str, true_box(frame)))}" for frame in (4, 30)]
    out, known = tmp_path / "b.csv", []

    def write(*_):
        known.append(out.exists() and len(out.read_text().splitlines()))
        raise ConfigError("v.mp4: disk full")

    monkeypatch.setattr(VideoWriter, "write", write)
    with pytest.raises(KeyboardInterrupt if frame == 12 else ConfigError):
        track_video(folder, lambda: Interrupted(frame, True), init=boxes, boxes=out, save=tmp_path / "v.mp4", end=34)
    assert known == [1 + 9 if frame == 12 else 1 + 31]  # frames 4 to 11 and 30, or 4 to 34
    said = capsys.readouterr()
    assert f"kept what was tracked: {known[0] - 1} frames" in said.out and f"saved {out}\n" in said.out
    assert said.err == ("ebmtrack: the video is incomplete: v.mp4: disk full\n" if frame == 12 else "")


def test_a_foreign_tracker_follows_one_target_at_a_time(folder):
    """Several need a network that they share; between key frames each target has a copy of the tracker."""
    with pytest.raises(ConfigError, match="a Drifter follows one target at a time"):
        list(track(folder, [true_box(0), true_box(9)], Drifter()))
    assert len(list(track(folder, [{0: true_box(0)}, {9: true_box(9)}], Drifter()))) == 40 + 31


class Failing(Drifter):
    """A Drifter that refuses its box, or fails in a frame."""

    def __init__(self, frame: int | None):
        super().__init__()
        self.frame = frame

    def __deepcopy__(self, memo):
        return Failing(self.frame)

    def init(self, image, box_xywh, seed=None):
        if self.frame is None:
            raise ConfigError("this box will not do")
        super().init(image, box_xywh, seed)

    def update(self, image):
        if int(image[0, 0, 0]) == self.frame:
            raise ConfigError("this frame will not do")
        return super().update(image)


@pytest.mark.parametrize("init", [["0:10,5,8,6"], ["0:10,5,8,6", "30:70,5,8,6"]])
def test_an_error_keeps_the_video_of_what_was_tracked(folder, tmp_path, capsys, init):
    """With one key frame, which is read once from the front, and with two."""
    with pytest.raises(ConfigError, match="frame 12: this frame will not do"):
        track_video(folder, lambda: Failing(12), init=init, save=tmp_path / "v.mp4")
    assert open_frames(tmp_path / "v.mp4").length == 12 + (len(init) - 1)
    assert f"saved {tmp_path / 'v.mp4'}\n" in capsys.readouterr().out


@pytest.mark.parametrize("init", [["0:10,5,8,6"], ["0:10,5,8,6", "30:70,5,8,6"]])
def test_a_box_that_is_refused_leaves_files_as_they_are(folder, tmp_path, capsys, init):
    out, video = tmp_path / "b.csv", tmp_path / "v.mp4"
    for file in (out, video):
        file.write_text("mine")
    with pytest.raises(ConfigError, match="this box will not do"):
        track_video(folder, lambda: Failing(None), init=init, boxes=out, save=video)
    assert (out.read_text(), video.read_text(), capsys.readouterr().out) == ("mine", "mine", "")


def test_files_that_are_there_are_told_while_they_are_tracked_over(folder, tmp_path, capsys):
    """Between key frames as well: once the tracker has started, in time to stop, and once."""
    out, video, said = tmp_path / "b.csv", tmp_path / "v.mp4", []
    for file in (out, video):
        file.write_text("mine")

    class Looking(Drifter):
        def __deepcopy__(self, memo):
            return Looking()

        def update(self, image):
            if int(image[0, 0, 0]) == 20:
                said.append(capsys.readouterr().out)
            return super().update(image)

    for init in (["4:18,5,8,6", "30:70,5,8,6"], ["4:18,5,8,6"]):
        track_video(folder, Looking, init=init, boxes=out, save=video)
        assert [said[0].count(f"{file} is there; this run writes over it") for file in (out, video)] == [1, 1]
        assert "note" not in "".join(said[1:]) + capsys.readouterr().out
        said.clear()


def test_a_key_frame_outside_of_the_span_is_refused_without_a_note(folder, tmp_path, capsys):
    """No picture is read then: the size of none would tell nothing."""
    with pytest.raises(ConfigError, match="frame 2: give a frame from 5 to 39"):
        track_video(folder, Drifter, init="2:-5,-2,8,6", start=5, boxes=tmp_path / "b.csv")
    assert capsys.readouterr().err == "" and not (tmp_path / "b.csv").exists()


def test_targets_and_frames_are_counted_whatever_the_ids(folder, tmp_path, capsys):
    """A target with the number 2 is one target, keeps its number, and an interrupt of its track is told."""
    first = ",".join(map(str, true_box(20)))
    result = track_video(folder, Drifter, init=f"2@20:{first}", boxes=tmp_path / "b.csv")
    assert capsys.readouterr().out.startswith("20 frames, ") and result.boxes_xywh[0] == true_box(20)
    first_frame = track_video(folder, Drifter, init="2@0:10,5,8,6", boxes=tmp_path / "b.csv")
    assert {row.id for row in first_frame.rows} == {2} and capsys.readouterr()
    both = [f"2@20:{first}", f"5@30:{first}"]
    track_video(folder, Drifter, init=both, boxes=tmp_path / "b.csv", max_frames=12)
    assert "\n2 targets, 12 frames, " in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        track_video(folder, lambda: Interrupted(22, True), init=f"2@20:{first}", boxes=tmp_path / "b.csv")
    assert "interrupted; kept what was tracked: 2 frames" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["b.csv", "b.coco.json", "b.yolo"])
def test_a_damaged_key_frame_is_named_whatever_is_written(tmp_path, name):
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((40, 50, 3), np.uint8))
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="frame 3, with a box of target 1, cannot be read"):
        track_video(tmp_path, lambda: Drifter(), init="3:10,5,8,6", both=True, boxes=tmp_path / name)


@pytest.mark.parametrize(
    "wishes, message",
    [
        (dict(init="1,2,3,4", both=True), "--both needs the frame of each box"),
        (dict(init="5:1,2,3,4", both=True, backward=True), "use one of --backward and --both"),
        (dict(init=("1,2,3,4", "9:1,2,3,4"), visdom="http://localhost"), "of one target"),
        (dict(init="90:1,2,3,4"), "in frame 90: give a frame from 0 to 39"),
        (dict(init="5s:1,2,3,4"), r"in 5s \(frame 150\): give a frame from 0 to 39"),
    ],
)
def test_wishes_that_contradict_are_refused(folder, wishes, message):
    with pytest.raises(ConfigError, match=message):
        track_video(folder, Drifter, boxes="b.csv", **wishes)
