"""Writing packs: any source as target-centred crops in LMDB files, safe to interrupt and to go on with.

A pack is a folder. While it is written it holds packing.json (the settings, to compare when it goes on) and, beside
each finished shard, the facts about it; pack.json, written last, makes it a pack. `store.PackedSource` reads it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from ebmtrack._version import __version__
from ebmtrack.data.pack_options import PackSettings
from ebmtrack.data.store import FORMAT, INDEX_KEY, PACK_FILE, crop_size, file_crc, frame_key, load_lmdb, seal
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.files import replacing, write_text
from ebmtrack.progress import progress_bar
from ebmtrack.videos.sequence import well_formed
from ebmtrack.videos.source import Source

if TYPE_CHECKING:
    import lmdb

PACKING_FILE = "packing.json"
CHUNK = 64  # crops that are made before they are written
FIRST_MAP_BYTES = 2**24
DEFAULT_SETTINGS = PackSettings()


@dataclasses.dataclass
class _Target:
    """The number, name, boxes in the picture, sampling weight and chosen frames of a target."""

    number: int
    name: str
    boxes_xywh: np.ndarray
    weight: float
    frames: np.ndarray


def target_window(box_xywh: np.ndarray, context: float) -> np.ndarray:
    """Return the square window (4,) int64, in whole pixels, of `context` target sizes around a box (4,)."""
    side = max(2, round(context * math.sqrt(box_xywh[2] * box_xywh[3])))
    corner = np.floor(box_xywh[:2] + box_xywh[2:] / 2 - side / 2 + 0.5)
    return np.array([*corner, side, side], np.int64)


def cut_crop(image: np.ndarray, window_xywh: np.ndarray, output: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the part of a picture in a window; return it and its place in the picture, (4,) int64.

    It is scaled down (area average) if the window is larger than `output`, and empty if they do not meet.
    """
    low = np.clip(window_xywh[:2], 0, image.shape[1::-1])
    high = np.clip(window_xywh[:2] + window_xywh[2:], 0, image.shape[1::-1])
    scene = np.concatenate([low, high - low])
    if not scene[2:].all():
        return np.empty((0, 0, 3), np.uint8), scene
    width, height = crop_size(window_xywh[None], scene[None], output)[0].tolist()
    crop = image[low[1] : high[1], low[0] : high[0]]
    if (width, height) != tuple(scene[2:]):
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    return crop, scene


def write_pack(
    source: Source,
    out: str | Path,
    settings: PackSettings = DEFAULT_SETTINGS,
    threads: int | None = None,
    progress: bool = False,
    origin: Mapping[str, object] | None = None,
) -> dict:
    """Write `source` to the folder `out` and return the content of pack.json.

    Interrupted, it goes on at the shard that was not finished; a finished pack stays as it is.

    Args:
        source: The targets.
        out: The folder of the pack.
        settings: What to keep.
        threads: Threads that read and cut; 8 at most by default.
        progress: Whether to show a bar.
        origin: Goes into pack.json as it is.

    Raises:
        ConfigError: If `out` holds something else or is being written.
        DatasetError: If the source is damaged.
    """
    out, threads = Path(out), threads or min(8, os.cpu_count() or 1)
    left_out: list[str] = []
    targets = list(_targets(source, settings, left_out))
    if not any(len(target.frames) for target in targets):
        raise DatasetError(f"source {source.name}: no visible frame to pack; check its annotation files")
    made = {"format": f"ebmtrack pack {FORMAT}", "source": source.name, "is_video": source.is_video}
    made |= {"settings": dataclasses.asdict(settings), "fingerprint": _fingerprint(targets)}
    made |= {"cut_at": source.cut_at}
    shards = _shards(targets, settings.shard_frames)
    with _only_writer(out), _report_full_disks(out):
        if _begin(out, made):
            _tidy(out)
            return json.loads((out / PACK_FILE).read_text("utf-8"))
        with progress_bar(total=sum(len(t.frames) for t in targets), unit="crop", disable=not progress) as bar:
            facts = [_shard(source, shard, number, out, settings, threads, bar) for number, shard in enumerate(shards)]
        return _finish(out, made, facts, left_out, origin or {})


@contextmanager
def _report_full_disks(out: Path) -> Iterator[None]:
    """Turn the system's error for a file of the pack that cannot be written into a ConfigError."""
    try:
        yield
    except (OSError, load_lmdb().Error) as error:
        raise ConfigError(f"{out}: cannot be written ({error}); make room, and run the same command again") from error


def _targets(source: Source, settings: PackSettings, left_out: list[str]) -> Iterator[_Target]:
    """Yield what of each target goes into the pack."""
    weights = source.weights()
    for number in range(min(len(source), settings.targets or len(source))):
        try:
            boxes = np.asarray(source.boxes_xywh(number), np.float64)
            usable = source.visible(number) & well_formed(boxes)
        except DatasetError as error:
            if not settings.skip_damaged:
                raise
            left_out.append(str(error))
            boxes, usable = np.empty((0, 4)), np.empty(0, bool)
        frames = np.flatnonzero(usable)[:: settings.every]
        if settings.most_frames and len(frames) > settings.most_frames:
            frames = frames[np.linspace(0, len(frames) - 1, settings.most_frames).round().astype(int)]
        yield _Target(number, source.target_name(number), boxes, float(weights[number]), frames)


def _fingerprint(targets: list[_Target]) -> str:
    """Return a checksum of names, boxes, weights and chosen frames: packing goes on only with the same."""
    digest = hashlib.sha256()
    for target in targets:
        digest.update(json.dumps([target.name, target.weight, len(target.boxes_xywh)]).encode())
        digest.update(target.boxes_xywh.tobytes() + target.frames.astype(np.int64).tobytes())
    return digest.hexdigest()


def _shards(targets: list[_Target], shard_frames: int) -> list[list[_Target]]:
    """Divide targets into runs; each ends with the target that fills it."""
    shards: list[list[_Target]] = [[]]
    frames = 0
    for target in targets:
        if frames >= shard_frames:
            shards.append([])
            frames = 0
        shards[-1].append(target)
        frames += len(target.frames)
    return shards


def _begin(out: Path, made: dict) -> bool:
    """Note in `out` what is made there; return whether it is finished. ConfigError if `out` holds something else."""
    for name in (PACK_FILE, PACKING_FILE):
        if (out / name).is_file():
            found = _read_json(out / name)
            if not isinstance(found, dict) or any(found.get(key) != made[key] for key in made):
                raise ConfigError(
                    f"{out / name}: made from another source, or with other settings; remove {out}, or give another "
                    "folder"
                )
            return name == PACK_FILE
    if any(path.name != "packing.lock" and not path.name.startswith(".") for path in out.iterdir()):
        raise ConfigError(f"{out}: not empty, and no pack; give a new folder")
    write_text(out / PACKING_FILE, json.dumps(made, indent=1))
    return False


def _read_json(path: Path) -> object:
    """Return the content of a JSON file, None if it is none."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _shard(
    source: Source, targets: list[_Target], number: int, out: Path, settings: PackSettings, threads: int, bar: tqdm
) -> dict[str, Any]:
    """Write one shard, or take it as it is if it was finished; return the facts about it."""
    name = f"shard-{number:05d}"
    frames = sum(len(target.frames) for target in targets)
    if (out / f"{name}.json").is_file():
        found = _read_json(out / f"{name}.json")
        if isinstance(found, dict) and (out / f"{name}.lmdb").is_file():
            bar.update(frames)
            return found
    for left in out.glob(f".{name}-*"):
        left.unlink()
    with ThreadPoolExecutor(threads) as pool, replacing(out / f"{name}.lmdb") as temporary:
        writer = _Writer(source, targets, settings, pool, bar)
        _write_records(temporary, writer.batches())
        facts: dict[str, Any] = {"bytes": temporary.stat().st_size, "crc": file_crc(temporary)}
    facts |= {"name": f"{name}.lmdb", "first": targets[0].number, "targets": len(targets)}
    facts |= {"frames": frames - len(writer.left_out), "left_out": writer.left_out}
    write_text(out / f"{name}.json", json.dumps(facts))
    return facts


def _write_records(path: Path, batches: Iterator[dict[bytes, bytes]]) -> None:
    """Write batches of {key: content} into a new LMDB file, each in a transaction, and sync it."""
    env = load_lmdb().open(str(path), subdir=False, lock=False, sync=False, metasync=False, map_size=FIRST_MAP_BYTES)
    try:
        for batch in batches:
            _put(env, batch)
        env.sync(True)
    finally:
        env.close()


def _put(env: lmdb.Environment, batch: Mapping[bytes, bytes]) -> None:
    """Add a batch in one transaction; the map grows as far as is needed."""
    while True:
        try:
            with env.begin(write=True) as transaction:
                for key, content in batch.items():
                    transaction.put(key, seal(content))
            return
        except load_lmdb().MapFullError:
            env.set_mapsize(2 * env.info()["map_size"])


class _Writer:
    """The maker of one shard's records: crops in chunks, and at last the index."""

    def __init__(
        self, source: Source, targets: list[_Target], settings: PackSettings, pool: ThreadPoolExecutor, bar: tqdm
    ) -> None:
        self.source, self.targets, self.settings, self.pool, self.bar = source, targets, settings, pool, bar
        self.counts = np.array([len(target.boxes_xywh) for target in targets], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        total = int(self.counts.sum())
        self.stored = np.zeros(total, bool)
        self.boxes = np.full((total, 4), np.nan, np.float32)
        self.windows, self.scenes = np.zeros((total, 4), np.int32), np.zeros((total, 4), np.int32)
        self.left_out: list[str] = []

    def batches(self) -> Iterator[dict[bytes, bytes]]:
        """Yield batches of keys and contents."""
        items = [(row, int(frame)) for row, target in enumerate(self.targets) for frame in target.frames]
        for first in range(0, len(items), CHUNK):
            made = self.pool.map(self._record, items[first : first + CHUNK])
            yield {key: content for key, content in made if content}
            self.bar.update(len(items[first : first + CHUNK]))
        yield {INDEX_KEY: self._index()}

    def _record(self, item: tuple[int, int]) -> tuple[bytes, bytes]:
        """Return key and encoded crop of (row of the target in the shard, frame); empty if it is left out."""
        target, frame = self.targets[item[0]], item[1]
        key, row = frame_key(target.number, frame), self.starts[item[0]] + frame
        try:
            image = self.source.frame(target.number, frame)
        except DatasetError as error:
            if not self.settings.skip_damaged:
                raise
            self.left_out.append(str(error))
            return key, b""
        window = target_window(target.boxes_xywh[frame], self.settings.context)
        crop, scene = cut_crop(image, window, self.settings.output)
        if not crop.size:
            self.left_out.append(f"{target.name}, frame {frame}: the box is outside the picture")
            return key, b""
        scale = np.array(crop.shape[1::-1]) / scene[2:]
        corner = (target.boxes_xywh[frame][:2] - scene[:2]) * scale
        self.boxes[row] = [*corner, *(target.boxes_xywh[frame][2:] * scale)]
        self.windows[row], self.scenes[row], self.stored[row] = window, scene, True
        return key, self._encode(crop)

    def _encode(self, crop: np.ndarray) -> bytes:
        kind, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, self.settings.quality]
        if self.settings.png:
            kind, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]
        return cv2.imencode(kind, cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)[1].tobytes()

    def _index(self) -> bytes:
        """Return names and columns of the shard as .npz."""
        names = json.dumps([target.name for target in self.targets]).encode()
        file = io.BytesIO()
        np.savez(
            file,
            names=np.frombuffer(names, np.uint8),
            counts=self.counts,
            stored=self.stored,
            boxes_xywh=self.boxes,
            windows_xywh=self.windows,
            scenes_xywh=self.scenes,
            weights=np.array([target.weight for target in self.targets]),
        )
        return file.getvalue()


def _finish(out: Path, made: dict, shards: list[dict], left_out: list[str], origin: Mapping[str, object]) -> dict:
    """Write pack.json, remove the notes of the packing, and return the content of pack.json."""
    left_out = left_out + [message for facts in shards for message in facts.pop("left_out")]
    facts = made | {key: sum(each[key] for each in shards) for key in ("targets", "frames", "bytes")}
    facts |= {"left_out": left_out, "origin": dict(origin)}
    facts |= {"made_by": f"ebmtrack {__version__}", "made_at": datetime.datetime.now(datetime.timezone.utc).isoformat()}
    facts |= {"shards": shards}
    write_text(out / PACK_FILE, json.dumps(facts, indent=1))
    _tidy(out)
    return facts


def _tidy(out: Path) -> None:
    """Remove the notes of the packing, and what a killed packer left."""
    for path in [out / PACKING_FILE, *out.glob("shard-*.json"), *out.glob(".pack*"), *out.glob(".shard-*")]:
        path.unlink(missing_ok=True)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the folder `out`, created if it is missing, against other packers; the system releases it at a kill."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / "packing.lock", "w")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error}); give another folder") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(out / "packing.lock")):
                raise BlockingIOError  # removed after we had opened it, and made anew: this lock excludes nobody
        except ImportError:  # Windows keeps files in use from being replaced by itself
            pass
        except OSError as error:
            raise ConfigError(f"{out}: another process is packing into it; wait for it, or end it") from error
        try:
            yield
        finally:
            if os.name != "nt":
                (out / "packing.lock").unlink(missing_ok=True)
