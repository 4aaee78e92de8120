"""A window that shows frames, and whether there is a screen to show one on."""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np

from ebmtrack.errors import ConfigError

ESCAPE = 27
LISTEN_MS = 1  # how long the window library gets to hand over keys and the mouse
SMALL_SCREEN = (1366, 768)

SomeWindow = TypeVar("SomeWindow", bound="Window")


def require_screen(wish: str, instead: str) -> None:
    """Raise ConfigError, with what to do `instead`, if no window can be opened for the `wish`.

    Qt, which draws OpenCV's windows, ends the whole process if it finds no screen: so this is checked first.
    """
    reason = _why_no_screen()
    if reason:
        raise ConfigError(f"{wish} needs a window, but {reason}; {instead}")


class Window:
    """A window of a given title; `show` draws a frame and returns the key that was pressed; `close` closes it."""

    def __init__(self, title: str):
        self.title = title
        open_window(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized = False

    def __enter__(self: SomeWindow) -> SomeWindow:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def show(self, image: np.ndarray, wait_ms: int = 1) -> int:
        """Show an RGB frame; return the code of the key pressed, or -1. A window that was closed counts as Esc."""
        if self.closed:
            return ESCAPE
        if not self._sized:
            cv2.resizeWindow(self.title, image.shape[1], image.shape[0])
            self._sized = True
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(wait_ms)

    @property
    def closed(self) -> bool:
        """Return whether the user has closed the window."""
        try:
            return self._sized and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # Qt, once its last window is gone
            return True

    def close(self) -> None:
        """Close the window, if the user has not done so."""
        if not self.closed:
            cv2.destroyWindow(self.title)


class MouseControls(Protocol):
    """The receiver of a LiveWindow's keys and mouse; coordinates are those of the frame, in pixels."""

    quit: bool

    def key(self, code: int) -> None:
        """Handle a pressed key, -1 for none."""

    def press(self, x: float, y: float) -> None:
        """Handle the left button going down."""

    def move(self, x: float, y: float) -> None:
        """Handle a move of the mouse."""

    def release(self, x: float, y: float) -> None:
        """Handle the left button coming up."""


class LiveWindow(Window):
    """A window that hands keys and the mouse to its controls."""

    def __init__(self, title: str, controls: MouseControls):
        super().__init__(title)
        self._controls = controls
        self._mouse: list[tuple[int, int, int]] = []
        self._size, self._zoom = (0, 0), 1.0

    def draw(self, picture: np.ndarray, zoom: float) -> None:
        """Show a picture (h, w, 3), `zoom` pixels for each of the frame; a window that was closed ends the run."""
        if self.closed:
            self._controls.quit = True
            return
        first, self._zoom = not self._sized, zoom
        key = self.show(picture)
        if key >= 0:  # the mouse alone waits for `listen`, whose caller draws again
            self._handle(key)
        if first:
            cv2.setMouseCallback(self.title, lambda event, x, y, *_: self._mouse.append((event, x, y)))
        if self._size != picture.shape[1::-1]:
            self._size = picture.shape[1], picture.shape[0]
            cv2.resizeWindow(self.title, *self._size)

    def listen(self, wait_ms: int = LISTEN_MS) -> bool:
        """Wait a moment for keys and the mouse; return whether something was done with them."""
        return self._handle(cv2.waitKey(wait_ms))

    def _handle(self, key: int) -> bool:
        """Hand on what the mouse did, then the key, which ended the wait; return whether there was anything."""
        mouse = self._mouse.copy()
        self._mouse.clear()
        acts = {cv2.EVENT_LBUTTONDOWN: "press", cv2.EVENT_MOUSEMOVE: "move", cv2.EVENT_LBUTTONUP: "release"}
        for event, x, y in mouse:
            if event in acts:
                getattr(self._controls, acts[event])((x + 0.5) / self._zoom - 0.5, (y + 0.5) / self._zoom - 0.5)
        self._controls.key(key)
        return key >= 0 or bool(mouse)


@functools.cache
def usable_screen() -> tuple[int, int]:
    """Return the width and height in pixels that a window's picture may have."""
    width, height = _screen_size()
    return int(0.95 * width), int(0.85 * height)  # the rest is for the title and the desktop's bars


def _screen_size() -> tuple[int, int]:
    """Return the screen's width and height in pixels, or those of a small laptop if they are not known."""
    if sys.platform == "win32":
        import ctypes

        return ctypes.windll.user32.GetSystemMetrics(0), ctypes.windll.user32.GetSystemMetrics(1)
    if sys.platform == "linux" and os.environ.get("DISPLAY"):
        try:
            import tkinter
        except ImportError:  # Debian has it in a package of its own
            return SMALL_SCREEN
        try:
            root = tkinter.Tk()
        except tkinter.TclError:
            return SMALL_SCREEN
        size = root.winfo_screenwidth(), root.winfo_screenheight()
        root.destroy()
        return size
    return SMALL_SCREEN


def open_window(title: str, flags: int) -> None:
    """Make a window without OpenCV's tool bar, and without Qt's complaints about fonts that nobody needs."""
    os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
    cv2.namedWindow(title, flags | cv2.WINDOW_GUI_NORMAL)


def _why_no_screen() -> str | None:
    """Return why no window can be opened, or None if one can."""
    interface = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if interface is not None and interface[1] == "NONE":
        return "this OpenCV was built without windows (opencv-python-headless instead of opencv-python)"
    if not sys.platform.startswith("linux"):
        return None
    display = os.environ.get("DISPLAY", "")
    if display:
        return None if _answers(display) else f"no screen answers at DISPLAY={display}"
    if os.environ.get("WAYLAND_DISPLAY") and _has_wayland():
        return None
    return "there is no screen (DISPLAY is not set)"


def _answers(display: str) -> bool:
    """Return whether an X server takes connections at a display name, [host]:number[.screen]."""
    found = re.fullmatch(r"(?:unix/?)?([^:/]*):(\d+)(?:\.\d+)?", display)
    if found is None:
        return True  # a form that we do not know: let the window library try
    host, number = found[1], int(found[2])
    if host:
        try:
            socket.create_connection((host, 6000 + number), timeout=3).close()
        except OSError:
            return False
        return True
    path = f"/tmp/.X11-unix/X{number}"
    return any(_connects(address) for address in (path, "\0" + path))


def _connects(address: str) -> bool:
    """Return whether something listens at the address of a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        try:
            connection.connect(address)
        except OSError:
            return False
    return True


def _has_wayland() -> bool:
    """Return whether OpenCV can draw without an X server: its wheels bring Qt with the plugin for X only."""
    plugins = Path(cv2.__file__).parent / "qt" / "plugins" / "platforms"
    return not plugins.is_dir() or any("wayland" in plugin.name for plugin in plugins.iterdir())
