# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Raw outputs become what a prediction says."""

import pytest
import torch

from dynsplit_ros.tasks import interpret, output_digest

LABELS = ['cat', 'dog', 'cow']


def test_classification_names_the_best_classes_with_their_softmax() -> None:
    result = interpret('classification', {'logits': torch.tensor([[0.0, 2.0, 1.0]])}, LABELS, top_k=2)
    assert result.class_ids == [1, 2] and result.labels == ['dog', 'cow'] and not result.boxes_px
    assert result.scores == pytest.approx(torch.softmax(torch.tensor([0.0, 2.0, 1.0]), 0)[[1, 2]].tolist())


def test_classification_with_fewer_classes_than_asked_for_and_without_labels() -> None:
    result = interpret('classification', {'logits': torch.tensor([[0.0, 2.0]])}, [], top_k=5)
    assert result.class_ids == [1, 0] and result.labels == ['', '']


def test_detection_scales_boxes_to_the_source_image() -> None:
    outputs = {'boxes.0': torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 10.0, 20.0]]),
               'labels.0': torch.tensor([2, 0]), 'scores.0': torch.tensor([0.5, 0.25])}
    result = interpret('detection', outputs, LABELS, top_k=1, scale_xy=(2.0, 3.0))
    assert result.boxes_px == [2.0, 6.0, 6.0, 12.0, 0.0, 0.0, 20.0, 60.0]
    assert result.labels == ['cow', 'cat'] and result.scores == [0.5, 0.25]


def test_detection_of_nothing() -> None:
    outputs = {'boxes.0': torch.empty(0, 4), 'labels.0': torch.empty(0, dtype=torch.int64), 'scores.0': torch.empty(0)}
    result = interpret('detection', outputs, LABELS, top_k=1)
    assert (result.class_ids, result.labels, result.scores, result.boxes_px) == ([], [], [], [])


def test_segmentation_names_the_classes_by_their_share() -> None:
    scores = torch.zeros(1, 3, 2, 2)
    scores[0, 2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    result = interpret('segmentation', {'out': scores}, LABELS, top_k=5)
    assert result.class_ids == [2, 0] and result.scores == [0.75, 0.25] and result.labels == ['cow', 'cat']


def test_digest_tells_one_bit_apart_and_not_the_layout() -> None:
    values = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    same = {'b': values.T.contiguous().T, 'a': torch.tensor([1], dtype=torch.int64)}
    assert output_digest({'a': torch.tensor([1]), 'b': values}) == output_digest(same)
    changed = values.clone()
    changed.view(torch.int32)[1, 1] ^= 1
    for other in ({'b': changed, 'a': same['a']}, {'b': values.reshape(4, 3), 'a': same['a']}, {'b': values}):
        assert output_digest(other) != output_digest(same)
