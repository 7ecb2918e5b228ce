# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each way to make the network's input of an image, and the way back from its outputs."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2 import functional

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.model.preprocess import Normalise, Resize, resize_of, RESIZES
from dynsplit_ros.tasks import interpret

SIZES = [(360, 640), (480, 640), (640, 480), (720, 1280), (37, 211), (333, 500)]


def photograph(height: int, width: int) -> np.ndarray:
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return (ramp + np.random.default_rng(0).normal(0, 30, ramp.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('source', SIZES)
@pytest.mark.parametrize('size', [(320, 320), (192, 320)])
def test_letterbox_has_the_geometry_of_ultralytics(source, size) -> None:
    placement = resize_of('letterbox', size).placement(*source)
    gain = min(size[0] / source[0], size[1] / source[1])
    width, height = round(source[1] * gain), round(source[0] * gain)
    left, top = round((size[1] - width) / 2 - 0.1), round((size[0] - height) / 2 - 0.1)
    assert placement.scaled == (height, width) and placement.offset == (-top, -left)


@pytest.mark.parametrize('source', SIZES)
def test_short_side_has_the_geometry_of_torchvisions_detectors(source) -> None:
    own = GeneralizedRCNNTransform(200, 333, [0, 0, 0], [1, 1, 1])
    images, _ = own([torch.zeros(3, *source)])
    resize = Resize((333, 333), pad='end', shorter=200, antialias=False)
    assert resize.placement(*source).scaled == images.image_sizes[0] and resize.placement(*source).offset == (0, 0)
    assert Resize(images.image_sizes[0], pad='end', shorter=200).placement(*source).scaled == images.image_sizes[0]
    smaller = Resize((100, 150), pad='end', shorter=200).placement(*source).scaled
    assert smaller[0] <= 100 and smaller[1] <= 150


@pytest.mark.parametrize('way', RESIZES)
@pytest.mark.parametrize('channels', ['rgb', 'bgr', 'grey', 'rgba'])
def test_the_image_lies_where_its_placement_says_and_the_rest_is_the_fill(way, channels) -> None:
    image = photograph(90, 200)
    resize = resize_of(way, (64, 96), channels=channels, fill=(7,))
    sent, placement = resize(image), resize.placement(90, 200)
    assert sent.dtype == torch.uint8 and sent.is_contiguous() and sent.shape == (resize.channel_count, 64, 96)
    pixels = image if channels != 'grey' else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    scaled = functional.resize(tensor, list(placement.scaled), resize.interpolation, antialias=True)
    top, left = placement.offset
    expected = torch.full((len(tensor), 64, 96), 7, dtype=torch.uint8)
    for y in range(64):
        rows = y + top
        if 0 <= rows < placement.scaled[0]:
            columns = torch.arange(96) + left
            inside = (columns >= 0) & (columns < placement.scaled[1])
            expected[:, y, inside] = scaled[:, rows, columns[inside]]
    assert torch.equal(sent[: len(tensor)], expected)
    if channels == 'rgba':
        assert sent[3].eq(255).all()


@pytest.mark.parametrize('way', RESIZES)
@pytest.mark.parametrize('source', SIZES)
def test_boxes_masks_and_keypoints_come_back_to_the_pixels_of_the_image(way, source) -> None:
    placement = resize_of(way, (64, 96)).placement(*source)
    # A box in the middle of the image, seen by the network.
    box = np.array([0.4 * source[1], 0.4 * source[0], 0.6 * source[1], 0.6 * source[0]], np.float32)
    seen = [box[i] * placement.scaled[1 - i % 2] / source[1 - i % 2] - placement.offset[1 - i % 2] for i in range(4)]
    mask = torch.zeros(1, 1, 64, 96)
    mask[0, 0, round(float(seen[1])) : round(float(seen[3])), round(float(seen[0])) : round(float(seen[2]))] = 1
    outputs = {
        'boxes': torch.tensor([[float(value) for value in seen]]),
        'labels': torch.ones(1, dtype=torch.int64),
        'scores': torch.ones(1),
        'masks': mask,
        'keypoints': torch.tensor([[[float(seen[0]), float(seen[1]), 1.0]]]),
    }
    result = interpret('detection', outputs, [], placement=placement, top_k=1)
    assert np.allclose(result.boxes_px, box, atol=1e-2) and np.allclose(result.keypoints_px, box[:2], atol=1e-2)
    pixel = [source[axis] / placement.scaled[axis] + 1 for axis in (0, 1)]
    if result.masks[0].pixels.size:
        assert abs(result.masks[0].x - box[0]) <= pixel[1] and abs(result.masks[0].y - box[1]) <= pixel[0]
        assert result.masks[0].pixels.all()


def test_boxes_in_the_borders_end_at_the_image_and_nan_stays() -> None:
    placement = resize_of('letterbox', (64, 64)).placement(90, 160)
    outputs = {
        'boxes': torch.tensor([[-5.0, 0.0, 70.0, 64.0], [torch.nan, 20.0, 30.0, 40.0]]),
        'labels': torch.ones(2, dtype=torch.int64),
        'scores': torch.ones(2),
    }
    result = interpret('detection', outputs, [], placement=placement, top_k=1)
    assert result.boxes_px[:4] == [0, 0, 160, 90] and np.isnan(result.boxes_px[4])


def test_a_label_image_of_a_letterboxed_image_covers_the_image() -> None:
    placement = resize_of('letterbox', (64, 64)).placement(90, 160)
    top = -placement.offset[0]
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[:, top : top + placement.scaled[0]] = 3
    result = interpret('segmentation', {'label_map': labels}, [], placement=placement, top_k=1)
    assert result.label_image.shape == (90, 160) and (result.label_image == 3).all()


def test_the_ways_are_set_by_name_and_wrong_ones_are_refused() -> None:
    model = load_model('mobilenet_v2', input_size=(64, 64), resize='letterbox', interpolation='nearest', channels='bgr')
    assert model.resize.pad == 'around' and model.resize.interpolation.value == 'nearest-exact'
    image = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    plain = load_model('mobilenet_v2', input_size=(64, 64)).normalise
    assert torch.equal(model.normalise(image), plain(image.flip(1)))
    for bad in (
        {'resize': 'squeeze'},
        {'interpolation': 'lanczos'},
        {'channels': 'yuv'},
        {'crop_fraction': 0.0},
        {'channels': 'grey'},
        {'mean': [0.5], 'std': [0.5]},
    ):
        with pytest.raises(DynsplitError):
            load_model('mobilenet_v2', **bad)


@pytest.mark.parametrize(('mean', 'std'), [([0.5], [0.25]), ([0.1] * 4, [0.2] * 4), ([0.0] * 3, [1 / 255] * 3)])
def test_mean_and_std_may_have_any_number_of_channels(mean, std) -> None:
    image = torch.randint(256, (2, len(mean), 4, 4), dtype=torch.uint8)
    expected = (image.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    assert torch.equal(Normalise(mean, std)(image), expected)
    with pytest.raises(DynsplitError, match='one finite number for each'):
        Normalise(mean * 5, std * 5)
