# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Find out what cv_bridge is good for in this process, before anything is converted.

cv_bridge's C++ part is compiled against one numpy. With another it imports and then ends the process by a segmentation
fault at the first conversion. The port of the package index (1.13.0.post0) ignores the padding of rows. So a
child process tries it, against our own table.
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

#: Longest time, in seconds, that a child process may take to try cv_bridge: half a second on a desktop computer, some
#: seconds where a small robot loads it for the first time. A shorter limit would refuse a cv_bridge that works there.
CHECK_S = 30.0
#: Rounding may differ by this much, of 255, between the OpenCV that cv_bridge is linked with and ours.
ROUNDING = 2
#: What this package writes.
WRITTEN = {'rgb8': (np.uint8, 3), 'mono8': (np.uint8, 1), 'mono16': (np.uint16, 1)}
_CHILD = 'import sys; sys.path[:] = sys.argv[1:]; from dynsplit_ros.messages.bridge import check; check()'


@dataclass(frozen=True)
class Bridge:
    """
    cv_bridge, as far as it works here.

    ``encodings`` are those that it converts; none where our own table converts all. ``words`` say which converter is
    in use and why, for logs and diagnostics; ``broken`` tells that cv_bridge is installed and cannot be used.
    """

    words: str
    broken: bool = False
    encodings: frozenset[str] = frozenset()
    cv: Any = None

    def to_rgb(self, message: Image, bits: int = 16) -> np.ndarray | None:
        """Return uint8 [height, width, 3], RGB, None for what cv_bridge refuses or would get wrong."""
        if message.encoding not in self.encodings:
            return None
        encoding = PACKED[message.encoding]
        # It takes each row for whole pixels, wants the padding of the last one, and scales all 16 bits.
        if (message.step % encoding.pixel_bytes or len(message.data) < message.step * message.height
                or encoding.dtype is np.uint16 and bits < 16):
            return None
        return _or_none(lambda: self.cv.imgmsg_to_cv2(message, 'rgb8'))

    def to_message(self, image: np.ndarray, encoding: str) -> Image | None:
        """Return an array as an Image, None for what cv_bridge refuses."""
        return None if self.cv is None else _or_none(lambda: self.cv.cv2_to_imgmsg(image, encoding))


def _or_none(convert: Callable[[], Any]) -> Any:
    try:
        return convert()
    except Exception:  # our table converts it, or says what is wrong with it
        return None


@functools.cache
def bridge() -> Bridge:
    """Return what cv_bridge is good for; the first call takes as long as a child process needs to try it."""
    if importlib.util.find_spec('cv_bridge') is None:
        return Bridge('own table (cv_bridge is not installed)')
    try:
        child = subprocess.run([sys.executable, '-c', _CHILD, *sys.path], stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, errors='replace', timeout=CHECK_S)
    except subprocess.TimeoutExpired:
        return _unusable(f'it converted no image within {CHECK_S:g} s')
    except OSError as error:  # no memory or no process is left, or Python's own file has gone
        return _unusable(f'the process that tries it did not start: {error.strerror or error}')
    if child.returncode < 0:
        return _unusable(f'it crashes ({signal.Signals(-child.returncode).name}), as one does that was built for '
                         f'another numpy than {np.__version__}')
    if child.returncode or not child.stdout:
        return _unusable((child.stderr.strip().splitlines() or ['it ended without a result'])[-1][:200])
    try:
        from cv_bridge import CvBridge
        return Bridge('cv_bridge', False, frozenset(json.loads(child.stdout.splitlines()[-1])), CvBridge())
    except Exception as error:  # it needs not import here because it did there, without torch
        return _unusable(' '.join(str(error).split())[:200])


def announce(logger: Any) -> None:
    """Find out which converter is in use, and log it."""
    found = bridge()
    (logger.warning if found.broken else logger.info)(f'images are converted by: {found.words}')


def _unusable(why: str) -> Bridge:
    return Bridge(f'own table (cv_bridge cannot be used: {why})', True)


def check() -> None:
    """Print the encodings that cv_bridge converts as our table does; in a process of its own, which it may crash."""
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
    os._exit(0)  # what happens at the interpreter's end does not matter


def attempt(converter: Any, message: Image) -> np.ndarray | None:
    """Return what cv_bridge makes of an image, None where it refuses it."""
    return _or_none(lambda: np.asarray(converter.imgmsg_to_cv2(message, 'rgb8')))


def is_close(image: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether two images are the same, but for rounding."""
    return image.shape == expected.shape and image.dtype == expected.dtype and bool(
        np.abs(image.astype(int) - expected).max() <= ROUNDING)


def samples(encoding: str) -> Iterator[Image]:
    """Yield images of random bytes: rows with and without padding, both byte orders, odd sizes where there are such."""
    pairs = encoding.startswith(('yuv', 'uyvy'))
    pixel = PACKED[encoding].pixel_bytes
    for height, width in ((6, 10), (4, 6) if pairs else (5, 7)):
        for padding in (0, 2 * pixel):
            for is_bigendian in (False, True):
                step = width * pixel + padding
                data = np.random.default_rng(0).integers(0, 256, height * step, np.uint8)
                yield Image(height=height, width=width, encoding=encoding, step=step, is_bigendian=is_bigendian,
                            data=array.array('B', data.tobytes()))
