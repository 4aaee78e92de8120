"""Frames in, drawings and videos out, the built-in sequence with its truth, and tracking from end to end."""

from __future__ import annotations

import dataclasses
import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.evaluation.overlap import iou
from ebmtrack.images import read_rgb
from ebmtrack.viewers import drawing, selection, video_file, window
from ebmtrack.viewers import track_video as track_command
from ebmtrack.viewers.demo import GRID, REACH, energy_view, run_demo
from ebmtrack.viewers.demo_sequence import PARTS, demo_sequence
from ebmtrack.viewers.frames import open_frames
from ebmtrack.viewers.outputs import file_stem
from ebmtrack.viewers.track_video import track
from ebmtrack.viewers.video_file import VideoWriter


@dataclasses.dataclass
class Update:
    """What a tracker says about a frame."""

    box_xywh: tuple[float, ...]
    score: float = 0.9
    verdict: str = "normal"

    @property
    def found(self) -> bool:
        return self.verdict != "not_found"


class Follower:
    """A tracker that answers from a list of boxes, one for each frame, and may raise or lose the target."""

    def __init__(self, boxes_xywh, raises=None, lost=()):
        self.boxes_xywh, self.raises, self.lost = boxes_xywh, raises or {}, lost
        self.index = 0

    def init(self, image, box_xywh):
        self.index = 0

    def update(self, image):
        self.index += 1
        if self.index in self.raises:
            raise self.raises[self.index]
        box = self.boxes_xywh[self.index]
        return Update(tuple(box), 0.5, "not_found" if self.index in self.lost else "normal")

    def corner_log_density(self, points_xy):
        x, y, w, _ = self.boxes_xywh[self.index]
        return -0.5 * ((points_xy - (x + w, y)) ** 2).sum(axis=1) / 36 + 800  # the exp of this overflows


@pytest.fixture(scope="module")
def sequence():
    return demo_sequence()


@pytest.fixture(scope="module")
def frames(sequence):
    return list(sequence.frames)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures whose red channel counts, named without leading zeros."""
    target = tmp_path / "clip"
    target.mkdir()
    for index in range(12):
        picture = np.zeros((24, 32, 3), np.uint8)
        picture[..., 2] = 20 * index
        cv2.imwrite(str(target / f"frame{index}.png"), picture)
    return target


def plain_video(path, count=20, size=(64, 48), fps=25.0):
    """A video whose frames are red, brighter from frame to frame."""
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            image[..., 0] = 10 * min(index, 22)
            image[:, : 3 * index] += 20
            writer.write(image)
    return path


# Frames


def test_a_folder_gives_its_pictures_in_order_as_rgb(folder):
    """OpenCV writes BGR: what was written as channel 2 is red, so it must come back as channel 0."""
    (folder / "notes.txt").write_text("not a picture")
    with open_frames(folder) as source:
        assert (source.name, source.length, source.fps) == ("clip", 12, 30.0)
        images = list(source)
    assert [int(image[0, 0, 0]) for image in images] == [20 * index for index in range(12)]
    assert all(image.dtype == np.uint8 and image[..., 1:].max() == 0 for image in images)
    assert (source.frames_read, source.note) == (12, None)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((10, 14), 128, np.uint8),
        np.full((10, 14), 128 * 257, np.uint16),
        np.full((10, 14, 4), 128, np.uint8),
        np.full((10, 14, 3), 128, np.uint8),
    ],
    ids=["grey", "16 bit", "alpha", "colour"],
)
def test_pictures_of_any_kind_become_rgb_uint8(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    image = read_rgb(tmp_path / "p.png")
    assert image.shape == (10, 14, 3) and image.dtype == np.uint8 and (image == 128).all()


def test_frames_that_change_size_are_given_as_they_are(folder):
    cv2.imwrite(str(folder / "frame12.png"), np.zeros((50, 60, 3), np.uint8))
    with open_frames(folder) as source:
        assert [image.shape for image in source][-2:] == [(24, 32, 3), (50, 60, 3)]
    assert source.note == "frames change from 32 x 24 to 60 x 50 pixels in frame 12; boxes do not follow that"


@pytest.mark.parametrize("content", [b"", b"not a picture", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_picture_is_passed_over_and_named(folder, content):
    whole = (folder / "frame3.png").read_bytes()
    for number in (3, 4, 11):
        (folder / f"frame{number}.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with open_frames(folder) as source:
        assert [int(image[0, 0, 0]) // 20 for image in source] == [0, 1, 2, 5, 6, 7, 8, 9, 10]
    assert (source.frames_read, source.unreadable, source.complete) == (9, [3, 4, 11], False)
    assert re.fullmatch(r"clip: frames 3-4, 11 could not be read: .*frame3\.png: not a readable image.*", source.note)


def test_a_folder_without_one_readable_picture_is_an_error(folder):
    for number in range(12):
        (folder / f"frame{number}.png").write_bytes(b"")
    with open_frames(folder) as source, pytest.raises(DatasetError, match=r"frames 0-11 could not.*frame0\.png: not a"):
        next(source)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_video_comes_back_as_it_was_written(tmp_path, kind):
    path = plain_video(tmp_path / f"v.{kind}")
    with open_frames(path) as source:
        assert (source.length, source.fps, source.name) == (20, 25.0, f"v.{kind}")
        images = list(source)
    assert len(images) == 20 and source.note is None
    corner = np.array([image[-8:, -4:].mean(axis=(0, 1)) for image in images])
    np.testing.assert_allclose(corner[:, 0], [10 * index for index in range(20)], atol=9)
    assert corner[:, 1:].max() < 12


def test_a_video_that_ends_early_gives_what_it_has_and_says_how_much(tmp_path, capfd):
    whole = plain_video(tmp_path / "whole.mp4", count=40).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    with open_frames(cut) as source:
        count = len(list(source))
    assert 0 < count < 40
    assert not source.complete and source.note.endswith(f"cut.mp4 ended early: {count} of 40 announced frames")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: p / "none.mp4", "no such file"),
        (lambda p: write(p / "text.mp4", b"hello " * 50), "not a video"),
        (lambda p: write(p / "empty.mp4", b""), "empty"),
        (lambda p: write(p / "one.png", b""), "single picture"),
        (lambda p: p, "no pictures"),
        (lambda p: 97, "no camera number 97"),
        (lambda p: "98", "no camera number 98"),
        (lambda p: "/dev/video96", "no camera number 96"),
        (lambda p: "http://me:secret@127.0.0.1:9/x.mp4", "^http://127.0.0.1:9/x.mp4: no video could be read"),
    ],
    ids=[
        "missing",
        "text",
        "empty",
        "picture",
        "empty folder",
        "camera",
        "camera as text",
        "camera as device",
        "stream",
    ],
)
def test_what_cannot_be_read_is_one_clear_error_and_nothing_else_on_screen(tmp_path, capfd, make, message):
    with pytest.raises(DatasetError, match=message):
        open_frames(make(tmp_path))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("source", [None, "", 1.5, True, b"x", cv2.VideoCapture()])
def test_what_is_no_source_at_all_is_refused(source):
    with pytest.raises(ConfigError, match=r"frames come from .* not from (''|[A-Za-z]+)$"):
        open_frames(source)


@pytest.mark.parametrize("kind", [list, iter, np.stack, lambda images: [Image.fromarray(each) for each in images]])
def test_images_in_memory_are_a_source(folder, kind):
    images = [read_rgb(folder / f"frame{number}.png") for number in range(12)]
    with open_frames(kind(images)) as source:
        assert (source.name, source.length) == ("images", None if kind is iter else 12)
        np.testing.assert_array_equal(np.stack(list(source)), images)


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize(
    "item, what",
    [
        (None, "None: could its file not be read"),
        ("a.jpg", "a str; give arrays"),
        (np.zeros((4, 5), np.uint8), r"uint8 \(4, 5\); give arrays"),
        (np.zeros((4, 5, 3)), r"float64 \(4, 5, 3\); give arrays"),
        ([[1, 2], [3]], r"a list, which is no array \(ValueError: .*\); give arrays"),
        (torch.zeros(4, 5, 3, requires_grad=True), r"a Tensor, which is no array \(RuntimeError: .*\); give arrays"),
    ],
)
def test_what_is_no_image_is_named_and_not_taken_for_the_end(folder, kind, item, what):
    image = read_rgb(folder / "frame0.png")
    with (
        open_frames(kind([image, image, item, image])) as source,
        pytest.raises(ConfigError, match=f"image 2 is {what}"),
    ):
        list(source)


def test_one_note_does_not_hide_another(tmp_path):
    """Pictures of 16 bits, one of them damaged, one of another size."""
    for number, height in enumerate((24, 24, 24, 30)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((height, 32), 1000 * number, np.uint16))
    (tmp_path / "1.png").write_bytes(b"")
    with open_frames(tmp_path) as source:
        assert len(list(source)) == 3
    assert all(word in source.note for word in ("16 bits", "frame 1 could not be read", "from 32 x 24 to 32 x 30"))


def test_a_folder_with_a_number_for_a_name_is_a_folder(folder, monkeypatch):
    folder.rename(folder.parent / "0")
    monkeypatch.chdir(folder.parent)
    assert open_frames("0").length == 12


def test_reading_after_close_ends(folder, tmp_path):
    for source in (open_frames(folder), open_frames(plain_video(tmp_path / "v.mp4"))):
        next(source)
        source.close()
        assert next(source, None) is None


def write(path, data):
    """Write a file and give its path."""
    path.write_bytes(data)
    return path


# Drawing


def test_a_box_is_drawn_on_its_sides_and_nowhere_else():
    image = np.zeros((100, 120, 3), np.uint8)
    drawing.draw_box(image, (20, 30, 50, 40), colour=drawing.SKY)
    for x, y in [(45, 30), (45, 70), (20, 50), (70, 50)]:
        near = image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
        assert np.abs(near - drawing.SKY).max(axis=1).min() < 30  # smooth lines blend with the dark rim
    assert image[35:66, 25:66].max() == 0 and image[:, 76:].max() == 0 and image[:25].max() == 0


def test_drawing_moves_with_the_box():
    """Shifting the box by whole pixels shifts the drawing."""
    first, second = np.full((2, 90, 90, 3), 60, np.uint8)
    drawing.draw_box(first, (10.3, 12.6, 30.2, 20.7), dashed=True)
    drawing.draw_box(second, (27.3, 31.6, 30.2, 20.7), dashed=True)
    np.testing.assert_array_equal(second[19:, 17:], first[:-19, :-17])


def test_half_a_pixel_shows():
    """Lines are smooth: a box shifted by half a pixel is drawn otherwise."""
    first, second = np.zeros((2, 60, 60, 3), np.uint8)
    drawing.draw_box(first, (10, 10, 30, 30))
    drawing.draw_box(second, (10.5, 10.5, 30, 30))
    assert (first != second).any()


def test_a_lost_target_is_grey_and_dashed():
    image = np.zeros((100, 120, 3), np.uint8)
    drawing.draw_box(image, (20, 30, 80, 50), lost=True)
    side = image[78:83, 20:101, 0].max(axis=0)
    assert side.max() > 130 and side.min() == 0
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize(
    "box", [(-50, -50, 20, 20), (1e9, 0, 1e9, 5), (5, 5, 0, 0), (-1e6, -1e6, 3e6, 3e6), (np.nan, 0, 1, 1)]
)
def test_boxes_anywhere_can_be_drawn(box):
    image = np.zeros((40, 50, 3), np.uint8)
    assert drawing.draw_box(image, box, "a label that is wider than the image", 0.5) is image


def test_a_box_needs_four_numbers():
    with pytest.raises(ConfigError, match="four numbers"):
        drawing.draw_box(np.zeros((9, 9, 3), np.uint8), (1, 2, 3))


def test_heat_covers_where_it_is_and_leaves_the_rest():
    """A peak in the middle of the map lies in the middle of the area; where the heat is 0 nothing changes."""
    heat = np.zeros((21, 21))
    heat[10, 10] = 1
    image = np.full((80, 100, 3), 50, np.uint8)
    changed = np.argwhere((drawing.overlay_heat(image, heat, (30, 20, 40, 40)) != 50).any(axis=2))
    np.testing.assert_array_equal(changed.mean(axis=0), (40, 50))
    assert np.abs(changed - (40, 50)).max() <= 2


def test_heat_may_reach_beyond_the_image():
    """A map over twice the image, shifted by half of it, is the middle of the map over the image alone."""
    heat = np.random.default_rng(0).random((9, 9))
    small, large = np.full((2, 33, 33, 3), 90, np.uint8)
    drawing.overlay_heat(small, heat[2:7, 2:7], (0, 0, 32, 32))
    drawing.overlay_heat(large, heat, (-16, -16, 64, 64))
    assert np.abs(small[1:-1, 1:-1].astype(int) - large[1:-1, 1:-1]).max() <= 2
    outside = drawing.overlay_heat(np.full((9, 9, 3), 7, np.uint8), heat, (50, 50, 10, 10))
    assert (outside == 7).all()


def test_fitting_keeps_proportions():
    """A square in a wide tile leaves equal black bars on both sides."""
    tile = drawing.fit(np.full((30, 30, 3), 200, np.uint8), 80, 40)
    assert tile.shape == (40, 80, 3)
    assert (tile[:, 20:60] == 200).all() and tile[:, :20].max() == 0 and tile[:, 60:].max() == 0


def test_a_contact_sheet_holds_every_image():
    images = [np.full((30, 40, 3), 50 * (index + 1), np.uint8) for index in range(4)]
    sheet = drawing.contact_sheet(images, columns=3, tile_width=40, captions=["one"])
    assert sheet.shape == (2 * 34 + 4, 3 * 44 + 4, 3)
    assert [int(sheet[30, 4 + 44 * column, 0]) for column in range(3)] == [50, 100, 150]
    assert int(sheet[64, 4, 0]) == 200
    with pytest.raises(ConfigError, match="at least one image"):
        drawing.contact_sheet([], columns=2)


# Video files


def test_h264_plays_in_browsers(tmp_path):
    """Browsers want H.264 in yuv420p, of even size, and the index (moov) before the data (mdat)."""
    av = pytest.importorskip("av", reason="PyAV, of the extra 'video', is not installed")
    path = plain_video(tmp_path / "v.mp4", count=5, size=(63, 47))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height, float(stream.average_rate)) == (64, 48, 25.0)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_without_pyav_opencv_writes_and_says_how_to_get_h264(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(video_file, "has_h264", lambda: False)
    with open_frames(plain_video(tmp_path / "v.mp4", count=7, size=(63, 47))) as source:
        images = list(source)
    assert len(images) == 7 and images[0].shape == (48, 64, 3)
    assert "ebmtrack[video]" in caplog.text


def test_a_video_appears_whole_or_not_at_all(tmp_path):
    writer = VideoWriter(tmp_path / "v.mp4")
    writer.write(np.zeros((16, 16, 3), np.uint8))
    assert not (tmp_path / "v.mp4").exists()
    writer.close()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_no_frames_no_video(tmp_path):
    VideoWriter(tmp_path / "v.mp4").close()
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_what_was_written(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "v.mp4") as writer:
        for index in range(4):
            writer.write(np.zeros((16, 16, 3), np.uint8))
            1 / (3 - index)
    assert open_frames(tmp_path / "v.mp4").length == 4


def test_frames_of_another_size_are_fitted(tmp_path):
    with VideoWriter(tmp_path / "v.mp4") as writer:
        for shape in [(40, 60, 3), (80, 60, 3), (21, 33, 3)]:
            writer.write(np.full(shape, 128, np.uint8))
    with open_frames(tmp_path / "v.mp4") as source:
        assert [image.shape for image in source] == [(40, 60, 3)] * 3


@pytest.mark.parametrize("name", ["v", "v.txt", "v.jpg"])
def test_a_video_needs_a_name_that_says_so(tmp_path, name):
    with pytest.raises(ConfigError, match=r"ends in one of \.mp4"):
        VideoWriter(tmp_path / name)


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_only_rgb_frames_are_written(tmp_path, image):
    with pytest.raises(ConfigError, match="RGB uint8"):
        VideoWriter(tmp_path / "v.mp4").write(image)


# Choosing the target


@pytest.mark.parametrize(
    "text", ["1,2,3,4", " 1, 2 ,3,4 ", "1 2 3 4", "1.0,2e0,3,4", "(1, 2.0, 3, 4)", " [1. 2. 3. 4.] "]
)
def test_boxes_are_read(text):
    assert selection.parse_box(text) == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,nan,4", "1,2,inf,4", "1,2,0,4", "1,2,3,-4", "(1,2,3,4", "()"]
)
def test_what_is_no_box_is_refused(text):
    with pytest.raises(ConfigError, match="a box"):
        selection.parse_box(text)


@pytest.mark.parametrize("display", ["", ":6543", "127.0.0.1:6543"])
def test_without_a_screen_the_user_learns_what_to_do(monkeypatch, display):
    monkeypatch.setattr(window.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ConfigError, match="--init x,y,w,h"):
        track("clip.mp4", lambda: pytest.fail("loaded"), select=True)


def test_without_windows_in_opencv_the_user_learns_what_to_do(monkeypatch):
    monkeypatch.setattr(window.cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    with pytest.raises(ConfigError, match=r"headless.*--init x,y,w,h"):
        track("clip.mp4", lambda: pytest.fail("loaded"), select=True)


# The built-in sequence


def test_the_sequence_is_the_same_each_time(sequence, frames):
    again = demo_sequence()
    np.testing.assert_array_equal(again.boxes_xywh, sequence.boxes_xywh)
    for index in (0, 21, 133, -1):
        np.testing.assert_array_equal(again.frames[index], frames[index])


def test_shapes_and_parts_fit(sequence, frames):
    """Parts follow on each other from the first frame to the last; the target stays in the picture."""
    count = len(sequence.frames)
    assert len(frames) == count and sequence.visible.shape == (count,)
    assert sequence.boxes_xywh.shape == (count, 4) and sequence.boxes_xywh.dtype == np.float64
    assert all(frame.shape == (480, 640, 3) and frame.dtype == np.uint8 for frame in frames)
    ends = [last for _, _, last in sequence.parts]
    assert [first for _, first, _ in sequence.parts] == [0] + [last + 1 for last in ends[:-1]]
    assert ends[-1] == count - 1
    corners = sequence.boxes_xywh[:, :2] + sequence.boxes_xywh[:, 2:]
    assert sequence.boxes_xywh[:, :2].min() > 0 and (corners < (640, 480)).all()


@pytest.mark.parametrize("index", [0, 50, 75, 98, 149])
def test_the_truth_is_where_the_pixels_are(monkeypatch, index):
    """Without shadows and blur, the pixels that change when the target is taken away span the box.

    The rim is soft over two pixels and some of the cup is as brown as the table: hence 2.5 pixels of slack.
    """
    pytest.importorskip("skimage", reason="scikit-image, whose photographs the film is made of, is not installed")
    from tools import render_demo

    monkeypatch.setattr(render_demo, "SHADOW_DEPTH", 0.0)
    monkeypatch.setattr(render_demo, "SHUTTER", 0.0)
    scene = render_demo.Scene()
    (x, y, w, h), _ = scene.truth(index)
    scene.things = scene.things[:1]
    with_cup = scene.render(index).astype(int)
    scene.things = []
    changed = (np.abs(with_cup - scene.render(index)) > 12).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    extent = (columns[0], rows[0], columns[-1], rows[-1])
    np.testing.assert_allclose(extent, (x, y, x + w, y + h), atol=2.5)


def test_the_parts_hold_what_their_names_say(sequence):
    """Each part's trouble, from the truth alone."""
    parts = {name: slice(first, last + 1) for name, first, last in sequence.parts}
    boxes, visible = sequence.boxes_xywh, sequence.visible
    area, aspect = boxes[:, 2] * boxes[:, 3], boxes[:, 2] / boxes[:, 3]
    assert np.ptp(boxes[parts["motion"], 0]) > 200
    assert area[parts["scale"]].max() / area.min() > 4 and np.ptp(aspect) > 0.4
    assert 0.4 < visible[parts["distractor"]].min() < 0.8
    hidden = visible[parts["occlusion"]]
    assert hidden.min() < 0.05 and (hidden < 0.1).sum() < 12 and (visible[parts["return"]] > 0.7).all()


def test_the_light_changes(frames):
    means = np.array([frame.mean() for frame in frames])
    assert means[78] < 0.6 * means[60]


def test_the_sequence_is_too_hard_for_a_fixed_box_and_for_template_matching(sequence, frames):
    start = sequence.boxes_xywh[0]
    assert iou(np.repeat(start[None], len(frames), axis=0), sequence.boxes_xywh).mean() < 0.1
    x, y, w, h = np.rint(start).astype(int)
    half = [cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in frames]
    template = half[0][y // 2 : (y + h) // 2, x // 2 : (x + w) // 2]
    best = [cv2.minMaxLoc(cv2.matchTemplate(frame, template, cv2.TM_CCOEFF_NORMED))[3] for frame in half]
    found = np.array([(2 * left, 2 * top, w, h) for left, top in best], float)
    assert iou(found, sequence.boxes_xywh).mean() < 0.4


def test_the_film_is_what_its_generator_draws(sequence, frames):
    """Frames that are drawn anew are those that ship, but for noise (2.5 grey levels) and the video's loss."""
    pytest.importorskip("skimage", reason="scikit-image, whose photographs the film is made of, is not installed")
    from tools import render_demo

    scene = render_demo.Scene()
    for index in (0, 78, 133):
        np.testing.assert_allclose(scene.truth(index)[0], sequence.boxes_xywh[index], atol=0.001)
        assert np.abs(scene.render(index).astype(int) - frames[index]).mean() < 6


def test_a_film_of_another_length_is_refused(monkeypatch, tmp_path):
    from ebmtrack.viewers import demo_sequence as module

    monkeypatch.setattr(module, "FILM", plain_video(tmp_path / "short.mp4"))
    with pytest.raises(DatasetError, match="20 frames instead of 165"):
        module.demo_sequence().frames[0]


# The demonstration


def test_the_demo_measures_shows_and_saves(sequence, tmp_path):
    """A tracker that is right has overlap 1; one that is shifted by half a width has (1/2) / (3/2) = 1/3."""
    parts = [("first", 0, 7), ("then", 8, 15)]
    truth = dict(boxes_xywh=sequence.boxes_xywh[:16], visible=sequence.visible[:16])
    short = dataclasses.replace(sequence, frames=sequence.frames[:16], parts=parts, **truth)
    boxes = short.boxes_xywh.copy()
    boxes[8:, 0] += boxes[8:, 2] / 2
    report = run_demo(tmp_path / "new", Follower(boxes), short)
    assert report.overlap_of == pytest.approx({"first": 1.0, "then": 1 / 3})
    assert report.mean_overlap == pytest.approx((7 + 8 / 3) / 15) and report.fps > 0
    assert open_frames(report.video).length == 16
    assert read_rgb(report.picture).shape[2] == 3 and str(report.picture) in report.text()
    assert all(name in report.text() for name in ("first", "then", "mean", "frames/s"))


def test_the_energy_is_brightest_at_its_peak():
    """The stub's energy peaks at the top right corner; on a black image the brightest heat must lie there."""
    box = np.array([20.0, 30.0, 60.0, 40.0])
    view = energy_view(Follower([box]), np.zeros((100, 120, 3), np.uint8), box)
    plain = energy_view(Flat([box]), np.zeros((100, 120, 3), np.uint8), box)
    changed = np.abs(view.astype(int) - plain).sum(axis=2)
    assert view.shape == plain.shape and changed.max() > 0
    zoom = min(400 / (1.8 * 60), 300 / (1.8 * 40))
    corner = np.array([200 + zoom * 30, 150 - zoom * 20])
    hot = np.argwhere(view[..., 0].astype(int) + view[..., 1] > 300)[:, ::-1]
    assert np.abs(hot.mean(axis=0) - corner).max() < 8


def test_the_demo_goes_on_where_the_target_is_lost(sequence, tmp_path):
    """There is no energy in a frame in which the target was not found: it must not be asked for."""
    short = dataclasses.replace(sequence, frames=sequence.frames[:5], parts=[("all", 0, 4)])
    short = dataclasses.replace(short, boxes_xywh=sequence.boxes_xywh[:5])
    stub = Follower(short.boxes_xywh, lost=(2,))
    stub.corner_log_density = lambda points_xy: pytest.fail("asked for an energy that is not there")
    report = run_demo(tmp_path, stub, short)
    assert read_rgb(report.picture).size


class Flat(Follower):
    """A tracker that knows nothing about corners: the same energy everywhere, asked on the expected grid."""

    def corner_log_density(self, points_xy):
        x, y, w, h = self.boxes_xywh[self.index]
        assert points_xy.shape == (GRID**2, 2)
        np.testing.assert_allclose(points_xy.min(axis=0), (x + w * (1 - REACH), y - REACH * h))
        np.testing.assert_allclose(points_xy.max(axis=0), (x + w * (1 + REACH), y + REACH * h))
        return np.zeros(len(points_xy))


# Tracking from end to end

BOXES = [(1.0 + index, 2.0, 10.5, 8.25) for index in range(12)]


def lines_of(path):
    """The numbers of a file of boxes."""
    return [tuple(float(value) for value in line.split(",")) for line in path.read_text().splitlines()]


def test_boxes_and_video_are_saved(folder, tmp_path, capsys):
    out, video = tmp_path / "deep" / "b.txt", tmp_path / "v.mp4"
    result = track(folder, lambda: Follower(BOXES, lost=(4, 5)), "1,2,10.5,8.25", boxes=out, save=video)
    assert lines_of(out) == BOXES and out.read_text().startswith("1.000,2.000,10.500,8.250\n")
    assert open_frames(video).length == 12 and result.files == [video, out]
    note, summary = capsys.readouterr().out.splitlines()
    assert "deep is not there yet" in note and "12 frames" in summary and "frames/s" in summary
    assert "lost in 2" in summary and str(out) in summary and str(video) in summary


def test_where_nothing_is_asked_boxes_are_saved_beside_the_user(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    track(folder, lambda: Follower(BOXES), "1,2,10.5,8.25")
    assert lines_of(tmp_path / "clip_boxes.txt") == BOXES
    assert "boxes go to clip_boxes.txt" in capsys.readouterr().out
    with pytest.raises(DatasetError):
        track(tmp_path / "none.mp4", lambda: Follower(BOXES), "1,2,10.5,8.25")
    assert "boxes go to" not in capsys.readouterr().out  # nothing was tracked


def test_the_number_of_frames_can_be_limited(folder, tmp_path):
    for limit in (1, 5):
        track(folder, lambda: Follower(BOXES), "1,2,10.5,8.25", boxes=tmp_path / "b.txt", max_frames=limit)
        assert lines_of(tmp_path / "b.txt") == BOXES[:limit]


def test_ctrl_c_keeps_what_was_tracked(folder, tmp_path, capsys):
    stub = Follower(BOXES, raises={6: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        track(folder, lambda: stub, "1,2,10.5,8.25", boxes=tmp_path / "b.txt", save=tmp_path / "v.mp4")
    assert lines_of(tmp_path / "b.txt") == BOXES[:6]
    assert open_frames(tmp_path / "v.mp4").length == 6
    assert "interrupted; kept what was tracked: 6 frames" in capsys.readouterr().out


def test_unreadable_pictures_keep_the_last_box_and_end_with_an_error(folder, tmp_path):
    for number in (7, 11):
        (folder / f"frame{number}.png").write_bytes(b"")
    stub = Follower([box for number, box in enumerate(BOXES) if number not in (7, 11)])
    with pytest.raises(DatasetError, match=r"frames 7, 11 could not be read: .*frame7\.png.*is saved"):
        track(folder, lambda: stub, "1,2,10.5,8.25", boxes=tmp_path / "b.csv")
    rows = [line.split(",") for line in (tmp_path / "b.csv").read_text().splitlines()[1:]]
    assert [float(row[2]) for row in rows] == [1, 2, 3, 4, 5, 6, 7, 7, 9, 10, 11, 11]
    assert [int(row[0]) for row in rows if row[-1] == "unreadable"] == [7, 11]


@pytest.mark.parametrize("start", [0, 4, 11])
def test_tracking_does_not_begin_in_an_unreadable_picture(folder, tmp_path, start):
    (folder / f"frame{start}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=f"frame {start} could not be.* begins in frame {start}: give a box in ano"):
        track(folder, lambda: Follower(BOXES), "1,2,10.5,8.25", boxes=tmp_path / "b.csv", start=start)


def test_a_file_that_is_there_is_written_over_with_a_note(folder, tmp_path, capsys):
    for expected in (0, 1):
        track(folder, lambda: Follower(BOXES), "1,2,10.5,8.25", boxes=tmp_path / "b.txt", max_frames=2)
        assert capsys.readouterr().out.count("b.txt is there; this run writes over it at its end") == expected


def test_a_file_that_is_there_is_told_while_it_still_is(folder, tmp_path, capsys):
    """The note comes once the tracker has started: Ctrl-C can still save what is there."""
    files = {"boxes": tmp_path / "b.txt", "save": tmp_path / "v.mp4"}
    for file in files.values():
        file.write_text("mine")

    class Stopped(Follower):
        def update(self, image):
            if self.index == 3:
                said.append(capsys.readouterr().out)
                assert all(file.read_text() == "mine" for file in files.values())
            return super().update(image)

    said = []
    track(folder, lambda: Stopped(BOXES), "1,2,10.5,8.25", **files)
    notes = [line for line in said[0].splitlines() if line.startswith("note: ")]
    assert notes == [f"note: {file} is there; this run writes over it at its end" for file in files.values()]
    assert "note" not in capsys.readouterr().out and lines_of(tmp_path / "b.txt") == BOXES


@pytest.mark.parametrize("options", [dict(start=500), dict(end=0, start=1), dict(every=0), dict(init="900,2,3,4")])
def test_nothing_is_said_of_files_that_are_not_written(folder, tmp_path, capsys, options):
    """A run that fails before its first frame leaves them, and says nothing of them nor of new folders."""
    (tmp_path / "b.txt").write_text("mine")

    class Strict(Follower):
        def init(self, image, box_xywh):
            if box_xywh[0] > image.shape[1]:
                raise ConfigError("outside")

    with pytest.raises((ConfigError, DatasetError)):
        files = {"boxes": tmp_path / "b.txt", "save": tmp_path / "new" / "v.mp4"}
        track(folder, lambda: Strict(BOXES), options.pop("init", "1,2,10.5,8.25"), **files, **options)
    assert "note" not in capsys.readouterr().out and (tmp_path / "b.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "init, note",
    [
        ("1,2,10,8", ""),
        (
            "22,20,70,124",
            "frame 0, target 1: the box reaches 60 pixels over the right edge and 120 over the bottom edge",
        ),
        ("0:-1,2,10,8", "frame 0, target 1: the box reaches 1 pixel over the left edge"),
        ("2@5:1,-2.5,10,8", "frame 5, target 2: the box reaches 2 pixels over the top edge"),
    ],
)
def test_a_box_that_is_partly_outside_is_told(folder, tmp_path, capsys, init, note):
    """The picture is 32 x 24."""
    track(folder, lambda: Follower(BOXES), init, boxes=tmp_path / "b.txt", max_frames=2)
    assert capsys.readouterr().err == (f"note: {note}\n" if note else "")


def test_a_failure_that_nobody_foresaw_keeps_what_was_tracked(folder, tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"):
        stub = Follower(BOXES, raises={9: RuntimeError("out of memory")})
        track(folder, lambda: stub, "1,2,10.5,8.25", boxes=tmp_path / "b.txt")
    assert lines_of(tmp_path / "b.txt") == BOXES[:9]


def test_what_the_tracker_refuses_is_reported_with_its_frame(folder, tmp_path):
    stub = Follower(BOXES, raises={3: ConfigError("an image of one pixel cannot be tracked")})
    with pytest.raises(ConfigError, match="frame 3: an image of one pixel"):
        track(folder, lambda: stub, "1,2,10.5,8.25", boxes=tmp_path / "b.txt")
    assert lines_of(tmp_path / "b.txt") == BOXES[:3]


def test_no_picture_of_the_source_is_overwritten(folder):
    picture = sorted(folder.iterdir())[1]
    before = picture.read_bytes()
    with pytest.raises(ConfigError, match="is what is to be tracked"):
        track(folder, lambda: pytest.fail("loaded"), "1,2,3,4", boxes=picture)
    assert picture.read_bytes() == before


def test_outputs_that_cannot_be_are_refused_before_work_begins(folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="each a file of its own"):
        track(folder, lambda: pytest.fail("loaded"), "1,2,3,4", save=tmp_path / "x.mp4", boxes=tmp_path / "x.mp4")

    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refused)
    with pytest.raises(ConfigError, match="b.txt: cannot write here: Permission denied"):
        track(folder, lambda: pytest.fail("loaded"), "1,2,3,4", boxes=tmp_path / "new/b.txt")


def test_a_disk_that_fills_up_keeps_the_boxes(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ebmtrack.viewers.video_file._OpenCvEncoder.write", full)
    monkeypatch.setattr("ebmtrack.viewers.video_file._AvEncoder.write", full)
    with pytest.raises(ConfigError, match="v.partial.mp4: cannot write frame 0: No space left on device"):
        track(folder, lambda: Follower(BOXES), "1,2,10.5,8.25", boxes=tmp_path / "b.txt", save=tmp_path / "v.mp4")
    assert lines_of(tmp_path / "b.txt") == BOXES[:1]


@pytest.mark.parametrize("output", ["save", "boxes"])
def test_the_source_is_not_overwritten(tmp_path, output):
    """Nor by another name of it; nothing is tracked."""
    (tmp_path / "in.mp4").write_bytes(b"a video")
    (tmp_path / "same.mp4").symlink_to("in.mp4")
    with pytest.raises(ConfigError, match="same.mp4 is what is to be tracked"):
        track(tmp_path / "in.mp4", lambda: pytest.fail("loaded"), "1,2,3,4", **{output: tmp_path / "same.mp4"})
    assert (tmp_path / "in.mp4").read_bytes() == b"a video"


def test_a_video_that_ends_early_is_tracked_and_then_an_error(tmp_path, capsys):
    whole = plain_video(tmp_path / "whole.mp4", count=40).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    stub = Follower([BOXES[0]] * 40)
    with pytest.raises(DatasetError, match="ended early: [0-9]+ of 40"):
        track(tmp_path / "cut.mp4", lambda: stub, "1,2,10,8", boxes=tmp_path / "b.txt")
    count = len(lines_of(tmp_path / "b.txt"))
    assert 1 < count < 40 and f"{count} frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wishes, message",
    [
        (dict(init="1,2,3"), "four numbers"),
        (dict(init="1,2,3,4", select=True), "one of the two"),
        (dict(init="1,2,3,4", max_frames=0), "at least 1"),
        (dict(init="1,2,3,4", save="out"), "ends in one of"),
        (dict(init="1,2,3,4", boxes="."), "is a folder"),
        (dict(), "--init x,y,w,h"),
        (dict(init="1,2,3,4", show=True), "--save OUT.mp4"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_work_begins(folder, monkeypatch, wishes, message):
    monkeypatch.setattr(window.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ConfigError, match=message):
        track(folder, lambda: pytest.fail("the tracker was loaded"), **wishes)


def test_the_window_shows_each_frame_until_q(folder, tmp_path, monkeypatch):
    shown = []

    class FakeWindow:
        def __init__(self, title):
            self.show = lambda image: shown.append(image) or (ord("q") if len(shown) == 4 else -1)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            shown.append("closed")

    monkeypatch.setattr(track_command, "require_screen", lambda *_: None)
    monkeypatch.setattr(track_command, "Window", FakeWindow)
    track(folder, lambda: Follower(BOXES), "1,2,10.5,8.25", show=True, boxes=tmp_path / "b.txt")
    assert len(shown) == 5 and shown[-1] == "closed" and lines_of(tmp_path / "b.txt") == BOXES[:4]


@pytest.mark.parametrize(
    "source, name",
    [
        (0, "camera0"),
        ("3", "camera3"),
        ("/dev/stdin", "stdin"),
        ("rtsp://user:secret@host:8554/live/door?x=1", "host_8554_live_door"),
        ("dir/film.final.mp4", "film.final"),
    ],
)
def test_names_of_files_made_from_sources(source, name):
    assert file_stem(source) == name


def test_parts_are_named_in_order():
    assert [name for name, _, _ in PARTS] == ["motion", "scale", "light", "distractor", "occlusion", "return"]


def test_a_window_that_the_user_closed_counts_as_esc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qt raises once its last window is gone: showing then answers Esc, and closing has nothing left to do."""
    gone = False

    def visible(*_) -> float:
        if gone:
            raise cv2.error("NULL guiReceiver (please create a window)")
        return 1.0

    destroyed: list[str] = []
    for name, stand_in in {
        "namedWindow": lambda *_: None,
        "resizeWindow": lambda *_: None,
        "imshow": lambda *_: None,
        "waitKey": lambda *_: -1,
        "destroyWindow": destroyed.append,
        "getWindowProperty": visible,
    }.items():
        monkeypatch.setattr(cv2, name, stand_in)
    image = np.zeros((8, 8, 3), np.uint8)
    with window.Window("shown") as shown:
        assert shown.show(image) == shown.show(image) == -1
        gone = True
        assert shown.show(image) == window.ESCAPE
    assert destroyed == []
