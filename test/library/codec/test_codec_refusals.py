# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Payloads that contradict the cut, themselves or their size are refused without an allocation."""

from dataclasses import replace
import io
import struct
import subprocess
import sys
import tracemalloc

import blosc2
import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from dynsplit_ros.codec import CODECS, decode, encode, EncodedTensor, usable_codecs
from dynsplit_ros.codec.blosc import compress, decompress, first_chunk
from dynsplit_ros.codec.lossy import PLANE_BITS, QUANTISED_BITS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

IMAGE = torch.arange(3 * 16 * 20).reshape(1, 3, 16, 20).to(torch.uint8)
VALUES = torch.randn(1, 4, 10, 10, generator=torch.Generator().manual_seed(0)).relu()
BLOSC = [name for name in CODECS if 'blosc2' in name]
QUANTISED = [f'quant{bits}-zstd' for bits in QUANTISED_BITS]
PLANES = [f'quant{bits:g}-jpegls' for bits in PLANE_BITS]
WEBP = [name for name in CODECS if 'webp' in name]


def payload(codec):
    """Return a valid tensor of the codec and its spec."""
    value = IMAGE if CODECS[codec].takes == 'image' else VALUES
    spec = TensorSpec('x', str(value.dtype).removeprefix('torch.'), tuple(value.shape))
    tensor = encode(codec, {'x': value})[0]
    return replace(tensor, data=bytes(tensor.data)), spec


def refuses(codec, tensor, spec, match, max_batch=1):
    with pytest.raises(DynsplitError, match=match) as caught:
        decode(codec, tensor if isinstance(tensor, list) else [tensor], [spec], max_batch)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize('codec', CODECS)
def test_a_declaration_that_differs_from_the_cut_is_refused(codec):
    tensor, spec = payload(codec)
    refuses(codec, [], spec, 'has 0 tensors, but the cut has 1')
    refuses(codec, [tensor, tensor], spec, 'has 2 tensors, but the cut has 1')
    refuses(codec, replace(tensor, name='y' * 9999), spec, 'name of tensor')
    refuses(codec, replace(tensor, dtype='int16'), spec, 'dtype of tensor')
    refuses(codec, replace(tensor, shape=tensor.shape[1:]), spec, 'shape of tensor|batch of')
    refuses(codec, replace(tensor, shape=(*tensor.shape[:-1], 2**31)), spec, 'shape of tensor')
    refuses(codec, replace(tensor, shape=()), spec, 'shape of tensor')
    refuses(codec, replace(tensor, data='text'), spec, 'no contiguous buffer')
    refuses(codec, replace(tensor, data=np.zeros((8, 8), np.uint8)[:, ::2]), spec, 'no contiguous buffer')


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('batch', [-1, 0, 3, 2**31])
def test_a_batch_out_of_range_is_refused(codec, batch):
    tensor, spec = payload(codec)
    refuses(codec, replace(tensor, shape=(batch, *tensor.shape[1:])), spec, f'batch of {batch}.*1 to 2', 2)


def test_tensors_of_different_batches_are_refused():
    shapes = {'a': (1, 3), 'b': (4, 3), 'c': ()}
    specs = [TensorSpec(name, 'float32', shape) for name, shape in shapes.items()]
    tensors = encode('raw', {'a': torch.ones(2, 3), 'b': torch.ones(8, 3), 'c': torch.tensor(1.0)})
    assert decode('raw', tensors, specs, 2)['b'].shape == (8, 3)
    tensors[1] = encode('raw', {'b': torch.ones(4, 3)})[0]
    with pytest.raises(DynsplitError, match="shape of tensor 'b'"):
        decode('raw', tensors, specs, 2)


@pytest.mark.parametrize('codec', ['', 'pickle', 'RAW', 'x' * 100_000, None, 7, b'raw'])
def test_an_unknown_codec_is_refused(codec):
    tensor, spec = payload('raw')
    refuses(codec, tensor, spec, 'is unknown; known are raw, ')
    with pytest.raises(DynsplitError, match='is unknown'):
        encode(codec, {})


@pytest.mark.parametrize('codec', CODECS)
def test_truncated_and_trailing_bytes_are_refused(codec):
    tensor, spec = payload(codec)
    for end in [*range(0, 80), len(tensor.data) // 2, len(tensor.data) - 1]:
        refuses(codec, replace(tensor, data=tensor.data[:end]), spec, '^codec ')
    for tail in (b'\0', b'\xff\xd9', tensor.data[:50], bytes(100_000)):
        if codec.startswith('jpeg') and tail == b'\xff\xd9':
            continue  # a second end marker is data after the picture, which JPEG readers ignore
        refuses(codec, replace(tensor, data=tensor.data + tail), spec, '^codec ')


@pytest.mark.parametrize('codec', CODECS)
def test_data_of_an_empty_tensor_are_refused(codec):
    spec = TensorSpec('x', 'float32', (1, 0, 4))
    assert decode(codec, [EncodedTensor('x', 'float32', (1, 0, 4), b'')], [spec])['x'].shape == (1, 0, 4)
    refuses(codec, EncodedTensor('x', 'float32', (1, 0, 4), b'\0'), spec, 'empty tensor')


@pytest.mark.parametrize('codec', [name for name, info in CODECS.items() if info.takes != 'image'])
def test_a_bool_is_zero_or_one(codec):
    spec = TensorSpec('x', 'bool', (1, 40))
    as_bytes = encode(codec, {'x': torch.full((1, 40), 2, dtype=torch.uint8)})[0]
    refuses(codec, replace(as_bytes, dtype='bool'), spec, 'neither 0 nor 1')


@pytest.mark.parametrize('codec', ['raw', *BLOSC])
def test_decompression_bombs_are_refused_before_memory_is_allocated(codec):
    """A chunk of a few bytes that decodes to 2 GB is refused, with its true and with the expected declared size."""
    _, spec = payload(codec)
    giant = bytearray(blosc2.compress2(np.zeros(4096, np.uint8), typesize=1, nthreads=1))
    struct.pack_into('<2i', giant, 4, 2**31 - 1024, 131072)
    tracemalloc.start()
    refuses(codec, EncodedTensor('x', spec.dtype, spec.shape, bytes(giant)), spec, 'declares|came')
    too_wide = (1, *spec.shape[1:-1], 2**31 - 1)
    refuses(codec, EncodedTensor('x', spec.dtype, too_wide, bytes(giant)), spec, 'shape')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize('codec', BLOSC)
def test_headers_that_the_encoder_does_not_write_are_refused(codec):
    """Each change of one bit in a header is refused, except those that the format ignores or that change nothing."""
    tensor, spec = payload(codec)
    original = decode(codec, [tensor], [spec])['x']
    # The compressor's own version, its number where it is a built-in one, and the bit for streams of several
    # bytes.
    ignored = {1, 22}
    for at in range(32):
        for bit in range(8):
            data = bytearray(tensor.data)
            data[at] ^= 1 << bit
            try:
                changed = decode(codec, [replace(tensor, data=data)], [spec])['x']
            except DynsplitError:
                continue
            assert at in ignored and torch.equal(changed, original) or at in (2, 8, 9, 10), (at, bit)


def test_sparse_values_must_be_as_many_as_the_mask_says():
    tensor, spec = payload('blosc2-sparse')
    mask_bytes = struct.unpack_from('<i', tensor.data, 12)[0]
    other = bytes(encode('blosc2-sparse', {'x': VALUES + 1})[0].data)
    other_mask = struct.unpack_from('<i', other, 12)[0]
    swapped = other[:other_mask] + tensor.data[mask_bytes:]
    refuses('blosc2-sparse', replace(tensor, data=swapped), spec, 'are needed')
    refuses('blosc2-sparse', replace(tensor, data=tensor.data[:mask_bytes]), spec, 'too few')
    for forged in (-1, 0, 2**31 - 1):
        data = bytearray(tensor.data)
        struct.pack_into('<i', data, 12, forged)
        refuses('blosc2-sparse', replace(tensor, data=data), spec, 'declares|too few')


def with_second_channel(data, scale, lowest):
    """Return a quantised payload whose second channel has this scale and lowest step."""
    scales, steps = first_chunk(memoryview(data))
    header = np.empty((2, VALUES.shape[1]), np.int16)
    decompress(scales, header.view(np.uint8).reshape(-1), 2, 'zstd', 'byte')
    header[0, 1] = np.float32(scale).view(np.int32) >> 16  # in bfloat16
    header[1, 1] = 16 * lowest
    return compress(header.view(np.uint8).reshape(-1), 2, 'zstd', 'byte') + bytes(steps)


@pytest.mark.parametrize('codec', QUANTISED)
def test_impossible_scales_and_ranges_are_refused(codec):
    tensor, spec = payload(codec)
    for scale in (float('nan'), float('inf'), -1.0, 3e38):
        refuses(
            codec,
            replace(tensor, data=with_second_channel(tensor.data, scale, 2000)),
            spec,
            'a scale is NaN or negative, or its steps are beyond',
        )
    half = replace(spec, dtype='float16')
    for lowest in (-2048, 2047):
        data = with_second_channel(tensor.data, 1e5, lowest)
        decode(codec, [replace(tensor, data=data)], [spec])  # within float32 …
        refuses(codec, replace(tensor, data=data, dtype='float16'), half, 'beyond float16')


@pytest.mark.parametrize('codec', QUANTISED)
def test_a_payload_with_another_number_of_bits_is_refused(codec):
    tensor, spec = payload(codec)
    for other in QUANTISED:
        if 8 // int(other[5]) != 8 // int(codec[5]):
            refuses(other, tensor, spec, 'declares')


@pytest.mark.parametrize('bits', [bits for bits in QUANTISED_BITS if bits * (8 // bits) < 8])
def test_steps_above_the_codecs_largest_one_are_refused(bits):
    tensor, spec = payload(f'quant{bits}-zstd')
    scales, _ = first_chunk(memoryview(tensor.data))
    count = -(-VALUES.numel() // (8 // bits))
    wide = compress(np.full(count, 2 ** (bits * (8 // bits)), np.uint8), 1, 'zstd', 'none')
    data = bytes(scales) + wide
    refuses(f'quant{bits}-zstd', replace(tensor, data=data), spec, f'elements of {bits} bits')


@pytest.mark.parametrize('codec', QUANTISED)
def test_a_quantised_decompression_bomb_is_refused_before_memory_is_allocated(codec):
    tensor, spec = payload(codec)
    giant = bytearray(blosc2.compress2(np.zeros(4096, np.uint8), typesize=1, nthreads=1))
    struct.pack_into('<2i', giant, 4, 2**31 - 1024, 131072)
    tracemalloc.start()
    scales, _ = first_chunk(memoryview(tensor.data))
    refuses(codec, replace(tensor, data=bytes(scales) + bytes(giant)), spec, 'declares')
    refuses(codec, replace(tensor, data=bytes(giant)), spec, 'declares')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize('codec', PLANES)
def test_planes_with_an_impossible_scale_are_refused(codec):
    tensor, spec = payload(codec)
    assert len(tensor.data) > 4
    for scale in (float('nan'), float('inf'), -1.0, 3e38):
        forged = struct.pack('<f', scale)[2:] + struct.pack('<h', 2000) + tensor.data[4:]  # the scale in bfloat16
        refuses(codec, replace(tensor, data=forged), spec, 'a scale is NaN or negative, or its steps are beyond')
    refuses(codec, replace(tensor, data=tensor.data[:3]), spec, '3 bytes are too few')


@pytest.mark.parametrize('codec', PLANES[1:])
def test_planes_with_more_steps_than_the_codec_has_are_refused(codec):
    """Steps above the largest one of the codec are refused; 255 is the largest one of the finest codec."""
    finest, spec = payload(PLANES[0])
    refuses(codec, finest, spec, 'a step is 255, but at most')


@pytest.mark.parametrize('codec', PLANES)
def test_damaged_planes_and_planes_of_another_size_are_refused(codec):
    tensor, spec = payload(codec)
    for other in (torch.cat([VALUES, VALUES], 2), VALUES[:, :, :5]):
        data = encode(codec, {'x': other})[0].data
        refuses(codec, replace(tensor, data=data), spec, 'the JPEG-LS scan is damaged')
    start, scan, end = tensor.data[:4], tensor.data[4:-2], tensor.data[-2:]
    assert end == b'\xff\xd9'
    for bad in (scan, scan + end + end, scan + bytes(9) + end, end + scan, scan[: len(scan) // 2] + end, end):
        refuses(codec, replace(tensor, data=start + bad), spec, 'JPEG-LS scan is')
    for bad in (b'', b'\0', b'\xd9'):  # the library reads beyond the second and the third
        refuses(codec, replace(tensor, data=start + bad), spec, 'the JPEG-LS scan is truncated')
    # A whole frame in place of the scan, which the library could read.
    frame = bytes.fromhex('fff7000b08ffffffff01011100ffda0008010100000000')
    refuses(codec, replace(tensor, data=tensor.data[:4] + b'\xff\xd8' + frame + tensor.data[4:]), spec, 'JPEG-LS')


@pytest.mark.parametrize('codec', PLANES)
def test_planes_of_too_many_bytes_are_refused_before_they_are_copied(codec):
    tensor, spec = payload(codec)
    giant = bytes(20_000_000) + b'\xff\xd9'
    tracemalloc.start()
    refuses(codec, replace(tensor, data=tensor.data[:4] + giant), spec, 'bytes came, but a JPEG-LS scan of 10 x 40')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25_000_000  # the payload itself, only once
    tall = torch.zeros(1, 70_000, 1)
    with pytest.raises(DynsplitError, match='70000 x 1 is beyond the 65535 rows and columns'):
        encode(codec, {'x': tall})
    spec = TensorSpec('x', 'float32', tuple(tall.shape))
    refuses(codec, EncodedTensor('x', 'float32', spec.shape, bytes(4) + b'\xff\xd9'), spec, 'is beyond the 65535')


def test_a_codec_without_its_package_is_not_used(monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagecodecs', None)  # as if it were not installed
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    features = TensorSpec('x', 'float32', tuple(VALUES.shape))
    usable = set(usable_codecs([features], True))
    assert not usable & set(PLANES) and usable > set(QUANTISED)
    with pytest.raises(DynsplitError, match='imagecodecs is not installed: pip install imagecodecs'):
        encode(PLANES[0], {'x': VALUES})
    data = bytes(4) + b'\0\xff\xd9'
    refuses(PLANES[0], EncodedTensor('x', 'float32', features.shape, data), features, 'is not installed: pip install')


@pytest.mark.parametrize('codec', WEBP)
def test_webp_of_another_kind_is_refused(codec):
    tensor, spec = payload(codec)
    lossless = CODECS[codec].lossless
    # Container, its size, kind of chunk, its size, and a byte of the size in pixels.
    for at in (0, 4, 15, 16, 21 if lossless else 26):
        forged = bytearray(tensor.data)
        forged[at] ^= 4
        refuses(codec, replace(tensor, data=forged), spec, 'the WebP')
    forged = bytearray(tensor.data)
    forged[24 if lossless else 20] ^= 0x10 if lossless else 1  # transparency; not a key frame
    refuses(codec, replace(tensor, data=forged), spec, 'the WebP header')
    animated, still = io.BytesIO(), PIL.Image.fromarray(np.zeros((16, 20, 3), np.uint8))
    still.save(animated, 'WEBP', save_all=True, append_images=[PIL.Image.new('RGB', (20, 16), 'red')])
    refuses(codec, replace(tensor, data=animated.getvalue()), spec, 'not a plain')
    other = io.BytesIO()
    still.save(other, 'WEBP', lossless=not lossless)
    refuses(codec, replace(tensor, data=other.getvalue()), spec, 'not a plain')


@pytest.mark.parametrize('codec', [name for name, info in CODECS.items() if info.takes == 'image'])
def test_pictures_too_large_for_the_format_are_refused(codec):
    tall = torch.zeros(9, 3, 8000, 1, dtype=torch.uint8)
    if codec == 'blosc2-image':
        assert encode(codec, {'x': tall})
    else:
        with pytest.raises(DynsplitError, match='is beyond the'):
            encode(codec, {'x': tall})


def test_jpeg_of_another_kind_is_refused():
    tensor, spec = payload('jpeg90')
    data = tensor.data
    frame = data.index(b'\xff\xc0')
    # Progressive, depth, height, width, sampling.
    for at, value in ((1, 0xC2), (4, 12), (5, 255), (7, 255), (11, 0x44)):
        forged = bytearray(data)
        forged[frame + at] = value
        refuses('jpeg90', replace(tensor, data=forged), spec, 'JPEG')
    rotated = b'\xff\xe1\x00\x10Exif\0\0' + bytes(8)
    refuses('jpeg90', replace(tensor, data=data[:2] + rotated + data[2:]), spec, 'segment ffe1')
    refuses('jpeg90', replace(tensor, data=data[: frame + 19] + data[frame:]), spec, '2 frames')
    picture = np.zeros((16, 20, 3), np.uint8)
    progressive = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    refuses('jpeg90', replace(tensor, data=progressive), spec, 'segment ffc2')


def test_only_raw_and_blosc2_carry_answers_of_unknown_shape():
    tensors = {'boxes': torch.rand(3, 4), 'labels': torch.tensor([1, 2, 3]), 'none': torch.zeros(0, 4)}
    for codec in ('raw', 'blosc2'):
        decoded = decode(codec, encode(codec, tensors), None)
        assert all(torch.equal(decoded[name], value) for name, value in tensors.items())
    with pytest.raises(DynsplitError, match='only raw and blosc2'):
        decode('quant8-zstd', encode('quant8-zstd', tensors), None)
    shapes = (-1,), (0, *(2**20,) * 4), (1,) * 99, (2**14, 2**14), (2**62,)
    for dtype, shape in (('object', (1,)), *(('int8', shape) for shape in shapes)):
        with pytest.raises(DynsplitError):
            decode('raw', [EncodedTensor('x', dtype, shape, b'\1')], None)
    for codec in ('raw', 'blosc2'):
        with pytest.raises(DynsplitError, match='tensor .xxx') as caught:
            decode(codec, [EncodedTensor('x' * 10_000, 'uint8', (3,), b'ab')], None)
        assert len(str(caught.value)) < 400
    with pytest.raises(DynsplitError, match='same name'):
        decode('raw', encode('raw', {'x': torch.zeros(1)}) * 2, None)


def test_an_answer_has_a_largest_decoded_size():
    zeros = encode('blosc2', {'x': torch.zeros(1, 16, 1024, 1024, dtype=torch.uint8)})[0]
    assert len(zeros.data) < 10_000 and decode('blosc2', [zeros], None)['x'].numel() == 2**24
    side = 2**15 - 1
    for many in (
        [replace(zeros, shape=(1, 1, side, side))],
        [replace(zeros, name=str(number), shape=(17, 1024, 1024)) for number in range(16)],
    ):
        with pytest.raises(DynsplitError, match='decodes to'):
            decode('blosc2', many, None)
    with pytest.raises(DynsplitError, match='header declares'):
        decode('blosc2', [replace(zeros, shape=(255, 1024, 1024))], None)


def test_nothing_is_unpickled():
    """Decoding works without the unpickler."""
    script = (
        'import torch, pickle, _pickle\n'
        'from dynsplit_ros.codec import *\n'
        'from dynsplit_ros.tensors import TensorSpec\n'
        'def never(*a, **k): raise SystemExit("unpickled")\n'
        'for module in (pickle, _pickle): module.load = module.loads = module.Unpickler = never\n'
        'for name, info in CODECS.items():\n'
        '    if not info.is_installed(): continue\n'
        '    x = torch.ones(1, 3, 8, 8, dtype=torch.uint8)\n'
        '    y = decode(name, encode(name, {"x": x}), [TensorSpec("x", "uint8", (1, 3, 8, 8))])["x"]\n'
        '    assert torch.equal(x, y) or not info.lossless\n'
    )
    subprocess.run([sys.executable, '-c', script], check=True, timeout=60)
