# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The codecs by name, and the only functions that use them: :func:`encode` and :func:`decode`.

A codec is two functions over one tensor and a line in :data:`CODECS`::

    def encode(tensor: Tensor) -> Buffer                      # of any device and strides
    def decode(data: memoryview, spec: TensorSpec) -> Tensor  # in memory of its own

Both raise DynsplitError for input that they cannot process. The caller has checked ``spec`` against the cut; ``data``
comes from an untrusted peer. The decode function of a codec may allocate the memory that ``spec`` needs, but none that
``data`` asks for.

Copies. ``raw`` encodes without one (its data is a view of the tensor: read it before the tensor changes); a
tensor that is not contiguous, or not on the CPU, is copied once to become so. Decoding always writes to
memory of its own, with the alignment that torch gives: one copy for ``raw``, and for the others the decoder's
own output. So the tail may modify its inputs in place, and a message's buffer may be reused as soon as
:func:`decode` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import reprlib

from torch import Tensor

from dynsplit_ros.codec import blosc, image, jpegls, lossy, raw
from dynsplit_ros.codec.raw import Buffer, element_type
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import ITEM_SIZES, TensorSpec

# Largest number of dimensions and largest size of a tensor without an expected shape; their product cannot overflow.
_MAX_AXES, _MAX_SIZE = 4, 2**15
#: Largest number of decoded bytes of an answer of unknown shapes: 300 masks of 800 x 1066 pixels.
MAX_DECODED_BYTES = 2**28


@dataclass(frozen=True)
class EncodedTensor:
    """
    One encoded tensor; the fields are those of Tensor.msg.

    ``dtype`` and ``shape`` (batch first) are the decoded tensor's; ``data`` is bytes-like. From
    :func:`encode`, ``data`` goes straight into ``array.array('B').frombytes``. For :func:`decode` it may be
    any contiguous buffer.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Buffer


@dataclass(frozen=True)
class CodecInfo:
    """
    One codec: its name in messages and profiles, what it does to values, and its two functions.

    ``lossless`` says that every bit comes back. ``takes`` is 'image' (8-bit [N, 3, H, W], as at split 0), 'activation'
    (floating-point tensors; other tensors keep every bit) or 'any'. ``is_installed`` returns whether this machine has
    the optional package of the codec.
    """

    name: str
    encode: Callable[[Tensor], Buffer]
    decode: Callable[[memoryview, TensorSpec], Tensor]
    lossless: bool
    takes: str
    description: str
    is_installed: Callable[[], bool] = lambda: True

    def fits(self, specs: Sequence[TensorSpec]) -> bool:
        """Return whether the codec can be used for these tensors of a cut on this machine."""
        if not self.is_installed():
            return False
        if self.takes == 'image':
            return len(specs) == 1 and image.is_image(specs[0])
        return self.takes == 'any' or any(raw.TORCH_TYPES[spec.dtype].is_floating_point for spec in specs)


def _lossy_codecs() -> Iterator[CodecInfo]:
    """Yield the lossy codecs, each kind from the most to the fewest bytes."""
    for quality in image.JPEG_QUALITIES:
        yield CodecInfo(f'jpeg{quality}', *image.jpeg(quality), False, 'image', f'JPEG of quality {quality}')
    for quality in image.WEBP_QUALITIES:
        yield CodecInfo(f'webp{quality}', *image.webp(quality), False, 'image', f'WebP of quality {quality}')
    yield CodecInfo(
        'float16', lossy.encode_float16, lossy.decode_float16, False, 'activation', 'half precision, saturating'
    )
    for bits in lossy.QUANTISED_BITS:
        yield CodecInfo(
            f'quant{bits}-zstd',
            *lossy.quantiser(bits),
            False,
            'activation',
            f'{2**bits} steps over the range of each channel, zstd',
        )
    for level in lossy.PLANE_BITS:
        yield CodecInfo(
            f'quant{level:g}-jpegls',
            *lossy.plane_quantiser(level),
            False,
            'activation',
            f'{round(2**level)} steps over the range of all channels, JPEG-LS: fewest bytes on feature '
            f'maps; needs {jpegls.PACKAGE}',
            jpegls.is_installed,
        )


#: Every codec by its name. The planner chooses a lossy codec only if the user allows it.
CODECS: Mapping[str, CodecInfo] = {
    info.name: info
    for info in (
        CodecInfo('raw', raw.encode, raw.decode, True, 'any', 'the elements themselves'),
        CodecInfo('blosc2', *blosc.codec('zstd', 'byte'), True, 'any', 'byte shuffle, zstd'),
        CodecInfo(
            'blosc2-sparse',
            blosc.encode_sparse,
            blosc.decode_sparse,
            True,
            'any',
            'zeros as a bit mask, the rest byte shuffle, zstd: smallest and fastest after a ReLU',
        ),
        CodecInfo('blosc2-bit', *blosc.codec('zstd', 'bit'), True, 'any', 'bit shuffle, zstd: faster, larger'),
        CodecInfo('blosc2-lz4', *blosc.codec('lz4', 'byte'), True, 'any', 'byte shuffle, lz4: for fast links'),
        CodecInfo('blosc2-bit-lz4', *blosc.codec('lz4', 'bit'), True, 'any', 'bit shuffle, lz4: the fastest'),
        CodecInfo(
            'blosc2-image',
            blosc.encode_image,
            blosc.decode_image,
            True,
            'image',
            'differences of neighbouring pixels, zstd',
        ),
        CodecInfo('webp-lossless', *image.webp(None), True, 'image', 'lossless WebP: smallest and slowest'),
        *_lossy_codecs(),
    )
}


def usable_codecs(specs: Sequence[TensorSpec], allow_lossy: bool = False) -> tuple[str, ...]:
    """Return the names of the codecs to measure for these tensors, lossy ones only if allowed."""
    return tuple(info.name for info in CODECS.values() if (info.lossless or allow_lossy) and info.fits(specs))


def encode(codec: str, tensors: Mapping[str, Tensor]) -> list[EncodedTensor]:
    """
    Encode tensors with the codec of that name, in the order of the mapping.

    The data of ``raw`` are views: use them before a tensor changes. Raises DynsplitError for an unknown
    codec, for an element type that is none of :data:`~dynsplit_ros.tensors.ITEM_SIZES`, and for what the
    codec cannot carry (for example, a NaN through ``quant8-zstd``).
    """
    info = _look_up(codec)
    encoded = []
    for name, tensor in tensors.items():
        try:
            dtype = element_type(tensor)
            data = info.encode(tensor) if tensor.numel() else b''
        except DynsplitError as error:
            raise DynsplitError(f'codec {codec!r} cannot carry tensor {name!r}: {error}') from error
        encoded.append(EncodedTensor(name, dtype, tuple(tensor.shape), data))
    return encoded


def decode(
    codec: str, encoded: Sequence[EncodedTensor], expected: Sequence[TensorSpec] | None, max_batch: int = 1
) -> dict[str, Tensor]:
    """
    Decode tensors, in the order of ``expected``, which are the cut's tensors for batch 1.

    The declared names, element types and shapes must be the expected ones, except that a common batch of 1 to
    ``max_batch`` multiplies every first dimension. The function checks this, and each size that the data declare,
    before it allocates memory. It never allocates more than a small multiple of the expected tensors' bytes.

    ``expected`` is ``None`` for the answer of a detector, whose shapes depend on the image. Any tensors are then
    allowed with ``raw``, which has as many bytes as it declares, or with ``blosc2`` up to :data:`MAX_DECODED_BYTES`.

    Raises DynsplitError, and no other error, for data that do not fit.
    """
    info = _look_up(codec)
    if expected is None:
        expected = _self_described(codec, encoded)
    decoded = {}
    for tensor, spec in zip(encoded, _declared(encoded, expected, max_batch), strict=True):
        try:
            data = _bytes_of(tensor.data)
            if spec.nbytes == 0 and data.nbytes:
                raise DynsplitError(f'an empty tensor came with {data.nbytes} bytes of data, but has none')
            values = info.decode(data, spec) if spec.nbytes else raw.empty(spec)
            if spec.dtype == 'bool' and spec.nbytes and raw.bytes_of(values).max() > 1:
                raise DynsplitError('a bool was neither 0 nor 1')
        except DynsplitError as error:
            raise DynsplitError(f'codec {codec!r}, tensor {reprlib.repr(spec.name)}: {error}') from error
        decoded[spec.name] = values
    return decoded


def _look_up(codec: str) -> CodecInfo:
    info = CODECS.get(codec) if isinstance(codec, str) else None
    if info is None:
        lossless = [name for name, one in CODECS.items() if one.lossless]
        raise DynsplitError(
            f'codec {reprlib.repr(codec)} is unknown; known are {", ".join(lossless)} and '
            f'{len(CODECS) - len(lossless)} lossy ones, which docs/reference.md lists'
        )
    return info


def _self_described(codec: str, encoded: Sequence[EncodedTensor]) -> list[TensorSpec]:
    """Return the declared specs of a payload of unknown tensors after checking them."""
    if codec not in ('raw', 'blosc2'):
        raise DynsplitError(f'tensors of unknown shapes came by codec {codec!r}; only raw and blosc2 may carry them')
    for tensor in encoded:
        sizes = tuple(tensor.shape)
        possible = len(sizes) <= _MAX_AXES and all(0 <= size < _MAX_SIZE for size in sizes)
        if tensor.dtype not in ITEM_SIZES or not possible:
            raise DynsplitError(f'no tensor can be {reprlib.repr(tensor.dtype)} {reprlib.repr(sizes)}')
    if len({tensor.name for tensor in encoded}) < len(encoded):
        raise DynsplitError('two tensors have the same name')
    specs = [TensorSpec(tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in encoded]
    decoded = sum(spec.nbytes for spec in specs)
    if codec != 'raw' and decoded > MAX_DECODED_BYTES:
        raise DynsplitError(f'the answer decodes to {decoded} bytes, but at most {MAX_DECODED_BYTES} are allowed')
    return specs


def _declared(encoded: Sequence[EncodedTensor], expected: Sequence[TensorSpec], max_batch: int) -> list[TensorSpec]:
    """Return the declared specs of a payload after checking them against the cut."""
    if len(encoded) != len(expected):
        raise DynsplitError(f'the payload has {len(encoded)} tensors, but the cut has {len(expected)}')
    batch = declared_batch(encoded, expected)
    if not 1 <= batch <= max_batch:
        raise DynsplitError(f'the payload is a batch of {batch}, but 1 to {max_batch} are allowed')
    declared = []
    for tensor, spec in zip(encoded, expected):
        shape = (batch * spec.shape[0], *spec.shape[1:]) if spec.shape else ()
        wanted = TensorSpec(spec.name, spec.dtype, shape)
        for what in ('name', 'dtype', 'shape'):
            have, want = getattr(tensor, what), getattr(wanted, what)
            if (tuple(have) if what == 'shape' else have) != want:
                raise DynsplitError(
                    f'the {what} of tensor {spec.name!r} is {reprlib.repr(have)}, but the cut has {want!r}: '
                    'both sides must run the same model'
                )
        declared.append(wanted)
    return declared


def declared_batch(encoded: Sequence[EncodedTensor], expected: Sequence[TensorSpec]) -> int:
    """
    Return the declared number of images of a payload; :func:`decode` checks it.

    The number follows from the first dimension of the first tensor that has one.
    """
    for tensor, spec in zip(encoded, expected):
        if spec.nbytes and spec.shape and len(tensor.shape):
            return int(tensor.shape[0]) // spec.shape[0]  # decode reports a remainder as a different shape
    return 1


def _bytes_of(data: Buffer) -> memoryview:
    """Return a flat view of a bytes-like object."""
    try:
        view = memoryview(data)
        return view.cast('B') if view.nbytes else memoryview(b'')
    except (TypeError, ValueError, NotImplementedError, BufferError) as error:
        raise DynsplitError(f'data of type {type(data).__name__} is no contiguous buffer of bytes') from error
