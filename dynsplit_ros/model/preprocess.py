# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Divide a model's own preprocessing in two: the resized 8-bit image, and everything behind it.

What a camera sends at split 0 is the 8-bit image, so the first half (:class:`Resize`) runs where the camera
is. The second half (:class:`Normalise`) is part of the model's graph, and so the same operations serve every
split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dynsplit_ros.errors import DynsplitError

#: A strip of which less than 1 in so many parts would be cut out is refused: scaled up, it fills the memory.
MOST_CUT = 32


@dataclass(frozen=True)
class Placement:
    """
    Where a camera image of ``source`` lies in a network's input of ``size``, all (height, width) in pixels.

    The image is scaled to ``scaled``, and the centre of that is the input. Positions count from the upper left
    corner of the upper left pixel, whose own centre is at (0.5, 0.5), as torchvision's boxes and keypoints do.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Source pixels along one pixel of the input: down, across."""
        return self.source[0] / self.scaled[0], self.source[1] / self.scaled[1]

    @property
    def offset(self) -> tuple[int, int]:
        """Rows and columns that are cut away above and to the left, as torchvision's ``center_crop`` does it."""
        top, left = (round((scaled - size) / 2) if scaled >= size else -((size - scaled) // 2)
                     for scaled, size in zip(self.scaled, self.size))
        return top, left

    def to_source(self, points_xy: torch.Tensor) -> torch.Tensor:
        """Return positions of the input, float [..., 2] with x first, as positions of the camera image."""
        return (points_xy + torch.tensor(self.offset[::-1])) * torch.tensor(self.scale[::-1])

    def lines(self, axis: int, count: int) -> NDArray[np.int64]:
        """
        Return, for each row (``axis`` 0) or column (1) of the camera image, where its centre lies in an output map.

        The map has ``count`` rows or columns over the input's whole height or width. Ascending; below 0 or at
        least ``count`` where the centre was cut away.
        """
        source, scaled, size = self.source[axis], self.scaled[axis], self.size[axis]
        centres = (2 * np.arange(source, dtype=np.int64) + 1) * scaled - 2 * source * self.offset[axis]
        return centres * count // (2 * source * size)  # whole numbers: exact

    def sample(self, values: NDArray[Any], outside: int) -> NDArray[Any]:
        """
        Return an output map [h, w] over the input as one over the camera image, [height, width].

        Each pixel takes the value at its centre, and ``outside`` where that was cut away.
        """
        rows, columns = self.lines(0, values.shape[0]), self.lines(1, values.shape[1])
        spread = values.take(rows, 0, mode='clip').take(columns, 1, mode='clip')
        spread[(rows < 0) | (rows >= values.shape[0])] = outside
        spread[:, (columns < 0) | (columns >= values.shape[1])] = outside
        return spread


@dataclass(frozen=True)
class Resize:
    """
    How a camera's image becomes the model's 8-bit input of ``size`` (height, width).

    With ``cover`` the image is first scaled, its aspect ratio kept, until it covers ``cover`` (height,
    width), and then its centre is cut out, which is what torchvision's ``ImageClassification`` does. Without
    it, the image is scaled to ``size`` directly, so that every pixel of the camera has its place in a dense
    output.
    """

    size: tuple[int, int]
    cover: tuple[int, int] | None = None
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    antialias: bool = True

    def __call__(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """
        Return the contiguous uint8 tensor [3, height, width] of ``image``, RGB uint8 [height, width, 3].

        The result is that of torchvision's ``transforms.v2`` on uint8, to the bit. With AVX2 it computes in 8 bits, on
        the camera's own memory layout; elsewhere it goes through float32, and some pixels differ by 1. Nothing
        depends on that, because only the robot resizes: at split 0 it sends the resized image.

        :raises DynsplitError: when ``image`` is of another type or shape, or a thin strip.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise DynsplitError(
                f'an image of type {image.dtype} and shape {image.shape} was given, but the model takes RGB'
                ' uint8 [height, width, 3]; convert it first'
            )
        # Writable, because torch warns of any other array: the images of messages are not. Channels stay innermost.
        tensor = torch.from_numpy(np.require(image, requirements=['C', 'W'])).permute(2, 0, 1)
        scaled = self.placement(*tensor.shape[1:]).scaled
        if max(have / wanted for have, wanted in zip(scaled, self.size)) > MOST_CUT:
            raise DynsplitError(
                f'an image of {tensor.shape[2]}x{tensor.shape[1]} pixels was given, but less than 1/{MOST_CUT} of it'
                ' would be left in the centre that the network sees; crop it first'
            )
        if scaled != tuple(tensor.shape[1:]):
            tensor = functional.resize(tensor, list(scaled), self.interpolation, antialias=self.antialias)
        if scaled != self.size:
            tensor = functional.center_crop(tensor, list(self.size))
        return tensor.contiguous()

    def placement(self, height: int, width: int) -> Placement:
        """Return where the pixels of an image of ``height`` x ``width`` end up."""
        if self.cover is None:
            return Placement((height, width), self.size, self.size)
        # The same truncation as torchvision's resize to a shorter side, so that both agree to the pixel.
        rows, columns = self.cover
        if height * columns <= width * rows:
            return Placement((height, width), (rows, int(rows * width / height)), self.size)
        return Placement((height, width), (int(columns * height / width), columns), self.size)


class Normalise(nn.Module):
    """
    Turn a uint8 image [N, 3, H, W] into what the model takes: float32, ``(image / 255 - mean) / std`` per channel.

    The arithmetic is that of torchvision's ``convert_image_dtype`` and ``normalize``, in the same order, so
    that the result is the same to the bit. ``mean`` of ``None`` leaves out the second step (detectors
    normalise by themselves).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        self.shifts = mean is not None
        if mean is not None and std is not None:
            if len(mean) != 3 or len(std) != 3 or 0.0 in std or not all(map(math.isfinite, (*mean, *std))):
                raise DynsplitError(
                    f'mean {list(mean)} and std {list(std)} were given, but each takes three finite numbers, and'
                    ' none of std may be 0; give one per channel'
                )
            self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
            self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the float image [N, 3, H, W] of a uint8 one."""
        values = image.to(torch.float32) / 255
        if not self.shifts:
            return values
        return values.sub_(self.mean).div_(self.std)
