# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Decodes the image file in a CompressedImage.

cv_bridge is not used: it decodes files that claim any size, and treats grey and 16-bit images as 8-bit colours.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image as ImageFile
from sensor_msgs.msg import CompressedImage

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.encodings import check_colours, to_8_bits
from dynsplit_ros.png import is_png, png_chunks

#: Largest number of pixels of a compressed image. A file can claim any size, and the decoder would allocate it.
MOST_PIXELS = 2**26
#: OpenCV decodes the formats that cameras send, because it is fast. Pillow decodes the others after it has checked
#: their header.
_BY_OPENCV = ('JPEG', 'PNG')
FORMATS = (*_BY_OPENCV, 'BMP', 'TIFF', 'WEBP')
_GREY_16_BITS = ('I;16', 'I;16B')
_BITS_PER_SAMPLE = 258  # a tag of TIFF


def from_file(message: CompressedImage, bits: int = 16) -> np.ndarray:
    """Return the stored pixels, uint8 [height, width, 3], RGB; raise DynsplitError or cv2.error."""
    what = f'the compressed image of format {message.format[:100]!r} and {len(message.data)} bytes'
    allowed = f'publish {", ".join(FORMATS[:-1])} or {FORMATS[-1]} with colours or grey'
    if not message.data:
        raise DynsplitError(f'the compressed image ({message.format[:100]!r}) has no bytes; check what publishes it')
    if 'compressedDepth' in message.format:
        raise DynsplitError(f'{what} holds depth, no colours or grey; {allowed}')
    check_colours(message.format.partition(';')[0].strip(), what)
    try:
        with ImageFile.open(io.BytesIO(message.data), formats=FORMATS) as file:
            # OpenCV allocates the size that a file claims before it checks the data: gigabytes for a few bytes.
            if file.width * file.height > MOST_PIXELS:
                raise ImageFile.DecompressionBombError
            image = _by_opencv(message) if file.format in _BY_OPENCV else _by_pillow(file)
    except ImageFile.DecompressionBombError:
        raise DynsplitError(
            f'{what} claims more than {MOST_PIXELS} pixels, which no camera has; check what publishes it'
        ) from None
    except ImageFile.UnidentifiedImageError:
        raise DynsplitError(f'{what} is none of the formats that are read; {allowed}') from None
    except cv2.error:
        raise
    except Exception as error:  # Pillow raises all errors of its decoders
        raise DynsplitError(
            f'{what} could not be decoded ({" ".join(str(error).split())[:200]}); check what publishes it'
        ) from error
    if image is None:
        raise DynsplitError(f'{what} could not be decoded; check what publishes it')
    if image.dtype not in (np.uint8, np.uint16):
        raise DynsplitError(f'{what} has pixels of type {image.dtype}; {allowed} of 8 or 16 bits')
    return to_8_bits(image, bits)


def _by_opencv(message: CompressedImage) -> np.ndarray | None:
    """Return the pixels of a JPEG or PNG as RGB, None if OpenCV cannot decode them."""
    data = np.frombuffer(message.data, np.uint8)
    if is_png(data.data):
        for _ in png_chunks(data.data):  # OpenCV allocates the size that a chunk claims
            pass
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _by_pillow(file: ImageFile.Image) -> np.ndarray:
    """Return the pixels of a file of another format as RGB."""
    if file.mode in _GREY_16_BITS:
        return cv2.cvtColor(np.asarray(file).astype(np.uint16), cv2.COLOR_GRAY2RGB)
    bits = max(getattr(file, 'tag_v2', {}).get(_BITS_PER_SAMPLE, (8,)))
    if bits > 8:  # Pillow would reduce them to 8 bits with another scale
        raise DynsplitError(f'{bits} bits of {file.mode}, where colours may have 8 and grey 8 or 16')
    return np.asarray(file.convert('RGB'))
