"""The registry of data sets: what each is called, where people keep it, what reads it, how it is judged.

A data set of your own is one file with a function that finds its sequences, and one line:

    register(DataSetInfo("mine", benchmark=find, homes=("mine",)))

It is known from then on to training and evaluation alike. `ebmtrack eval --dataset ./mine.py` reads such a file.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType

from ebmtrack.errors import ConfigError
from ebmtrack.files import expand_home
from ebmtrack.names import plain, unknown
from ebmtrack.videos import coco, dtb, folder, got10k, lasot, nfs, otb, synthetic, tcolor, trackingnet, uav, vot
from ebmtrack.videos.image_store import ImageStore
from ebmtrack.videos.sequence import DataSet
from ebmtrack.videos.source import Source


@dataclass(frozen=True)
class DataSetInfo:
    """One line of the registry.

    name: what commands call it; EBMTRACK_<NAME> names its folder. benchmark: root -> the sequences to evaluate on, with
    their number and protocol. training: root, split -> the sequences to train on; by default the benchmark's.
    open_targets: root, split, image store -> targets that are no sequences, such as boxes of photographs, instead.
    splits: of training, the usual one first; other texts are left to the reader if it is empty. homes: names of folders
    in which people keep it, and other names that people type, in small letters without `-`, `_` and blanks. inside: the
    data set in whose folder it is. complete: whether training refuses it while sequences are missing that a list names.
    is_known: name -> whether the data set has a sequence of that name, if `benchmark` finds others, too: a folder that
    has none is not listed as this data set. at_home: whether it is listed in a folder with one of its names alone,
    because others keep sequences of their own in the same layout.
    """

    name: str
    benchmark: Callable[[Path], DataSet] | None = None
    training: Callable[[Path, str], DataSet] | None = None
    open_targets: Callable[[Path, str | None, ImageStore], Source] | None = None
    splits: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    inside: str | None = None
    complete: bool = False
    is_known: Callable[[str], bool] | None = None
    at_home: bool = False


_REGISTERED: dict[str, DataSetInfo] = {}


def register(info: DataSetInfo) -> None:
    """Make a data set known. ConfigError for a name that cannot be or that is taken by another one."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", info.name):
        raise ConfigError(f"data set {info.name!r}: a name has small letters, digits and `_`, and begins with a letter")
    if _REGISTERED.get(info.name, info) != info:
        raise ConfigError(f"data set {info.name!r}: there is one of that name already; choose another name")
    _REGISTERED[info.name] = info


def datasets() -> Mapping[str, DataSetInfo]:
    """Return all data sets by name, in the order of registration."""
    return MappingProxyType(_REGISTERED)


def benchmarks() -> list[str]:
    """Return the names of the data sets that can be evaluated on."""
    return [name for name, info in _REGISTERED.items() if info.benchmark is not None]


def find_info(name: str, benchmark: bool = False) -> DataSetInfo:
    """Return the line of a data set.

    Args:
        name: Its name, one that people type, such as OTB100 or GOT-10k, or the path of a Python file that calls
            `register`.
        benchmark: Whether it is to be evaluated on: got10k is then got10k_val.

    Raises:
        ConfigError: For an unknown name.
    """
    if name.endswith(".py"):
        name = load_file(Path(name))
    key = plain(name)
    choices = {plain(each): each for each in _REGISTERED}
    aliases = {home: each for each, info in reversed(_REGISTERED.items()) for home in info.homes}
    known = choices.get(key) or aliases.get(key)
    if known is not None and benchmark and _REGISTERED[known].benchmark is None:
        inner = [each for each, info in _REGISTERED.items() if info.inside == known and info.benchmark]
        known = inner[0] if inner else None
    if known is None:
        raise unknown("data set", name, benchmarks() if benchmark else list(_REGISTERED))
    return _REGISTERED[known]


def load_file(path: Path) -> str:
    """Run a file that registers a data set, once, and return the data set's name.

    Raises:
        ConfigError: If there is no such file, if it fails, or if it registers nothing.
    """
    path = expand_home(path).resolve()
    module_name = "ebmtrack_dataset_" + re.sub(r"\W", "_", str(path))
    if module_name not in sys.modules:
        _run(path, module_name)
    found = [name for name, info in _REGISTERED.items() if _is_of(info, module_name)]
    if not found:
        raise ConfigError(f"{path}: registers no data set; call ebmtrack.videos.register(DataSetInfo(...)) in it")
    return found[0]


def _run(path: Path, module_name: str) -> None:
    """Import a file as a module."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{path}: no such Python file; give the path of a file that registers a data set")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ConfigError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from error


def _is_of(info: DataSetInfo, module_name: str) -> bool:
    functions = (info.benchmark, info.training, info.open_targets)
    return any(getattr(getattr(each, "func", each), "__module__", None) == module_name for each in functions if each)


for _info in (
    DataSetInfo("lasot", lasot.find, lasot.find, splits=lasot.SPLITS,
                homes=("lasot", "lasotbenchmark", "lasottesting")),
    DataSetInfo("got10k", None, got10k.find, splits=tuple(got10k.SIZES), homes=("got10k",), complete=True),
    DataSetInfo("trackingnet", trackingnet.find_test, trackingnet.find, homes=("trackingnet",),
                is_known=trackingnet.is_known),
    DataSetInfo("coco", open_targets=coco.open_coco, splits=coco.SPLITS,
                homes=("coco", "coco2017", "coco2014", "mscoco", "mscoco2017", "mscoco2014")),
    DataSetInfo("synthetic", open_targets=synthetic.open_synthetic),
    DataSetInfo("pool", homes=("pool",)),
    DataSetInfo("lasot_ext", partial(lasot.find, split="extension"),
                homes=("lasotext", "lasotextension", "lasotextensionsubset")),
    DataSetInfo("got10k_val", partial(got10k.find, split="val"), homes=("got10k",), inside="got10k",
                is_known=got10k.is_known),
    DataSetInfo("got10k_test", partial(got10k.find, split="test"), homes=("got10k",), inside="got10k",
                is_known=got10k.is_known),
    DataSetInfo("otb100", otb.find, homes=("otb100", "otb2015", "otb")),
    DataSetInfo("otb50", partial(otb.find, version="otb50"), homes=("otb50", "otb100", "otb2015", "otb"),
                inside="otb100"),
    DataSetInfo("otb2013", partial(otb.find, version="otb2013"), homes=("otb2013", "otb100", "otb2015", "otb"),
                inside="otb100"),
    DataSetInfo("uav123", uav.find, homes=("uav123", "uav")),
    DataSetInfo("uav20l", partial(uav.find, version="uav20l"), homes=("uav20l", "uav123", "uav"), inside="uav123"),
    DataSetInfo("nfs30", nfs.find, homes=("nfs30", "nfs", "needforspeed")),
    DataSetInfo("nfs240", partial(nfs.find, fps=240), homes=("nfs240", "nfs", "needforspeed")),
    DataSetInfo("tcolor128", tcolor.find, homes=("tcolor128", "templecolor128", "tc128"), at_home=True),
    DataSetInfo("dtb70", dtb.find, homes=("dtb70", "dtb"), at_home=True),
    DataSetInfo("vot", vot.find, homes=("vot", "vot2018", "vot2019", "vot2020", "vot2021", "vot2022"),
                at_home=True),
    DataSetInfo("folder", folder.find),
):  # fmt: skip
    register(_info)
