"""The energy around a box's corner, and rooms that need no torch."""

import numpy as np

from ebmtrack.viewers.corner_map import corner_map
from tests.support.hidden import run_without


def test_the_map_is_highest_at_the_corner_and_covers_the_area_around_it():
    """f = -|p - c|^2 with c the box's own top right corner (40, 20): the middle of the map, where f - max f is 0."""
    values, area_xywh = corner_map(lambda p: -((p - [40.0, 20.0]) ** 2).sum(axis=1), (10, 20, 30, 40), 5, 0.5)
    assert area_xywh == (25.0, 0.0, 30.0, 40.0) and values.shape == (5, 5)
    assert np.unravel_index(values.argmax(), values.shape) == (2, 2) and values.max() == 0
    np.testing.assert_allclose(values[0, 0], -(15**2 + 20**2))  # top left of the area: (25, 0)


def test_viewers_and_live_import_no_torch():
    """In an interpreter in which torch cannot be found."""
    rooms = "demo track_video follow results tracking_view visdom video_file selection corner_map"
    program = "".join(f"import ebmtrack.viewers.{name}\n" for name in rooms.split())
    run_without(("torch",), program + "import ebmtrack.live.webcam, ebmtrack.images\n")
