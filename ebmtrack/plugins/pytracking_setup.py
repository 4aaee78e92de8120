"""Switch the hook for pytracking on and off in this Python, describe its state, or run a script with it once."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import runpy
import site
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ebmtrack.errors import ConfigError
from ebmtrack.files import write_text

FILE = "ebmtrack-pytracking.pth"
# Python runs this line at each start; should ebmtrack be uninstalled without `disable`, it does nothing.
LINE = (
    'import sys; exec("try:\\n import ebmtrack.plugins.hook\\nexcept ModuleNotFoundError as error:\\n'
    " if (error.name or '').partition('.')[0] != 'ebmtrack': raise\")\n"
)
LAUNCH = "python -m ebmtrack.plugins.launch pytracking/run_tracker.py ebmtrack dimp18_nce_plus ..."


@dataclasses.dataclass(frozen=True)
class Status:
    """files: .pth files of ours. active: whether a fresh Python has the hook. python: the interpreter meant."""

    files: tuple[Path, ...]
    active: bool
    python: str

    def __str__(self) -> str:
        if self.active:
            by = f" by {', '.join(map(str, self.files))}" if self.files else ""
            return f"enabled for {self.python}{by}"
        if self.files:
            return f"{self.files[0]} is there, but {self.python} does not load it: run `ebmtrack pytracking enable`"
        return f"not enabled for {self.python}: run `ebmtrack pytracking enable`, or use {LAUNCH}"


def enable() -> Path:
    """Write the .pth file beside the installed ebmtrack, check it with a fresh Python, and return its path.

    ConfigError if ebmtrack is not installed, the folder cannot be written, or Python does not read .pth files there.
    """
    path = install_folder() / FILE
    try:
        write_text(path, LINE)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}; run this as the owner of that folder, install ebmtrack "
            f"into a virtual environment, or go without: {LAUNCH}"
        ) from error
    if not _active():
        path.unlink()
        raise ConfigError(f"{sys.executable} does not run .pth files in {path.parent}; go without: {LAUNCH}")
    return path


def disable() -> list[Path]:
    """Remove our .pth files wherever this Python looks for them; returns those removed."""
    removed = _files()
    for path in removed:
        try:
            path.unlink()
        except OSError as error:
            raise ConfigError(f"cannot remove {path}: {error.strerror or error}; remove it as its owner") from error
    return removed


def status() -> Status:
    """Describe the state of the hook for this Python."""
    return Status(tuple(_files()), _active(), sys.executable)


def launch(script: str | Path, arguments: Sequence[str] = ()) -> None:
    """Run one of pytracking's scripts as `python SCRIPT ARGUMENTS` would, with the hook loaded; no .pth needed."""
    import ebmtrack.plugins.hook  # noqa: F401

    script = Path(script)
    if not script.is_file():
        raise ConfigError(f"no script {script}: give one of pytracking, such as pytracking/run_tracker.py")
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(script.resolve().parent)  # as Python itself does for a script
    runpy.run_path(str(script), run_name="__main__")


def install_folder() -> Path:
    """Return the site folder in which ebmtrack is installed (as a wheel or editable)."""
    for folder in site_folders():
        installed = any(importlib.metadata.distributions(name="ebmtrack", path=[str(folder)]))
        if installed or (folder / "ebmtrack" / "__init__.py").is_file():
            return folder
    raise ConfigError(
        f"ebmtrack is not installed in {sys.executable} (it is only on its path): pip install it there, "
        f"or go without: {LAUNCH}"
    )


def site_folders() -> list[Path]:
    """Return the folders whose .pth files this Python reads: its own, and the user's if that is in use."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders) if Path(folder).is_dir()]


def _files() -> list[Path]:
    """Return our .pth files."""
    return [folder / FILE for folder in site_folders() if (folder / FILE).is_file()]


def _active() -> bool:
    """Return whether a fresh Python has the hook at once."""
    code = "import sys; print('ebmtrack.plugins.hook' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.strip() == "True"
