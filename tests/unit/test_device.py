"""The device that computes, by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ebmtrack.device import pick_device, pick_devices
from ebmtrack.errors import ConfigError

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("gpus, expected", [(0, "cpu"), (2, "cuda")])
def test_auto_is_a_gpu_if_there_is_one(gpus, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert pick_device() == pick_device("auto") == expected
    assert pick_device("cpu") == "cpu"


def test_devices_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match="this machine has no device 'cuda:2'"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name, meant", [("gpu", "cuda"), ("GPU:1", "cuda:1"), ("CPU", "cpu"), ("Cuda:0", "cuda:0")])
def test_the_device_that_was_meant_is_named(name, meant):
    for pick in (pick_device, pick_devices):
        with pytest.raises(ConfigError, match=rf"unknown device '{name}' \(did you mean '{meant}'\?\): use auto"):
            pick(name)
    with pytest.raises(ConfigError, match="unknown device 'gpux': use auto"):
        pick_device("gpux")


def test_a_gpu_that_is_not_there_is_told_in_the_same_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    errors = []
    for pick in (pick_device, pick_devices):
        with pytest.raises(ConfigError) as caught:
            pick("cuda")
        errors.append(str(caught.value))
    assert errors == ["this machine has no device 'cuda' that PyTorch sees; --device cpu always works"] * 2


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cpu:7", "CPU", "cuda:-1"])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(ConfigError, match="device"):
        pick_device(name)


def test_the_cpu_is_picked_without_torch():
    """Nothing is imported for it; without torch `auto` is the CPU."""
    code = "import sys; from ebmtrack.device import pick_device; pick_device('cpu'); print('torch' in sys.modules);"
    code += "import importlib.util as u; u.find_spec = lambda name: None; print(pick_device('auto'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["False", "cpu"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the drivers of Linux")
@pytest.mark.parametrize("found", [False, True])
def test_torch_is_asked_for_gpus_only_where_a_driver_is(found):
    """Importing it takes seconds."""
    code = f"""
import ctypes, sys
from types import SimpleNamespace
from ebmtrack import device
def load(name, *rest, known=ctypes.CDLL, **more):
    if name != "libcuda.so.1": return known(name, *rest, **more)
    if not {found}: raise OSError(name)
ctypes.CDLL, device.Path = load, lambda path: SimpleNamespace(exists=lambda: False)
print(device.pick_devices(), device.pick_device(), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.split()[-1] == str(found), done.stderr


def test_openvino_is_alone_among_the_devices_of_an_evaluation():
    """The markers of results name one engine for all workers."""
    assert pick_devices("openvino") == ("openvino",)
    with pytest.raises(ConfigError, match="results of openvino are not mixed with others"):
        pick_devices("cpu,openvino")


def test_openvino_is_named_where_it_may_be_meant_and_not_where_it_is_refused():
    with pytest.raises(ConfigError, match="unknown device 'OpenVINO'.* for exported networks, openvino"):
        pick_device("OpenVINO")
    with pytest.raises(
        ConfigError, match="nothing but trackers of exported networks: use auto, cpu, mps, cuda or cuda:N$"
    ):
        pick_device("openvino")
