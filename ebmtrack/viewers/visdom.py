"""Live pictures and curves on a visdom server, sent by a thread of their own so that nothing waits for the server.

The server's JSON messages (visdom 0.2, `visdom/server/handlers/web_handlers.py`) are written here directly: only the
machine that runs the server needs the package visdom, which asserts, warns and waits without limit on its user's time.
"""

from __future__ import annotations

import atexit
import base64
import http.client
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlsplit

import cv2
import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.images import encode_picture
from ebmtrack.viewers.drawing import PALETTE, draw_box

DEFAULT_SERVER = "http://localhost"
DEFAULT_PORT = 8097
LARGEST_SIDE = 800  # of a picture that is sent, pixels; larger ones are scaled down
JPEG_QUALITY = 85

Request = tuple[str, dict]  # endpoint of the server, message


class VisdomPanel:
    """Windows in one environment of a visdom server. No call waits for the server, none ever raises for its sake.

    Of pictures and heat maps, a window shows the newest; older ones that were not sent yet are dropped. Curves lose
    nothing. Where the server is absent, dies or refuses, one line on stderr says so and later calls do nothing.

    env: the environment's name on the server ("_" groups environments there). server: URL, which may hold a port and a
    path. port: used if the URL has none. timeout_s: the longest wait for an answer of the server, by the thread, and of
    `close`. interval_s: the shortest time between two rounds of sending. Raises ConfigError for a URL that is none.
    """

    def __init__(
        self,
        env: str,
        server: str = DEFAULT_SERVER,
        port: int = DEFAULT_PORT,
        timeout_s: float = 3.0,
        interval_s: float = 0.2,
    ):
        self.env, self.timeout_s, self.interval_s = env.replace("/", "_"), timeout_s, interval_s
        self._line = _Line(server, port, timeout_s)
        self._wake = threading.Condition()
        self._jobs: dict[str, Callable[[], list[Request]]] = {}  # window -> makes its messages
        self._points: dict[str, dict[str, list[tuple[float, float]]]] = {}  # window -> line -> points not sent yet
        self._drawn: set[tuple[str, str]] = set()  # lines that the server has
        self._busy, self._closing, self.alive = True, False, True
        self._thread = threading.Thread(target=self._send_all, name="visdom", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __enter__(self) -> VisdomPanel:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Return whether another picture is worth making: none is waiting to be sent, and there is a server."""
        return self.alive and not self._jobs

    @property
    def idle(self) -> bool:
        """Return whether all is sent, or will never be."""
        with self._wake:
            return not self.alive or not (self._busy or self._jobs or self._points)

    def curve(self, window: str, line: str, step: float, value: float) -> None:
        """Add a point to a line of a window with curves; a value that is not finite leaves a gap."""
        with self._wake:
            if self.alive:
                self._points.setdefault(window, {}).setdefault(line, []).append((float(step), float(value)))
                self._wake.notify_all()

    def image(self, window: str, image_rgb: np.ndarray, caption: str = "") -> None:
        """Show a picture (h, w, 3) of uint8 RGB; `caption` is shown below it."""
        picture = _picture(image_rgb)
        self._show(window, lambda: [("events", self._picture_message(window, picture, caption))])

    def heat_map(self, window: str, array: np.ndarray, title: str = "") -> None:
        """Show an array (h, w) in colours, its first row on top; points that are not finite stay empty."""
        values = np.array(array, dtype=np.float64)
        if values.ndim != 2:
            raise ConfigError(f"a heat map must be (h, w), got {values.shape}")
        self._show(window, lambda: [("events", self._heat_message(window, values, title or window))])

    def frame(self, image_rgb: np.ndarray, boxes_xywh: Sequence[Sequence[float]], labels: Sequence[str] = ()) -> None:
        """Show a frame (h, w, 3) with boxes x, y, w, h in pixels and their labels in the window "frame"."""
        drawn = _picture(image_rgb)
        for index, box in enumerate(boxes_xywh):
            draw_box(drawn, box, labels[index] if index < len(labels) else "", colour=PALETTE[index % len(PALETTE)])
        self._show("frame", lambda: [("events", self._picture_message("frame", drawn, ""))])

    def close(self) -> None:
        """Send what is left, for `timeout_s` at most, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(self.timeout_s)
        self.alive = False
        atexit.unregister(self.close)

    def _show(self, window: str, make: Callable[[], list[Request]]) -> None:
        """Leave a window's new content to the thread."""
        with self._wake:
            if self.alive:
                self._jobs[window] = make
                self._wake.notify_all()

    def _send_all(self) -> None:
        """Run the thread: greet the server, then send all panels until it is asked to end or the server fails."""
        try:
            self._line.post(f"env/{quote(self.env)}", {"eid": self.env})
            while self._send_round():
                pass
        except (OSError, http.client.HTTPException) as error:
            self._give_up(error)
        finally:
            self.alive, self._busy = False, False
            self._line.close()

    def _send_round(self) -> bool:
        """Wait for something to send, send it; False where nothing is left and none will come."""
        with self._wake:
            self._busy = False
            self._wake.wait_for(lambda: self._jobs or self._points or self._closing)
            jobs, points, self._jobs, self._points, self._busy = self._jobs, self._points, {}, {}, True
        began = time.monotonic()
        requests = [request for make in jobs.values() for request in make()]
        requests += [self._curve_request(w, name, p) for w, lines in points.items() for name, p in lines.items()]
        for endpoint, message in requests:
            self._line.post(endpoint, message)
        with self._wake:
            self._wake.wait_for(lambda: self._closing, max(0.0, began + self.interval_s - time.monotonic()))
            return bool(requests) or not self._closing

    def _give_up(self, error: Exception) -> None:
        """Say once why nothing will be shown."""
        why = " ".join(str(error).split()) or type(error).__name__
        text = f"ebmtrack: visdom at {self._line.url}: {why}; nothing more is shown there, the run goes on"
        print(f"{text} (`python -m visdom.server` starts a server)", file=sys.stderr, flush=True)

    def _message(self, window: str, data: dict, opts: dict, layout: dict | None = None) -> dict:
        """Return the message that describes a window to the server."""
        return {"eid": self.env, "win": window, "data": [data], "opts": opts, "layout": layout or {}}

    def _picture_message(self, window: str, picture: np.ndarray, caption: str) -> dict:
        """Return a picture as JPEG, scaled down if it is large."""
        scale = min(1.0, LARGEST_SIDE / max(picture.shape[:2]))
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        source = "data:image/jpeg;base64," + base64.b64encode(encode_picture(picture, ".jpg", JPEG_QUALITY)).decode()
        opts = {"title": window, "width": picture.shape[1], "height": picture.shape[0], "jpgquality": JPEG_QUALITY}
        return self._message(window, {"type": "image", "content": {"src": source, "caption": caption}}, opts)

    def _heat_message(self, window: str, values: np.ndarray, title: str) -> dict:
        """Return a heat map; pixels are square, rows go downwards."""
        data = {"type": "heatmap", "z": [_finite(row) for row in values.tolist()], "colorscale": "Viridis"}
        axes = {
            "xaxis": {"constrain": "domain"},
            "yaxis": {"constrain": "domain", "autorange": "reversed", "scaleanchor": "x"},
        }
        layout = {"title": _below_buttons(title), "margin": {"l": 40, "r": 10, "t": 64, "b": 30}, **axes}
        return self._message(window, data, {"title": window, "width": 380, "height": 360}, layout)

    def _curve_request(self, window: str, line: str, points: list[tuple[float, float]]) -> Request:
        """Return new points of a line: appended if the server has the window, a new window otherwise."""
        x, y = (_finite(values) for values in zip(*points))
        data = {"type": "scatter", "mode": "lines", "name": line, "x": x, "y": y}
        layout = {"title": _below_buttons(window), "showlegend": True, "legend": {"orientation": "h", "y": -0.12}}
        layout["margin"] = {"l": 50, "r": 20, "t": 64, "b": 60}
        message = self._message(window, data, {"title": window, "width": 500, "height": 360}, layout)
        known = any(drawn == window for drawn, _ in self._drawn)
        self._drawn.add((window, line))
        if not known:
            return "events", message
        return "update", {**message, "layout": {}, "opts": {}, "name": line, "append": True}


class _Line:
    """A connection to the server, kept open between messages."""

    def __init__(self, server: str, port: int, timeout_s: float):
        parts = urlsplit(server if "://" in server else f"http://{server}")
        try:
            port = parts.port or port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or not 0 < port < 65536:
            raise ConfigError(f"visdom server {server!r}, port {port}: give a URL such as http://localhost:8097")
        self.url, self.path = f"{parts.scheme}://{parts.hostname}:{port}{parts.path}", parts.path.rstrip("/")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname, port, timeout=timeout_s)

    def post(self, endpoint: str, message: dict) -> None:
        """Send a message. Raises OSError or HTTPException if the server does not take it."""
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", f"{self.path}/{endpoint}", json.dumps(message, allow_nan=False), headers)
        answer = self.connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise OSError(f"the server answered {answer.status} {answer.reason}")

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


def _picture(image_rgb: np.ndarray) -> np.ndarray:
    """Return a copy of a picture that can be sent, else ConfigError."""
    picture = np.array(image_rgb)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape or picture.dtype != np.uint8:
        raise ConfigError(f"a picture must be (h, w, 3) of uint8, got {picture.shape} of {picture.dtype}")
    return picture


def _below_buttons(title: str) -> dict:
    """Return a plot's title where the buttons of the plot do not cover it."""
    return {"text": title, "yref": "container", "y": 0.87, "font": {"size": 14}}


def _finite(values: Sequence[float]) -> list[float | None]:
    """Return None, which plotly leaves out, for numbers that are not finite: JSON knows no infinity."""
    return [value if math.isfinite(value) else None for value in values]
