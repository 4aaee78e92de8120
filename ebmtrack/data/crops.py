"""Search-region crops: the one place where image coordinates become crop coordinates, in tracking and in training.

Points and sizes of the tracker are (y, x), as in pytracking; boxes are x, y, w, h. See ebmtrack/boxes.py for the pixel
convention.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from ebmtrack.errors import ConfigError

BORDERS = ("replicate", "inside_major")  # of crops while tracking
WINDOW_BORDERS = ("replicate", "inside", "inside_major")  # of training crops
OPENCV_SIDE = 2**15  # from which on warpAffine refuses images
RULES = ("head", "pre2022")  # how pytracking divides when it cuts: as float since May 2022, as integer before


@dataclasses.dataclass(frozen=True)
class Crop:
    """A patch cut from an image and resized.

    patch: (height, width, 3) uint8. top_left_yx, bottom_right_yx (exclusive): the window in image pixels, unrounded.
    """

    patch: np.ndarray
    top_left_yx: tuple[float, float]
    bottom_right_yx: tuple[float, float]

    @property
    def centre_yx(self) -> np.ndarray:
        """Centre of the window in image pixels, (2,)."""
        return (np.add(self.top_left_yx, self.bottom_right_yx) - 1) / 2

    @property
    def scale(self) -> float:
        """Image pixels per patch pixel, geometric mean of both axes."""
        extent = np.subtract(self.bottom_right_yx, self.top_left_yx)
        return float(np.sqrt(np.prod(extent / self.patch.shape[:2])))

    @property
    def window_xywh(self) -> tuple[float, float, float, float]:
        """The window as a box in image pixels."""
        (y0, x0), (y1, x1) = self.top_left_yx, self.bottom_right_yx
        return x0, y0, x1 - x0, y1 - y0


@dataclasses.dataclass(frozen=True)
class CropMap:
    """The map between an image and a square crop: the one place where their coordinates meet.

    Image positions are (y, x) with pixel centres at integers; image sizes are (h, w). Crop boxes are x, y, w, h in crop
    pixels, of which the crop covers 0..side.

    centre_yx: the crop's centre in the image, (2,).
    scale: image pixels per crop pixel, one number or those in y and in x, (2,).
    side: the crop's side in crop pixels.
    shift: crop pixels by which `to_image` goes too far down and to the right (0.5 in pytracking, else 0).
    """

    centre_yx: np.ndarray
    scale: float | np.ndarray
    side: int
    shift: float = 0.0

    @classmethod
    def of_window(cls, window_xywh: tuple[float, float, float, float], side: int) -> CropMap:
        """Return the map of a window of the image that is resampled to side x side pixels."""
        x, y, w, h = window_xywh
        return cls(np.array([y + (h - 1) / 2, x + (w - 1) / 2]), np.array([h, w]) / side, side)

    def to_crop(self, position_yx: np.ndarray, size_hw: np.ndarray) -> np.ndarray:
        """Return the boxes (..., 4) in the crop of image positions (..., 2) and sizes (..., 2)."""
        size = size_hw / self.scale
        corner = (position_yx - self.centre_yx) / self.scale + (self.side - 1) / 2 - (size - 1) / 2
        return np.concatenate([corner[..., ::-1], size[..., ::-1]], axis=-1)

    def to_image(self, boxes_xywh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the image positions (..., 2) and sizes (..., 2) of boxes (..., 4) in the crop."""
        boxes = np.asarray(boxes_xywh, np.float64)
        sizes, middle = boxes[..., :1:-1], self.side / 2 - self.shift
        return (boxes[..., 1::-1] + sizes / 2 - middle) * self.scale + self.centre_yx, sizes * self.scale


def crop_around(
    image: np.ndarray,
    centre_yx: tuple[float, float],
    side_yx: tuple[float, float],
    output_yx: tuple[int, int],
    border: str = "replicate",
    max_scale_change: float = 1.5,
    rule: str = "head",
) -> Crop:
    """Cut a window of `side_yx` image pixels around `centre_yx` and resize it to `output_yx`.

    border "replicate" repeats the image's edge outside; "inside_major" first shrinks the window (by `max_scale_change`
    at most) and moves it inside. rule "head" cuts as pytracking does today: for an even side whose corner is inside
    the image one pixel more per axis, resampled down; "pre2022" cuts as it did before May 2022.
    """
    if border not in BORDERS or rule not in RULES:
        raise ConfigError(f"border must be one of {BORDERS} and rule one of {RULES}, got {border!r} and {rule!r}")
    centre = np.trunc(np.asarray(centre_yx, np.float64))
    side = np.asarray(side_yx, np.float64)
    if border == "inside_major":
        side = np.floor(side / np.clip((side / image.shape[:2]).min(), 1.0, max_scale_change))
    stride = max(1, int((side / output_yx).min() - 0.1))
    if stride > 1:
        image, centre, side = _reduce(image, centre, side, stride, rule)
    low, high = _window(centre, np.maximum(2, np.round(side)), rule)
    if border == "inside_major":
        low, high = _move_inside(low, high, -(-np.asarray(image.shape[:2]) // stride))
    patch = _cut(image, low, high, stride)
    if patch.shape[:2] != tuple(output_yx):
        patch = cv2.resize(patch, (output_yx[1], output_yx[0]), interpolation=cv2.INTER_LINEAR)
    return Crop(np.ascontiguousarray(patch), tuple(stride * low), tuple(stride * high))


def _reduce(image, centre, side, stride: int, rule: str):
    """Leave out rows and columns before those in step with the centre; the last one if that leaves none."""
    offset = (centre % stride).astype(int)
    centre = (centre - offset) / stride if rule == "head" else (centre - offset) // stride
    top, left = np.minimum(offset, np.subtract(image.shape[:2], 1))
    return image[top:, left:], centre, side / stride


def take_every(image: np.ndarray, stride: int) -> np.ndarray:
    """Return every stride-th row and column of an image (h, w, 3), from the first on: image[::stride, ::stride].

    OpenCV's resize does that in a quarter of NumPy's time, for images of less than 2^15 pixels a side. It does not wake
    OpenCV's threads, as warpAffine does, which go on spinning for half a millisecond and take a core from the network.
    """
    taken, (h, w) = image[::stride, ::stride], (side // stride for side in image.shape[:2])
    is_exact = 1 / (1 / stride) >= stride  # how OpenCV rounds a scale: it must not come before the pixel
    if max(image.shape[:2]) >= OPENCV_SIDE or image.dtype != np.uint8 or not (h and w and is_exact):
        return taken
    whole = cv2.resize(image[: h * stride, : w * stride], (w, h), interpolation=cv2.INTER_NEAREST)
    if whole.shape == taken.shape:
        return whole
    every = np.empty(taken.shape, np.uint8)
    every[:h, :w], every[h:], every[:h, w:] = whole, taken[h:], taken[:h, w:]
    return every


def _window(centre: np.ndarray, side: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Return top left and exclusive bottom right corner of a window of whole side lengths."""
    if rule == "head":
        return centre - (side - 1) / 2, centre + side / 2 + 1
    return centre - (side - 1) // 2, centre + side // 2 + 1


def _move_inside(low: np.ndarray, high: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift a window into an image of `size`; if it does not fit, share the excess between both ends."""
    shift = np.maximum(-low, 0) - np.maximum(high - size, 0)
    low, high = low + shift, high + shift
    excess = np.floor((np.maximum(-low, 0) + np.maximum(high - size, 0)) / 2)
    shift = np.where(excess > 0, -low - excess, 0)
    return low + shift, high + shift


def _cut(image: np.ndarray, low: np.ndarray, high: np.ndarray, stride: int = 1) -> np.ndarray:
    """Cut the window with whole coordinates (truncated towards zero), the image's edge repeated outside of it.

    Coordinates count every stride-th row and column of the image.
    """
    (y0, x0), (y1, x1) = low.astype(int), high.astype(int)
    h, w = (-(-side // stride) for side in image.shape[:2])
    top, left = min(max(y0, 0), h - 1), min(max(x0, 0), w - 1)
    bottom, right = max(min(y1, h), top + 1), max(min(x1, w), left + 1)
    inside = image[top * stride : bottom * stride, left * stride : right * stride]
    inside = inside if stride == 1 else take_every(inside, stride)
    if y0 >= 0 and x0 >= 0 and y1 <= h and x1 <= w:
        return inside
    above, before = min(max(-y0, 0), y1 - y0 - 1), min(max(-x0, 0), x1 - x0 - 1)
    below, after = y1 - y0 - above - inside.shape[0], x1 - x0 - before - inside.shape[1]
    return cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_REPLICATE)


def crop_window(image: np.ndarray, window_xywh: tuple[float, float, float, float], output: int) -> np.ndarray:
    """Resample any window of the image (fractions of pixels, own scale per axis) to output x output, edge repeated.

    For training. Large windows are averaged down (area), others interpolated.
    """
    x, y, w, h = window_xywh
    low, high = np.floor([y, x]), np.ceil([y + h, x + w])
    patch = _cut(image, low, np.maximum(high, low + 2))
    shrink = max(w, h) / output
    if shrink > 1.5:
        cells = [max(1, round(side / min(shrink, 4.0))) for side in patch.shape[1::-1]]
        patch = cv2.resize(patch, cells, interpolation=cv2.INTER_AREA)  # by size, not factor: that would shift pixels
    sy, sx = np.array(patch.shape[:2]) / (np.maximum(high, low + 2) - low)
    ax, ay = sx * w / output, sy * h / output  # patch pixels per output pixel
    move = np.array([[ax, 0, sx * (x - low[1]) + 0.5 * ax - 0.5], [0, ay, sy * (y - low[0]) + 0.5 * ay - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(patch, move, (output, output), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def whole_window(
    window_xywh: tuple[float, float, float, float],
    image_wh: tuple[int, int],
    border: str = "replicate",
    max_scale_change: float = 1.5,
) -> tuple[int, int, int, int]:
    """Return a square window of whole pixels (x, y, side, side) for a search region, as in DiMP's training.

    Args:
        window_xywh: The search region.
        image_wh: Width and height of the image.
        border: "replicate" leaves the window where it is, so that it is padded (DiMP of 2019, ATOM). "inside" shifts it
            into the image and centres it in an axis in which it is too large: what pytracking does in its mode
            `replicate` since April 2020. "inside_major" first shrinks a window that is larger than the image in both
            axes until one of them fits.
        max_scale_change: The factor by which "inside_major" shrinks at most.

    Raises:
        ConfigError: For another border.
    """
    x, y, w, h = window_xywh
    centre, side, size = np.array([x + w / 2, y + h / 2]), float(max(w, h)), np.asarray(image_wh)
    if border not in WINDOW_BORDERS:
        raise ConfigError(f"border must be one of {WINDOW_BORDERS}, got {border!r}")
    if border == "inside_major":
        side = math.floor(side / min(max((side / size).min(), 1.0), max_scale_change))
    low = np.round(centre - side / 2)
    if border != "replicate":
        low, _ = _move_inside(low, low + side, size)
    return int(low[0]), int(low[1]), int(side), int(side)


def crop_whole_window(image: np.ndarray, window_xywh: tuple[float, float, float, float], output: int) -> np.ndarray:
    """Cut a window of whole pixels and resize it to output x output, bilinear and without averaging, edge repeated.

    As in DiMP's training: a window that reaches the image's right or lower end loses the last column or row there and
    repeats the one before it once more.
    """
    x, y, w, h = window_xywh
    patch = _cut(image[: max(image.shape[0] - 1, 1), : max(image.shape[1] - 1, 1)], *np.array([[y, x], [y + h, x + w]]))
    return cv2.resize(np.ascontiguousarray(patch), (output, output), interpolation=cv2.INTER_LINEAR)


def box_in_window(box_xywh: np.ndarray, window_xywh: tuple[float, float, float, float], output: int) -> np.ndarray:
    """Return a box (4,) of the image in the pixels of `crop_window`'s patch, x, y, w, h."""
    box = np.asarray(box_xywh, np.float64)
    size_hw = box[:1:-1]
    return CropMap.of_window(window_xywh, output).to_crop(box[1::-1] + (size_hw - 1) / 2, size_hw)


def search_side(size_wh: tuple[float, float] | np.ndarray, search_factor: float) -> float:
    """Return the side of the square search region of a target: ceil(sqrt(w h) * factor), as in DiMP's training."""
    return math.ceil(math.sqrt(size_wh[0] * size_wh[1]) * search_factor)
