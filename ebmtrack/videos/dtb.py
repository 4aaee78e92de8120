"""DTB70 (Li and Yeung, AAAI 2017): `<root>/<name>/{img, groundtruth_rect.txt}`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ebmtrack.videos import folder
from ebmtrack.videos.sequence import DataSet

SIZE = 70


def find(root: Path) -> DataSet:
    """Find the sequences under `root`. Raises DatasetError if there are none."""
    loaders = {name: partial(folder.load, place, "dtb70") for name, place in folder.places(root).items()}
    return DataSet("dtb70", root, loaders, (), SIZE, "pytracking")
