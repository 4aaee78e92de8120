"""Record what a refactoring must not change, and compare a later state of the code with the record.

    python tools/freeze.py record base.json --sequences FOLDER
    python tools/freeze.py compare base.json --sequences FOLDER --allow help,report/got10k

Four sections: `boxes` of the trackers, to the bit; `losses` of the first two steps of every training file; the numbers
of `report`; the `help` texts. The script uses the command line and the public API of the ebmtrack that is installed
beside the interpreter that runs it, on one thread. Boxes and losses are comparable on one machine with one version of
torch only.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from html_tables import read_tables
from miniature_data import write_backbones, write_data
from records import Section, compare

NAMES = ("Crossing", "DragonBaby", "Skiing", "bag", "Girl")
SETUPS = ("dimp18_nce_plus", "dimp18_nce_plus_fast", "dimp18_nce_plus_accurate")
PROTOCOLS = ("pytracking", "otb", "got10k", "lasot", "trackingnet", "ope")
FRAMES = 40
SMALL = "crops.output=64 objective.samples=4 validation_samples=2 warmup=1 round_steps=1 round_samples=2"
DRAWN = {
    "utkface": "age",
    "biwi": "headpose",
    "cell200": "cells",
    "steering": "steering",
}  # data set -> its drawn stand-in
UNTRIED = ("coco_energy",)  # its host is torchvision's download
TIMINGS = ("s", "step", "samples_per_s", "wait_frac")  # columns of log.csv that are no result


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 if `compare` finds a difference that is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path, help="the record to write, or to compare with")
    parser.add_argument("now", type=Path, nargs="?", help="a record to compare instead of measuring anew")
    parser.add_argument("--sequences", type=Path, default=Path("../shared/data/test/sequences"))
    parser.add_argument("--only", default=",".join(MEASURES), help="sections to measure, separated by commas")
    parser.add_argument("--allow", default="", help="what may differ: sections or section/item, separated by commas")
    options = parser.parse_args(argv)
    only = options.only.split(",")
    if unknown := set(only) - set(MEASURES):
        parser.error(f"--only {sorted(unknown)[0]}: choose from {', '.join(MEASURES)}")
    now = json.loads(options.now.read_text()) if options.now else measure(options.sequences, only)
    if options.action == "record":
        options.file.write_text(json.dumps(now, indent=1) + "\n")
        return 0
    base = json.loads(options.file.read_text())
    return compare(base, now, only, [name for name in options.allow.split(",") if name])


def measure(sequences: Path, only: list[str]) -> dict[str, Section]:
    """Return the record of the installed ebmtrack; `about` names the machine, which decides whether bits agree."""
    os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1", OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
    import torch

    torch.set_num_threads(1)
    about = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cv2": cv2.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    print(f"measuring {importlib.import_module('ebmtrack').__file__}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="freeze_") as folder:
        os.environ.update(EBMTRACK_DATA=f"{folder}/data", EBMTRACK_CACHE=f"{folder}/cache", XDG_CONFIG_HOME=folder)
        measures = {name: MEASURES[name](sequences.resolve(), Path(folder)) for name in MEASURES if name in only}
    return {"about": about, **measures}


def run(*arguments: object, folder: Path) -> str:
    """Return what `ebmtrack ARGUMENTS` prints to stdout, run in `folder`; RuntimeError with stderr if it fails."""
    command = [sys.executable, "-m", "ebmtrack", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ebmtrack {' '.join(command[3:])}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


# --- boxes


def measure_boxes(sequences: Path, folder: Path) -> Section:
    """Return the boxes of each set-up on each sequence, and those of two targets that are tracked together."""
    from ebmtrack import MultiTracker, Tracker

    found: Section = {}
    for setup in SETUPS:
        tracker = Tracker.from_pretrained(setup)
        for name in NAMES:
            images, box = read_images(sequences / name), read_truth(sequences / name)[0]
            tracker.init(next(images), box, seed=0)
            found[f"{setup}/{name}"] = with_checksum([tracker.update(image).box_xywh for image in images])
    images, (x, y, w, h) = read_images(sequences / NAMES[0]), read_truth(sequences / NAMES[0])[0]
    multi, first = MultiTracker.from_pretrained(SETUPS[0]), next(images)
    targets = [multi.add(first, box, seed=seed) for seed, box in enumerate([(x, y, w, h), (x - 3 * w, y, w, h)])]
    results = [multi.update(image) for image in images]
    for target in targets:
        found[f"multi/{NAMES[0]}/{target}"] = with_checksum([result[target].box_xywh for result in results])
    return found


def read_images(sequence: Path) -> Iterator[np.ndarray]:
    """Yield the first frames as RGB; OSError if one cannot be read."""
    for path in sorted((sequence / "img").glob("*.jpg"))[:FRAMES]:
        bgr = cv2.imread(str(path))
        if bgr is None:
            raise OSError(f"{path}: OpenCV cannot read the image")
        yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_truth(sequence: Path) -> np.ndarray:
    """Return the true boxes x, y, w, h, (N, 4)."""
    text = re.sub(r"[,\t]", " ", (sequence / "groundtruth_rect.txt").read_text())
    return np.loadtxt(text.splitlines(), ndmin=2)


def with_checksum(boxes_xywh: list[Any]) -> Section:
    """Return boxes and the SHA-256 of their 64-bit numbers."""
    boxes = np.asarray(boxes_xywh, np.float64)
    return {"sha256": hashlib.sha256(boxes.tobytes()).hexdigest(), "boxes_xywh": boxes.tolist()}


# --- losses


def measure_losses(sequences: Path, folder: Path) -> Section:
    """Return the figures in log.csv after two steps of the files in ltr_settings, trained on miniature data.

    Without those in UNTRIED.
    """
    write_data(folder / "data")
    write_backbones(folder)
    package = importlib.import_module("ebmtrack.ltr_settings")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in UNTRIED]
    return {name: first_losses(name, folder) for name in names}


def first_losses(name: str, folder: Path) -> dict[str, list[str]]:
    """Return the columns of a run's log, without timings; six digits are written there."""
    shown = run("train", name, "--show", folder=folder)
    known = {line.partition("=")[0] for line in shown.splitlines()}
    small = [change for change in SMALL.split() if change.partition("=")[0] in known]
    if source := re.search(r"^source=(\w+)", shown, re.M):
        small += [f"source=drawn-{DRAWN[source[1]]}", "image_size=64"]
    backbone = folder / ("resnet50.pth" if "resnet50" in shown else "resnet18.pth")
    if "efficientnet" in shown:  # goes on from the network that ships
        small.append("start=ebm_lite")
    places = ("--data", folder / "data", "--backbone", backbone, "--out", folder / name, "--device", "cpu", "--float32")
    run("train", name, *places, *"--steps 2 --batch 2 --workers 0 --seed 0 --set".split(), *small, folder=folder)
    for path in (folder / name).glob("checkpoint*"):
        path.unlink()
    with open(folder / name / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [row[key] for row in rows] for key in rows[0] if key not in TIMINGS}


# --- report


def measure_report(sequences: Path, folder: Path) -> Section:
    """Return numbers in the tables of report pages under every protocol, and the curves' CSV files of the first one."""
    for number, name in enumerate(NAMES):
        truth = np.nan_to_num(read_truth(sequences / name))
        later = np.arange(len(truth))[:, None]  # the first box is the truth, as in every result
        write_result(folder / "results/folder/near_000", name, truth + np.minimum(later, 1) * [2, -1, 0, 1], number)
        write_result(folder / "others/far", name, truth + later * [0.2, 0.1, 0.05, 0], None)
    places = ("--root", sequences, "--results", folder / "results", "--page", folder / "page.html")
    chosen = ("--sequences", *NAMES, "--others", "far", folder / "others" / "far")
    found: Section = {}
    for protocol in PROTOCOLS:
        plots = ("--plots", folder / "plots") if protocol == PROTOCOLS[0] else ()
        run("report", "--dataset", "folder", *places, *chosen, "--protocol", protocol, *plots, folder=folder)
        for (table, row), cells in read_tables((folder / "page.html").read_text()).items():
            found[f"{protocol}/table {table}/{row}"] = cells
    for path in sorted((folder / "plots").glob("*.csv")):
        with open(path, newline="") as file:
            found[path.name] = list(csv.reader(file))
    return found


def write_result(folder: Path, name: str, boxes_xywh: np.ndarray, number: int | None) -> None:
    """Write boxes as stored results: with times and marker as `ebmtrack eval` does, or boxes alone without `number`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(map(repr, map(float, box))) + "\n" for box in boxes_xywh)
    (folder / f"{name}.txt").write_text(text)
    if number is not None:
        (folder / f"{name}_time.txt").write_text(f"0.0{number + 1}0000\n" * len(boxes_xywh))
        marker = {
            "frames": len(boxes_xywh),
            "made_by": {"seed": 0},
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        (folder / f"{name}.json").write_text(json.dumps(marker))


# --- help


def measure_help(sequences: Path, folder: Path) -> Section:
    """Return the help texts of the program and of every verb that its usage line names."""
    text = run("--help", folder=folder)
    verbs = re.search(r"\{([\w\s,-]+)\}", text)
    if verbs is None:
        raise RuntimeError(f"no list of verbs {{...}} in the usage line:\n{text}")
    names = re.sub(r"\s", "", verbs[1]).split(",")
    return {"ebmtrack": text, **{name: run(name, "--help", folder=folder) for name in names}}


MEASURES: dict[str, Callable[[Path, Path], Section]] = {
    "boxes": measure_boxes,
    "losses": measure_losses,
    "report": measure_report,
    "help": measure_help,
}

if __name__ == "__main__":
    sys.exit(main())
