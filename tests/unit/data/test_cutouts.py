"""Cutting objects out by their boxes: outlines are right or refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ebmtrack.commands.data import CutOuts
from ebmtrack.data.cutouts import cut_out, write_cutouts
from ebmtrack.data.pool import open_training_folder
from ebmtrack.errors import ConfigError, DatasetError
from ebmtrack.videos.source import Source
from ebmtrack.videos.synthetic import SyntheticSource

BOX = (60, 50, 60, 80)


def picture(*ellipses_xywh, seed: int = 0) -> np.ndarray:
    """Return (200, 220, 3) RGB: red ellipses that touch the sides of their boxes, on mottled green."""
    rng = np.random.default_rng(seed)
    image = np.dstack(
        [rng.integers(20, 60, (200, 220)), rng.integers(120, 200, (200, 220)), rng.integers(20, 60, (200, 220))]
    )
    image = image.astype(np.uint8)
    for x, y, w, h in ellipses_xywh:
        cv2.ellipse(image, (int(x + w / 2), int(y + h / 2)), (w // 2, h // 2), 0, 0, 360, (210, 40, 30), cv2.FILLED)
    return image


class Targets(Source):
    """Three ellipses of two sizes: a video of four frames and two photographs."""

    name, is_video = "targets", True

    def __len__(self):
        return 3

    def target_name(self, index):
        return ("Ball_Court_07", "web_cars_0012#34", "web_cars_0013#35")[index]

    def category(self, index):
        return ("", "red car", "red car")[index]

    def boxes_xywh(self, index):
        return np.array([BOX, BOX, BOX, BOX] if index == 0 else [BOX if index == 1 else (60, 50, 20, 30)], np.float64)

    def visible(self, index):
        return np.array([False, True, True, True]) if index == 0 else np.ones(1, bool)

    def frame(self, index, frame):
        assert self.visible(index)[frame], "nothing is to be cut where the target cannot be seen"
        return picture(self.boxes_xywh(index)[frame].astype(int), seed=frame)


def shape(*bars_xywh) -> np.ndarray:
    """Return (200, 220, 3) RGB: red bars on mottled green; their places are relative to BOX."""
    image = picture()
    for x, y, w, h in bars_xywh:
        image[BOX[1] + y : BOX[1] + y + h, BOX[0] + x : BOX[0] + x + w] = (210, 40, 30)
    return image


CROSS = ((22, 0, 16, 80), (0, 32, 60, 16))
CORNERS = ((0, 0, 13, 13), (47, 0, 13, 13), (0, 67, 13, 13), (47, 67, 13, 13))
COMB = ((0, 0, 60, 16), *((x, 0, 8, 80) for x in (0, 17, 35, 52)))  # its outline is 2.4 times its hull's
CLAMP = ((0, 0, 11, 80), (0, 0, 60, 11), (0, 69, 60, 11))  # 0.4 of its hull's area


def test_the_outline_is_that_of_the_object():
    piece = cut_out(picture(BOX), BOX)
    assert piece is not None and piece.dtype == np.uint8
    assert abs(piece.shape[1] - BOX[2]) <= 2 and abs(piece.shape[0] - BOX[3]) <= 2
    truth = np.zeros(piece.shape[:2], np.uint8)
    height, width = truth.shape
    cv2.ellipse(truth, (width // 2, height // 2), (BOX[2] // 2, BOX[3] // 2), 0, 0, 360, 1, cv2.FILLED)
    solid = piece[..., 3] > 127
    assert (solid & (truth > 0)).sum() / (solid | (truth > 0)).sum() > 0.95
    inside = piece[solid & (cv2.erode(truth, np.ones((5, 5))) > 0)][:, :3]
    assert np.all(np.abs(inside.astype(int) - (210, 40, 30)) < 12)  # RGB, not BGR


def test_a_large_object_is_made_smaller_and_keeps_its_shape():
    image, box = cv2.resize(picture(BOX), None, fx=4, fy=4), tuple(4 * side for side in BOX)
    piece = cut_out(image, box)
    assert max(piece.shape[:2]) < 160
    assert piece.shape[1] / piece.shape[0] == pytest.approx(BOX[2] / BOX[3], rel=0.06)


@pytest.mark.parametrize(
    "image, box",
    [
        (picture((-10, 50, 60, 80)), (0, 50, 50, 80)),  # the image's edge cuts the object
        (picture((180, 50, 60, 80)), (180, 50, 40, 80)),
        (picture((60, -10, 60, 80)), (60, 0, 60, 70)),
        (picture((60, 140, 60, 80)), (60, 140, 60, 60)),
        (picture((60, 50, 26, 80), (94, 50, 26, 80)), BOX),  # two pieces
        (picture((60, 50, 30, 80)), BOX),  # the object reaches three sides only
        (picture((60, 50, 12, 18)), (60, 50, 12, 18)),  # too small
        (picture((60, 50, 60, 20)), (60, 50, 60, 20)),  # too thin
        (shape(*CROSS, *CORNERS), BOX),  # 0.75 of it in its largest piece, which is all of CROSS
        (shape(*COMB), BOX),
        (shape(*CLAMP), BOX),
        (picture(), BOX),  # nothing there
    ],
)
def test_an_outline_that_is_not_believable_is_refused(image, box):
    assert cut_out(image, box) is None


@pytest.mark.parametrize("margin", [2, 3])
def test_a_box_that_fills_a_large_image_is_refused(margin: int):
    """After scaling, no pixel is left around it from which the background could be learned."""
    image = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)
    assert cut_out(image, (margin, margin, 2000 - 2 * margin, 1500 - 2 * margin)) is None


def test_a_cross_is_believed():
    """Its outline is 1.3 times its hull's, and it fills 0.6 of it."""
    piece = cut_out(shape(*CROSS), BOX)
    assert piece is not None and abs((piece[..., 3] > 127).sum() - (16 * 80 + 60 * 16 - 16 * 16)) < 100


def test_the_shorter_side_counts(tmp_path: Path):
    """BOX is 60 x 80: with 61 pixels asked for it is not tried, with 60 it is."""
    assert list(write_cutouts(Targets(), tmp_path, least_side=61)) == []
    assert len(list(write_cutouts(Targets(), tmp_path, least_side=60))) == 3


def test_a_box_that_is_all_object_is_refused():
    image = picture()
    image[50:130, 60:120] = (210, 40, 30)
    assert cut_out(image, BOX) is None


def test_files_are_written_once_and_named_by_kind(tmp_path: Path):
    first = [file for file in write_cutouts(Targets(), tmp_path) if file is not None]
    assert len(first) == 3  # two frames of the video, one photograph; the other is too small
    assert sorted(file.name.rpartition("_")[0] for file in first) == ["cut-Ball", "cut-Ball", "cut-web-cars-redcar"]
    assert sorted(tmp_path.iterdir()) == sorted(first)
    first[0].write_bytes(b"mine")
    assert list(write_cutouts(Targets(), tmp_path)) == first
    assert first[0].read_bytes() == b"mine"


def test_a_picture_that_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path):
    class Damaged(Targets):
        def frame(self, index, frame):
            if index == 1:
                raise DatasetError("0012.jpg: not a readable image")
            return super().frame(index, frame)

    with pytest.warns(UserWarning, match=r"left out: 0012\.jpg: not a readable image"):
        files = list(write_cutouts(Damaged(), tmp_path))
    assert [file is not None for file in files] == [True, True, False]


def test_compositions_take_them(tmp_path: Path):
    (tmp_path / "backgrounds").mkdir()
    cv2.imwrite(str(tmp_path / "backgrounds" / "green.jpg"), cv2.resize(picture(), (400, 360)))
    assert len(list(write_cutouts(Targets(), tmp_path / "cutouts"))) == 3
    source = SyntheticSource(tmp_path / "cutouts", tmp_path / "backgrounds", clip_length=2, length=4)
    assert [*map(len, source.files)] == [3, 1]
    assert source.draw_cutout(np.random.default_rng(0)).shape[2] == 4
    assert source.frame(0, 0).ndim == 3


def test_own_sequences_stay_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Their cut-outs are no pool: the folder can be opened, and cut out of, again."""
    for name in ("ball1", "ball2", "ball3"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), picture(BOX)[..., ::-1])
        (tmp_path / name / "groundtruth_rect.txt").write_text("60,50,60,80\n")
    for _ in range(2):
        CutOuts(path=tmp_path, least_side=100).run()
        assert "0 cut-outs of 0 boxes" in capsys.readouterr().out and not (tmp_path / "cutouts").exists()
    for _ in range(2):
        CutOuts(path=tmp_path).run()
        assert "2 cut-outs of 2 boxes" in capsys.readouterr().out
    assert {*open_training_folder(tmp_path)} == {"video"}


def test_own_sequences_train_beside_compositions(tmp_path: Path):
    """Backgrounds beside cut-outs make compositions; the sequences stay."""
    for name in ("ball1", "ball2", "ball3"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), picture(BOX)[..., ::-1])
        (tmp_path / name / "groundtruth_rect.txt").write_text("60,50,60,80\n")
    for folder in ("cutouts", "backgrounds"):
        (tmp_path / folder).mkdir()
    assert len(list(write_cutouts(Targets(), tmp_path / "cutouts"))) == 3
    for number in range(20):  # about one in fifteen is held back, by its name
        cv2.imwrite(str(tmp_path / "backgrounds" / f"{number}.jpg"), cv2.resize(picture(), (400, 360)))
    sources = open_training_folder(tmp_path, "all")
    assert {name: len(sources[name]) > 0 for name in sources} == {"video": True, "synthetic": True}
    assert len(sources["video"]) == 3 and len(open_training_folder(tmp_path)["video"]) == 2


@pytest.mark.parametrize("wrong", [{"least_side": 0}, {"least_side": float("nan")}, {"frames": 0}])
def test_wrong_limits_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        list(write_cutouts(Targets(), tmp_path, **wrong))


def test_a_file_is_no_folder_of_cut_outs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="this is none; choose another"):
        list(write_cutouts(Targets(), tmp_path / "file"))
