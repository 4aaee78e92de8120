"""Sequences changed on purpose: what each change does to pictures and true boxes, and how it is scored."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ebmtrack.commands import main as cli
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.studies import stress
from ebmtrack.videos import open_dataset
from tests.support.golden import image

BOX = np.array([70.0, 50.0, 20.0, 16.0])
PICTURE = image("stress", 120, 160)


def still(count):
    return ((PICTURE.copy(), BOX.copy()) for _ in range(count))


def changed(name, count, seed=0):
    return list(stress.CHANGES[name][0](still(count), np.random.default_rng(seed)))


def inside(picture, box):
    x, y, w, h = (round(v) for v in box)
    return picture[y : y + h, x : x + w].astype(float)


def test_the_true_box_jumps_with_the_picture():
    frames = changed("jump", 90)
    seen = [(picture, box) for picture, box in frames if np.isfinite(box).all()]
    assert all((picture == PICTURE).all() and (box == BOX).all() for picture, box in frames[:15])
    assert len({tuple(box[:2]) for _, box in seen}) >= 3
    for picture, box in seen:
        assert np.linalg.norm(box[:2] - BOX[:2]) in (0, pytest.approx(2.5 * np.sqrt(20 * 16)))
        if (box[:2] > 1).all() and (box[:2] + box[2:] < (159, 119)).all():
            assert np.abs(inside(picture, box) - inside(PICTURE, BOX)).mean() < 4  # whole pixels against fractions


def test_what_is_hidden_is_covered_and_counts_for_nothing():
    frames = changed("hidden", 100)
    for number, (picture, box) in enumerate(frames):
        covered = number in range(30, 50) or number in range(90, 100)
        assert np.isnan(box).all() == covered
        different = (picture != PICTURE).any(axis=2)
        assert different.any() == covered
        different[48:70, 68:93] = False  # 1.2 target sizes
        assert not different.any()


def test_gaps_grey_and_noise():
    assert len(changed("gaps", 10)) == 4
    assert all((picture[..., :1] == picture).all() for picture, _ in changed("grey", 2))
    noisy = np.stack([picture.astype(float) for picture, _ in changed("noise", 20)])
    unclipped = (PICTURE > 80) & (PICTURE < 175)
    assert (noisy - PICTURE)[:, unclipped].std() == pytest.approx(stress.NOISE_LEVELS, rel=0.05)


def test_a_twin_shows_what_the_box_shows_and_leaves_the_target_as_it_is():
    """Over a passage and back, the copy is never nearer than 1.5 target sizes, and somewhere just as near as that."""
    frames, nearest = changed("twin", 60), []
    for picture, box in frames:
        assert (box == BOX).all() and (inside(picture, box) == inside(PICTURE, BOX)).all()
        y, x = np.nonzero((picture != PICTURE).any(axis=2))
        if len(x) and 1 < x.min() and x.max() < 158 and 1 < y.min() and y.max() < 118:
            corner = np.array([x.min(), y.min()])
            nearest.append(np.linalg.norm(corner - BOX[:2]))
            assert (inside(picture, [*corner, *BOX[2:]]) != inside(PICTURE, BOX)).mean() < 0.2
    assert min(nearest) == pytest.approx(stress.TWIN_DISTANCE * np.sqrt(20 * 16), abs=2)


def test_the_same_seed_changes_alike():
    for name in stress.CHANGES:
        for (a, box_a), (b, box_b) in zip(changed(name, 40, 3), changed(name, 40, 3)):
            assert (a == b).all() and np.array_equal(box_a, box_b, equal_nan=True)


class Standing:
    """A tracker whose box stays where it was, and which is lost in the second frame."""

    def init(self, picture, box_xywh, seed):
        self.box_xywh, self.count = box_xywh, 0

    def update(self, picture):
        self.count += 1
        return SimpleNamespace(box_xywh=self.box_xywh, found=self.count != 1)


def write_still_sequence(place, frames: int) -> None:
    """A picture that stands still, as a sequence."""
    (place / "img").mkdir(parents=True)
    for number in range(frames):
        cv2.imwrite(str(place / f"img/{number:04d}.png"), PICTURE)
    (place / "groundtruth_rect.txt").write_text("70,50,20,16\n" * frames)


@pytest.fixture
def folder(tmp_path):
    write_still_sequence(tmp_path / "walk", 21)
    return tmp_path


def test_scores_and_what_is_said(folder):
    """By hand: a box that stays is perfect (20 of 21 thresholds) until the picture jumps after 15 of 21 frames."""
    rows = []
    scores = stress.stress({"still": Standing()}, open_dataset("folder", folder), ["none", "jump"], say=rows.append)
    assert scores["none", "still"][0].score.success.mean() == pytest.approx(20 / 21)
    overlaps = scores["jump", "still"][0].score.overlap
    assert (overlaps[1:15] == 1).all() and overlaps[15:].max() < 1
    assert rows[1].split() == ["none", "still", "0.952", "1.000", "0.050"]


@pytest.mark.parametrize(("change", "first"), [("jump", 15), ("hidden", 30)])
def test_sequences_too_short_to_change_are_named(tmp_path, change, first):
    """The first changed frame is number `first`: of sequences of `first` and first + 1 frames, one stays as it is."""
    rows: list[str] = []
    for name, frames in (("short", first), ("long", first + 1)):
        write_still_sequence(tmp_path / name, frames)
    found = stress.stress({"still": Standing()}, open_dataset("folder", tmp_path), ["none", change], say=rows.append)
    assert [row for row in rows if "sequences" in row] == [
        f"{change}: sequences that end before frame {first} (from 0), where it begins: 1 of 2"
    ]
    pairs = zip(found["none", "still"], found[change, "still"])
    assert [np.array_equal(a.score.overlap, b.score.overlap) for a, b in pairs] == [False, True]  # long, short


def test_sequences_without_a_frame_to_judge_are_left_out_of_that_change_alone(tmp_path):
    """Of two frames a gap leaves the first, which counts for nothing; the averages are those of the long one alone."""
    rows: list[str] = []
    write_still_sequence(tmp_path / "all/short", 2)
    write_still_sequence(tmp_path / "long/walk", 21)
    trackers = {"a": Standing(), "b": Standing()}
    found = stress.stress(trackers, open_dataset("folder", tmp_path / "all"), ["gaps", "none"], say=rows.append)
    assert [*found] == [("none", "a"), ("none", "b")] and "gaps" not in stress.stress_page(found, "Stress")
    assert rows[1] == "gaps: sequences without a frame to judge, which are left out: 1 of 1"
    assert [row.split()[:2] for row in rows[2:]] == [["none", "a"], ["none", "b"]]
    write_still_sequence(tmp_path / "all/walk", 21)
    long, both = (
        stress.stress({"a": Standing()}, open_dataset("folder", tmp_path / name), ["gaps"], say=rows.append)
        for name in ("long", "all")
    )
    assert rows[-2].endswith("1 of 2") and rows[-1] == rows[-4]
    assert [trial.lost for trial in both["gaps", "a"]] == [trial.lost for trial in long["gaps", "a"]]


def test_nothing_to_judge_at_all_is_an_error(tmp_path):
    write_still_sequence(tmp_path / "short", 2)
    with pytest.raises(DatasetError, match=f"^{tmp_path}: no sequence has a frame to judge under gaps; "):
        stress.stress({"still": Standing()}, open_dataset("folder", tmp_path), ["gaps"])


@pytest.mark.parametrize("absent", ["-1,-1,-1,-1", "0,0,0,0", "NaN,NaN,NaN,NaN"])
def test_a_target_out_of_sight_is_left_alone_however_it_is_written(folder, absent):
    """Frames 10 to 20 are out of sight, where the picture jumps or, in the third part, is covered."""
    for number in range(21, 60):
        cv2.imwrite(str(folder / f"walk/img/{number:04d}.png"), PICTURE)
    rows = ["70,50,20,16"] * 10 + [absent] * 11 + ["70,50,20,16"] * 14 + [absent] * 5 + ["70,50,20,16"] * 20
    (folder / "walk/groundtruth_rect.txt").write_text("\n".join(rows) + "\n")
    for change in set(stress.CHANGES) - {"gaps"}:  # which leaves frames out
        score = stress.stress({"still": Standing()}, open_dataset("folder", folder), [change])[change, "still"][0].score
        assert (score.overlap[10:21] == -1).all() and (score.overlap[35:40] == -1).all(), change
        assert (score.overlap[21:30] >= 0).all(), change


def test_what_is_stored_is_not_tracked_again(folder, tmp_path):
    """Rows and scores are the same; another making, seed or damaged file is tracked anew."""
    found, rows = open_dataset("folder", folder), []

    class Counting(Standing):
        starts = 0

        def init(self, picture, box_xywh, seed):
            super().init(picture, box_xywh, seed)
            Counting.starts += 1

    def run(facts="a", seed=0):
        store = stress.Store(tmp_path / "out", {"still": {"weights": facts}})
        return stress.stress({"still": Counting()}, found, ["none", "hidden"], seed, rows.append, store)

    first, again = run(), run()
    assert Counting.starts == 2 and rows[: len(rows) // 2] == rows[len(rows) // 2 :]
    for key, (trial,) in first.items():
        np.testing.assert_array_equal(trial.score.overlap, again[key][0].score.overlap)
    run("b")
    run("b", seed=1)
    assert Counting.starts == 6
    (tmp_path / "out/none/still/walk.json").write_text("{half")
    run("b", seed=1)
    assert Counting.starts == 7
    page = stress.stress_page(first, "Stress <b>")
    assert "<h1>Stress &lt;b&gt;</h1>" in page and '<th scope="row">hidden</th>' in page and ">95.2</td>" in page


def test_an_unknown_change_is_refused(folder):
    with pytest.raises(ConfigError, match="unknown change 'jmp'; did you mean 'jump'"):
        stress.stress({"still": Standing()}, open_dataset("folder", folder), ["jmp"])


def test_the_command_compares_a_changed_set_up(tmp_path, capsys):
    folder = tmp_path / "few"
    write_still_sequence(folder / "walk", 8)
    where = ["stress", "--root", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main([*where, "--changes", "gaps", "--set", "looks_around=0"]) == 0
    first, plain, other, page = capsys.readouterr().out.splitlines()
    assert page == f"the page is {tmp_path / 'out' / folder.name / 'stress.html'}"
    assert first.split() == ["change", "tracker", "AUC", "OP50", "lost"]
    assert plain.split()[1] == "dimp18_nce_plus" and "looks_around=0" in other
    assert plain.split()[-3:] == other.split()[-3:]
    assert cli.main([*where, "--set", "look_around=0"]) == 2
    assert "did you mean 'looks_around'" in capsys.readouterr().err
