# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Decoded values equal the encoded ones within the bounds of the codec, and own their memory."""

import array

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch

from dynsplit_ros.codec import CODECS, decode, encode, EncodedTensor, jpegls, usable_codecs
from dynsplit_ros.codec.image import JPEG_QUALITIES, WEBP_QUALITIES
from dynsplit_ros.codec.lossy import PLANE_BITS, QUANTISED_BITS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import ITEM_SIZES, TensorSpec

LOSSLESS = [name for name, info in CODECS.items() if info.lossless and info.takes == 'any']
IMAGE_LOSSLESS = [name for name, info in CODECS.items() if info.lossless and info.takes == 'image']
ALL_SHAPES = [(), (1,), (0,), (1, 5), (1, 0, 3), (1, 3, 7, 5), (2, 16, 4, 4), (1, 2, 150, 151)]


def specs_of(tensors, batch=1):
    return [
        TensorSpec(
            name,
            str(value.dtype).removeprefix('torch.'),
            (value.shape[0] // batch, *value.shape[1:]) if value.dim() else (),
        )
        for name, value in tensors.items()
    ]


def there_and_back(codec, tensors, max_batch=1, batch=1):
    """Pass tensors through array.array, as a message does."""
    sent = []
    for tensor in encode(codec, tensors):
        data = array.array('B')
        data.frombytes(tensor.data)
        sent.append(EncodedTensor(tensor.name, tensor.dtype, tensor.shape, data))
    return decode(codec, sent, specs_of(tensors, batch), max_batch), sent


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def random_tensor(dtype, shape, seed, zeros=0.5):
    """Any bit pattern that the type has, NaNs, infinities and -0.0 included, with a share of zeros."""
    if 0 in shape:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    draw = np.random.default_rng(seed)
    count = int(np.prod(shape)) * ITEM_SIZES[dtype]
    raw = draw.integers(0, 2 if dtype == 'bool' else 256, count, dtype=np.uint8)
    raw.reshape(-1, ITEM_SIZES[dtype])[draw.random(count // ITEM_SIZES[dtype]) < zeros] = 0
    return torch.from_numpy(raw).view(getattr(torch, dtype)).reshape(shape)


@pytest.mark.parametrize('codec', LOSSLESS)
@pytest.mark.parametrize('dtype', ITEM_SIZES)
def test_every_bit_comes_back(codec, dtype):
    for seed, shape in enumerate(ALL_SHAPES):
        tensors = {'a': random_tensor(dtype, shape, seed), 'b': random_tensor(dtype, shape, seed, zeros=1.0)}
        decoded, _ = there_and_back(codec, tensors)
        for name, value in tensors.items():
            assert decoded[name].shape == value.shape and decoded[name].dtype == value.dtype
            assert torch.equal(bits(decoded[name]), bits(value))


@given(
    codec=st.sampled_from(LOSSLESS),
    dtype=st.sampled_from(sorted(ITEM_SIZES)),
    shape=st.lists(st.integers(0, 9), max_size=4),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_every_bit_comes_back_from_any_shape(codec, dtype, shape, zeros, seed):
    value = random_tensor(dtype, tuple(shape), seed, zeros)
    decoded, _ = there_and_back(codec, {'x': value})
    assert torch.equal(bits(decoded['x']), bits(value)) and decoded['x'].shape == value.shape


@given(
    codec=st.sampled_from(IMAGE_LOSSLESS),
    size=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
    smooth=st.booleans(),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_pixel_comes_back(codec, size, seed, smooth):
    batch, height, width = size
    draw = np.random.default_rng(seed)
    image = torch.from_numpy(draw.integers(0, 256, (batch, 3, height, width), np.uint8))
    if smooth:
        image = image.sort(dim=3).values
    decoded, _ = there_and_back(codec, {'image': image}, max_batch=3, batch=batch)
    assert torch.equal(decoded['image'], image)


@pytest.mark.parametrize('codec', CODECS)
def test_tensors_with_any_strides_are_encoded(codec):
    image = torch.arange(2 * 3 * 8 * 6).reshape(2, 3, 8, 6).to(torch.uint8)
    values = image if CODECS[codec].takes == 'image' else image.float() / 7
    plain, _ = there_and_back(codec, {'x': values}, 2, 2)
    for view in (
        values.contiguous(memory_format=torch.channels_last),
        values.mT.contiguous().mT,
        torch.cat([values, values], dim=3)[..., :6],
    ):
        assert not view.is_contiguous()
        assert torch.equal(there_and_back(codec, {'x': view}, 2, 2)[0]['x'], plain['x'])


@pytest.mark.parametrize('codec', CODECS)
def test_tensors_of_autograd_and_inference_mode_are_taken(codec):
    image = torch.arange(3 * 8 * 8).reshape(1, 3, 8, 8).to(torch.uint8)
    with torch.inference_mode():
        values = image * 1 if CODECS[codec].takes == 'image' else image.float().relu()
    there_and_back(codec, {'x': values})
    if CODECS[codec].takes != 'image':
        there_and_back(codec, {'x': torch.ones(1, 3, 8, 8, requires_grad=True)})


@pytest.mark.parametrize('codec', CODECS)
def test_decoded_memory_is_the_tensors_own(codec):
    image = torch.arange(3 * 8 * 8).reshape(1, 3, 8, 8).to(torch.uint8)
    values = image if CODECS[codec].takes == 'image' else image.float()
    decoded, sent = there_and_back(codec, {'x': values})
    before = bytes(sent[0].data)
    kept = decoded['x'].clone()
    decoded['x'].add_(1)  # as a tail with an in-place ReLU does
    assert bytes(sent[0].data) == before
    for at in range(len(before)):
        sent[0].data[at] = 255  # as a middleware that reuses its buffers does
    assert torch.equal(decoded['x'], kept + 1)


def test_raw_is_sent_from_the_tensors_memory():
    values = torch.zeros(1, 4, 8)
    data = encode('raw', {'x': values})[0].data
    values[0, 0, 0] = 1.0
    assert bytes(data[:4]) == np.float32(1.0).tobytes()
    with pytest.raises(TypeError):
        data[0] = 0


def test_data_may_be_any_buffer():
    values = torch.arange(24.0).reshape(1, 4, 6)
    spec = specs_of({'x': values})
    plain = bytes(encode('raw', {'x': values})[0].data)
    unaligned = memoryview(b'x' + plain)[1:]
    for data in (
        plain,
        bytearray(plain),
        unaligned,
        np.frombuffer(plain, np.uint8),
        array.array('B', plain),
        np.frombuffer(plain, np.float32).reshape(4, 6),
    ):
        decoded = decode('raw', [EncodedTensor('x', 'float32', (1, 4, 6), data)], spec)
        assert torch.equal(decoded['x'], values)


def test_half_precision_rounds_and_saturates():
    values = torch.tensor([[1.0, 1e-3, 1e6, -1e6, float('inf'), float('nan')]])
    decoded, sent = there_and_back('float16', {'x': values})
    assert len(sent[0].data) == 12
    torch.testing.assert_close(
        decoded['x'],
        torch.tensor([[1.0, 1e-3, 65504, -65504, 65504, float('nan')]]),
        rtol=2**-11,
        atol=0,
        equal_nan=True,
    )


#: Type, scale, offset and seed of random values.
DRAWN = st.tuples(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.sampled_from([1e-45, 1e-37, 1e-5, 1.0, 3e4]),
    st.sampled_from([0.0, 1.0, -100.0]),
    st.integers(0, 2**32 - 1),
)


def values_of(shape, dtype, scale, offset, seed):
    """Return random values and their number of samples."""
    values = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1 + offset).mul(scale)
    return values.clamp(-6e4, 6e4).to(dtype), shape[0] if len(shape) > 1 else 1


def rounding_of(dtype, magnitude):
    """Return the error that float32 and the type add to values of this magnitude."""
    info = torch.finfo(dtype)
    return 2 * max(info.eps, torch.finfo(torch.float32).eps) * magnitude + info.smallest_normal * info.eps + 1e-37


@given(
    bits=st.sampled_from(QUANTISED_BITS),
    shape=st.sampled_from([(), (3,), (1, 9), (2, 3, 4), (1, 5, 6, 6), (2, 4, 17)]),
    drawn=DRAWN,
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_error_of_quantisation_is_at_most_half_a_step(bits, shape, drawn):
    values, batch = values_of(shape, *drawn)
    decoded = there_and_back(f'quant{bits}-zstd', {'x': values}, 2, batch)[0]['x']
    exact = values.double()
    # The largest range and magnitude of all groups bound the step of each group, which is rounded up to eight bits.
    step = max((exact.max() - exact.min()) / (2**bits - 1), exact.abs().max() / 2000) * (1 + 2**-7)
    assert (decoded.double() - exact).abs().max() <= 0.5 * step + rounding_of(values.dtype, exact.abs().max())


@pytest.mark.skipif(not jpegls.is_installed(), reason='imagecodecs is not installed')
@given(
    bits=st.sampled_from(PLANE_BITS),
    shape=st.sampled_from([(), (3,), (1, 9), (2, 3, 4), (1, 5, 6, 6), (2, 4, 17), (3, 1, 1, 1)]),
    drawn=DRAWN,
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_error_of_planes_is_at_most_half_a_step_of_their_sample(bits, shape, drawn):
    values, batch = values_of(shape, *drawn)
    decoded = there_and_back(f'quant{bits:g}-jpegls', {'x': values}, 3, batch)[0]['x']
    exact, got = (one.double().reshape(batch, -1) for one in (values, decoded))
    ranges, magnitudes = exact.amax(1) - exact.amin(1), exact.abs().amax(1)
    step = torch.maximum(ranges / (round(2**bits) - 1), magnitudes / 2000) * (1 + 2**-7)
    assert bool(((got - exact).abs().amax(1) <= 0.5 * step + rounding_of(values.dtype, magnitudes)).all())


@pytest.mark.parametrize('codec', [f'quant{bits:g}-jpegls' for bits in PLANE_BITS])
def test_planes_keep_zero_and_do_not_depend_on_the_batch(codec):
    values = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).relu()
    values[1] *= 1e3
    values[:, 1] -= 0.3
    decoded, _ = there_and_back(codec, {'x': values}, 2, 2)
    assert bool((decoded['x'][values == 0] == 0).all())
    alone = there_and_back(codec, {'x': values[:1]})[0]['x']
    assert torch.equal(alone, decoded['x'][:1]), 'a frame must not depend on those it is sent with'


@pytest.mark.skipif(not jpegls.is_installed(), reason='imagecodecs is not installed')
@pytest.mark.parametrize('shape', [(1, 1), (1, 3), (5, 1), (5, 7), (200, 300)])
def test_noise_and_extremes_fit_into_a_plane(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    # The coder predicts each element from the previous ones: each constant stretch ends with the most unlikely element.
    steep = np.where(np.arange(noise.size).reshape(shape) % 17 == 16, 255, 0).astype(np.uint8)
    for plane in (noise, steep, np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        assert np.array_equal(jpegls.decode(memoryview(jpegls.encode(plane)), *shape), plane)


@pytest.mark.skipif(not jpegls.is_installed(), reason='imagecodecs is not installed')
def test_smooth_planes_need_fewer_bytes_than_by_zstd():
    noise = torch.randn(1, 16, 30, 30, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1)
    sizes = [len(encode(f'quant{bits:g}-jpegls', {'x': smooth})[0].data) for bits in PLANE_BITS]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert sizes[PLANE_BITS.index(6)] < 0.85 * len(encode('quant6-zstd', {'x': smooth})[0].data)


@pytest.mark.parametrize('bits', QUANTISED_BITS)
def test_each_channel_has_its_own_steps_and_zero_stays_exact(bits):
    codec = f'quant{bits}-zstd'
    values = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).relu()
    values *= torch.tensor([1e-3, 1.0, 1e3, 0.0]).reshape(1, 4, 1, 1)
    values[:, 1] -= 0.3
    decoded, _ = there_and_back(codec, {'x': values}, 2, 2)
    assert bool((decoded['x'][values == 0] == 0).all())
    steps = (values.amax((2, 3), keepdim=True) - values.amin((2, 3), keepdim=True)) / (2**bits - 1)
    assert bool(((decoded['x'] - values).abs() <= 0.505 * steps).all())
    alone = there_and_back(codec, {'x': values[1:]})[0]['x']
    assert torch.equal(alone, decoded['x'][1:]), 'a frame must not depend on those it is sent with'


def test_fewer_bits_need_fewer_bytes():
    values = torch.randn(1, 16, 28, 28, generator=torch.Generator().manual_seed(0))
    sizes = {bits: len(encode(f'quant{bits}-zstd', {'x': values})[0].data) for bits in QUANTISED_BITS}
    assert sorted(sizes, key=sizes.get) == sorted(QUANTISED_BITS)
    for bits, size in sizes.items():
        assert size < values.numel() * bits / 8 + 400


@pytest.mark.parametrize('bits', QUANTISED_BITS)
def test_the_extremes_of_a_type_stay_finite(bits):
    for dtype in (torch.float16, torch.float32):
        greatest = torch.finfo(dtype).max
        for least in (-greatest, -0.4 * greatest, 0.0, 0.9 * greatest):
            values = torch.linspace(0, 1, 64, dtype=torch.float64).mul(greatest - least).add(least).to(dtype)
            names = [f'quant{bits}-zstd', *([f'quant{bits}-jpegls'] if bits in PLANE_BITS else [])]
            for codec in filter(lambda name: CODECS[name].is_installed(), names):
                decoded, _ = there_and_back(codec, {'x': values.reshape(1, 1, 64)})
                assert bool(torch.isfinite(decoded['x']).all())


@pytest.mark.parametrize('codec', [name for name, info in CODECS.items() if info.takes == 'activation'])
def test_lossy_codecs_do_not_change_integers(codec):
    tensors = {'count': torch.tensor([[2**40]]), 'flags': torch.tensor([[True, False]])}
    decoded, _ = there_and_back(codec, tensors)
    assert all(torch.equal(decoded[name], value) for name, value in tensors.items())


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('codec', [f'quant{bits}-zstd' for bits in QUANTISED_BITS] + ['quant8-jpegls', 'quant5-jpegls'])
def test_quantisation_refuses_values_without_a_scale(codec, value):
    values = torch.zeros(1, 2, 4, 4)
    values[0, 1, 0, 0] = value
    with pytest.raises(DynsplitError, match="tensor 'x'.*use another codec"):
        encode(codec, {'x': values})


@pytest.mark.parametrize('codec', [f'jpeg{q}' for q in JPEG_QUALITIES] + [f'webp{q}' for q in WEBP_QUALITIES])
def test_lossy_pictures_are_similar_and_not_turned(codec):
    ramp = torch.linspace(0, 255, 64).to(torch.uint8)
    grey = torch.full((48, 64), 90, dtype=torch.uint8)
    image = torch.stack([ramp.expand(48, 64), ramp.flip(0).expand(48, 64), grey])
    batch = torch.stack([image, image.flip(2)])
    decoded, sent = there_and_back(codec, {'image': batch}, 2, 2)
    assert len(sent[0].data) < batch.numel() // 4
    assert (decoded['image'].float() - batch.float()).abs().mean() < 4


def test_lower_quality_needs_fewer_bytes():
    draw = np.random.default_rng(0)
    image = torch.from_numpy(draw.integers(0, 256, (1, 3, 64, 64), np.uint8))
    for kind, qualities in (('jpeg', JPEG_QUALITIES), ('webp', WEBP_QUALITIES)):
        sizes = [len(encode(f'{kind}{quality}', {'x': image})[0].data) for quality in qualities]
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


def test_usable_codecs_are_those_that_fit_the_cut():
    image = [TensorSpec('image', 'uint8', (1, 3, 8, 8))]
    features = [TensorSpec('x', 'float32', (1, 3, 8, 8))]
    mixed = [*features, TensorSpec('ids', 'int64', (1, 7))]
    lossy = {name for name, info in CODECS.items() if not info.lossless}
    installed = {name: info for name, info in CODECS.items() if info.is_installed()}
    assert set(usable_codecs(image)) == set(CODECS) - lossy
    assert set(usable_codecs(image, True)) == {name for name, info in CODECS.items() if info.takes != 'activation'}
    assert set(usable_codecs(image, True)) & lossy and set(usable_codecs(features, True)) & lossy
    for specs in (features, mixed):
        assert usable_codecs(specs) == tuple(LOSSLESS)
        assert set(usable_codecs(specs, True)) == {name for name, info in installed.items() if info.takes != 'image'}
    assert usable_codecs(image + features) == tuple(LOSSLESS)
    assert usable_codecs([TensorSpec('ids', 'int64', (1, 7))], True) == tuple(LOSSLESS)


@pytest.mark.parametrize('tensor', [torch.zeros(2, dtype=torch.complex64), torch.eye(3).to_sparse()])
def test_tensors_that_cannot_be_sent_are_refused(tensor):
    with pytest.raises(DynsplitError, match='cannot be sent'):
        encode('raw', {'x': tensor})


@pytest.mark.parametrize('codec', [name for name, info in CODECS.items() if info.takes == 'image'])
def test_image_codecs_take_images_only(codec):
    for tensor in (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.uint8)):
        with pytest.raises(DynsplitError, match='is no 8-bit image'):
            encode(codec, {'x': tensor})
    sent = EncodedTensor('x', 'float32', (1, 3, 4, 4), b'\0' * 192)
    with pytest.raises(DynsplitError, match='is no 8-bit image'):
        decode(codec, [sent], [TensorSpec('x', 'float32', (1, 3, 4, 4))])
