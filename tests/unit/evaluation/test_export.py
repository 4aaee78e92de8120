"""Stored results in the layouts of other toolkits and servers, read back by their own programs and by ours."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebmtrack.errors import ConfigError
from ebmtrack.evaluation import foreign
from ebmtrack.evaluation.export import export_stored, layout_files
from ebmtrack.evaluation.results import Result, write_result
from ebmtrack.files import write_text
from ebmtrack.videos import spelling
from ebmtrack.videos.opening import open_dataset
from ebmtrack.videos.sequence import DataSet
from tests.support.evaluation_stub import make_sequences

BOXES = np.array([[1.25, 2, 30, 40.5], [1e-17, -3.1, 30, 40], [102.9999999, 2, 1 / 3, 40]])


def export_files(exported: dict, out: Path, layout: str, tracker: str = "ebmtrack", **options: Any) -> None:
    """Write results in a layout below a tracker's folder."""
    for files in layout_files(exported, layout, **options):
        for path, text in files.items():
            write_text(out / tracker / path, text)


def test_a_run_keeps_its_number(tmp_path: Path) -> None:
    """Run 2 is the third, whatever is missing before it."""
    export_files({"last": {2: Result(BOXES)}}, tmp_path, "got10k")
    assert [path.name for path in (tmp_path / "ebmtrack" / "last").iterdir()] == ["last_003.txt"]
    assert foreign.find_results(tmp_path / "ebmtrack").run_numbers("last") == (2,)


@pytest.mark.parametrize("layout, names", [
    ("got10k-server", ["seq0/seq0_001.txt", "seq0/seq0_002.txt", "seq1/seq1_001.txt", "seq1/seq1_002.txt",
                       "seq0/seq0_time.txt", "seq1/seq1_time.txt"]),
    ("trackingnet-server", ["seq0.txt", "seq1.txt"]),
])  # fmt: skip
def test_archives_for_servers(tmp_path: Path, layout: str, names: list[str]) -> None:
    """One archive for each set-up: rows of four numbers with commas, the same bytes every time."""
    root = make_sequences(tmp_path / "data", 2)
    found = open_dataset("folder", root)
    for name in found.names:
        for run in (0, 1):
            truth = found.load(name).boxes_xywh
            write_result(tmp_path / "out" / "folder" / f"p_00{run}", name, Result(truth, np.full(len(truth), 0.02)))
    for place in ("a", "b"):
        (path,) = export_stored("folder", root, layout, tmp_path / place, out=tmp_path / "out", stream=io.StringIO())
        assert path == tmp_path / place / "p.zip"
    assert (tmp_path / "a" / "p.zip").read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == names and archive.testzip() is None
        assert archive.read(names[0]).decode().startswith("5.0,6.0,10.0,12.0\n")
        if layout == "got10k-server":
            assert archive.read("seq0/seq0_time.txt").decode().startswith("0.02000000,0.02000000\n")


@pytest.mark.parametrize("layout", ["pytracking", "got10k", "got10k-otb"])
def test_exports_are_found_and_read(tmp_path: Path, layout: str) -> None:
    """What is exported is read back with every digit, or truncated towards zero where integers are asked for."""
    runs = {0: Result(BOXES, np.array([0.5, 0.25, 0.25])), 1: Result(BOXES + 1, np.array([0.5, 0.5, 0.5]))}
    export_files({"walk": runs}, tmp_path, layout)
    folder = tmp_path / "ebmtrack" / "default" if layout == "pytracking" else tmp_path / "ebmtrack"
    found = foreign.find_results(folder)
    assert found.run_numbers("walk") == ((0,) if layout == "got10k-otb" else (0, 1))
    np.testing.assert_array_equal(found.read("walk").boxes_xywh, BOXES)
    assert found.read("walk").frames_per_s == pytest.approx(4.0)
    export_files({"walk": runs}, tmp_path / "integers", layout, integers=True)
    path = min(path for path in (tmp_path / "integers").rglob("walk*.txt") if "time" not in path.name)
    first = foreign.read_boxes(path)
    np.testing.assert_array_equal(first, np.trunc(first))
    with pytest.raises(ConfigError, match="unknown layout"):
        export_files({}, tmp_path, "csv")


def test_the_got10k_package_reads_our_export(tmp_path: Path) -> None:
    """An ExperimentOTB of the toolkit reports from our files what our `otb` protocol says, to 1e-12."""
    otb = pytest.importorskip("got10k.experiments.otb")
    from ebmtrack.evaluation import metrics

    rng = np.random.default_rng(0)
    scores, exported, names = [], {}, ["Bird2", "Jogging.1", "Jogging.2"]
    annotations = {}
    for name in names:
        anno = np.concatenate([rng.uniform(5, 90, (9, 2)), rng.uniform(9, 40, (9, 2))], axis=1).round(2)
        pred = np.abs(anno + rng.normal(0, 5, anno.shape)).round(3)
        annotations[name], exported[name] = anno, {0: Result(pred, np.full(9, 0.02))}
        scores.append(metrics.score_sequence(pred, anno, "otb"))
    export_files(exported, tmp_path / "results" / "OTB2015", "got10k-otb", tracker="ours")
    performance = _toolkit_report(otb.ExperimentOTB, annotations, tmp_path)["ours"]["overall"]
    ours = metrics.summarise(scores)
    np.testing.assert_allclose(performance["success_curve"], ours.success, rtol=0, atol=1e-12)
    np.testing.assert_allclose(performance["precision_curve"], ours.precision, rtol=0, atol=1e-12)
    assert performance["success_score"] == pytest.approx(ours.auc, abs=1e-12)
    assert performance["precision_score"] == pytest.approx(ours.precision_20, abs=1e-12)
    assert performance["speed_fps"] == pytest.approx(50)


OTB_TARGETS = {"Basketball": [""], "Jogging": [".1", ".2"], "Human4": [".2"], "Skating2": [".1", ".2"]}


def test_the_got10k_package_finds_every_sequence_of_otb(tmp_path: Path) -> None:
    """Its own data set on the same folder, with Jogging's two targets, takes `ebmtrack export-results`' files: a
    perfect tracker has a precision of 1 there in every sequence, and in our names the files are the same again."""
    otb, toolkit = pytest.importorskip("got10k.experiments.otb"), pytest.importorskip("got10k.datasets")
    found, root = _otb_with_results(tmp_path), tmp_path / "data"
    experiment: Any = object.__new__(otb.ExperimentOTB)
    experiment.dataset = toolkit.OTB(str(root), 2015, download=False)
    experiment.result_dir, experiment.report_dir = str(tmp_path / "got10k-otb"), str(tmp_path / "report")
    experiment.nbins_iou, experiment.nbins_ce, experiment.plot_curves = 21, 51, lambda names: None
    export_stored("otb100", root, "got10k-otb", tmp_path / "got10k-otb", out=tmp_path / "out", stream=io.StringIO())
    by_sequence = experiment.report(["p"])["p"]["seq_wise"]
    assert {spelling.canonical(name) for name in by_sequence} == {spelling.canonical(name) for name in found.names}
    assert {"Jogging.1", "Jogging.2", "Human4"} < set(by_sequence)
    assert {row["precision_curve"][0] for row in by_sequence.values()} == {1.0}


@pytest.mark.parametrize("layout, names", [
    ("pytracking", ["Basketball", "Human4_2", "Jogging_1", "Jogging_2", "Skating2_1", "Skating2_2"]),
    ("got10k-otb", ["Basketball", "Human4", "Jogging.1", "Jogging.2", "Skating2.1", "Skating2.2"]),
])  # fmt: skip
def test_names_of_a_layout_are_read_back(tmp_path: Path, layout: str, names: list[str]) -> None:
    """What is exported under a toolkit's names is found under ours."""
    found, printed = _otb_with_results(tmp_path), io.StringIO()
    written = export_stored("otb100", tmp_path / "data", layout, tmp_path, out=tmp_path / "out", stream=printed)
    assert sorted(path.stem for path in written) == names
    again = foreign.find_results(tmp_path / ("ebmtrack/p" if layout == "pytracking" else "p"), names=found.names)
    for name in found.names:
        np.testing.assert_array_equal(again.read(name).boxes_xywh, found.load(name).boxes_xywh)
    assert "p, run 0: no result of 94 of 100 sequences: Biker, " in printed.getvalue()


def test_prefixes_are_read_back() -> None:
    """`canonical` undoes `name_in`, for every layout and data set that has names of its own."""
    for layout, dataset in [*spelling.NAMES, *spelling.PREFIXES]:
        for name in ("Jogging_1", "Skating2_2", "Human4", "bike1"):
            assert spelling.canonical(spelling.name_in(layout, dataset, name)) == spelling.canonical(name)
    assert spelling.name_in("pytracking", "uav123", "bike1") == "uav_bike1"
    assert spelling.name_in("pytracking", "folder", "Human4") == "Human4"


def _otb_with_results(folder: Path) -> DataSet:
    """Four videos of OTB with six targets in `data`, and the results of a perfect tracker `p` in `out`."""
    for index, (video, targets) in enumerate(OTB_TARGETS.items()):
        (folder / "data" / video / "img").mkdir(parents=True)
        for frame in range(3):
            (folder / "data" / video / "img" / f"{frame + 1:04d}.jpg").touch()
        for target in targets:
            rows = [f"{10 * index + frame + len(target)},1{target[1:]},20,30\n" for frame in range(3)]
            (folder / "data" / video / f"groundtruth_rect{target}.txt").write_text("".join(rows))
    (folder / "data" / "Human4" / "groundtruth_rect.1.txt").touch()  # the benchmark's own is empty
    found = open_dataset("otb100", folder / "data")
    for name in found.names:
        write_result(folder / "out" / "otb100" / "p_000", name, Result(found.load(name).boxes_xywh))
    return found


def _toolkit_report(experiment_class: type, annotations: dict[str, np.ndarray], folder: Path) -> dict:
    """The toolkit's report on stored results, with a data set made of annotations alone and no plots."""

    class Annotated(list):
        seq_names = list(annotations)

    experiment: Any = object.__new__(experiment_class)
    experiment.dataset = Annotated((None, anno) for anno in annotations.values())
    experiment.result_dir, experiment.report_dir = str(folder / "results" / "OTB2015"), str(folder / "report")
    experiment.nbins_iou, experiment.nbins_ce = 21, 51
    experiment.plot_curves = lambda names: None
    return experiment.report(["ours"])
