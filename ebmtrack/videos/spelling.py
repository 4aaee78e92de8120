"""Spellings of sequences' names in other toolkits, and one key under which all spellings of a name are equal."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OTB = ("otb100", "otb50", "otb2013")
_IN_PYTRACKING = {"Human4": "Human4_2"}  # its boxes are in groundtruth_rect.2.txt
_IN_GOT10K = {f"{name}_{target}": f"{name}.{target}" for name in ("Jogging", "Skating2") for target in (1, 2)}

# Names of sequences in layouts that call them otherwise than we do; `export-results` writes these, `canonical` reads.
NAMES: Mapping[tuple[str, str], Mapping[str, str]] = {
    **{("pytracking", dataset): _IN_PYTRACKING for dataset in _OTB},
    **{("got10k-otb", dataset): _IN_GOT10K for dataset in _OTB},
}
PREFIXES: Mapping[tuple[str, str], str] = {
    ("pytracking", "uav123"): "uav_",
    ("pytracking", "nfs30"): "nfs_",
    ("pytracking", "tcolor128"): "tpl_",
}


def canonical(name: str) -> str:
    """Return a name without what toolkits vary: case, `-`, `.` and blanks for `_`, `NAMES` and `PREFIXES`."""
    key = _fold(name)
    key = next((key[len(prefix) :] for prefix in PREFIXES.values() if key.startswith(prefix)), key)
    return _OUR_NAMES.get(key, key)


def name_in(layout: str, dataset: str, name: str) -> str:
    """Return what a layout calls our sequence `name` of a data set."""
    return PREFIXES.get((layout, dataset), "") + NAMES.get((layout, dataset), {}).get(name, name)


def _fold(name: str) -> str:
    return re.sub(r"[-. ]+", "_", name.lower())


_OUR_NAMES = {_fold(theirs): _fold(ours) for table in NAMES.values() for ours, theirs in table.items()}
