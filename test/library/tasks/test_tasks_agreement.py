# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the agreement of one image is, by task."""

import pytest
import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tasks.agreement import agreement_of_image

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]])


def objects(boxes=BOXES, labels=(1, 2, 3), scores=(0.9, 0.8, 0.7)):
    return {'boxes.0': boxes, 'labels.0': torch.tensor(labels), 'scores.0': torch.tensor(scores)}


def test_of_a_classification_the_best_class_counts_and_not_its_score():
    exact = {'logits': torch.tensor([[1.0, 3.0, 2.0]])}
    assert agreement_of_image('classification', exact, {'logits': torch.tensor([[0.0, 9.0, 8.9]])}) == 1.0
    assert agreement_of_image('classification', exact, {'logits': torch.tensor([[1.0, 2.9, 3.0]])}) == 0.0


@pytest.mark.parametrize(
    'changed, expected',
    [
        (objects(), 1.0),
        (objects(BOXES + torch.tensor([1.0, 0, 1, 0])), 1.0),  # IoU of at least 0.8
        (objects(labels=(1, 2, 4)), 2 / 3),
        (objects(BOXES + torch.tensor([[0.0] * 4, [15, 0, 15, 0], [0] * 4])), 2 / 3),
        (objects(BOXES[:2], (1, 2), (0.9, 0.8)), 4 / 5),
        (objects(scores=(0.9, 0.8, 0.1)), 4 / 5),  # below the score that counts
        (objects(BOXES[[0, 0, 1, 2]], (1, 1, 2, 3), (0.9, 0.85, 0.8, 0.7)), 6 / 7),  # one box is matched once
    ],
)
def test_of_a_detection_the_f1_of_matched_boxes_counts(changed, expected):
    assert agreement_of_image('detection', objects(), changed) == pytest.approx(expected)


def test_of_a_detection_without_objects_nothing_disagrees():
    none = objects(BOXES[:0], (), ())
    none['labels.0'] = none['labels.0'].long()
    assert agreement_of_image('detection', none, none) == 1.0
    assert agreement_of_image('detection', none, objects()) == 0.0


def test_of_a_segmentation_the_equal_pixels_count():
    exact = {'out': torch.zeros(1, 4, 4, dtype=torch.uint8)}
    other = {'out': exact['out'].clone()}
    other['out'][0, 0] = 7
    assert agreement_of_image('segmentation', exact, other) == 0.75


@pytest.mark.parametrize('task', ['dense', 'other'])
def test_of_another_task_the_norm_of_the_difference_counts(task):
    exact = {'depth': torch.full((1, 10, 10), 2.0)}
    assert agreement_of_image(task, exact, {'depth': exact['depth'] * 1.009}) == 1.0
    assert agreement_of_image(task, exact, {'depth': exact['depth'] * 1.011}) == 0.0


@pytest.mark.parametrize(
    'task, outputs',
    [
        ('', {'logits': torch.zeros(1, 3)}),
        ('detection', {'logits': torch.zeros(1, 3)}),
        ('classification', {'depth': torch.zeros(1, 3, 3)}),
    ],
)
def test_outputs_without_a_fitting_task_are_refused_in_one_sentence(task, outputs):
    with pytest.raises(DynsplitError, match='task'):
        agreement_of_image(task, outputs, outputs)
