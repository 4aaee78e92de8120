"""Runs that do not come to their end: what was there before stays, and what they have tracked is on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.viewers import partial_files, track_video
from ebmtrack.viewers.frames import FrameSource, open_frames
from ebmtrack.viewers.partial_files import BoxesFile, partial_path
from ebmtrack.viewers.results import FrameResult, ResultInfo, write_results
from ebmtrack.viewers.track_video import track
from ebmtrack.viewers.video_file import VideoWriter
from tests.support import REPOSITORY
from tests.unit.viewers.test_keyframes import Drifter, Failing, Interrupted, folder, true_box

__all__ = ["folder"]  # a fixture

ONE = ["0:10,5,8,6"]
GAP = ["0:10,5,8,6", "30:70,5,8,6"]
TWO = ["1@20:50,5,8,6", "2@0:10,5,8,6"]


def rows_of(count, ids=(1,)):
    return [FrameResult(n, k, (1.0 + n, 2.0, 3.0, 4.0), 0.5, "normal") for n in range(count) for k in ids]


def names(folder):
    """The files of a folder, without the frames."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.fixture
def at_once(monkeypatch):
    """Boxes are written after each frame."""
    monkeypatch.setattr(partial_files, "EVERY_S", 0.0)
    monkeypatch.setattr(partial_files, "SHARE", 1e9)


# The end of a run


@pytest.mark.parametrize("init", [ONE, GAP])
@pytest.mark.parametrize("tracker, error", [(Interrupted(12, True), KeyboardInterrupt), (Failing(12), ConfigError)])
def test_an_unfinished_run_leaves_the_files_of_an_earlier_one(folder, tmp_path, capsys, init, tracker, error):
    """Its own are beside them, and the last line says so."""
    out, video = tmp_path / "kf.csv", tmp_path / "kf.mp4"
    for file in (out, video):
        file.write_text("mine")
    with pytest.raises(error):
        track(folder, lambda: tracker, init=init, boxes=out, save=video)
    assert out.read_text() == video.read_text() == "mine"
    assert names(tmp_path) == ["kf.csv", "kf.mp4", "kf.partial.csv", "kf.partial.mp4"]
    count = 12 + len(init) - 1
    assert len(partial_path(out).read_text().splitlines()) == 1 + count
    assert open_frames(partial_path(video)).length == count
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"kept what was tracked: {count} frames" in last and str(partial_path(out)) in last
    assert last.endswith(f"{out}, {video} stay as they were") or last.endswith(f"{video}, {out} stay as they were")


@pytest.mark.parametrize("init", [ONE, GAP])
def test_an_unfinished_run_takes_the_names_if_they_are_free(folder, tmp_path, capsys, init):
    with pytest.raises(KeyboardInterrupt):
        track(folder, lambda: Interrupted(12, True), init=init, boxes=tmp_path / "kf.csv", save=tmp_path / "kf.mp4")
    assert names(tmp_path) == ["kf.csv", "kf.mp4"]
    assert "as it was" not in capsys.readouterr().out


@pytest.mark.parametrize("init", [ONE, GAP])
def test_a_run_that_ends_replaces_all_and_leaves_no_partial_file(folder, tmp_path, capsys, init, at_once):
    """Also partial files of a run that was killed, which are told of."""
    out, video = tmp_path / "kf.csv", tmp_path / "kf.mp4"
    for file in (out, video, partial_path(out), partial_path(video)):
        file.write_text("mine")
    result = track(folder, Drifter, init=init, boxes=out, save=video)
    assert names(tmp_path) == ["kf.csv", "kf.mp4"] and sorted(result.files) == [out, video]
    assert len(out.read_text().splitlines()) == 41 and open_frames(video).length == 40
    said = capsys.readouterr().out
    assert f"note: {out} is there; this run writes over it at its end\n" in said
    assert f"note: {partial_path(out)} is there; this run writes over it\n" in said and "as they were" not in said


def test_several_targets_have_partial_files_of_their_own(folder, tmp_path, capsys, at_once):
    """In the layout of one file for each; if one is there, all of the unfinished run stay beside it."""
    out = tmp_path / "kf.txt"
    (tmp_path / "kf_2.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        track(folder, lambda: Interrupted(12, True), init=TWO, boxes=out)
    assert names(tmp_path) == ["kf.partial_1.txt", "kf.partial_2.txt", "kf_2.txt"]
    assert (tmp_path / "kf_2.txt").read_text() == "mine"
    assert f"{tmp_path / 'kf_2.txt'} stays as it was\n" in capsys.readouterr().out
    track(folder, Drifter, init=TWO, boxes=out)
    assert names(tmp_path) == ["kf_1.txt", "kf_2.txt"] and len((tmp_path / "kf_2.txt").read_text().splitlines()) == 40


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_ends_a_stream_and_leaves_a_video_unfinished(folder, tmp_path, monkeypatch, capsys, stream):
    """What has an end of its own has not come to it; a camera has none."""
    out = tmp_path / "kf.csv"
    out.write_text("mine")
    monkeypatch.setattr(track_video, "_is_ended", lambda *_: True)
    monkeypatch.setattr(track_video, "is_stream", lambda _: stream)
    track(folder, Drifter, init=ONE, boxes=out, save=tmp_path / "kf.mp4")
    assert (out.read_text() == "mine") == partial_path(out).exists() == (not stream)
    assert ("kf.csv stays as it was" in capsys.readouterr().out) == (not stream)


@pytest.mark.parametrize("init", [ONE, GAP])
def test_a_source_that_ends_early_replaces_nothing(folder, tmp_path, monkeypatch, init):
    """Such as a disk of another machine that goes away; damaged frames in the middle are no early end."""
    out = tmp_path / "kf.csv"
    (folder / "7.png").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="frame 7"):
        track(folder, Drifter, init=init, boxes=out)
    assert names(tmp_path) == ["kf.csv"] and len(out.read_text().splitlines()) == 41
    whole = out.read_text()
    monkeypatch.setattr(FrameSource, "ended_early", True)
    with pytest.raises(DatasetError, match="what was tracked is saved"):
        track(folder, Drifter, init=init, boxes=out, end=35)
    assert out.read_text() == whole and len(partial_path(out).read_text().splitlines()) == 37


def test_an_interrupt_of_drawing_replaces_the_boxes_and_not_the_video(folder, tmp_path, monkeypatch, capsys):
    """Between key frames the boxes are whole before the video is begun."""
    out, video = tmp_path / "kf.csv", tmp_path / "kf.mp4"
    for file in (out, video):
        file.write_text("mine")
    write = VideoWriter.write

    def interrupted(writer, *args):
        if writer.frames_written == 9:
            raise KeyboardInterrupt
        write(writer, *args)

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        track(folder, Drifter, init=GAP, boxes=out, save=video)
    assert len(out.read_text().splitlines()) == 41 and video.read_text() == "mine"
    assert open_frames(partial_path(video)).length == 9
    assert f"{out} stays" not in capsys.readouterr().out


def test_a_partial_file_is_not_what_is_tracked(folder, tmp_path):
    source = tmp_path / "walk.partial.mp4"
    source.write_text("mine")
    with pytest.raises(ConfigError, match=r"walk\.partial\.mp4 is what is to be tracked; give another name"):
        track(source, Drifter, init=ONE, save=tmp_path / "walk.mp4")


def test_a_partial_file_that_cannot_be_is_told_before_tracking(folder, tmp_path):
    """Its name is a folder's, or too long: at the end all boxes would be lost."""
    (tmp_path / "b.partial.csv").mkdir()
    for option in ("boxes", "save"):
        with pytest.raises(ConfigError, match="cannot write here: .*too long"):
            track(
                folder, Drifter, init=ONE, **{option: tmp_path / f"{'b' * 236}.{dict(boxes='csv', save='mp4')[option]}"}
            )
    with pytest.raises(ConfigError, match=r"b\.csv: .*b\.partial\.csv is a folder"):
        track(folder, Drifter, init=ONE, boxes=tmp_path / "b.csv")
    assert names(tmp_path) == []


@pytest.mark.parametrize("option, name", [("boxes", "b.csv"), ("save", "b.mp4")])
def test_a_file_that_cannot_be_replaced_is_told_with_where_the_results_are(folder, tmp_path, option, name):
    """A folder took its name meanwhile; on Windows another program may have it open."""
    out = tmp_path / name

    class Unkind(Drifter):
        def update(self, image):
            out.mkdir(exist_ok=True)
            return super().update(image)

    with pytest.raises(ConfigError, match=rf"cannot write here: .* what was tracked is in .*{partial_path(out).name}"):
        track(folder, Unkind, init=ONE, **{option: out})
    assert names(tmp_path) == [f"b.partial{out.suffix}"]


def test_the_standard_output_is_no_file_of_boxes(folder):
    with pytest.raises(ConfigError, match="--boxes - is no file.*give a name such as boxes.csv"):
        track(folder, Drifter, init=ONE, boxes="-", layout="csv")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_a_link_to_an_open_file_is_not_replaced(folder, tmp_path):
    """As /dev/stdout is one after `> file`: it would be gone for all processes."""
    link, out = tmp_path / "stdout", tmp_path / "file"
    with out.open("w") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        for path in (link, f"/dev/fd/{file.fileno()}"):
            with pytest.raises(ConfigError, match="cannot write here: it is a file that is open already"):
                track(folder, Drifter, init=ONE, boxes=path, layout="csv")
            with pytest.raises(ConfigError, match="cannot write here: it is a file that is open already"):
                write_results(path, rows_of(3), layout="csv")
    assert link.is_symlink() and names(tmp_path) == ["file"] and not out.read_text()
    reading, writing = os.pipe()
    write_results(f"/dev/fd/{writing}", rows_of(1))
    assert os.read(reading, 5) == b"frame"
    for end in (reading, writing):
        os.close(end)


# While it goes on


@pytest.mark.parametrize("name", ["b.csv", "b.json", "b.txt", "b.mot.txt", "b.coco.json", "b.xml"])
def test_boxes_are_on_disk_while_a_run_goes_on(tmp_path, name, at_once):
    """In the layout of the whole file; the partial one goes when the run has ended."""
    file = BoxesFile(tmp_path / name, ResultInfo(size_wh=(60, 40)))
    file.update(rows_of(3))
    assert names(tmp_path) == [partial_path(tmp_path / name).name]
    early = (tmp_path / names(tmp_path)[0]).read_bytes()
    assert file.finish(rows_of(3), True) == [tmp_path / name] and names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == early and file.untouched == []


@pytest.mark.parametrize("name", ["boxes", "boxes.v2", "boxes.csv", "a.partial.csv"])
@pytest.mark.parametrize("layout, ids", [("csv", (1,)), ("csv", (1, 2)), ("pytracking", (1,)), ("pytracking", (1, 2))])
def test_files_get_their_names_whatever_they_end_in(tmp_path, name, layout, ids):
    path = tmp_path / name
    several = layout == "pytracking" and len(ids) > 1
    finals = [path.with_name(f"{path.stem}_{k}{path.suffix}") for k in ids] if several else [path]
    assert BoxesFile(path, ResultInfo(), layout).finish(rows_of(3, ids), ended=True) == finals
    whole = finals[0].read_text()
    boxes = BoxesFile(path, ResultInfo(), layout)
    assert all(".partial" in partial.name for partial in boxes.finish(rows_of(2, ids), ended=False))
    assert boxes.untouched == finals and finals[0].read_text() == whole
    assert BoxesFile(path, ResultInfo(), layout).finish(rows_of(3, ids), ended=True) == finals
    assert names(tmp_path) == sorted(final.name for final in finals)


def test_a_second_target_renames_the_file_of_the_first(tmp_path, at_once):
    file = BoxesFile(tmp_path / "b.txt", ResultInfo())
    for ids, expected in ((1,), ["b.partial.txt"]), ((1, 2), ["b.partial_1.txt", "b.partial_2.txt"]):
        file.update(rows_of(3, ids))
        assert names(tmp_path) == expected
    file.finish(rows_of(3, (1, 2)), True)
    assert names(tmp_path) == ["b_1.txt", "b_2.txt"]


def test_folders_are_written_at_the_end_alone(tmp_path, at_once):
    file = BoxesFile(tmp_path / "b.yolo", ResultInfo(size_wh=(60, 40)))
    file.update(rows_of(3))
    assert not list(tmp_path.iterdir())
    assert file.finish(rows_of(3), False) == [tmp_path / "b.yolo"]


@pytest.mark.parametrize("cost_s, expected", [(0.001, 99), (1.0, 10)])
def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch, cost_s, expected):
    """Every ten seconds while it is quick; if it takes a second, every hundred seconds."""
    clock, writes = [0.0], []

    def write(path, *_):
        clock[0] += cost_s
        writes.append(clock[0])
        return [path]

    monkeypatch.setattr(partial_files.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(partial_files, "write_results", write)
    file = BoxesFile(tmp_path / "b.csv", ResultInfo())
    while clock[0] < 1000:
        file.update([])
        clock[0] += 0.1
    assert expected - 2 <= len(writes) <= expected and writes[0] < 11.2


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch, capsys, at_once):
    """It is told once; at the end it is an error, as before."""

    def full(*_):
        raise ConfigError("b.partial.csv: cannot write here: No space left on device")

    monkeypatch.setattr(partial_files, "write_results", full)
    file = BoxesFile(tmp_path / "b.csv", ResultInfo())
    file.update(rows_of(1))
    file.update(rows_of(2))
    assert capsys.readouterr().err.count("note: boxes are written at the end alone: b.partial.csv: cannot") == 1
    with pytest.raises(ConfigError, match="No space left"):
        file.finish(rows_of(2), True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("last", [None, 20, 35])
def test_a_killed_run_has_left_its_boxes(folder, tmp_path, last):
    """By SIGKILL, as of a system out of memory, in frame 30; what was there before stays.

    With one key frame, after a second one, and between both.
    """
    init = [f"{frame}:{','.join(map(str, true_box(frame)))}" for frame in (0, last) if frame is not None]
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit.viewers.test_keyframes import Drifter\n"
        "from ebmtrack.viewers import partial_files, track_video\n"
        "partial_files.EVERY_S, partial_files.SHARE = 0.0, 1e9\n"
        "class Killed(Drifter):\n"
        "    __deepcopy__ = lambda self, memo: Killed()\n"
        "    def update(self, image):\n"
        "        int(image[0, 0, 0]) == 30 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().update(image)\n"
        "track_video.track(sys.argv[2], Killed, sys.argv[4:], boxes=sys.argv[3])"
    )
    out = tmp_path / "kf.csv"
    out.write_text("mine")
    command = [sys.executable, "-c", code, str(REPOSITORY), str(folder), str(out), *init]
    assert subprocess.run(command, capture_output=True, timeout=240).returncode == -signal.SIGKILL
    rows = [line.split(",") for line in partial_path(out).read_text().splitlines()[1:]]
    expected = sorted({*range(30), last or 0})
    assert out.read_text() == "mine" and [int(row[0]) for row in rows] == expected
    assert np.array([row[2:6] for row in rows], float) == pytest.approx(np.array([true_box(n) for n in expected]))
