"""The one door for pictures: RGB out of every kind of file, damage refused, deep pictures scaled by the first frame."""

import ast
import itertools
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ebmtrack import images
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.images import (
    PIXELS_OF_ONE_THREAD,
    SequenceReader,
    bgr_to_rgb,
    decode_rgb,
    decode_rgba,
    encode_picture,
    read_ahead,
    read_pages,
    read_rgb,
    read_size_wh,
    write_picture,
)
from tests.support import REPOSITORY
from tests.support.trees import exif, exif_jpeg


@pytest.fixture(scope="module")
def soft() -> np.ndarray:
    """A smooth RGB picture with three different channels."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".jpg", ".JPG"])
def test_a_picture_is_read_as_it_was_written_under_a_name_in_any_script(suffix, soft, tmp_path):
    """Lossless kinds to the bit; JPEG and WebP at quality 100 within 4 of 255 on average."""
    path = tmp_path / f"Straße 東京 {suffix}{suffix}"
    write_picture(path, soft, quality=100)
    read = read_rgb(path)
    assert read.shape == soft.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - soft).mean() <= (4 if suffix.lower() in (".jpg", ".webp") else 0)


@pytest.mark.parametrize("shape", [(1, 1), (211, 640), (480, 640), (3, PIXELS_OF_ONE_THREAD + 5)])
def test_colours_are_exchanged_in_bands_that_one_thread_converts(shape, monkeypatch):
    """Every pixel once, whatever is left over; a picture wider than a band goes row by row."""
    picture, bands, convert = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8), [], cv2.cvtColor

    def spy(band: np.ndarray, code: int, dst: np.ndarray) -> np.ndarray:
        bands.append(band.shape[:2])
        return convert(band, code, dst=dst)

    monkeypatch.setattr(cv2, "cvtColor", spy)
    np.testing.assert_array_equal(bgr_to_rgb(picture), picture[..., ::-1])
    assert all(h == 1 or h * w <= PIXELS_OF_ONE_THREAD for h, w in bands)
    assert sum(h for h, _ in bands) == shape[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".ppm"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.95])
def test_a_part_of_a_picture_is_refused_in_every_room(suffix, part, soft, tmp_path):
    """Half a JPEG is no picture: `imread` would give its upper half."""
    from ebmtrack.videos.image_store import ImageStore
    from ebmtrack.viewers.frames import open_frames

    data = encode_picture(soft, suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(part * len(data))])
    for read in (read_rgb, SequenceReader().read, ImageStore().rgb, lambda p: next(open_frames(p.parent))):
        with pytest.raises(DatasetError, match=rf"cut{suffix}: not a readable image"):
            read(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_a_copy_filled_up_with_zeros_is_refused(suffix, soft, tmp_path):
    """Downloads reserve a file's length before they write it."""
    data = encode_picture(soft, suffix)
    (tmp_path / "a").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(DatasetError, match="not a readable image"):
        read_rgb(tmp_path / "a")


def test_zeros_after_the_end_of_a_jpeg_are_no_damage(soft, tmp_path):
    """Cameras fill the last block of a card with them."""
    (tmp_path / "a.jpg").write_bytes(encode_picture(soft, ".jpg") + bytes(300))
    assert read_rgb(tmp_path / "a.jpg").shape == soft.shape


def write_header_cases(folder: Path) -> None:
    """Write pictures of 80 x 60 stored pixels with all kinds of header."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        write_picture(folder / f"plain{suffix}", noise)
    for orientation in range(10):
        exif_jpeg(folder / f"{orientation}.jpg", (80, 60), orientation)
        png, data = encode_picture(noise), b"eXIf" + exif(orientation)
        chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        for name, at in (("before", 33), ("after", len(png) - 12)):
            (folder / f"{orientation}-{name}.png").write_bytes(png[:at] + chunk + png[at:])
    turned = (folder / "6.jpg").read_bytes()
    frame = turned.index(b"\xff\xc0")
    after = frame + 2 + int.from_bytes(turned[frame + 2 : frame + 4], "big")
    late = b"\xff\xd8" + turned[frame:after] + turned[2:frame] + turned[after:]  # EXIF after the size
    (folder / "late.jpg").write_bytes(late)
    cv2.imwrite(str(folder / "progressive.jpg"), noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    cv2.imwrite(str(folder / "restart.jpg"), noise, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
    cv2.imwrite(str(folder / "deep.png"), noise.astype(np.uint16))
    cv2.imwrite(str(folder / "grey.png"), noise[..., 0])


def test_the_size_in_the_header_is_that_of_the_decoded_picture(tmp_path):
    """As it is shown, whatever its EXIF data say."""
    write_header_cases(tmp_path)
    sizes = {path.name: (read_size_wh(path), read_rgb(path).shape[1::-1]) for path in tmp_path.iterdir()}
    assert len(sizes) == 39 and {name: both for name, both in sizes.items() if both[0] != both[1]} == {}
    assert {both[0] for both in sizes.values()} == {(80, 60), (60, 80)}


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0" * 9, b"\xff\xd8" + b"\xff" * 99, b"\x89PNG\r\n\x1a\n" * 9]
)
def test_what_is_no_picture_has_no_size(data, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DatasetError, match="a.jpg: not a readable image"):
        read_size_wh(tmp_path / "a.jpg")


def test_only_the_door_decodes_pictures_and_writes_their_files():
    """No other module of the library calls imread, imdecode or imwrite of OpenCV."""
    calls = {"imread", "imdecode", "imwrite", "imdecodemulti"}
    allowed = {"images.py", "on_device.py", "demo_sequence.py"}
    for folder in ("ebmtrack", "evaluation"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            assert path.name in allowed or not names & calls, path


def test_a_16_bit_picture_that_uses_few_values_is_stretched_by_the_first_frame(tmp_path):
    """A thermal camera's values 7,200 to 8,000 of 65,535 were three grey levels."""
    scene = np.linspace(7200, 8000, 60 * 80).reshape(60, 80).astype(np.uint16)
    for number, shift in enumerate((0, 40)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene + shift)
    reader = SequenceReader()
    first, second = reader.read(tmp_path / "0.png"), reader.read(tmp_path / "1.png")
    assert len(np.unique(first)) > 180 and first.max() - first.min() > 180
    # 800 values and an eighth on either side (less the tails) become 255 levels: 40 values are 40 * 255 / 998 = 10.2
    np.testing.assert_allclose(second.astype(int).mean() - first.mean(), 10.2, atol=0.5)
    assert "16 bits" in reader.note and "first frame" in reader.note


def test_a_16_bit_picture_that_uses_all_values_becomes_their_upper_byte(tmp_path):
    scene = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "0.png"), scene)
    np.testing.assert_array_equal(read_rgb(tmp_path / "0.png")[..., 0], np.rint(scene / 257))


def test_dead_pixels_do_not_decide_the_range(tmp_path):
    scene = np.linspace(7200, 8000, 100 * 100).reshape(100, 100).astype(np.uint16)
    scene[0, 0], scene[9, 9] = 0, 65535
    cv2.imwrite(str(tmp_path / "0.tif"), scene)
    assert np.ptp(read_rgb(tmp_path / "0.tif")[20:]) > 100


@pytest.mark.parametrize("scene", [np.full((9, 9), 500, np.uint16), np.full((9, 9), np.nan, np.float32)])
def test_a_flat_or_empty_deep_picture_is_no_error(scene, tmp_path):
    cv2.imwrite(str(tmp_path / "0.tif"), scene)
    assert read_rgb(tmp_path / "0.tif").shape == (9, 9, 3)


def test_pages_of_a_stack_and_frames_of_an_animation(soft, tmp_path):
    pages = [soft, 255 - soft, soft[:, ::-1].copy()]
    cv2.imwritemulti(str(tmp_path / "stack.tif"), [page[..., ::-1] for page in pages])
    read, seconds = read_pages(tmp_path / "stack.tif")
    assert seconds == [] and all(np.array_equal(a[..., ::-1], b) for a, b in zip(read, pages)) and len(read) == 3
    with pytest.raises(DatasetError, match="none.tif"):
        read_pages(tmp_path / "none.tif")


def test_alpha_is_read_where_it_is_wanted(soft, tmp_path):
    rgba = np.dstack([soft, np.full(soft.shape[:2], 7, np.uint8)])
    data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    np.testing.assert_array_equal(decode_rgba(data, "a"), rgba)
    np.testing.assert_array_equal(decode_rgb(data, "a"), soft)
    with pytest.raises(DatasetError, match="plain: a picture with alpha is needed"):
        decode_rgba(encode_picture(soft), "plain")


def test_what_cannot_be_written_is_refused(soft, tmp_path):
    with pytest.raises(ConfigError, match=".xyz"):
        write_picture(tmp_path / "a.xyz", soft)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write here"):
        write_picture(tmp_path / "file" / "a.png", soft)


def test_jpeg4py_without_its_library_is_said_once(soft, monkeypatch, tmp_path, caplog):
    """The optional decoder is found, its library libturbojpeg is not: OpenCV reads, with one message."""
    (tmp_path / "jpeg4py.py").write_text("raise OSError('Could not load libturbojpeg.so')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jpeg4py", raising=False)
    images._fast_jpeg.cache_clear()
    try:
        data = encode_picture(soft, ".jpg")
        assert decode_rgb(data, "a").shape == decode_rgb(data, "a").shape == soft.shape
    finally:
        images._fast_jpeg.cache_clear()
    assert caplog.text.count("libturbojpeg") == 1


def test_jpeg4py_gives_the_same_picture(soft, tmp_path):
    """Also after pictures that were cut short anywhere, at which it fails. In an interpreter of its own: libturbojpeg
    once wrote beyond the array of the next picture."""
    pytest.importorskip("jpeg4py", reason="jpeg4py or libturbojpeg is not installed", exc_type=(ImportError, OSError))
    write_picture(tmp_path / "a.jpg", soft)
    program = (
        "import sys, numpy as np; from ebmtrack import images; data = open(sys.argv[1], 'rb').read();"
        "fast = images._fast_jpeg()(data); plain = images._decode(data, 'a', 1);"
        "assert np.abs(fast.astype(int) - plain).max() <= 2; cut = range(2, len(data) - 2, 41);"
        "assert all(images._fast_jpeg()(data[:n]) is None and (images._fast_jpeg()(data) == fast).all() for n in cut)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.jpg")], check=True)


# Reading ahead.


def test_the_next_item_is_made_while_the_caller_works() -> None:
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    ahead = read_ahead(items())
    assert next(ahead) == 1 and second.wait(60)
    assert list(ahead) == [2] and list(read_ahead(iter(()))) == []


def test_an_error_comes_in_its_place_and_not_if_nobody_asks() -> None:
    def items():
        yield from (0, 1, 2)
        raise DatasetError("frame 3")

    seen = []
    with pytest.raises(DatasetError, match="frame 3"):
        for item in read_ahead(items()):
            seen.append(item)
    assert seen == [0, 1, 2]
    assert list(itertools.islice(read_ahead(items()), 3)) == seen


def test_who_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead: Any = read_ahead(numbers())
    assert next(ahead) == 0
    ahead.close()
    assert threading.active_count() == before and len(made) <= 2
