"""Render the film of `ebmtrack demo`: a coffee cup pushed about on a table full of photographs, with known truth.

Everything in it is cut from photographs that scikit-image carries in its wheel (coffee, motorcycle,
astronaut, chelsea, rocket, camera, hubble), so that nothing is downloaded. Frames are drawn on demand and are
always the same: a table seen by a hand-held camera that pans, zooms and tilts, a cup, a second cup that is
almost the same and crosses its path, and a print that is pushed over the cup until it is all but hidden.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from ebmtrack.errors import ConfigError
from ebmtrack.files import write_text
from ebmtrack.images import read_rgb
from ebmtrack.viewers.demo_sequence import FILM, HEIGHT, LENGTH, TRUTH, WIDTH

SHUTTER = 0.5  # part of the time between two frames in which light falls on the sensor
CUP_SCALE = 1.6  # pixels kept of a cup for each pixel on the table, for when the camera is near
SHADOW_XY = (-7.0, 9.0)  # of an object on the table, in table pixels; as in the photograph of the cup
SHADOW_DEPTH = 0.55

# Key frames. Positions are table pixels; between the keys every number follows a smooth curve.
CUP_KEYS = [  # frame, x, y, angle in degrees, size
    (0, 380, 560, 0, 1.00),
    (12, 450, 470, 12, 1.00),
    (20, 640, 410, 30, 1.00),
    (27, 800, 500, 42, 1.00),
    (40, 900, 620, 35, 1.00),
    (55, 880, 600, 75, 1.06),
    (70, 800, 560, 100, 1.00),
    (90, 700, 540, 78, 1.00),
    (105, 815, 630, 60, 1.00),
    (120, 930, 600, 48, 1.00),
    (130, 1000, 560, 40, 1.00),
    (144, 1090, 520, 20, 1.00),
    (152, 1020, 410, -10, 0.95),
    (164, 820, 370, -40, 0.92),
]
SECOND_CUP_KEYS = [
    (0, 560, 700, -15, 0.97),
    (88, 560, 700, -15, 0.97),
    (100, 690, 690, -5, 0.97),
    (108, 800, 520, 10, 0.97),
    (120, 1000, 450, 30, 0.97),
    (130, 1130, 400, 35, 0.97),
    (145, 1180, 330, 35, 0.97),
    (164, 1180, 330, 35, 0.97),
]
PRINT_KEYS = [
    (0, 1240, 800, -12, 1.0),
    (110, 1240, 830, -12, 1.0),
    (122, 1110, 690, -10, 1.0),
    (130, 1080, 642, -8, 1.0),
    (138, 1090, 622, -7, 1.0),
    (146, 1060, 672, -9, 1.0),
    (156, 1000, 740, -14, 1.0),
    (164, 980, 760, -16, 1.0),
]
CAMERA_KEYS = [  # frame, x, y, angle in degrees, zoom, tilt (height of things relative to their width)
    (0, 500, 560, 0.0, 1.00, 1.00),
    (15, 520, 520, 0.5, 1.00, 1.00),
    (30, 720, 500, -1.0, 1.02, 0.98),
    (40, 800, 560, -1.0, 1.10, 0.96),
    (55, 850, 590, 2.0, 1.75, 0.85),
    (68, 810, 560, 3.0, 1.25, 0.62),
    (80, 740, 550, 1.0, 0.90, 0.66),
    (92, 730, 580, 0.0, 0.90, 0.80),
    (110, 800, 590, -1.0, 1.05, 0.92),
    (130, 960, 570, -1.0, 1.15, 0.96),
    (145, 1010, 520, 0.0, 1.10, 1.00),
    (164, 900, 440, 2.0, 1.20, 0.90),
]
LIGHT_KEYS = [  # frame, red, green, blue gain, lamp x and y in frames
    (0, 1.05, 1.05, 1.05, 0.30, 0.25),
    (60, 1.00, 1.00, 1.00, 0.60, 0.30),
    (70, 0.95, 0.93, 0.90, 0.70, 0.40),
    (78, 0.50, 0.42, 0.38, 0.85, 0.55),
    (84, 0.62, 0.66, 0.80, 0.40, 0.60),
    (92, 1.00, 1.02, 1.08, 0.30, 0.40),
    (130, 1.08, 1.05, 1.00, 0.50, 0.40),
    (164, 1.00, 1.00, 1.00, 0.60, 0.50),
]
PRINTS = [  # photograph, centre x, y, width and angle of a print on the table
    ("astronaut.png", 370, 330, 230, -14),
    ("chelsea.png", 690, 370, 280, 6),
    ("rocket.jpg", 960, 720, 300, 11),
    ("camera.png", 1040, 340, 210, -9),
    ("hubble_deep_field.jpg", 290, 800, 260, 18),
    ("chelsea.png", 1310, 540, 260, 100),
    ("astronaut.png", 660, 800, 210, 160),
    ("rocket.jpg", 1330, 250, 280, -20),
]
TABLE_WH = (1560, 1080)


def main() -> None:
    """Write the film and its truth into the package."""
    scene = Scene()
    with av.open(str(FILM), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "19", "preset": "veryslow"}
        for index in range(LENGTH):
            frame = av.VideoFrame.from_ndarray(scene.render(index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    rows = ["x,y,w,h,visible"]
    for index in range(LENGTH):
        box_xywh, visible = scene.truth(index)
        rows.append(",".join(f"{value:.3f}" for value in [*box_xywh, visible]))
    write_text(TRUTH, "\n".join(rows) + "\n")
    print(f"{FILM}: {FILM.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True)
class _Sprite:
    """A cut-out: colours times alpha and alpha (h, w, 4), float32 in 0..255, shadow (h, w), rim (k, 2).

    The rim's points are pixels relative to the middle of the picture, by which the sprite is placed; `scale`
    is how many of its pixels make one of the table.
    """

    rgba: np.ndarray
    shadow: np.ndarray
    rim: np.ndarray
    scale: float = 1.0

    @property
    def middle(self) -> np.ndarray:
        """The point (x, y) of the picture that is placed on the table."""
        return (np.array(self.shadow.shape[::-1]) - 1) / 2


class Scene:
    """The table, the things on it and the script by which they, the camera and the light move."""

    def __init__(self) -> None:
        self.table = _table()
        cup = _cup()
        second = np.ascontiguousarray(_recolour(cup)[:, ::-1])
        printed = _print("motorcycle_left.png", 350)
        self.cup = _sprite(cup, CUP_SCALE)
        self.things = [  # from the lowest to the highest
            (self.cup, _curve(CUP_KEYS)),
            (_sprite(second, CUP_SCALE), _curve(SECOND_CUP_KEYS)),
            (_sprite(printed), _curve(PRINT_KEYS)),
        ]
        self.camera = _curve(CAMERA_KEYS)
        self.light = _curve(LIGHT_KEYS)
        self.glow = _glow()

    def view(self, time: float) -> np.ndarray:
        """Return the camera at a time: the affine map (2, 3) from table to frame, with the unrest of a hand."""
        x, y, angle, zoom, tilt = self.camera(time)
        x += 1.6 * np.sin(0.9 * time) + 1.1 * np.sin(0.37 * time + 1)
        y += 1.3 * np.sin(0.7 * time + 2) + 1.0 * np.sin(0.23 * time)
        linear = np.diag([zoom, zoom * tilt]) @ _rotation(angle)
        return np.column_stack([linear, np.array([WIDTH, HEIGHT]) / 2 - linear @ (x, y)])

    def place(self, thing: int, time: float) -> np.ndarray:
        """Return the affine map (2, 3) from the pixels of a thing's sprite to the frame."""
        sprite, pose = self.things[thing]
        x, y, angle, size = pose(time)
        linear = size / sprite.scale * _rotation(angle)
        on_table = np.column_stack([linear, np.array([x, y]) - linear @ sprite.middle])
        view = self.view(time)
        return _shifted(view[:, :2] @ on_table, view[:, 2])

    def smear(self, thing: int | None, time: float) -> np.ndarray:
        """Return how far (dx, dy) a thing, or the table in mid-frame, moves while the shutter is open, in pixels."""
        before, after = time - SHUTTER / 2, time + SHUTTER / 2
        if thing is None:
            middle = _apply(cv2.invertAffineTransform(self.view(time)), np.array([[WIDTH / 2, HEIGHT / 2]]))
            return (_apply(self.view(after), middle) - _apply(self.view(before), middle))[0]
        middle = self.things[thing][0].middle[None]
        return (_apply(self.place(thing, after), middle) - _apply(self.place(thing, before), middle))[0]

    def render(self, index: int) -> np.ndarray:
        """Return frame number `index` as RGB uint8."""
        frame = cv2.warpAffine(self.table, self.view(index), (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        frame = _smeared(frame, self.smear(None, index)).astype(np.float32)
        shadow_xy = self.view(index)[:, :2] @ np.array(SHADOW_XY)
        for thing, (sprite, _) in enumerate(self.things):
            place, smear = self.place(thing, index), self.smear(thing, index)
            _draw(frame, sprite, place, smear, shadow_xy)
        return self._exposed(frame, index)

    def truth(self, index: int) -> tuple[np.ndarray, float]:
        """Return the target's box (x, y, w, h) around its rim, and the part of its area that nothing covers."""
        place = self.place(0, index)
        corners = _apply(place, self.cup.rim + self.cup.middle)
        low, high = corners.min(axis=0), corners.max(axis=0)
        origin = np.floor(low).astype(int)
        size = np.ceil(high).astype(int) - origin + 1
        area = _alpha(self.cup, place, origin, size)
        seen = area.copy()
        for thing in range(1, len(self.things)):
            seen *= 1 - _alpha(self.things[thing][0], self.place(thing, index), origin, size)
        return np.concatenate([low, high - low]), float(seen.sum() / area.sum())

    def _exposed(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Return the frame under the light of its moment, without the noise of the sensor."""
        *gain, x, y = self.light(index)
        left, top = int(x * WIDTH), int(y * HEIGHT)
        glow = self.glow[HEIGHT - top : 2 * HEIGHT - top, WIDTH - left : 2 * WIDTH - left]
        light = (*gain, 0)
        frame = cv2.multiply(cv2.multiply(frame, glow), light)  # type: ignore[call-overload]  # OpenCV takes a scalar
        return np.clip(frame, 0, 255, out=frame).astype(np.uint8)


def _draw(frame: np.ndarray, sprite: _Sprite, place: np.ndarray, smear: np.ndarray, shadow_xy: np.ndarray) -> None:
    """Draw a sprite and its shadow into a float frame, smeared along its motion."""
    right, bottom = sprite.shadow.shape[::-1]
    corners = _apply(place, np.array([[0, 0], [right, 0], [0, bottom], [right, bottom]]))
    reach = np.abs(smear) + np.abs(shadow_xy) + 2
    low = np.maximum(np.floor(corners.min(axis=0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) + reach), (WIDTH, HEIGHT)).astype(int)
    if (high - low <= 0).any():
        return
    window = frame[low[1] : high[1], low[0] : high[0]]
    size = (high - low).tolist()
    shade = cv2.warpAffine(sprite.shadow, _shifted(place, shadow_xy - low), size)
    _darken(window, _smeared(shade, smear), SHADOW_DEPTH)
    _cover(window, _smeared(cv2.warpAffine(sprite.rgba, _shifted(place, -low), size), smear))


def _darken(canvas: np.ndarray, shade: np.ndarray, depth: float) -> None:
    """Take `depth` of the light from a float picture (h, w, 3) where the shade (h, w) is 255, in place."""
    canvas *= cv2.cvtColor(1 - depth / 255 * shade, cv2.COLOR_GRAY2RGB)


def _cover(canvas: np.ndarray, rgba: np.ndarray) -> None:
    """Put a picture with colours times alpha (h, w, 4) over a float picture (h, w, 3), in place."""
    canvas *= cv2.cvtColor(1 - rgba[..., 3] / 255, cv2.COLOR_GRAY2RGB)
    canvas += cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)


def _alpha(sprite: _Sprite, place: np.ndarray, origin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the cover (h, w) in 0..1 of a sprite in the window of the frame at `origin` of `size` (w, h)."""
    alpha = np.ascontiguousarray(sprite.rgba[..., 3])
    return cv2.warpAffine(alpha, _shifted(place, -origin), size.tolist()) / 255


def _smeared(picture: np.ndarray, smear: np.ndarray) -> np.ndarray:
    """Return the picture blurred along a line, as motion does while the shutter is open."""
    reach = int(np.ceil(np.abs(smear).max() / 2))
    if np.hypot(*smear) < 1.5:
        return picture
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    steps = np.linspace(-0.5, 0.5, 8 * reach + 1)[:, None] * smear + reach
    np.add.at(kernel, (np.rint(steps[:, 1]).astype(int), np.rint(steps[:, 0]).astype(int)), 1)
    return cv2.filter2D(picture, -1, kernel / kernel.sum())


def _table() -> np.ndarray:
    """Return the table top: planks cut from the wood beside the cup and stretched, with prints on them."""
    coffee = _photograph("coffee.png")
    rng = np.random.default_rng(4)
    boards = [_board(coffee, y) for y in (190, 215, 240, 262, 285)]
    rows = []
    for _ in range(-(-TABLE_WH[1] // boards[0].shape[0])):
        board = boards[rng.integers(len(boards))]
        board = board[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        board = np.roll(np.hstack([board, board[:, ::-1]]), rng.integers(board.shape[1]), axis=1)
        rows.append(board * rng.uniform(0.7, 0.95))
    table = np.vstack(rows)[: TABLE_WH[1], : TABLE_WH[0]].astype(np.float32)
    for name, x, y, width, angle in PRINTS:
        _lay(table, _print(name, width), x, y, angle)
    return table.clip(0, 255).astype(np.uint8)


def _board(coffee: np.ndarray, centre_y: int) -> np.ndarray:
    """Return a plank (100, 800, 3): a patch of 90 x 58 pixels at (543, centre_y), turned level and stretched."""
    scale = np.diag([90 / 800, 58 / 100])
    linear = _rotation(-38.5) @ scale
    inverse = np.column_stack([linear, np.array([543, centre_y]) - linear @ (400, 50)])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    board = cv2.warpAffine(coffee, inverse, (800, 100), flags=flags, borderMode=cv2.BORDER_REFLECT)
    from_joint = np.minimum(np.arange(100), np.arange(100)[::-1])
    return board * np.clip(0.25 + from_joint / 3, 0, 1, dtype=np.float32)[:, None, None]


def _lay(table: np.ndarray, printed: np.ndarray, x: float, y: float, angle: float) -> None:
    """Glue a print onto the table, with a thin shadow."""
    sprite = _sprite(printed)
    linear = _rotation(angle)
    place = np.column_stack([linear, np.array([x, y]) - linear @ sprite.middle])
    _darken(table, cv2.warpAffine(sprite.shadow, _shifted(place, (-2, 3)), TABLE_WH), 0.5)
    _cover(table, cv2.warpAffine(sprite.rgba, place, TABLE_WH))


def _print(name: str, width: int) -> np.ndarray:
    """Return a photograph as a paper print with a white border, RGBA."""
    picture = _photograph(name)
    height = round(width * picture.shape[0] / picture.shape[1])
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, 10, 10, 10, 10, cv2.BORDER_CONSTANT, value=(236, 232, 224))
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def _cup() -> np.ndarray:
    """Return the cup with its saucer and spoon, cut out of the photograph: RGBA, CUP_SCALE times its final size."""
    coffee = _photograph("coffee.png")
    mask = np.zeros(coffee.shape[:2], np.uint8)
    saucer, brim = ((278.5, 219), (200.5, 166), 5), ((290.5, 114), (117, 95), 3)
    for centre, axes, angle in (saucer, brim):
        ellipse = cv2.ellipse2Poly((0, 0), (1000, 1000), 0, 0, 360, 3) * np.array(axes) / 1000
        _fill(mask, ellipse @ _rotation(angle).T + centre)
    spoon = [(395, 71), (411, 67), (418, 70), (423, 76), (415, 112), (404, 150), (390, 150)]
    _fill(mask, np.array(spoon))
    cut = np.dstack([coffee, cv2.GaussianBlur(mask, (0, 0), 1.0)])[8:396, 66:492]
    return cv2.resize(cut, None, fx=0.32 * CUP_SCALE, fy=0.32 * CUP_SCALE, interpolation=cv2.INTER_AREA)


def _fill(mask: np.ndarray, points_xy: np.ndarray) -> None:
    """Fill a polygon, given to a sixteenth of a pixel."""
    cv2.fillPoly(mask, [np.rint(points_xy * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)


def _recolour(rgba: np.ndarray) -> np.ndarray:
    """Return the same thing in a slightly darker and more violet red."""
    hsv = cv2.cvtColor(rgba[..., :3], cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] - 4) % 180
    hsv[..., 2] = hsv[..., 2] * 88 // 100
    return np.dstack([cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), rgba[..., 3]])


def _sprite(rgba: np.ndarray, scale: float = 1.0) -> _Sprite:
    """Return a sprite from a cut-out (h, w, 4) with straight alpha."""
    margin = round(24 * scale)
    rgba = cv2.copyMakeBorder(rgba, margin, margin, margin, margin, cv2.BORDER_CONSTANT).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    shadow = cv2.GaussianBlur(np.ascontiguousarray(rgba[..., 3]), (0, 0), margin / 4)
    solid = (rgba[..., 3] > 127).astype(np.uint8)
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rim = cv2.convexHull(np.vstack(contours))[:, 0].astype(np.float64)
    return _Sprite(rgba, shadow, rim - (np.array(shadow.shape[::-1]) - 1) / 2, scale)


def _glow() -> np.ndarray:
    """Return the lamp's light (2 h, 2 w, 3): brightest in the middle, falling off outwards."""
    y, x = np.mgrid[-HEIGHT:HEIGHT, -WIDTH:WIDTH] / WIDTH
    light = 0.78 + 0.34 * np.exp(-(x**2 + y**2) / 0.4)
    return cv2.cvtColor(light.astype(np.float32), cv2.COLOR_GRAY2RGB)


def _photograph(name: str) -> np.ndarray:
    """Return a photograph of scikit-image's wheel as RGB; the package itself is not imported."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise ConfigError("the demo needs the photographs in scikit-image: pip install scikit-image")
    return read_rgb(Path(found.origin).parent / "data" / name)


def _curve(keys: list[tuple]) -> Callable[[float], np.ndarray]:
    """Return a smooth curve through key frames (frame, values ...): cubic Hermite, finite differences as slopes."""
    table = np.array(keys, dtype=np.float64)
    times, values = table[:, 0], table[:, 1:]
    slopes = np.gradient(values, times, axis=0)

    def at(time: float) -> np.ndarray:
        time = min(max(time, times[0]), times[-1])
        left = min(int(np.searchsorted(times, time, side="right")) - 1, len(times) - 2)
        span = times[left + 1] - times[left]
        s = (time - times[left]) / span
        start, end = values[left], values[left + 1]
        rise = s * s * (3 - 2 * s)
        bend = s * (1 - s) * span * ((1 - s) * slopes[left] - s * slopes[left + 1])
        return start + rise * (end - start) + bend

    return at


def _rotation(degrees: float) -> np.ndarray:
    """Return the matrix (2, 2) that turns by an angle, clockwise on the screen."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _apply(affine: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """Return points (k, 2) under an affine map (2, 3)."""
    return points_xy @ affine[:, :2].T + affine[:, 2]


def _shifted(affine: np.ndarray, shift_xy: np.ndarray | tuple[float, float]) -> np.ndarray:
    """Return the affine map followed by a shift."""
    return np.column_stack([affine[:, :2], affine[:, 2] + shift_xy])


if __name__ == "__main__":
    main()
