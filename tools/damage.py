"""Random damage: no traceback, and never exit code 0 with readable frames lost.

    python tools/damage.py --count 500 --minutes 10

Videos of 40 frames in five containers (mp4, mkv, avi, webm, ts), each with bytes overwritten at random places, are
tracked by the command line's own code with a tracker that does nothing but stand still: it is reading that is tested.
A run is wrong if an error is no EbmtrackError, or if the code is 0 although fewer rows were written than frames can be
read: OpenCV's reads are repeated up to 300 times after one that fails, whatever the container announces.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from ebmtrack.commands import main as cli
from ebmtrack.commands.options import TrackerOptions
from ebmtrack.images import quiet_opencv
from ebmtrack.tracking.step import TrackResult

KINDS = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx", "ts": "mpeg2video"}
FRAMES = 40
MOST_FAILURES = 300


class Still:
    """A tracker that leaves the box where it was drawn."""

    network = "none"

    def init(self, image: np.ndarray, box_xywh: tuple, seed: int | None = None) -> None:
        """Start."""
        self.box_xywh = box_xywh

    def update(self, image: np.ndarray) -> TrackResult:
        """Return the same box."""
        x, y, w, h = self.box_xywh
        return TrackResult((x, y, w, h), 1.0, "normal", (x, y, w, h), np.zeros((1, 1)))


def film(path: Path, codec: str) -> bytes:
    """Write a video of noise that moves, and return its bytes."""
    import av

    noise = np.random.default_rng(0).integers(0, 255, (96, 208, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 128, 96, "yuv420p", 12
        for at in range(FRAMES):
            picture = np.ascontiguousarray(noise[:, 2 * at : 2 * at + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def damaged(data: bytes, generator: random.Random) -> bytes:
    """Return bytes with one to four stretches of up to 1,500 overwritten."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        length = generator.choice((1, 4, 16, 200, 1500))
        at = generator.randrange(max(1, len(data) - length))
        changed[at : at + length] = generator.randbytes(min(length, len(data) - at))
    return bytes(changed)


def readable(path: Path) -> int:
    """Return how many frames OpenCV gives if one reads on after failures."""
    count = failures = 0
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
        while capture.isOpened() and failures < MOST_FAILURES:
            if capture.read()[0]:
                count, failures = count + 1, 0
            else:
                failures += 1
    return count


def tracked(path: Path, out: Path) -> tuple[int, int, str]:
    """Return the exit code of `ebmtrack track`, how many rows it wrote, and the traceback if there was one."""
    out.unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = cli.main(["track", str(path), "--init", "20,20,30,30", "--boxes", str(out)])
    except Exception:
        return -1, 0, traceback.format_exc()
    return code, len(out.read_text().splitlines()) if out.exists() else 0, ""


def main() -> int:
    """Damage, track and count; return 1 if a run was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    TrackerOptions.load = lambda self: Still()  # type: ignore[method-assign, assignment, return-value]
    ends: Counter[str] = Counter()
    wrong, until_s = 0, time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = {kind: film(folder / f"whole.{kind}", codec) for kind, codec in KINDS.items()}
        for number in range(chosen.count):
            if time.monotonic() > until_s:
                break
            kind = list(KINDS)[number % len(KINDS)]
            clip, out = folder / f"clip.{kind}", folder / "b.txt"
            clip.write_bytes(damaged(whole[kind], random.Random(chosen.seed * 100_000 + number)))
            code, rows, trace = tracked(clip, out)
            ends[f"{kind} code {code}"] += 1
            if trace or (code == 0 and rows < readable(clip)):
                wrong += 1
                print(
                    f"{kind}, number {number}: code {code}, {rows} rows, {readable(clip)} readable\n{trace}", flush=True
                )
    print(f"{sum(ends.values())} videos, {wrong} wrong; " + ", ".join(f"{end}: {n}" for end, n in sorted(ends.items())))
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
