# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the network says of its input lands on the right pixels of the camera image."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.model.label_map import LabelMap
from dynsplit_ros.model.preprocess import Placement, Resize
from dynsplit_ros.tasks import interpret

CUT_AWAY = 255
#: Source heights and widths, and their resizes: a crop alone, a crop of twice or half the size, odd rests.
CASES = [
    ((40, 60), Resize((32, 32), (40, 40))),
    ((41, 40), Resize((32, 32), (40, 40))),
    ((40, 63), Resize((32, 31), (40, 40))),
    ((80, 122), Resize((32, 32), (40, 40), antialias=False)),
    ((122, 80), Resize((30, 32), (40, 40), antialias=False)),
    ((20, 31), Resize((32, 32), (40, 40), InterpolationMode.NEAREST_EXACT, False)),
    ((80, 120), Resize((40, 60), antialias=False)),
    ((20, 30), Resize((40, 60), None, InterpolationMode.NEAREST_EXACT, False)),
    ((20, 30), Resize((10, 60), None, InterpolationMode.NEAREST_EXACT, False)),
]


def blocks(height: int, width: int) -> np.ndarray:
    """Return a grey image of squares of 2 x 2 equal pixels, from 0 to 254: halving it loses nothing."""
    small = np.random.default_rng(height * width).integers(0, 255, (-(-height // 2), -(-width // 2)), np.uint8)
    return np.kron(small, np.ones((2, 2), np.uint8))[:height, :width]


@pytest.mark.parametrize('source, resize', CASES)
def test_the_resized_image_sampled_back_is_the_image(source, resize) -> None:
    image = blocks(*source)
    seen = resize(np.dstack([image] * 3))[0].numpy()
    placement = resize.placement(*source)
    back = placement.sample(seen, CUT_AWAY)
    assert back.shape == source
    # The network saw the pixels whose centres lie in the box of the whole input; they come back as they were.
    (left, top), (right, bottom) = placement.to_source(torch.tensor([[0.0, 0.0], resize.size[::-1]])).tolist()
    y, x = (np.arange(length) + 0.5 for length in source)
    inside = ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))
    assert np.array_equal(back, np.where(inside, image, CUT_AWAY))
    assert 0 < inside.mean() <= 1 and (resize.cover is not None or inside.all())


def test_an_output_of_lower_resolution_covers_the_whole_input() -> None:
    placement = Placement((6, 10), (4, 6), (4, 4))  # 1.5 rows and 5/3 columns to a pixel, a column cut off at each side
    back = placement.sample(np.array([[1, 2], [3, 4]], np.uint8), CUT_AWAY)
    rows = [0, 0, 0, 1, 1, 1]
    # Centres at 0.5, 1.5, …; of the input's columns, the first half lies from 5/3 to 5, the second from there to 25/3.
    columns = [None, None, 0, 0, 0, 1, 1, 1, None, None]
    assert back.tolist() == [
        [CUT_AWAY if column is None else [[1, 2], [3, 4]][row][column] for column in columns] for row in rows
    ]


@pytest.mark.parametrize('seen', [(32, 32), (16, 8), (1, 1)])
@pytest.mark.parametrize('source, resize', CASES[:6])
def test_masks(source, resize, seen) -> None:
    chance = np.random.default_rng(1)
    masks = np.zeros((4, 1, *seen), np.float32)
    masks[0, 0] = chance.random(seen)
    masks[1, 0, seen[0] // 2 :, : seen[1] // 3] = 0.9
    masks[2] = 0.5  # on the threshold is not beyond it
    masks[3] = 1.0
    placement = resize.placement(*source)
    outputs = {
        'boxes.0': torch.zeros(4, 4),
        'labels.0': torch.ones(4, dtype=torch.int64),
        'scores.0': torch.ones(4),
        'masks.0': torch.from_numpy(masks),
    }
    result = interpret('detection', outputs, [], placement=placement, top_k=1)
    for mask, values in zip(result.masks, masks[:, 0], strict=True):
        picture = np.zeros(source, bool)
        pixels = mask.pixels
        picture[mask.y : mask.y + pixels.shape[0], mask.x : mask.x + pixels.shape[1]] = pixels
        assert np.array_equal(picture, placement.sample((values > 0.5).astype(np.uint8), 0))
        assert pixels.size == 0 or pixels[[0, -1]].any() and pixels[:, [0, -1]].any(), 'the rectangle is too large'
    assert result.masks[2].pixels.shape == (0, 0) and result.masks[3].pixels.all()


@pytest.mark.parametrize('count, kind', [(3, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_label_image(count, kind) -> None:
    resize = Resize((32, 32), (40, 40))
    scores = torch.from_numpy(np.random.default_rng(count).random((1, count, 32, 32), np.float32))
    label_map = LabelMap()(scores)
    result = interpret('segmentation', {'label_map': label_map}, [], placement=resize.placement(80, 120), top_k=5)
    image = result.label_image
    assert image.dtype == kind and image.shape == (80, 120)
    cut_away = np.iinfo(kind).max
    assert set(np.unique(image)) == {*result.class_ids, cut_away}
    # Twice the size, 8 source rows and 28 columns cut off on each side.
    classes = scores[0].argmax(0).numpy()
    assert np.array_equal(image[8:72, 28:92], np.kron(classes, np.ones((2, 2), int)))
    assert (image[:8] == cut_away).all() and (image[:, 92:] == cut_away).all()


def test_keypoints_and_boxes_move_together() -> None:
    outputs = {
        'boxes.0': torch.tensor([[0.0, 0.0, 32.0, 32.0], [4.0, 8.0, 6.0, 9.0]]),
        'scores.0': torch.tensor([0.9, 0.8]),
        'labels.0': torch.tensor([1, 1]),
        'keypoints_scores.0': torch.tensor([[7.0], [-1.5]]),
        'keypoints.0': torch.tensor([[[0.0, 0.0, 1.0]], [[4.0, 8.0, 1.0]]]),
    }
    placement = Resize((32, 32), (40, 40)).placement(80, 120)
    result = interpret('detection', outputs, ['', 'person'], placement=placement, top_k=1)
    assert result.boxes_px == [28.0, 8.0, 92.0, 72.0, 36.0, 24.0, 40.0, 26.0]
    assert result.keypoints_px == [28.0, 8.0, 36.0, 24.0]
    assert result.keypoint_scores == [7.0, -1.5]


def test_a_torchvision_classifier_crops_and_its_box_is_the_centre() -> None:
    resize = load_model('mobilenet_v2', weights='none', input_size=(64, 64)).resize
    placement = resize.placement(480, 640)
    assert placement.scaled[0] < placement.scaled[1] and placement.offset[0] < placement.offset[1]
    centre = placement.to_source(torch.tensor([32.0, 32.0]))
    assert centre.tolist() == pytest.approx([320, 240], abs=640 / placement.scaled[1])


@pytest.mark.parametrize('source', [(1, 65_000), (65_000, 1)])
def test_a_strip_that_would_fill_the_memory_is_refused(source) -> None:
    resize = Resize((224, 224), (256, 256))
    with pytest.raises(DynsplitError, match='crop it first'):  # scaled, it would be 12 GB
        resize(np.zeros((*source, 3), np.uint8))
    assert resize(np.zeros((30, 600, 3), np.uint8)).shape == (3, 224, 224)
