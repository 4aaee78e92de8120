"""Sources of frames by their name: which are URLs or streams, and how messages name them and their frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def path_or_stdin(source: str) -> str:
    """Return a source as it is named on the command line; "-" is the standard input."""
    return "/dev/stdin" if source == "-" else source


def is_url(source: str) -> bool:
    """Return whether a source is a URL (scheme://...) rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def camera_number(source: str) -> int | None:
    """Return the number of the camera that a source is ("0", "/dev/video0"); None for a file or folder of that name."""
    number = re.fullmatch(r"(/dev/video)?(\d{1,4})", source)
    return None if number is None or (not number[1] and os.path.exists(source)) else int(number[2])


def is_stream(source: object) -> bool:
    """Return whether a source is a camera, a URL, a pipe or an iterator, which cannot go back."""
    if not isinstance(source, (str, os.PathLike)):
        return isinstance(source, (int, Iterator))
    text = os.fspath(source)
    if is_url(text) or camera_number(text) is not None:
        return True
    return os.path.exists(text) and not (os.path.isfile(text) or os.path.isdir(text))


def without_password(url: str) -> str:
    """Return the URL without user and password, for messages and file names."""
    return re.sub(r"//[^/@]*@", "//", url, count=1)


def ranges_text(numbers: list[int]) -> str:
    """Return numbers of frames, in rising order, as ranges.

    >>> ranges_text([4, 7, 8, 9])
    'frames 4, 7-9'
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [f"{low}-{high}" if high > low else str(low) for low, high in ranges]
    more = f" and {len(texts) - 20} more stretches" if len(texts) > 20 else ""
    return ("frame " if len(numbers) == 1 else "frames ") + ", ".join(texts[:20]) + more
