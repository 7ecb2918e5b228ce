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

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dynsplit_ros.errors import DynsplitError

#: A strip of which less than 1 in so many parts would be cut out is refused: scaled up, it fills the memory.
MOST_CUT = 32
#: The channels that a network takes, and how many they are. The robot converts to grey before it sends an image; the
#: order of bgr is part of the network, because the image codecs expect RGB.
CHANNELS = {'rgb': 3, 'bgr': 3, 'grey': 1, 'rgba': 4}
#: How an image becomes the network's input, see :class:`Resize`.
RESIZES = ('stretch', 'crop', 'letterbox', 'short_side')
INTERPOLATIONS = {
    'nearest': InterpolationMode.NEAREST_EXACT,
    'bilinear': InterpolationMode.BILINEAR,
    'bicubic': InterpolationMode.BICUBIC,
}
#: Height and width of most cameras' images; the input size of a network that keeps the aspect ratio fits them.
COMMON_IMAGE = 720, 1280
#: Grey of the padding that YOLO networks are trained with.
LETTERBOX_GREY = 114


@dataclass(frozen=True)
class Placement:
    """
    Where a camera image of ``source`` lies in a network's input of ``size``, all (height, width) in pixels.

    The image is scaled to ``scaled``, and then ``offset`` rows and columns are cut away above and to the left, or, if
    negative, added. Positions count from the upper left corner of the upper left pixel, whose own centre is at
    (0.5, 0.5), as torchvision's boxes and keypoints do.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.offset is None:  # the centre, as torchvision's center_crop takes it
            top, left = (
                round((scaled - size) / 2) if scaled >= size else -((size - scaled) // 2)
                for scaled, size in zip(self.scaled, self.size)
            )
            object.__setattr__(self, 'offset', (top, left))

    @property
    def scale(self) -> tuple[float, float]:
        """Source pixels along one pixel of the input: down, across."""
        return self.source[0] / self.scaled[0], self.source[1] / self.scaled[1]

    @property
    def padded(self) -> bool:
        """Whether a part of the input shows nothing of the image."""
        return any(scaled < size for scaled, size in zip(self.scaled, self.size))

    def clip(self, points_xy: torch.Tensor) -> torch.Tensor:
        """Return positions of the camera image, those in the padding moved to the image's edge; NaN stays."""
        if not self.padded:
            return points_xy
        return torch.minimum(points_xy.clamp(min=0), torch.tensor(self.source[::-1], dtype=points_xy.dtype))

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

    def sample(self, values: NDArray[Any], outside: float) -> NDArray[Any]:
        """
        Return an output map [h, w, …] over the input as one over the camera image, [height, width, …].

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

    There are four ways (:data:`RESIZES`); :func:`resize_of` names them:

    - *stretch*: the image is scaled to ``size`` directly. Every pixel of the camera has its place in a dense output.
    - *crop*, with ``cover``: the image is scaled, its aspect ratio kept, until it covers ``cover`` (height, width), and
      the centre is cut out, which is what torchvision's ``ImageClassification`` does.
    - *letterbox*, with ``pad`` ``'around'``: the image is scaled, its aspect ratio kept, until it fills the height or
      the width; the rest is ``fill`` on both sides, which is what Ultralytics does.
    - *short_side*, with ``pad`` ``'end'``: the same, but the shorter side becomes ``shorter`` pixels if the image then
      fits into ``size``, and the rest is below and to the right, which is what torchvision's detectors do.
    """

    size: tuple[int, int]
    cover: tuple[int, int] | None = None
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    antialias: bool = True
    pad: str = ''
    shorter: int | None = None
    fill: tuple[int, ...] = (LETTERBOX_GREY,)
    channels: str = 'rgb'

    @property
    def channel_count(self) -> int:
        """The number of channels of the result."""
        return CHANNELS[self.channels]

    def __call__(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """
        Return the contiguous uint8 tensor [channels, height, width] of ``image``, RGB uint8 [height, width, 3].

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
        if self.channels == 'grey':  # before the rest, which then has a third of the work
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], np.uint8)
        # Writable, because torch warns of any other array: the images of messages are not. Channels stay innermost.
        tensor = torch.from_numpy(np.require(image, requirements=['C', 'W'])).permute(2, 0, 1)
        placement = self.placement(*tensor.shape[1:])
        scaled = placement.scaled
        if max(have / wanted for have, wanted in zip(scaled, self.size)) > MOST_CUT:
            raise DynsplitError(
                f'an image of {tensor.shape[2]}x{tensor.shape[1]} pixels was given, but less than 1/{MOST_CUT} of it'
                ' would be left in the centre that the network sees; crop it first'
            )
        if scaled != tuple(tensor.shape[1:]):
            tensor = functional.resize(tensor, list(scaled), self.interpolation, antialias=self.antialias)
        if scaled != self.size:
            tensor = self._padded(tensor, placement) if self.pad else functional.center_crop(tensor, list(self.size))
        if self.channels == 'rgba':
            tensor = torch.cat((tensor, torch.full_like(tensor[:1], 255)))
        return tensor.contiguous()

    def _padded(self, tensor: torch.Tensor, placement: Placement) -> torch.Tensor:
        fill = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None]
        whole = fill.expand(len(tensor), *self.size).clone()
        top, left = (-offset for offset in placement.offset)
        whole[:, top : top + tensor.shape[1], left : left + tensor.shape[2]] = tensor
        return whole

    def placement(self, height: int, width: int) -> Placement:
        """Return where the pixels of an image of ``height`` x ``width`` end up."""
        source = height, width
        if self.pad:
            return self._fitted(source)
        if self.cover is None:
            return Placement(source, self.size, self.size)
        # The same truncation as torchvision's resize to a shorter side, so that both agree to the pixel.
        rows, columns = self.cover
        if height * columns <= width * rows:
            return Placement(source, (rows, int(rows * width / height)), self.size)
        return Placement(source, (int(columns * height / width), columns), self.size)

    def _fitted(self, source: tuple[int, int]) -> Placement:
        scale = min(size / length for size, length in zip(self.size, source))
        if self.pad == 'around':  # rounded as Ultralytics' LetterBox rounds
            scaled = tuple(max(1, round(length * scale)) for length in source)
            offset = tuple(-round((size - length) / 2 - 0.1) for size, length in zip(self.size, scaled))
        else:
            # torchvision's detectors scale by the shorter side, or else by the longer one, and round down.
            wanted = [] if self.shorter is None else [self.shorter / min(source)]
            for tried in (*wanted, max(self.size) / max(source), scale):
                scaled = tuple(max(1, math.floor(length * tried)) for length in source)
                if all(length <= size for length, size in zip(scaled, self.size)):
                    break
            offset = 0, 0
        return Placement(source, scaled, self.size, offset)  # type: ignore[arg-type]


def channels_of(count: int) -> str:
    """Return the kind of channels of a network that takes ``count`` of them; RGB for a number that no kind has."""
    return next((kind for kind, number in CHANNELS.items() if number == count), 'rgb')


def resize_of(way: str, size: tuple[int, int], crop_fraction: float = 0.875, **others: Any) -> Resize:
    """
    Return the resize of a way (:data:`RESIZES`) to ``size`` (height, width).

    ``crop_fraction`` is the share of the scaled image's height and width that *crop* keeps. ``others`` are further
    fields of :class:`Resize`.
    """
    if way == 'crop':
        return Resize(size, (round(size[0] / crop_fraction), round(size[1] / crop_fraction)), **others)
    return Resize(size, pad={'letterbox': 'around', 'short_side': 'end'}.get(way, ''), **others)


class Normalise(nn.Module):
    """
    Turn a uint8 image [N, channels, H, W] into what the model takes: ``(image / 255 - mean) / std`` for each channel.

    The arithmetic is that of torchvision's ``convert_image_dtype`` and ``normalize``, in the same order, so
    that the result is the same to the bit. ``mean`` of ``None`` leaves out the second step (detectors
    normalise by themselves). ``bgr`` reverses the channels first. ``dtype`` is the type of the result; the arithmetic
    is in float32.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        *,
        bgr: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shifts = mean is not None
        self.bgr = bgr
        self.dtype = dtype
        if mean is not None and std is not None:
            if (
                len(mean) != len(std)
                or len(mean) not in CHANNELS.values()
                or 0.0 in std
                or not all(map(math.isfinite, (*mean, *std)))
            ):
                raise DynsplitError(
                    f'mean {list(mean)} and std {list(std)} were given, but each takes one finite number for each'
                    ' channel (1, 3 or 4), and none of std may be 0; give one per channel'
                )
            self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
            self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def extra_repr(self) -> str:
        """Return what distinguishes this step from others of its type, for the fingerprint."""
        return ', '.join([*(['bgr'] if self.bgr else []), *([str(self.dtype)] if self.dtype != torch.float32 else [])])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the float image [N, channels, H, W] of a uint8 one."""
        if self.bgr:
            image = image.flip(1)
        values = image.to(torch.float32) / 255
        if self.shifts:
            values = values.sub_(self.mean).div_(self.std)
        return values if self.dtype == torch.float32 else values.to(self.dtype)
