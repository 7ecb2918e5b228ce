# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A detector's answer leaves out what no prediction shows, and the prediction stays equal bit for bit."""

import math

import numpy as np
import pytest
import torch

from dynsplit_ros.codec import decode_answer, encode_answer
from dynsplit_ros.model.preprocess import Placement
from dynsplit_ros.tasks import condensed, interpret, output_digest

HEIGHT, WIDTH = 200, 300
PLACEMENT = Placement((HEIGHT, WIDTH), (HEIGHT, WIDTH), (HEIGHT, WIDTH))


def objects(count: int, image: str = '.0', seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a detector's outputs: discs with soft edges, their scores in descending order."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing='ij')
    centres = torch.rand(count, 2, generator=draw) * torch.tensor([HEIGHT, WIDTH])
    distance = torch.hypot(rows - centres[:, :1, None], columns - centres[:, 1:, None])
    outputs = {
        'boxes': torch.rand(count, 4, generator=draw) * WIDTH,
        'labels': torch.randint(9, (count,), generator=draw),
        'scores': torch.linspace(1, 0, count),
        'masks': torch.sigmoid((40 - distance) / 5)[:, None],
        'keypoints': torch.rand(count, 5, 3, generator=draw),
        'keypoints_scores': torch.rand(count, 5, generator=draw),
    }
    return {name + image: tensor for name, tensor in outputs.items()}


def told(outputs, min_score):
    """Return what a prediction says, in plain values."""
    result = interpret('detection', outputs, ['a', 'b'], placement=PLACEMENT, top_k=1, min_score=min_score)
    masks = [(mask.x, mask.y, mask.pixels.tolist()) for mask in result.masks]
    return (
        result.class_ids,
        result.labels,
        np.float32(result.scores).tobytes(),
        np.float32(result.boxes_px).tobytes(),
        masks,
        np.float32(result.keypoints_px).tobytes(),
        np.float32(result.keypoint_scores).tobytes(),
    )


@pytest.mark.parametrize('min_score', [0.0, 0.3, 0.75, 1.0])
def test_the_prediction_of_a_condensed_answer_is_the_same(min_score) -> None:
    outputs = objects(9)
    outputs['scores.0'][4] = math.nan  # a NaN is for the consumer to see
    codec, encoded = encode_answer(condensed('detection', outputs, min_score))
    received = decode_answer(codec, encoded, None)
    assert told(received, min_score) == told(outputs, min_score)
    # A robot that computed the frame itself publishes the same digest.
    assert output_digest(condensed('detection', received, min_score)) == output_digest(
        condensed('detection', outputs, min_score)
    )


def test_an_answer_with_masks_is_small() -> None:
    outputs = objects(10)
    _, whole = encode_answer(outputs)
    codec, encoded = encode_answer(condensed('detection', outputs, 0.5))
    sent = sum(memoryview(part.data).nbytes for part in encoded)
    assert codec == 'blosc2' and len(condensed('detection', outputs, 0.5)['scores.0']) == 5
    assert sent < 5 * 2000 < sum(memoryview(part.data).nbytes for part in whole) / 200


def test_objects_without_masks_are_left_out_too() -> None:
    outputs = {name: tensor for name, tensor in objects(100).items() if name[:-2] in ('boxes', 'labels', 'scores')}
    codec, encoded = encode_answer(condensed('detection', outputs, 0.9))
    assert codec == 'raw' and sum(memoryview(part.data).nbytes for part in encoded) == 10 * (4 * 4 + 8 + 4)


def test_each_image_of_a_batch_keeps_its_own_objects() -> None:
    outputs = {**objects(4, '.0'), **objects(7, '.1', seed=1), **objects(3, '', seed=2)}
    kept = condensed('detection', outputs, 0.5)
    assert [len(kept[name]) for name in ('masks.0', 'boxes.1', 'labels')] == [2, 4, 2]
    for image in ('.0', '.1', ''):
        one = {
            name: tensor
            for name, tensor in outputs.items()
            if name.removesuffix(image) + image == name and (image or '.' not in name)
        }
        for name, tensor in condensed('detection', one, 0.5).items():
            assert torch.equal(tensor, kept[name])


@pytest.mark.parametrize(
    'outputs',
    [
        {'scores': torch.rand(1, 4), 'boxes': torch.rand(4, 4)},
        {'scores': torch.tensor(0.1)},
        {'logits': torch.rand(1, 3)},
        {'scores': torch.tensor([1, 2]), 'boxes': torch.rand(2, 4)},
        {'scores.x': torch.zeros(2), 'boxes.x': torch.rand(2, 4)},
        {},
    ],
)
def test_what_is_no_detectors_output_stays(outputs) -> None:
    assert condensed('detection', outputs, 0.5) == outputs


def test_a_part_of_another_length_stays_for_the_check_to_refuse() -> None:
    outputs = {**objects(4), 'labels.0': torch.ones(3, dtype=torch.int64)}
    assert len(condensed('detection', outputs, 0.9)['labels.0']) == 3


@pytest.mark.parametrize('task', ['classification', 'segmentation', 'other'])
def test_other_tasks_answer_everything(task) -> None:
    outputs = objects(4)
    assert condensed(task, outputs, 0.9) == outputs
