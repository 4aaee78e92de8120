"""What `--save` keeps of the source: moments, sound and the shape of pixels; and other kinds of files."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from ebmtrack.viewers import video_file
from ebmtrack.viewers.frames import AvFrames, open_frames
from ebmtrack.viewers.track_video import track
from ebmtrack.viewers.video_file import VideoWriter
from tests.unit.viewers.test_keyframes import Drifter

av = pytest.importorskip("av")

MOMENTS_S = (0.0, 0.1, 0.2, 1.0, 1.1, 2.0, 2.04, 2.5)


def film(path, moments=MOMENTS_S, sound=False, aspect=1, codec="libx264"):
    """A film whose frames count and are shown at given moments; with a tone, with pixels of a shape."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        tone = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for number, moment in enumerate(moments):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * moment), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for start in range(0, 48000 * 3 if tone else 0, 1024):
            samples = np.sin(np.arange(start, start + 1024)[None] / 20).astype(np.float32)
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            part.pts, part.sample_rate, part.time_base = start, 48000, Fraction(1, 48000)
            container.mux(tone.encode(part))
        if tone:
            container.mux(tone.encode())
    return path


def moments(path):
    with open_frames(path) as frames:
        return [round(frames.moment_s, 2) for _ in frames]


@pytest.mark.parametrize("source, kept", [(".mkv", ".mp4"), (".mp4", ".mkv"), (".mp4", ".webm")])
def test_a_video_of_variable_rate_keeps_its_moments(tmp_path, source, kept):
    clip, out = film(tmp_path / f"in{source}"), tmp_path / f"out{kept}"
    track(clip, Drifter, "5,5,9,9", save=out)
    assert moments(out) == pytest.approx(MOMENTS_S, abs=0.02)


def test_a_file_of_constant_rate_repeats_frames(tmp_path, caplog):
    """At 10 frames/s for 2.5 s: each picture is shown from its moment on; that one comes between two is said once."""
    out = tmp_path / "out.avi"
    with VideoWriter(out, 10.0) as writer:
        for number, moment in enumerate(MOMENTS_S):
            writer.write(np.full((48, 64, 3), 20 * number, np.uint8), moment)
    with open_frames(out) as frames:
        shades = [round(float(image.mean()) / 20) for image in frames]
    assert len(shades) == 26 and shades[:12] == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4] and shades[-1] == 7
    assert caplog.messages == ["frames are moved to a constant 10 frames/s; to keep their times: save an .mp4 or .mkv"]


@pytest.mark.parametrize("moments_s, is_told", [(MOMENTS_S, True), ([0, 0.04, 0.08, 0.2, 0.24], False)])
def test_without_pyav_moments_that_are_lost_are_told(tmp_path, monkeypatch, caplog, moments_s, is_told):
    """Also if there is neither sound nor an odd shape of pixels to lose; frames of a constant rate lose nothing."""
    monkeypatch.setattr(video_file, "has_h264", lambda: False)
    with VideoWriter(tmp_path / "out.mp4", 25.0 if not is_told else 12.8) as writer:
        for moment_s in moments_s:
            writer.write(np.zeros((48, 64, 3), np.uint8), moment_s)
    note = "frames are moved to a constant 12.8 frames/s; to keep their times: pip install 'ebmtrack[video]'"
    assert caplog.messages[1:] == [note] * is_told


def test_key_frames_keep_the_moments_too(tmp_path):
    clip, out = film(tmp_path / "in.mkv"), tmp_path / "out.mp4"
    track(clip, Drifter, ["0:5,5,9,9", "6:7,5,9,9"], save=out)
    assert moments(out) == pytest.approx(MOMENTS_S, abs=0.02)


def test_sound_and_the_shape_of_pixels_are_kept(tmp_path):
    clip, out = film(tmp_path / "in.mp4", sound=True, aspect=Fraction(4, 3)), tmp_path / "out.mp4"
    track(clip, Drifter, "5,5,9,9", save=out, start="3")
    with av.open(str(out)) as container:
        (video,), (sound,) = container.streams.video, container.streams.audio
        assert video.codec_context.sample_aspect_ratio == Fraction(4, 3)
        heard = [packet for packet in container.demux(sound) if packet.pts is not None]
    seconds = float(sum(packet.duration for packet in heard) * sound.time_base)
    assert seconds == pytest.approx(1.5, abs=0.05)  # from frame 3, at 1.0 s, to the last one, at 2.5 s
    assert float(heard[0].pts * sound.time_base) < 0.05


def test_a_gif_is_written(tmp_path):
    out = tmp_path / "out.gif"
    track(film(tmp_path / "in.mp4"), Drifter, "5,5,9,9", save=out)
    assert out.read_bytes()[:6] == b"GIF89a" and moments(out) == pytest.approx(MOMENTS_S, abs=0.02)


def test_damaged_sound_ends_the_sound_and_not_the_video(tmp_path, caplog):
    clip, out = film(tmp_path / "in.mp4", sound=True), tmp_path / "out.mp4"
    with VideoWriter(out, 25.0, clip) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0.0)
        copied = writer._encoder._sound._packets

        def damaged():
            yield next(copied)
            raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")

        writer._encoder._sound._packets = damaged()
        for moment in (1.0, 2.0):
            writer.write(np.zeros((48, 64, 3), np.uint8), moment)
    assert "the sound of in.mp4 is dropped from 1.00 s on" in caplog.text and caplog.text.count("dropped") == 1
    with open_frames(out) as frames:
        assert len(list(frames)) == 3


def test_frames_come_by_pyav_as_well(tmp_path):
    """As for AV1, which OpenCV may lack: the same pictures at the same moments."""
    clip = film(tmp_path / "in.mp4")
    with open_frames(clip) as one, AvFrames(clip) as other:
        for image, again in zip(one, other, strict=True):
            assert abs(image.astype(int) - again).max() <= 3 and one.moment_s == pytest.approx(other.moment_s, abs=0.01)
        assert other.frames_read == len(MOMENTS_S)


def test_a_film_cut_short_is_told_by_pyav_as_well(tmp_path):
    """Matroska announces no number of frames; its length says that some are missing."""
    clip = film(tmp_path / "in.mkv", [number / 25 for number in range(12)])
    with AvFrames(clip) as whole:
        count = len(list(whole))
    assert whole.complete and whole.note is None and count == 12
    clip.write_bytes(clip.read_bytes()[:-1000])
    with AvFrames(clip) as cut:
        assert len(list(cut)) == cut.frames_read < 12
    assert not cut.complete and f"in.mkv ended early: {cut.frames_read} frames" in str(cut.note)


def test_av1_is_read(tmp_path):
    encoders = [name for name in ("libsvtav1", "libaom-av1") if name in av.codecs_available]
    if not encoders:
        pytest.skip("this PyAV has no encoder of AV1 to make the film with")
    clip = film(tmp_path / "in.mp4", codec=encoders[0])
    with open_frames(clip) as frames:
        assert isinstance(frames, AvFrames) and sum(1 for _ in frames) == len(MOMENTS_S)


TURNS = {  # name: signs a, b, c, d of the display matrix, and the colours that are shown, row by row
    "upright": ((1, 0, 0, 1), "RG B-"),
    "right": ((0, 1, -1, 0), "BR -G"),
    "down": ((-1, 0, 0, -1), "-B GR"),
    "left": ((0, -1, 1, 0), "G- RB"),
    "mirrored": ((-1, 0, 0, 1), "GR -B"),
    "upside down": ((1, 0, 0, -1), "B- RG"),
    "transposed": ((0, 1, 1, 0), "RB G-"),
    "other diagonal": ((0, -1, -1, 0), "-G BR"),
}


def quarters(path, matrix, aspect, codec="libx264"):
    """Write a film of a red, a green, a blue and a black quarter that is to be shown by a display matrix."""
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:240, :320, 0] = picture[:240, 320:, 1] = picture[240:, :320, 2] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data, (a, b, c, d) = bytearray(path.read_bytes()), (sign << 16 for sign in matrix)
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 640 * (a + c < 0) << 16, 480 * (b + d < 0) << 16, 1 << 30)
    path.write_bytes(data)
    return path


def shown(image):
    """Return the letters of the colours in the quarters of an image, row by row."""
    height, width = image.shape[:2]
    pixels = [[image[y, x] for x in (width // 4, 3 * width // 4)] for y in (height // 4, 3 * height // 4)]
    return " ".join("".join("RGB"[int(p.argmax())] if p.max() > 100 else "-" for p in row) for row in pixels)


@pytest.mark.parametrize("reader", [open_frames, AvFrames])
@pytest.mark.parametrize("name", TURNS)
def test_videos_are_turned_and_mirrored_as_they_are_shown(tmp_path, name, reader):
    """Frames and the saved video, whose pixels keep the shape that they are shown with."""
    matrix, colours = TURNS[name]
    clip, out = quarters(tmp_path / "in.mp4", matrix, Fraction(4, 3)), tmp_path / "out.mp4"
    with reader(clip) as frames:
        assert {shown(image) for image in frames} == {colours}
        aspect = Fraction(frames.pixel_aspect).limit_denominator(100)
    assert aspect == (Fraction(4, 3) if matrix[0] else Fraction(3, 4))
    if reader is open_frames:
        track(clip, Drifter, "5,5,9,9", save=out)
        with open_frames(out) as frames:
            assert {shown(image) for image in frames} == {colours} and frames.pixel_aspect == pytest.approx(aspect)


def test_a_track_is_in_the_turned_picture_by_key_frames_too(tmp_path):
    """Frames that are sought are turned like those that are read in order."""
    from ebmtrack.viewers.seekable import SeekableFrames

    with SeekableFrames(quarters(tmp_path / "in.mp4", TURNS["transposed"][0], Fraction(1))) as frames:
        assert [shown(frames.read(number)) for number in (3, 0, 2)] == [TURNS["transposed"][1]] * 3
