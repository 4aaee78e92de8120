"""A virtual screen with a program on it, for tests of windows."""

from __future__ import annotations

import io
import os
import subprocess
import time

import numpy as np

from tests.support import REPOSITORY
from tests.support.live_stubs import WAIT_S


class Screen:
    """A virtual screen with a program that opens a window on it; mouse and keyboard are in the test's hand."""

    def __init__(self, *command: str):
        self.server = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x960x24", "-nolisten", "tcp", "-noreset"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.display = ":" + (self.server.stdout or io.StringIO()).readline().strip()
        root = str(REPOSITORY)
        self.environment = {**os.environ, "DISPLAY": self.display, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.program = subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)
        self.window = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_) -> None:
        for process in (self.program, self.server):
            process.kill()
            process.communicate()

    def wait_for_window(self, timeout_s: float = 60.0) -> None:
        """Wait until the window is there and paints itself.

        Where no window manager delays it, Qt 5 now and then misses that the window was mapped, and then never paints;
        so it is mapped again.
        """
        end_s = time.monotonic() + timeout_s
        while not self.window or not self.picture().any():
            assert self.program.poll() is None, self.program.communicate()[1]
            assert time.monotonic() < end_s, "no window"
            self.window = "".join(self.do("search", "--name", "^ebmtrack: ").split()[:1])
            time.sleep(0.2)
            if self.window and not self.picture().any():
                self.do("windowunmap", self.window, "windowmap", self.window)
                time.sleep(0.2)

    def do(self, *arguments) -> str:
        command = ["xdotool", *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def drag(self, *points) -> None:
        """Press at the first point of the window, move through all, release at the last."""
        for index, point in enumerate(points):
            self.do("mousemove", "--window", self.window, *point)
            if index == 0:
                self.do("mousedown", 1)
            time.sleep(0.05)
        self.do("mouseup", 1)

    def key(self, name: str) -> None:
        self.do("key", "--window", self.window, name)

    def picture(self) -> np.ndarray:
        """What is on the screen (960, 1280, 3)."""
        from PIL import ImageGrab

        return np.asarray(ImageGrab.grab(xdisplay=self.display))

    def wait_for_picture(self, what, timeout_s: float = WAIT_S) -> np.ndarray:
        """The screen as soon as what(picture) holds."""
        end_s = time.monotonic() + timeout_s
        while not what(shown := self.picture()):
            assert time.monotonic() < end_s, "never seen on the screen"
            time.sleep(0.1)
        return shown

    def end(self, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """The program's exit code, what else it printed, and its errors."""
        out, errors = self.program.communicate(timeout=timeout_s)
        return self.program.returncode, out, errors
