"""pytracking's checkpoints (.pth.tar) in and out, without running anything that such a file says.

A file is torch.save of a dict: `net` holds the tensors, `constructor` names the function that builds
the network, and its keywords. Only the name is used, in a table of our own. Where a keyword is absent,
the default of that function in pytracking (ltr/models/tracking/dimpnet.py, 2024) holds, and our network may not
have it: num_dist_bins, for example, is 5 there.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ebmtrack.checkpoints.untrusted import build_net, checked_config, expected_entries, fit_entries, read_torch, short
from ebmtrack.errors import CheckpointError
from ebmtrack.files import replacing
from ebmtrack.nets.shapes import without_values
from ebmtrack.nets.tracker_net import NetConfig, TrackerNet


class _StandIn:
    """Takes the place of a pytracking object: it has attributes and does nothing."""


CONSTRUCTOR_MODULE = "ltr.admin.model_constructor"
NetConstructor = type("NetConstructor", (_StandIn,), {"__module__": CONSTRUCTOR_MODULE})
CLASSES = {
    "model_constructor.NetConstructor": NetConstructor,
    "stats.AverageMeter": _StandIn,
    "stats.StatValue": _StandIn,
    "settings.Settings": _StandIn,
    "local.EnvironmentSettings": _StandIn,
}
PACKAGES = ("ltr.admin", "dlframework.common.utils")  # the second in files from before 2019
STAND_INS = [(kind, f"{package}.{name}") for package in PACKAGES for name, kind in CLASSES.items()]

FUNCTIONS = {  # name of the constructor function: backbone, filter optimiser
    "dimpnet18": ("resnet18", "dimp"),
    "dimpnet50": ("resnet50", "dimp"),
    "klcedimpnet18": ("resnet18", "prdimp"),
    "klcedimpnet50": ("resnet50", "prdimp"),
}
OWN = {  # keyword: field of NetConfig, pytracking's default (None: depends on the backbone)
    "filter_size": ("filter_size", 1),
    "clf_feat_blocks": ("classifier_blocks", None),
    "out_feature_dim": ("classifier_channels", None),
    "optim_iter": ("optimizer_iterations", 5),
    "optim_init_step": ("initial_step", 1.0),
    "optim_init_reg": ("initial_regularization", 0.01),
}
OWN_OF = {
    "dimp": {**OWN, "init_gauss_sigma": ("label_sigma", 1.0)},
    "prdimp": {
        **OWN,
        "gauss_sigma": ("label_sigma", 1.0),
        "alpha_eps": ("alpha_eps", 0.0),
        "optim_min_reg": ("minimum_regularization", 1e-3),
    },
}
FIXED = {  # keyword: the only value that our network has, pytracking's default
    "classification_layer": ("layer3", "layer3"),
    "feat_stride": (16, 16),
    "clf_feat_norm": (True, True),
    "init_filter_norm": (False, False),
    "final_conv": (True, True),
    "iou_input_dim": ((256, 256), (256, 256)),
    "iou_inter_dim": ((256, 256), (256, 256)),
}
FIXED_OF = {
    "dimp": {
        **FIXED,
        "num_dist_bins": (100, 5),
        "bin_displacement": (0.1, 1.0),
        "score_act": ("relu", "relu"),
        "target_mask_act": ("sigmoid", "sigmoid"),
    },
    "prdimp": {
        **FIXED,
        "normalize_label": (True, False),
        "init_uni_weight": (None, None),
        "label_shrink": (0, 0),
        "label_threshold": (0, 0),
        "softmax_reg": (None, None),
        "final_relu": (False, False),
        "init_pool_square": (False, False),
    },
}
TRAINING_ONLY = {  # keywords that change how training starts or runs, but not the trained network
    "backbone_pretrained",
    "detach_length",
    "frozen_backbone_layers",
    "mask_init_factor",
    "act_param",
    "train_feature_extractor",
    "init_initializer",
}
UNUSED = ("feature_extractor.layer4.", "feature_extractor.fc.")
DEFAULTS_OF = {  # by backbone
    "resnet18": {"clf_feat_blocks": 1, "out_feature_dim": 256},
    "resnet50": {"clf_feat_blocks": 0, "out_feature_dim": 512},
}
NOT_IN_KEYWORDS = {"minimum_regularization": 1e-3, "alpha_eps": 0.0}  # fixed in pytracking's DiMP optimiser
SELDOM = {  # keywords that some versions of pytracking lack: left at their defaults, which are ours, when writing
    "iou_input_dim",
    "iou_inter_dim",
    "init_uni_weight",
    "label_shrink",
    "label_threshold",
    "softmax_reg",
    "final_relu",
    "init_pool_square",
}
_register = threading.Lock()


def import_pytracking(path: str | os.PathLike) -> tuple[TrackerNet, dict[str, Any]]:
    """Return the network of a pytracking checkpoint (float32, eval mode) and where it comes from, as JSON values.

    Reads the zip and the pre-1.6 container. layer4 and fc, which never run, are dropped. CheckpointError: a file
    that is hostile or broken, an unknown network, keywords that ours cannot follow, tensors that do not fit.
    """
    content = read_torch(path, STAND_INS)
    if not isinstance(content, dict) or not isinstance(content.get("net"), Mapping):
        raise CheckpointError(
            f"{path}: a PyTorch file, but no pytracking checkpoint: that is a dict "
            "with 'net' (tensors) and 'constructor'"
        )
    constructor = content.get("constructor")
    if not isinstance(constructor, NetConstructor):
        raise CheckpointError(
            f"{path}: does not say which network its tensors belong to: constructor is "
            f"{short(constructor)}; save it with pytracking's trainer"
        )
    config = _config_of(vars(constructor), path)
    tensors = {
        name: value for name, value in content["net"].items() if not (isinstance(name, str) and name.startswith(UNUSED))
    }
    epoch = content.get("epoch")
    source = {
        "format": "pytracking",
        "function": vars(constructor)["fun_name"],
        "epoch": epoch if type(epoch) is int else None,
    }
    return build_net(config, tensors, path), source


def export_pytracking(path: str | os.PathLike, net: TrackerNet, *, epoch: int = 0) -> None:
    """Write `net` as a checkpoint that pytracking loads strictly and runs in its own trackers.

    layer4 and fc, which pytracking builds and stores but never runs, are zeros: those of an imported file are not
    kept. There is no optimiser state, so that it is a start for training, but not for resuming.
    CheckpointError if pytracking has no function that builds this network.
    """
    name, kwds = _keywords_of(net.config, path)
    content: dict[str, Any] = {
        "epoch": epoch,
        "actor_type": "DiMPActor" if net.config.filter_optimizer == "dimp" else "KLDiMPActor",
        "net_type": "DiMPnet",
        "net": _state_with_unused(net, path),
        "net_info": None,
        "constructor": _constructor(name, kwds),
        "optimizer": {},
        "stats": OrderedDict(),
        "settings": None,
    }
    with replacing(path) as temporary, _importable(NetConstructor), open(temporary, "wb") as file:
        torch.save(content, file)


def _config_of(stored: Mapping[str, Any], path: str | os.PathLike) -> NetConfig:
    """Return the configuration that a stored constructor (fun_name, args, kwds) asks for."""
    function, kwds = stored.get("fun_name"), stored.get("kwds")
    if not isinstance(function, str) or function not in FUNCTIONS:
        raise CheckpointError(
            f"{path}: its network is built by {short(function)}, which ebmtrack does not know; "
            f"known are {', '.join(FUNCTIONS)}"
        )
    if stored.get("args") or not isinstance(kwds, dict):
        raise CheckpointError(f"{path}: {function} has arguments without names; such a checkpoint cannot be converted")
    backbone, kind = FUNCTIONS[function]
    known = {**OWN_OF[kind], **FIXED_OF[kind], **dict.fromkeys(TRAINING_ONLY)}
    unknown = [short(name) for name in kwds if name not in known]
    if unknown:
        raise CheckpointError(f"{path}: {function} with keywords unknown to ebmtrack: {', '.join(unknown[:8])}")
    _refuse_unsupported(function, kind, kwds, path)
    values = {
        field: kwds.get(name, DEFAULTS_OF[backbone].get(name, default))
        for name, (field, default) in OWN_OF[kind].items()
    }
    if kind == "dimp":
        values |= NOT_IN_KEYWORDS
    config = checked_config({"backbone": backbone, "filter_optimizer": kind, **values}, path)
    _refuse_bottlenecks(config, path)
    return config


def _refuse_unsupported(function: str, kind: str, kwds: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Raise CheckpointError if a keyword, given or by default, asks for a part that our network does not have."""
    wrong = []
    for name, (ours, default) in FIXED_OF[kind].items():
        value = kwds.get(name, default)
        if not _same(value, ours):
            wrong.append(f"{name} {short(value)}{'' if name in kwds else ' (by default)'} instead of {ours!r}")
    if wrong:
        raise CheckpointError(
            f"{path}: {function} asks for parts that ebmtrack's network does not have: {', '.join(wrong)}"
        )


def _refuse_bottlenecks(config: NetConfig, path: str | os.PathLike) -> None:
    """Raise CheckpointError for residual blocks after ResNet-50: bottlenecks in pytracking, basic blocks here."""
    if config.backbone == "resnet50" and config.classifier_blocks:
        raise CheckpointError(
            f"{path}: {config.classifier_blocks} residual blocks in the classifier of a ResNet-50 "
            "network (clf_feat_blocks) differ between pytracking and ebmtrack; only 0 converts"
        )


def _same(value: Any, ours: Any) -> bool:
    """Return whether a stored value, of whatever type, is the plain value `ours` (lists count as tuples)."""
    if isinstance(ours, tuple):
        return type(value) in (list, tuple) and len(value) == len(ours) and all(map(_same, value, ours))
    return type(value) in (bool, int, float, str, type(None)) and value == ours


def _keywords_of(config: NetConfig, path: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """Return the constructor function and the keywords that build the network of `config` in pytracking."""
    kind = config.filter_optimizer
    names = [name for name, pair in FUNCTIONS.items() if pair == (config.backbone, kind)]
    if not names:
        raise CheckpointError(f"{path}: pytracking has no {kind!r} network on {config.backbone!r}")
    _refuse_bottlenecks(config, path)
    odd = {field: value for field, value in NOT_IN_KEYWORDS.items() if getattr(config, field) != value}
    if kind == "dimp" and odd:
        wanted = ", ".join(f"{field}={value}" for field, value in odd.items())
        raise CheckpointError(f"{path}: not written: pytracking's {names[0]} has {wanted} and no keyword to change it")
    kwds: dict[str, Any] = {name: getattr(config, field) for name, (field, _) in OWN_OF[kind].items()}
    kwds |= {name: ours for name, (ours, _) in FIXED_OF[kind].items() if name not in SELDOM}
    return names[0], {**kwds, "backbone_pretrained": False}


def _constructor(function: str, kwds: dict[str, Any]) -> _StandIn:
    """Return the object from which pytracking rebuilds the network."""
    constructor = NetConstructor()
    vars(constructor).update(fun_name=function, fun_module="ltr.models.tracking.dimpnet", args=(), kwds=kwds)
    return constructor


def _state_with_unused(net: TrackerNet, path: str | os.PathLike) -> OrderedDict[str, Tensor]:
    """Return the network's entries on the CPU, with zeros for layer4 and fc in pytracking's order."""
    from torchvision import models  # takes longer to import than the rest of PyTorch

    with without_values():
        resnet = getattr(models, net.config.backbone)(weights=None)
    whole = {f"feature_extractor.{name}": entry for name, entry in resnet.state_dict().items()}
    zeros = {
        name: torch.zeros((), dtype=entry.dtype).expand(entry.shape)  # one stored number for each whole tensor
        for name, entry in whole.items()
        if name.startswith(UNUSED)
    }
    entries = fit_entries(net.state_dict(), expected_entries(net.config), path)
    return OrderedDict({**{name: entries[name] if name in entries else zeros[name] for name in whole}, **entries})


@contextmanager
def _importable(kind: type) -> Iterator[None]:
    """Let pickle find `kind` under its module's name; afterwards everything is as it was."""
    package, leaf = kind.__module__.rpartition(".")[0], kind.__module__
    names = [package.partition(".")[0], package, leaf]
    with _register:
        before = {name: sys.modules.get(name) for name in names}
        try:
            for name in names[:-1]:
                sys.modules.setdefault(name, types.ModuleType(name))
            sys.modules[leaf] = types.ModuleType(leaf)
            setattr(sys.modules[leaf], kind.__name__, kind)
            yield
        finally:
            for name, module in before.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module
