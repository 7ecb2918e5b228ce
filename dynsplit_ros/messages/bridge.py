# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Finds out, before the first conversion, which encodings cv_bridge converts correctly in this process.

The C++ part of cv_bridge is compiled against one version of numpy. With another version, the import works, but the
first conversion ends the process with a segmentation fault. The port in the package index (1.13.0.post0) ignores the
padding of rows. So a child process tries cv_bridge and compares it with our own table.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
import functools
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from dynsplit_ros.messages.encodings import by_table, from_array, PACKED

#: Longest time, in seconds, for which the child process may try cv_bridge. It needs half a second on a desktop computer
#: and some seconds for the first import on a small robot. A shorter limit would refuse a working cv_bridge there.
CHECK_S = 30.0
#: Largest difference (of 255) by which the OpenCV of cv_bridge may round differently from ours. With 0, a working
#: cv_bridge is refused; with more, wrong colours pass.
ROUNDING = 2
#: The encodings that this package writes.
WRITTEN = {'rgb8': (np.uint8, 3), 'mono8': (np.uint8, 1), 'mono16': (np.uint16, 1)}
_CHILD = 'import sys; sys.path[:] = sys.argv[1:]; from dynsplit_ros.messages.bridge import check; check()'


@dataclass(frozen=True)
class Bridge:
    """
    The usable part of cv_bridge.

    ``encodings`` are the encodings that it converts, empty if our own table converts all. ``words`` say for logs and
    diagnostics which converter is in use and why. ``broken`` says that cv_bridge is installed but cannot be used.
    """

    words: str
    broken: bool = False
    encodings: frozenset[str] = frozenset()
    cv: Any = None

    def to_rgb(self, message: Image, bits: int = 16) -> np.ndarray | None:
        """Return uint8 [height, width, 3], RGB; None for images that cv_bridge refuses or would convert wrongly."""
        if message.encoding not in self.encodings:
            return None
        encoding = PACKED[message.encoding]
        # cv_bridge expects whole pixels in each row and the padding of the last row, and always scales 16 bits.
        if (
            message.step % encoding.pixel_bytes
            or len(message.data) < message.step * message.height
            or encoding.dtype is np.uint16
            and bits < 16
        ):
            return None
        return _or_none(lambda: self.cv.imgmsg_to_cv2(message, 'rgb8'))

    def to_message(self, image: np.ndarray, encoding: str) -> Image | None:
        """Return an array as an Image, None if cv_bridge refuses it."""
        return None if self.cv is None else _or_none(lambda: self.cv.cv2_to_imgmsg(image, encoding))


def _or_none(convert: Callable[[], Any]) -> Any:
    try:
        return convert()
    except Exception:  # our table converts the image or reports the error
        return None


@functools.cache
def bridge() -> Bridge:
    """Return the usable part of cv_bridge; the first call waits for a child process that tries it."""
    if importlib.util.find_spec('cv_bridge') is None:
        return Bridge('own table (cv_bridge is not installed)')
    try:
        child = subprocess.run(
            [sys.executable, '-c', _CHILD, *sys.path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=CHECK_S,
        )
    except subprocess.TimeoutExpired:
        return _unusable(f'it converted no image within {CHECK_S:g} s')
    except OSError as error:  # no memory, no free process, or no Python executable
        return _unusable(f'the process that tries it did not start: {error.strerror or error}')
    if child.returncode < 0:
        return _unusable(
            f'it crashes ({signal.Signals(-child.returncode).name}), as one does that was built for '
            f'another numpy than {np.__version__}'
        )
    if child.returncode or not child.stdout:
        return _unusable((child.stderr.strip().splitlines() or ['it ended without a result'])[-1][:200])
    try:
        from cv_bridge import CvBridge

        return Bridge('cv_bridge', False, frozenset(json.loads(child.stdout.splitlines()[-1])), CvBridge())
    except Exception as error:  # the import can fail here although it worked in the child, which has no torch
        return _unusable(' '.join(str(error).split())[:200])


def announce(logger: Any) -> None:
    """Log which converter is in use."""
    found = bridge()
    (logger.warning if found.broken else logger.info)(f'images are converted by: {found.words}')


def _unusable(why: str) -> Bridge:
    return Bridge(f'own table (cv_bridge cannot be used: {why})', True)


def check() -> None:
    """Print the encodings that cv_bridge converts like our table; runs in a child process, which may crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from cv_bridge import CvBridge

    converter = CvBridge()
    taken = []
    for encoding in PACKED:
        images = [attempt(converter, message) for message in samples(encoding)]
        for message, image in zip(samples(encoding), images):
            if image is not None and not is_close(image, by_table(message)):
                sys.exit(f'it converts {encoding} wrongly')
        if all(image is not None for image in images):
            taken.append(encoding)
    if not taken:
        sys.exit('it converts no encoding')
    for encoding, (dtype, channels) in WRITTEN.items():
        image = np.arange(6 * 10 * channels, dtype=dtype).reshape(6, 10, *((channels,) if channels > 1 else ()))
        if converter.cv2_to_imgmsg(image, encoding) != from_array(image, encoding):
            sys.exit(f'it writes {encoding} wrongly')
    print(json.dumps(taken), flush=True)
    os._exit(0)  # skip the interpreter's cleanup, which could crash


def attempt(converter: Any, message: Image) -> np.ndarray | None:
    """Return the image that cv_bridge converts, None if it refuses."""
    return _or_none(lambda: np.asarray(converter.imgmsg_to_cv2(message, 'rgb8')))


def is_close(image: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether two images are equal except for rounding."""
    return (
        image.shape == expected.shape
        and image.dtype == expected.dtype
        and bool(np.abs(image.astype(int) - expected).max() <= ROUNDING)
    )


def samples(encoding: str) -> Iterator[Image]:
    """Yield images of random bytes: rows with and without padding, both byte orders, odd sizes where they exist."""
    pairs = encoding.startswith(('yuv', 'uyvy'))
    pixel = PACKED[encoding].pixel_bytes
    for height, width in ((6, 10), (4, 6) if pairs else (5, 7)):
        for padding in (0, 2 * pixel):
            for is_bigendian in (False, True):
                step = width * pixel + padding
                data = np.random.default_rng(0).integers(0, 256, height * step, np.uint8)
                yield Image(
                    height=height,
                    width=width,
                    encoding=encoding,
                    step=step,
                    is_bigendian=is_bigendian,
                    data=array.array('B', data.tobytes()),
                )
