# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Images for those without a camera: photographs to pan across, image files, a video file, a webcam."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.errors import DynsplitError, in_one_sentence

IMAGE_SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'}


class Source:
    """A stream of images, and what it is called."""

    name: str

    def at(self, stamp_ns: int) -> NDArray[np.uint8]:
        """Return the image for an instant: uint8 [height, width, 3], RGB; DynsplitError where there is none."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the source holds."""


def open_source(path: str, width: int, height: int) -> Source:
    """
    Open what ``path`` names: an image file, a folder of them, a video file, the number of a webcam.

    An empty path pans across photographs. Images come out as ``width`` x ``height`` pixels. Raises DynsplitError for
    what cannot be opened.
    """
    if not path:
        return Panorama(width, height)
    with in_one_sentence(f'path {path[:200]!r} cannot be played', 'name an image, a folder, a video or a webcam'):
        return _open(path, width, height)


def _open(path: str, width: int, height: int) -> Source:
    if path.isascii() and path.isdigit():
        return Video(int(path), width, height)
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(
            file for file in place.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_fifo()
        )  # OpenCV would wait for a pipe
        if not files:
            raise DynsplitError(
                f'the folder {place} has no image; name one with files ending in ' + ', '.join(sorted(IMAGE_SUFFIXES))
            )
        return Images(files, width, height)
    if not place.is_file():
        raise DynsplitError(
            f'{path!r} is neither a file nor a folder nor the number of a webcam; name one of these, '
            'or leave it empty to pan across photographs'
        )
    if place.suffix.lower() in IMAGE_SUFFIXES:
        return Images([place], width, height)
    return Video(str(place), width, height)


class Panorama(Source):
    """
    A window that moves across photographs of scikit-image, one after the other: a cup of coffee, a cat, a rocket.

    The picture at an instant depends on the instant alone, so that another process can make the same one again. All
    three are free to publish: ``coffee`` (CC0, Rachel Michetti), ``chelsea`` (CC0, Stéfan van der Walt), ``rocket``
    (public domain, SpaceX).
    """

    PHOTOGRAPHS = ('coffee', 'chelsea', 'rocket')
    #: Seconds for which each photograph is shown. The window returns to its start in that time, and moves up and down
    #: so many times meanwhile.
    SHOWN_S = 5.0
    ROUNDS = 2
    #: Side of the photograph over that of the window. More would move the object out of the window.
    ENLARGED = 1.25

    def __init__(self, width: int, height: int) -> None:
        from skimage import data  # only here: 0.1 s that nobody with a camera should wait for

        self.name = f"scikit-image's photographs {', '.join(self.PHOTOGRAPHS)}"
        self._width, self._height = width, height
        self._photographs = [self._enlarged(getattr(data, name)()) for name in self.PHOTOGRAPHS]

    def _enlarged(self, photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
        scale = self.ENLARGED * max(self._width / photograph.shape[1], self._height / photograph.shape[0])
        size = (math.ceil(photograph.shape[1] * scale), math.ceil(photograph.shape[0] * scale))
        return _resized(photograph, size, cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)

    def shown(self, stamp_ns: int) -> str:
        """Return the name of the photograph that is shown at an instant."""
        return self.PHOTOGRAPHS[self._number(stamp_ns)]

    def _number(self, stamp_ns: int) -> int:
        return stamp_ns // round(self.SHOWN_S * 1e9) % len(self.PHOTOGRAPHS)

    def at(self, stamp_ns: int) -> NDArray[np.uint8]:
        """Return the window's picture at an instant."""
        photograph = self._photographs[self._number(stamp_ns)]
        phase = 2 * math.pi * (stamp_ns % round(self.SHOWN_S * 1e9)) / (self.SHOWN_S * 1e9)
        room_y = photograph.shape[0] - self._height
        room_x = photograph.shape[1] - self._width
        x = round(room_x * (1 - math.cos(phase)) / 2)
        y = round(room_y * (1 - math.cos(self.ROUNDS * phase)) / 2)
        return photograph[y : y + self._height, x : x + self._width]


class Images(Source):
    """Image files, one after the other, for ever."""

    def __init__(self, files: list[Path], width: int, height: int) -> None:
        self.name = str(files[0]) if len(files) == 1 else f'{len(files)} images of {files[0].parent}'
        self._files = files
        self._size = (width, height)
        self._next = 0
        self._read: dict[Path, NDArray[np.uint8]] = {}

    def at(self, stamp_ns: int) -> NDArray[np.uint8]:
        """Return the next file's image; raise DynsplitError where it cannot be read."""
        file = self._files[self._next % len(self._files)]
        self._next += 1
        if file in self._read:
            return self._read[file]
        found = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if found is None:
            raise DynsplitError(f'{file} cannot be read as an image; remove it from the folder or repair it')
        image = _resized(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), self._size)
        if len(self._files) <= 100:  # a small folder stays in memory, a large one would fill it
            self._read[file] = image
        return image


class Video(Source):
    """A video file, played again from its start at its end, or a webcam."""

    def __init__(self, which: str | int, width: int, height: int) -> None:
        self.name = f'webcam {which}' if isinstance(which, int) else str(which)
        self._which = which
        self._size = (width, height)
        self._capture = cv2.VideoCapture(which)
        if not self._capture.isOpened():
            raise DynsplitError(f'{self.name} cannot be opened; check that it is there and that OpenCV can play it')

    def at(self, stamp_ns: int) -> NDArray[np.uint8]:
        """Return the next image; raise DynsplitError where none comes."""
        there, image = self._capture.read()
        if not there and isinstance(self._which, str):
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            there, image = self._capture.read()
        if not there:
            raise DynsplitError(f'{self.name} gives no image; check that no other program uses it')
        return _resized(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self._size)

    def close(self) -> None:
        """Give the file or the webcam back."""
        self._capture.release()


def _resized(image: Any, size: tuple[int, int], interpolation: int = cv2.INTER_AREA) -> NDArray[np.uint8]:
    """Return an image at ``size`` (width, height), itself where it has that."""
    fits = (image.shape[1], image.shape[0]) == size
    return np.asarray(image if fits else cv2.resize(image, size, interpolation=interpolation), np.uint8)
