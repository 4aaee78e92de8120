"""The study of losses on photographs, at its smallest."""

from __future__ import annotations

import json
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from ebmtrack.commands import main as cli
from ebmtrack.detection.host import Boxes
from ebmtrack.studies import detection as study


@pytest.fixture
def pool(tmp_path):
    """Four photographs, the last two held back."""
    names = ["coco_1.png", "raccoon_2.png", "web_elephant_3.png", "n_drone_4.png"]
    folder = tmp_path / "pool" / "coco" / "train2017"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (90, 120, 3), np.uint8))
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "bbox": [20, 10, 60, 50], "category_id": 5} for i in range(4)],
        "categories": [{"id": 5, "name": "thing"}],
    }
    (tmp_path / "pool" / "coco" / "annotations").mkdir()
    path = tmp_path / "pool" / "coco" / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(content))
    return tmp_path / "pool"


def test_pictures_are_fitted_and_parts_are_apart(pool):
    train, held = study.pool_photographs(pool, study.DetectionStudySettings())
    assert {each.path.stem for each in train} == {"coco_1", "raccoon_2"}
    assert {each.path.stem for each in held} == {"web_elephant_3", "n_drone_4"}
    square, factor = study.fit_picture(np.zeros((90, 120, 3), np.uint8))
    assert square.shape == (256, 256, 3) and factor == pytest.approx(256 / 120)
    assert (square[:192] == 0).all() and (square[192:] == 114).all()


def test_jitter_has_its_width_and_perfect_boxes_overlap_fully():
    boxes = np.tile(np.array([[50.0, 40, 110, 120]], np.float32), (3000, 1))
    photograph = study.Photograph(1, None, boxes, np.ones(3000, int))
    seen = study.PhotographMaps([photograph], [])
    start = study.jitter_boxes(seen, 0)[0].boxes_xyxy
    middle = (start[:, :2] + start[:, 2:]) / 2 - torch.tensor([80.0, 80.0])
    assert (middle.std(0) / torch.tensor([60.0, 80.0])).tolist() == pytest.approx([0.15, 0.15], rel=0.06)
    perfect = Boxes(torch.from_numpy(boxes), torch.ones(3000), torch.ones(3000))
    assert study.overlaps(seen, [perfect]).tolist() == [1.0]


def test_study_from_the_command_line(pool, tmp_path, monkeypatch, capsys):
    """Finished runs are kept, and other settings are refused in their folder."""
    monkeypatch.setattr(
        study, "DetectionStudySettings", partial(study.DetectionStudySettings, 2, 2, batch=2, samples=4, hidden=8)
    )
    monkeypatch.setattr(study, "frames_per_second", lambda *_: 1.0)
    out = tmp_path / "o"
    line = ["study", "detection", "--data", str(pool), "--methods", "kld_is", "--out", str(out), "--steps", "2"]
    assert cli.main([*line, "--runs", "1"]) == 0
    assert "| kld_is | 1 | 0." in capsys.readouterr().out
    assert cv2.imread(str(out / "kld_is.jpg")).shape == (384, 1024, 3)
    first = (out / "runs" / "kld_is_0.json").read_text()
    assert cli.main([*line, "--runs", "2"]) == 0
    table = capsys.readouterr().out
    assert "| start-boxes | 2 | 0." in table and "| kld_is | 2 | 0." in table and "s.d." in table
    assert (out / "runs" / "kld_is_0.json").read_text() == first and (out / "table.md").read_text() in table
    assert cli.main([*line[:-1], "3"]) == 2 and "other settings" in capsys.readouterr().err
    (out / "runs" / "kld_is_1.json").write_text("{}")
    assert cli.main([*line, "--runs", "2"]) == 2 and "kld_is_1.json is no record" in capsys.readouterr().err
