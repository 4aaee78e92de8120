"""Videos and folders as people have them: damaged, cut, long pauses, odd names, stacks. Each test makes its input."""

import contextlib
import http.server
import os
import socket
import struct
import threading
from fractions import Fraction
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from ebmtrack.commands.main import main
from ebmtrack.commands.options import TrackerOptions
from ebmtrack.errors import DatasetError
from ebmtrack.files import in_frame_order
from ebmtrack.images import encode_picture
from ebmtrack.viewers import containers, frames
from ebmtrack.viewers.frames import open_frames
from ebmtrack.viewers.source_names import is_stream
from ebmtrack.viewers.track_video import track

av = pytest.importorskip("av", reason="PyAV, which makes these videos, is not installed")


def film(path, count=40, size=(160, 120), audio_s=0.0, codec="libx264", gop=12, rate=25, sound_first=False):
    """Write a film whose left half brightens from frame to frame; with a tone of `audio_s` seconds."""
    noise = np.random.default_rng(0).integers(0, 90, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        sound = container.add_stream("aac" if str(path).endswith("mp4") else "libopus", rate=48000) if audio_s else None
        for number in range(count):
            picture = np.roll(noise, 3 * number, axis=1)
            picture[:, : size[0] // 2] //= 2
            picture[:20, :20] = 5 * number
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
        if sound is not None:
            for k in range(int(audio_s * 48000 / 960)):
                samples = np.zeros((1, 960), np.float32)
                part = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
                part.sample_rate, part.pts = 48000, k * 960
                for packet in sound.encode(part):
                    container.mux(packet)
            for packet in sound.encode():
                container.mux(packet)
    return path


class Still:
    """A tracker that answers with the box that it was given."""

    def init(self, image, box_xywh):
        self.box_xywh, self.seen = tuple(box_xywh), 0

    def update(self, image):
        self.seen += 1
        return type("Answer", (), {"box_xywh": self.box_xywh, "score": 0.5, "found": True, "verdict": "normal"})()


@pytest.fixture
def read_fails(monkeypatch):
    """Let some reads of OpenCV fail, by their number, as over a damaged stretch."""

    def install(numbers, count):
        calls = iter(range(count))
        plain = frames._next_rgb

        def next_rgb(capture):
            image, number = plain(capture), next(calls, count)
            return None if number in numbers else image

        monkeypatch.setattr(frames, "_next_rgb", next_rgb)

    return install


def test_a_failed_read_in_the_middle_is_not_the_end(tmp_path, read_fails):
    read_fails({10, 11, 25}, 40)
    with open_frames(film(tmp_path / "v.mp4")) as source:
        images = list(source)
    assert len(images) == 37 and source.unreadable == [10, 11, 25] and not source.complete
    assert source.note == "v.mp4: frames 10-11, 25 could not be read"


def test_tracking_keeps_the_last_box_over_unreadable_frames_and_ends_with_an_error(tmp_path, read_fails, capsys):
    read_fails({10, 11}, 40)
    boxes, tracker = tmp_path / "boxes.txt", Still()
    with pytest.raises(DatasetError, match=r"v\.mp4: frames 10-11 could not be read"):
        track(film(tmp_path / "v.mp4"), lambda: tracker, init="10,20,30,40", boxes=boxes)
    assert len(boxes.read_text().split()) >= 40 and tracker.seen == 37
    assert "2 unreadable" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(4))
def test_overwritten_bytes_never_lose_readable_frames_in_silence(tmp_path, seed):
    """All frames that OpenCV still gives after failed reads come, and an incomplete video is said to be so."""
    rng = np.random.default_rng(seed)
    data = bytearray(film(tmp_path / "whole.mp4").read_bytes())
    at = int(rng.integers(len(data) // 4, len(data) * 3 // 4))
    data[at : at + 1500] = rng.integers(0, 256, len(data[at : at + 1500]), np.uint8).tobytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    capture, readable = cv2.VideoCapture(str(path)), 0
    for _ in range(80):
        readable += capture.read()[0]
    if not readable:
        with pytest.raises(DatasetError):
            list(open_frames(path))
        return
    with open_frames(path) as source:
        assert len(list(source)) == readable
    assert source.complete == (readable >= 39)


def test_a_clip_with_longer_sound_has_not_ended_early(tmp_path):
    with open_frames(film(tmp_path / "v.mkv", count=22, audio_s=3.0)) as source:
        assert len(list(source)) == 22 and source.note is None and source.complete


def test_an_edit_list_that_leaves_frames_out_is_no_early_end(tmp_path):
    """The edit's duration says how many frames are to be played: here half of those that the file holds."""
    data = bytearray(film(tmp_path / "v.mp4").read_bytes())
    at = data.find(b"elst")
    assert at > 0 and containers.edited_seconds(tmp_path / "v.mp4") == pytest.approx(1.6, abs=0.05)
    data[at + 12 : at + 16] = struct.pack(">I", struct.unpack(">I", data[at + 12 : at + 16])[0] // 2)
    (tmp_path / "cut.mp4").write_bytes(data)
    with open_frames(tmp_path / "cut.mp4") as source:
        count = len(list(source))
    assert count < 40 and source.complete and source.note is None


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_file_that_was_cut_short_is_told_from_a_whole_one(tmp_path, kind):
    path = film(tmp_path / f"v.{kind}", codec="libx264" if kind != "avi" else "mpeg4")
    assert not containers.is_cut_short(path)
    path.write_bytes(path.read_bytes()[:-3000])
    assert containers.is_cut_short(path)


def test_opencv_reads_over_long_stretches_of_other_packets(tmp_path):
    """The default of 4,096 packets ends recordings with a pause and sound: here 5,000 of silence between two frames."""
    picture, path = np.zeros((48, 64, 3), np.uint8), tmp_path / "pause.mkv"
    with av.open(str(path), "w") as container:
        stream, sound = container.add_stream("libx264", rate=25), container.add_stream("libopus", rate=48000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture + 10 * np.uint8(number), format="rgb24")
            frame.pts, frame.time_base = 40 * number + 100_000 * (number >= 9), Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode()
        for number in range(5100):
            part = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="flt", layout="mono")
            part.sample_rate, part.pts = 48000, number * 960
            packets += sound.encode(part)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    assert int(os.environ["OPENCV_FFMPEG_READ_ATTEMPTS"]) > 100_000
    with open_frames(path) as source:
        assert len(list(source)) == 20 and source.complete


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "log"])
def test_a_text_file_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("Ein Text über Videos\n" * 300, encoding="latin-1")
    with pytest.raises(DatasetError, match="a text file, not a video"):
        open_frames(tmp_path / name)


def test_a_stream_that_ends_is_incomplete(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "is_url", lambda source: True)
    source = frames.VideoFrames(film(tmp_path / "v.mp4", count=5))
    source.length = None
    assert len(list(source)) == 5 and not source.complete and "is it still there?" in source.note


@pytest.fixture
def stream(tmp_path):
    """The address of a server that sends half a video and then hangs up, or, with /frozen, nothing more."""
    data, over = film(tmp_path / "v.ts", codec="mpeg2video", gop=4).read_bytes(), threading.Event()

    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if "frozen" in self.path:
                over.wait(60)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()


@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_a_stream_that_dies_or_freezes_is_an_error_and_keeps_what_there_was(tmp_path, stream, how, monkeypatch, capsys):
    """The command's code is not 0, the line names the stream without its password, and the boxes are saved."""
    monkeypatch.setattr(frames, "STREAM_TIMEOUT_MS", 1500)
    monkeypatch.setattr(TrackerOptions, "load", lambda self: Still())
    boxes = tmp_path / "boxes.txt"
    assert main(["track", f"{stream}/{how}.ts", "--init", "10,20,30,40", "--boxes", str(boxes)]) == 2
    said = capsys.readouterr()
    assert "gave no more frames after" in said.err and "is it still there? (what was tracked is saved)" in said.err
    assert "secret" not in said.err + said.out and len(boxes.read_text().splitlines()) > 5


def test_a_stream_that_never_answers_is_an_error(tmp_path, monkeypatch):
    """A server that accepts and is silent is given up after the time limit."""
    monkeypatch.setattr(frames, "STREAM_TIMEOUT_MS", 1000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(DatasetError, match="no video could be read from this address"):
            open_frames(f"http://127.0.0.1:{server.getsockname()[1]}/v.ts")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_whose_writer_dies_ends(tmp_path):
    """With the frames of a file that ends there; the end is looked for without opening the pipe anew."""
    data, pipe, half = film(tmp_path / "v.ts", codec="mpeg2video").read_bytes(), tmp_path / "pipe", tmp_path / "half.ts"
    half.write_bytes(data[: len(data) // 2])
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(half.read_bytes()), daemon=True)
    writer.start()
    with open_frames(pipe) as source, open_frames(half) as whole:
        assert len(list(source)) == len(list(whole)) > 2
    writer.join(10)


@pytest.mark.parametrize(
    "names",
    [
        ["x.png", "x (1).png", "x (2).png", "x (10).png"],
        ["1700000000.125.png", "1700000000.25.png", "1700000000.5.png", "1700000001.0.png"],
        ["2024-01-01T12-00-00.25Z.png", "2024-01-01T12-00-00.5Z.png", "2024-01-01T12-00-01Z.png"],
        ["1.1.png", "1.2.png", "1.9.png", "1.10.png"],
        ["IMG_20200101_115959.jpg", "IMG_20200101_115959_1.jpg", "IMG_20200101_120000.jpg"],
        ["x.png", "x - Copy.png", "x - Copy (2).png"],
        ["frame2.PNG", "frame10.png"],
        ["0a.png", "0f.png", "10.png", "1a.png"],
        ["frame_09.png", "frame_0a.png", "frame_10.png"],
        ["a１.png", "a２.png", "a１０.png"],
        ["img.png", "img-1.png", "img-2.png"],
    ],
    ids=lambda names: names[0],
)
def test_frames_come_in_the_order_in_which_they_were_taken(names, tmp_path):
    paths = [tmp_path / name for name in names]
    assert in_frame_order(reversed(paths)) == paths


@pytest.mark.parametrize("names", [["1.png", "01.png"], ["a.jpg", "a.png"], ["1.5.png", "1.25.png", "2.75.png"],
                                   ["t-1.png", "t0.png"]])  # fmt: skip
def test_an_ambiguous_order_is_refused_naming_two_files(names, tmp_path):
    with pytest.raises(DatasetError, match="which comes first") as caught:
        in_frame_order([tmp_path / name for name in names])
    assert names[0] in str(caught.value) and names[1] in str(caught.value)


@pytest.mark.parametrize("as_folder", [False, True])
def test_the_pages_of_a_stack_are_frames(tmp_path, as_folder):
    pages = [np.full((30, 40, 3), 20 * k, np.uint8) for k in range(5)]
    cv2.imwritemulti(str(tmp_path / "stack.tif"), pages)
    with open_frames(tmp_path if as_folder else tmp_path / "stack.tif") as source:
        assert [image[0, 0, 0] for image in source] == [0, 20, 40, 60, 80] and source.length == 5


def test_a_damaged_first_stack_does_not_make_pictures_of_the_others(tmp_path):
    """Each of them holds five frames."""
    for name in "abc":
        cv2.imwritemulti(str(tmp_path / f"{name}.tif"), [np.full((30, 40, 3), 20 * k, np.uint8) for k in range(5)])
    (tmp_path / "a.tif").write_bytes(b"II*")
    with pytest.raises(DatasetError, match=r"a\.tif: not a readable image"):
        list(open_frames(tmp_path))


def test_an_animated_webp_plays_at_its_own_rate(tmp_path):
    from ebmtrack.images import read_pages

    animation = cv2.Animation()
    animation.frames = [np.full((32, 48, 3), 40 * k, np.uint8) for k in range(4)]
    animation.durations = [100] * 4
    cv2.imwriteanimation(str(tmp_path / "a.webp"), animation)
    assert len(read_pages(tmp_path / "a.webp")[0]) == 4
    with open_frames(tmp_path / "a.webp") as source:
        assert source.fps == pytest.approx(10) and len(list(source)) == 4


@pytest.mark.parametrize("name", ["12:30:05.mp4", "clip%03d.mp4", "a#b?c=1&d.mp4", "Übung 1 – 映像.mp4", "a&b<c>'.mp4"])
def test_videos_with_odd_names(tmp_path, name, monkeypatch, capsys):
    """FFmpeg takes 12: for a protocol, and %03d for a counter; CVAT's XML has marks of its own."""
    monkeypatch.setattr(TrackerOptions, "load", lambda self: Still())
    monkeypatch.chdir(tmp_path)
    film(tmp_path / name, count=6)
    assert main(["track", name, "--init", "10,20,30,40", "--save", f"saved {name}", "--boxes", "boxes.xml"]) == 0
    assert ElementTree.parse("boxes.xml").getroot().tag == "annotations"
    with open_frames(f"saved {name}") as source:
        assert len(list(source)) == 6


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_unicode(tmp_path, monkeypatch, capsys):
    """A Latin-1 name on Linux: OpenCV would end the process at such a video; pictures are read as bytes."""
    monkeypatch.setattr(TrackerOptions, "load", lambda self: Still())
    latin = tmp_path / os.fsdecode(b"caf\xe9")
    latin.with_suffix(".mp4").write_bytes(film(tmp_path / "v.mp4", count=3).read_bytes())
    assert main(["track", f"{latin}.mp4", "--init", "10,20,30,40"]) == 2
    assert "cannot open a name that is no Unicode: rename the file" in capsys.readouterr().err
    latin.mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "x.png"), np.full((60, 80, 3), number, np.uint8))
        (tmp_path / "x.png").rename(latin / os.fsdecode(b"\xe9%d.png" % number))
    for end in ("csv", "json", "xml", "txt"):
        assert main(["track", str(latin), "--init", "10,20,30,40", "--boxes", str(tmp_path / f"b.{end}")]) == 0
    assert main(["track", str(latin), "--init", "10,20,30,40", "--save", f"{latin}/o.mp4"]) == 0
    monkeypatch.setattr("ebmtrack.viewers.video_file.has_h264", lambda: False)
    assert main(["track", str(latin), "--init", "10,20,30,40", "--save", f"{latin}/o.mp4"]) == 2
    assert "OpenCV cannot write to a name that is no Unicode" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["source", "--boxes", "--save"])
def test_names_that_are_too_long_are_one_line(tmp_path, option, monkeypatch, capsys):
    """The system's own word, without a traceback."""
    monkeypatch.setattr(TrackerOptions, "load", lambda self: Still())
    clip, long = str(film(tmp_path / "v.mp4", count=3)), str(tmp_path / ("x" * 300 + ".mp4"))
    line = [long] if option == "source" else [clip, option, long, *(["--layout", "csv"] if option == "--boxes" else [])]
    assert main(["track", *line, "--init", "10,20,30,40"]) == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.fixture
def stdin():
    """Return a function that lets this process read bytes from a pipe as its standard input."""
    before, ends = os.dup(0), os.pipe()

    def feed(data: bytes) -> None:
        with open(ends[1], "wb") as end, contextlib.suppress(BrokenPipeError):
            end.write(data)

    def pipe(data: bytes) -> None:
        os.dup2(ends[0], 0)
        threading.Thread(target=feed, args=(data,), daemon=True).start()

    yield pipe
    os.dup2(before, 0)
    os.close(ends[0])


def jpegs(count: int) -> bytes:
    """Return pictures as one stream of Motion JPEG."""
    pictures = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(count)]
    return b"".join(encode_picture(picture, ".jpg") for picture in pictures)


needs_pipes = pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no /dev/stdin here")


@needs_pipes
@pytest.mark.parametrize("kind", ["mjpeg", "ts", "mkv"])
def test_a_video_from_a_pipe(tmp_path, kind, stdin, monkeypatch, capsys):
    """`ebmtrack track -` reads it once: the video that is saved has all frames, and its sound is not looked for.

    Nor does a sound that goes on longer make the video end early.
    """
    monkeypatch.setattr(TrackerOptions, "load", lambda self: Still())
    codec, audio_s = {"mkv": ("libx264", 3.0)}.get(kind, ("mpeg2video", 0.0))
    made = kind != "mjpeg" and film(tmp_path / f"in.{kind}", 8, codec=codec, audio_s=audio_s)
    stdin(made.read_bytes() if made else jpegs(8))
    video = tmp_path / "v.mp4"
    assert main(["track", "-", "--init", "10,20,30,20", "--save", str(video)]) == 0
    assert "8 frames" in capsys.readouterr().out and len(list(open_frames(video))) == 8


@needs_pipes
def test_a_pipe_cannot_go_back(stdin, capsys):
    stdin(jpegs(8))
    assert main(["track", "-", "--init", "5:10,20,30,20", "--both"]) == 2
    assert "/dev/stdin: a camera, stream, pipe or iterator cannot go back" in capsys.readouterr().err


@needs_pipes
@pytest.mark.parametrize("data", [b"", b"no video" * 99])
def test_what_is_no_video_in_a_pipe_is_refused(stdin, data, capsys):
    """Neither is the end of the pipe waited for again, nor is it called an empty file."""
    stdin(data)
    assert main(["track", "-", "--init", "10,20,30,20"]) == 2
    assert "a pipe can carry Motion JPEG, MPEG-TS or Matroska only" in capsys.readouterr().err


def test_sources_that_cannot_go_back(tmp_path):
    (tmp_path / "7").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    assert all(
        map(is_stream, [0, "3", "/dev/video9", "rtsp://host/door", str(tmp_path / "pipe"), tmp_path / "pipe", iter([])])
    )
    assert not any(map(is_stream, [str(tmp_path / "7"), tmp_path, str(tmp_path / "missing.mp4"), [], None]))
