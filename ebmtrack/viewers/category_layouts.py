"""Layouts of results that say what the targets are: COCO video, CVAT and YOLO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from ebmtrack.videos.labels import unnamed
from ebmtrack.videos.yolo import names_text
from ebmtrack.viewers.result_rows import FrameResult, ResultInfo


def coco_text(rows: Sequence[FrameResult], info: ResultInfo) -> str:
    """Return rows as COCO video (as in TAO and MMTracking): videos, images, tracks and annotations."""
    width, height = info.size_wh
    video = {"id": 1, "name": info.source, "fps": info.fps, "width": width, "height": height}
    video = {name: value for name, value in video.items() if value not in ("", None)}
    frames, ids = sorted({row.frame for row in rows}), sorted({row.id for row in rows})
    images = [
        {"id": frame, "video_id": 1, "frame_id": frame, "width": width, "height": height}
        | {"file_name": f"{info.source}/{frame:06d}.jpg" if info.source else f"{frame:06d}.jpg"}
        for frame in frames
    ]
    names = {row.id: info.category_of(row.id) for row in rows}
    categories = {name: number for number, name in enumerate(dict.fromkeys(names[target] for target in ids), 1)}
    annotations = []
    for number, row in enumerate(filter(lambda row: row.found, rows), 1):
        x, y, w, h = (round(float(value), 3) for value in row.box_xywh)
        entry: dict[str, Any] = {
            "id": number,
            "image_id": row.frame,
            "video_id": 1,
            "track_id": row.id,
            "instance_id": row.id,
        }
        entry |= {
            "category_id": categories[names[row.id]],
            "bbox": [x, y, w, h],
            "area": round(w * h, 3),
            "iscrowd": 0,
            "score": row.known_score,
        }
        annotations.append(entry)
    return (
        json.dumps(
            {
                "videos": [video],
                "images": images,
                "tracks": [{"id": id, "video_id": 1, "category_id": categories[names[id]]} for id in ids],
                "categories": [{"id": number, "name": name} for name, number in categories.items()],
                "annotations": annotations,
            },
            indent=1,
        )
        + "\n"
    )


def cvat_text(rows: Sequence[FrameResult], info: ResultInfo) -> str:
    """Return rows as CVAT for video 1.1: a track for each target; a box is `outside` in frames in which it is lost."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for target in sorted({row.id for row in rows}):
        track = ElementTree.SubElement(root, "track", id=str(target - 1), label=info.category_of(target), source="auto")
        for row in (row for row in rows if row.id == target):
            x, y, w, h = row.box_xywh
            corners = {"xtl": x, "ytl": y, "xbr": x + w, "ybr": y + h}
            flags = {"frame": str(row.frame), "keyframe": "1", "outside": "0" if row.found else "1", "occluded": "0"}
            ElementTree.SubElement(track, "box", {**flags, **{name: f"{v:.3f}" for name, v in corners.items()}})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def yolo_texts(rows: Sequence[FrameResult], info: ResultInfo) -> tuple[str, dict[str, str]]:
    """Return rows as YOLO: the content of data.yaml, and of a file for each frame with rows class, middle x, y, w, h.

    These are parts of the frame. The class is the target's category; without categories each target is a class of its
    own. Frame 0 always has a file, be it empty: by it `videos.labels` knows that numbers count from 0, whatever the
    frames are called.
    """
    (width, height), ids = info.size_wh, sorted({row.id for row in rows})
    if info.category:
        names = {target: info.category_of(target) for target in ids}
    else:
        names = {target: unnamed(target) for target in range(1, max(ids, default=0) + 1)}
    classes = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    lines: dict[str, list[str]] = {f"frame_{frame:06d}.txt": [] for frame in sorted({0, *(row.frame for row in rows)})}
    for row in filter(lambda row: row.found, rows):
        x, y, w, h = row.box_xywh
        values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        text = f"{classes[names[row.id]]} " + " ".join(f"{value:.6f}" for value in values) + "\n"
        lines[f"frame_{row.frame:06d}.txt"].append(text)
    return names_text(list(classes)), {name: "".join(texts) for name, texts in lines.items()}
