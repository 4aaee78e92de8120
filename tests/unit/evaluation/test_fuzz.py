"""Damage on purpose: mutated files, killed processes, many runners on one folder."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ebmtrack.errors import DatasetError, ResultError
from ebmtrack.evaluation import comparison, foreign, results
from ebmtrack.videos import got10k, lasot, nfs, tcolor, text, vot
from ebmtrack.videos.opening import open_dataset
from ebmtrack.videos.sequence import Sequence
from tests.support import REPOSITORY
from tests.support.evaluation_stub import make_sequences

ROWS = "".join(f"{10 + i},{20 + i},{30.5},{40 - i}\n" for i in range(8))
NFS_ROWS = "".join(f'0 {10 + i} 20 {50 + i} 60 {i} 0 0 0 "a b"\n' for i in range(8))
VOT_ROWS = ROWS + "1,1,5,1,5,4,1,4\nm10,20,4,3,1,2,2,2,5\n"
FLAGS = "0,1,0,0,1,0,0,0\n"
PEERS = json.dumps({"trackers": {"a": {"sequences": {"s": {"auc": 0.5, "fps": 30}, "t": {"auc": 0.25}}}}})
MARKER = json.dumps({"frames": 8, "made_by": {"seed": 0}, "sha256": "0" * 64})


def otb_results(compressed: bool) -> bytes:
    """A result file of OTB: a cell with two segments."""
    segment = {"res": np.arange(32.0).reshape(8, 4) + 0.5, "type": "rect", "len": 8.0}
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = segment, {**segment, "res": np.ones((4, 4)), "len": 4.0}
    file = io.BytesIO()
    savemat(file, {"results": cell}, do_compression=compressed)
    return file.getvalue()


def root_of(mutant: Path) -> Path:
    """The root of the data sets in which a mutant lies."""
    return next(folder for folder in mutant.parents if (folder / "here").is_file())


def load_all(dataset: str) -> Callable[[Path], object]:
    """Opens a data set whose root lies above the mutant, and reads all of its sequences that are there."""

    def load(path: Path) -> list:
        found = open_dataset(dataset, root_of(path))
        return [found.load(name) for name in found.select(allow_missing=True)]

    return load


def load_zebra(path: Path) -> Sequence:
    """Reads one sequence of LaSOT without looking for the 279 others."""
    return lasot.load(root_of(path), "zebra-17")


def make_benchmarks(root: Path) -> None:
    """One sequence of eight frames, or two, of every data set that has lists, flags or attributes in files."""
    for folder in ("bag", "car1", "zebra/zebra-17", "Deer", "data_seq/UAV123/bike1"):
        (root / folder / "img").mkdir(parents=True, exist_ok=True)
        (root / folder / "img" / "0001.jpg").touch()
        for name in ("groundtruth.txt", "groundtruth_rect.txt", "car1_gt.txt"):
            (root / folder / name).write_text(ROWS)
        for name in ("full_occlusion.txt", "out_of_view.txt"):
            (root / folder / name).write_text(FLAGS)
    for folder in ("anno/att", "anno/UAV123/att", "att"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "anno" / "UAV123" / "bike1.txt").write_text(ROWS)
    (root / "car1" / "car1_frames.txt").write_text("1,8")
    for folder in ("bag", "Deer"):
        (root / folder / "car1_gt.txt").unlink()
    (root / "here").touch()


@dataclass(frozen=True)
class Parser:
    """A parser under attack: a good file's content, what reads it, its error, and how mutants become files.

    rest: other files that must lie beside the mutant, by name. always_reads: it has nothing to refuse.
    """

    good: str | bytes
    parse: Callable[[Path], object]
    error: type[Exception]
    name: str = "mutant.txt"
    wrap: Callable[[bytes], bytes] = bytes
    rest: tuple[tuple[str, str], ...] = ()
    always_reads: bool = False


PARSERS: dict[str, Parser] = {
    "annotation": Parser(ROWS, text.read_boxes, DatasetError),
    "nfs": Parser(NFS_ROWS, nfs.read_boxes, DatasetError),
    "vot": Parser(VOT_ROWS, vot.read_regions, DatasetError),
    "flags": Parser(FLAGS, text.read_flags, DatasetError),
    "meta": Parser("[METAINFO]\nresolution: (1920, 1080)\nabsence: True\n", got10k._size, DatasetError),
    "frames": Parser("11,18\n", tcolor._range, DatasetError),
    "result": Parser(ROWS.replace(",", "\t"), foreign.read_boxes, ResultError),
    "vot result": Parser("1\n" + ROWS + "2\n0\n1\n", foreign.read_boxes, ResultError),
    "mat": Parser(otb_results(False), foreign.read_boxes, ResultError, "mutant.mat"),
    "compressed mat": Parser(otb_results(True), foreign.read_boxes, ResultError, "mutant.mat"),
    "vot list": Parser("bag\nbook\ncar1\n", load_all("vot"), DatasetError, "list.txt"),
    "got10k list": Parser("bag\nbook\ncar1\n", load_all("got10k_val"), DatasetError, "list.txt"),
    "cover": Parser("8\n" * 8, load_all("got10k_val"), DatasetError, "bag/cover.label", rest=(("list.txt", "bag\n"),)),
    "tag": Parser("0\n" * 8, load_all("vot"), DatasetError, "bag/occlusion.tag"),
    "lasot absent": Parser("0," * 7 + "1\n", load_zebra, DatasetError, "zebra/zebra-17/out_of_view.txt"),
    "lasot attributes": Parser("0," * 13 + "1\n", load_zebra, DatasetError, "att/zebra-17.txt"),
    "otb attributes": Parser("0," * 10 + "1\n", load_all("otb100"), DatasetError, "anno/att/Deer.txt"),
    "uav attributes": Parser("0," * 11 + "1\n", load_all("uav123"), DatasetError, "anno/UAV123/att/bike1.txt"),
    "tcolor attributes": Parser("0," * 10 + "1\n", load_all("tcolor128"), DatasetError, "car1/car1_att.txt"),
    "attributes": Parser("sequence,OCC,FM\nbag,1,0\nDeer,0,1\n", load_all("folder"), DatasetError, "attributes.csv"),
    "stages": Parser("crop\t0.5\nsearch\t1.25\n", results.read_stages, ResultError),
    "times": Parser("0.02\n" * 8, results.read_column, ResultError),
    "peers": Parser(PEERS, comparison.read_peers, ResultError, "mutant.json"),
    "marker": Parser(
        MARKER, lambda path: results.read_marker(path.parent, path.stem), ResultError, "mutant.json",
        rest=(("mutant.txt", "1\t2\t3\t4\n"),), always_reads=True,
    ),
}  # fmt: skip

PIECES = (
    b"NaN", b"nan", b"inf", b"-inf", b"-1", b"0", b"1e308", b"-1e308", b"1e999", b"9" * 400, b"", b" ", b",", b"\t",
    b";", b"\n", b"\r", b"\r\n\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"m", b"m0,0,4,4,1",
    b"1_0", b"0x1F", "\u0665".encode(),
    *(struct.pack("<I", n) for n in (0, 1, 14, 15, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFF8, 0xFFFFFFFF)),
    b"{", b"}", b"[" * 200, b'"', b"null", b"1,2,3,4,5,6,7,8", b"--5", b"1.2.3", b"\x1a", b"%", b"1e", b"1,2,3,4\n",
)  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: a flipped byte, a piece put in or over, a part cut out, doubled or moved, an end cut off."""
    for _ in range(rng.randint(1, 4)):
        at, to = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        kind = rng.randrange(6)
        if kind == 0 and data:
            position = rng.randrange(len(data))
            data = data[:position] + bytes([rng.randrange(256)]) + data[position + 1 :]
        elif kind == 1:
            data = data[:at] + rng.choice(PIECES) + data[at:]
        elif kind == 2:
            data = data[:at] + rng.choice(PIECES) + data[min(at + rng.randint(1, 6), len(data)) :]
        elif kind == 3:
            data = data[:at] + data[to:]
        elif kind == 4:
            data = data[:to] + data[at:to] + data[to:]
        else:
            data = data[:at]
    return data


def fuzz(name: str, folder: Path, count: int) -> Counter:
    """Parse `count` mutants; anything but the parser's own error escapes. Returns how many were refused or read."""
    parser, rng = PARSERS[name], random.Random(name)
    outcome: Counter[str] = Counter()
    good = parser.good.encode() if isinstance(parser.good, str) else parser.good
    make_benchmarks(folder)
    for other, content in parser.rest:
        (folder / other).write_text(content)
    for mutant in (mutate(good, rng) if i else good for i in range(count)):
        (folder / parser.name).unlink(missing_ok=True)  # ext4 waits for the disk where a file is cut to nothing
        (folder / parser.name).write_bytes(parser.wrap(mutant))
        try:
            parser.parse(folder / parser.name)
            outcome["read"] += 1
        except parser.error as reason:
            assert str(folder) in str(reason)
            outcome["refused"] += 1
    return outcome


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_files(name: str, tmp_path: Path) -> None:
    """150 mutants per parser: only the documented error escapes, and it names the file."""
    outcome = fuzz(name, tmp_path, 150)
    assert outcome["read"] and (outcome["refused"] or PARSERS[name].always_reads)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_twenty_thousand_mutated_files(name: str, tmp_path: Path) -> None:
    """The same with 20,000, which take less than 200 MB more than the program has."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(fuzz(name, tmp_path, 20_000).values()) == 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # in kB, on Linux


def start_runner(
    root: Path, out: Path, log: Path, workers: int, frame_s: float, runs: int, gate: str = ""
) -> subprocess.Popen:
    """`evaluate` with the stub in a process of its own."""
    stub = f"StubFactory(log={str(log)!r}, frame_s={frame_s}, gate={gate!r})"
    code = (
        "import sys; from tests.support.evaluation_stub import StubFactory;"
        "from ebmtrack.evaluation.evaluate import evaluate;"
        f"sys.exit(evaluate(['stub'], 'folder', {str(root)!r}, runs={runs}, workers={workers}, device='cpu',"
        f"out={str(out)!r}, threads=1, factory={stub}).exit_code)"
    )
    tests = REPOSITORY
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def children(pid: int) -> list[int]:
    """Process ids whose parent is `pid`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[1]) == pid:
                found.append(int(process.name))
    return found


def contents(out: Path) -> dict[str, bytes]:
    """All files of results but times, temporary ones and claims included."""
    files = [p for p in out.rglob("*") if p.is_file() and not p.name.endswith(("_time.txt", "_stages.txt"))]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def reference(root: Path, out: Path, runs: int) -> dict[str, bytes]:
    """What an uninterrupted runner writes."""
    assert start_runner(root, out, out.with_suffix(".log"), 0, 0.0, runs).wait() == 0
    return contents(out)


def kill_one(process: subprocess.Popen, workers: int, log: Path, rng: random.Random) -> bool:
    """Kill the parent or one of its workers, mostly just after a sequence began; False where all ended before."""
    size, begun = log.stat().st_size if log.exists() else 0, rng.random() < 0.25
    while not begun and process.poll() is None:
        time.sleep(0.002)
        begun = log.exists() and log.stat().st_size > size
    time.sleep(rng.uniform(0, 0.3))
    if process.poll() is not None:
        return False
    victim = rng.choice([process.pid, *children(process.pid)][: 1 + workers])
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:  # a worker that left while we were choosing
        return kill_one(process, workers, log, rng)
    if victim == process.pid:
        process.wait()
    return True


def kill_and_resume(folder: Path, kills: int, sequences: int, workers: int, frame_s: float) -> None:
    """Kill `kills` times, then let a runner finish; results must be those of an uninterrupted one."""
    root, rng = make_sequences(folder / "data", sequences), random.Random(0)
    expected = reference(root, folder / "reference", 2)
    out, log, left, process = folder / "out", folder / "log", kills, None
    while left:
        process = process or start_runner(root, out, log, workers, frame_s, 2)
        if kill_one(process, workers, log, rng):
            left -= 1
        else:  # it finished: go on with a part of the results gone
            for marker in sorted(out.rglob("*.json"))[:: rng.randint(1, 3)]:
                marker.unlink()
        process = process if process.poll() is None else None
    if process is not None:
        process.wait()
    for _ in range(3):  # a sequence that was killed three times in one runner is reported, and tried again here
        if start_runner(root, out, log, workers, 0.0, 2).wait() == 0:
            break
    assert contents(out) == expected


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@needs_proc
def test_killed_and_resumed(tmp_path: Path) -> None:
    """Three kills, then byte-equal to an uninterrupted run, with no temporary files or claims left."""
    kill_and_resume(tmp_path, 3, 4, 0, 0.01)


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills(tmp_path: Path) -> None:
    """The same with 200 kills of the parent and of two workers."""
    kill_and_resume(tmp_path, 200, 20, 2, 0.005)


def share_a_folder(folder: Path, runners: int, kills: int, sequences: int) -> None:
    """Start several runners at once and kill some: every sequence is computed once, but for those that were killed.

    Each runner waits in its first sequence until the victims are dead.
    """
    root = make_sequences(folder / "data", sequences)
    expected = reference(root, folder / "reference", 1)
    out, log, gate = folder / "out", folder / "log", folder / "gate"
    crew = [start_runner(root, out, log, 0, 0.005, 1, str(gate)) for _ in range(runners)]
    while not log.exists() or len(log.read_text().splitlines()) < runners:
        assert not any(process.poll() for process in crew)
        time.sleep(0.02)
    for process in crew[:kills]:
        process.kill()
        process.wait()
    gate.touch()
    assert not any(process.wait() for process in crew[kills:])
    starts = Counter(log.read_text().splitlines())
    assert len(starts) == sequences and sorted(starts.values())[-kills - 1 :] == [1] + [2] * kills
    assert contents(out) == expected


def test_runners_share_a_folder(tmp_path: Path) -> None:
    """Three runners, one of them killed."""
    share_a_folder(tmp_path, 3, 1, 12)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_runners_share_a_folder(tmp_path: Path) -> None:
    """Eight runners, three of them killed."""
    share_a_folder(tmp_path, 8, 3, 40)
