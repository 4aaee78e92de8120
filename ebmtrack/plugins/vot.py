"""The tracker for the VOT toolkit, as a TraX server: the toolkit runs `python -m ebmtrack.plugins.vot`.

Rectangles out; rectangles, polygons and masks in, of which the last two become the upright boxes around them. Several
objects share the network, and objects may join at any frame. `ebmtrack vot init` registers it in a workspace.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from ebmtrack.errors import ConfigError, DatasetError, EbmtrackError, missing_extra
from ebmtrack.images import decode_rgb, read_picture_bytes
from ebmtrack.tracking.params import list_params
from ebmtrack.weights import DEFAULT_SET_UP

Box = tuple[float, float, float, float]
LONGEST_REASON = 500  # characters of an error that go to the toolkit in the protocol's closing line


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one toolkit until it hangs up; 0, or 1 after an error, which the toolkit prints as the reason."""
    options = _options(argv)
    if "TRAX" not in os.environ and sys.stdin.isatty():
        print("this is started by the VOT toolkit: `ebmtrack vot init`, then `vot evaluate`", file=sys.stderr)
        return 2
    sys.stdout = sys.stderr  # the protocol has the process's own stdout for itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the toolkit's; it ends its trackers
    try:
        tracker, failure = _load(options), None
    except Exception as error:  # told to the toolkit below, once it listens
        tracker, failure = None, error
    try:
        server = open_server(f"ebmtrack {options.params}")
    except EbmtrackError as error:
        print(f"ebmtrack: error: {failure or error}", file=sys.stderr)
        return 1
    try:
        if failure is not None:
            raise failure
        serve(server, tracker)
    except Exception as error:
        _explain(server, error)
        return 1
    server.quit()
    return 0


def open_server(name: str) -> Any:
    """Greet the toolkit on stdin and stdout, or the socket in TRAX_SOCKET. ConfigError without the package vot-trax."""
    try:
        from trax import Image, Region
        from trax.server import Server
    except ImportError as error:
        raise missing_extra("trax", "tracking for the VOT toolkit") from error
    formats = [Region.RECTANGLE, Region.POLYGON, Region.MASK]
    images = [Image.PATH, Image.MEMORY, Image.BUFFER]
    return Server(formats, images, ["color"], name, "boxes climb an energy", "ebmtrack", multiobject=True)


def serve(server: Any, tracker: Any) -> None:
    """Answer a trax Server's requests with a MultiTracker until the client quits.

    Each initialisation starts afresh. Raises EbmtrackError for regions and images that cannot be used.
    """
    targets: list[int] = []
    while True:
        request = server.wait()
        if request.type == "quit":
            return
        image = image_of(request.image)
        if request.type == "initialize":
            tracker, targets = type(tracker)(tracker.engine, tracker.params, tracker.inner_looks), []
        results = tracker.update(image) if targets else {}
        states = [(results[target].box_xywh, results[target].score) for target in targets]
        for region, _ in request.objects or ():
            box = region_to_xywh(region)
            targets.append(tracker.add(image, box))
            states.append((box, 1.0))
        server.status([_state(*state) for state in states])


def region_to_xywh(region: Any) -> Box:
    """Return the upright box around a TraX rectangle, polygon or mask; at least one pixel wide and high.

    Mask pixels count from edge to edge: one pixel is a box of width 1. ConfigError if there is no area.
    """
    kind = region.type
    if kind == "rectangle":
        x, y, w, h = region.bounds()
    elif kind == "polygon":
        points = np.array(list(region), np.float64)
        (x, y), (w, h) = points.min(0), np.ptp(points, axis=0)
    elif kind == "mask":
        mask = region.array()
        if not mask.any():
            raise ConfigError("the toolkit gave an empty mask as target")
        columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
        x, y = np.add(region.offset(), (columns[0], rows[0]))
        w, h = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    else:
        raise ConfigError(f"the toolkit gave a region of type {kind!r} as target: not a rectangle, polygon or mask")
    return float(x), float(y), max(float(w), 1.0), max(float(h), 1.0)


def image_of(images: dict[str, Any]) -> np.ndarray:
    """Return the colour channel of TraX images as RGB (h, w, 3). DatasetError if it is missing or cannot be read."""
    image = images.get("color")
    if image is None:
        raise DatasetError(f"the toolkit gave no colour image, but {', '.join(images) or 'none at all'}")
    kind = image.type()
    if kind == "memory":
        array = image.array()
        if array.shape[2] == 3:
            return array
        grey = (array // 257).astype(np.uint8) if array.dtype == np.uint16 else array
        return np.repeat(grey, 3, axis=2)
    name = image.path() if kind == "path" else "an image sent by the toolkit"
    coded = read_picture_bytes(name) if kind == "path" else image.buffer()
    return decode_rgb(coded, name)


def _state(box_xywh: Box, score: float) -> tuple[Any, dict[str, float]]:
    """Return a target's rectangle and confidence as the toolkit takes them."""
    from trax import Rectangle

    return Rectangle.create(*box_xywh), {"confidence": score}


def _load(options: argparse.Namespace) -> Any:
    """Return a MultiTracker of the chosen set-up, weights and device."""
    from ebmtrack.tracking.tracker import MultiTracker

    return MultiTracker.from_pretrained(options.params, options.weights, options.device, inner_looks=0)


def _explain(server: Any, error: Exception) -> None:
    """Tell the toolkit why it ends, in one line that it prints; the log gets the traceback of what was not foreseen."""
    if not isinstance(error, EbmtrackError):
        traceback.print_exception(error)
    kind = "" if isinstance(error, EbmtrackError) else f"{type(error).__name__}: "
    reason = f"ebmtrack: {kind}{' '.join(str(error).split())}"
    print(reason, file=sys.stderr, flush=True)
    server.quit(reason[:LONGEST_REASON])


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line of a trackers.ini entry."""
    parser = argparse.ArgumentParser(prog="python -m ebmtrack.plugins.vot", description=__doc__)
    parser.add_argument("--params", default=DEFAULT_SET_UP, help=f"one of {', '.join(list_params())}")
    parser.add_argument("--weights", help="a .safetensors file instead of the network of the set-up")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, mps, cuda or cuda:N")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
