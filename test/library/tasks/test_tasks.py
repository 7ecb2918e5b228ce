# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Raw outputs become what a prediction says."""

import numpy as np
import pytest
import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.preprocess import Placement, Resize
from dynsplit_ros.tasks import check_outputs, class_numbers, interpret, output_digest

LABELS = ['cat', 'dog', 'cow']
SAME = Placement((2, 2), (2, 2), (2, 2))


def test_classification_names_the_best_classes_with_their_softmax() -> None:
    result = interpret('classification', {'logits': torch.tensor([[0.0, 2.0, 1.0]])}, LABELS, placement=SAME, top_k=2)
    assert result.class_ids == [1, 2] and result.labels == ['dog', 'cow'] and not result.boxes_px
    assert result.scores == pytest.approx(torch.softmax(torch.tensor([0.0, 2.0, 1.0]), 0)[[1, 2]].tolist())


def test_classification_with_fewer_classes_than_asked_for_and_without_labels() -> None:
    result = interpret('classification', {'logits': torch.tensor([[0.0, 2.0]])}, [], placement=SAME, top_k=5)
    assert result.class_ids == [1, 0] and result.labels == ['', '']


def test_detection_scales_boxes_to_the_source_image() -> None:
    outputs = {
        'boxes.0': torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 10.0, 20.0]]),
        'labels.0': torch.tensor([2, 0]),
        'scores.0': torch.tensor([0.5, 0.25]),
    }
    result = interpret('detection', outputs, LABELS, placement=Placement((30, 20), (10, 10), (10, 10)), top_k=1)
    assert result.boxes_px == [2.0, 6.0, 6.0, 12.0, 0.0, 0.0, 20.0, 60.0]
    assert result.labels == ['cow', 'cat'] and result.scores == [0.5, 0.25]


def test_detection_of_nothing() -> None:
    outputs = {'boxes.0': torch.empty(0, 4), 'labels.0': torch.empty(0, dtype=torch.int64), 'scores.0': torch.empty(0)}
    result = interpret('detection', outputs, LABELS, placement=SAME, top_k=1)
    assert (result.class_ids, result.labels, result.scores, result.boxes_px) == ([], [], [], [])


def test_segmentation_names_the_classes_by_their_share() -> None:
    outputs = {'label_map': torch.tensor([[[2, 2], [2, 0]]], dtype=torch.uint8)}
    result = interpret('segmentation', outputs, LABELS, placement=SAME, top_k=5)
    assert result.class_ids == [2, 0] and result.scores == [0.75, 0.25] and result.labels == ['cow', 'cat']


def objects(count: int, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a detector's outputs, some of them changed."""
    return {
        'boxes': torch.rand(count, 4),
        'labels': torch.ones(count, dtype=torch.int64),
        'scores': torch.linspace(1, 0, count),
        'masks': torch.rand(count, 1, 2, 2),
        'keypoints': torch.rand(count, 5, 3),
        'keypoints_scores': torch.rand(count, 5),
        **changes,
    }


def test_objects_that_score_less_are_left_out_with_all_their_parts() -> None:
    outputs = objects(5)
    result = interpret('detection', outputs, [], placement=SAME, top_k=1, min_score=0.5)
    assert result.scores == [1.0, 0.75, 0.5] and len(result.class_ids) == 3 == len(result.masks)
    assert result.boxes_px == outputs['boxes'][:3].flatten().tolist()
    assert len(result.keypoints_px) == 2 * 3 * 5 == 2 * len(result.keypoint_scores)
    assert not interpret('detection', outputs, [], placement=SAME, top_k=1, min_score=1.1).class_ids


def test_only_the_chosen_classes_are_named() -> None:
    logits = {'logits': torch.tensor([[3.0, 2.0, 1.0]])}
    result = interpret('classification', logits, LABELS, placement=SAME, top_k=5, classes={1, 2, 9})
    whole = torch.softmax(logits['logits'][0], 0)
    assert result.labels == ['dog', 'cow'] and result.scores == pytest.approx(whole[1:].tolist())
    outputs = objects(5, labels=torch.tensor([0, 1, 2, 1, 0]))
    result = interpret('detection', outputs, LABELS, placement=SAME, top_k=1, classes={1})
    assert result.labels == ['dog', 'dog'] and len(result.masks) == 2 and len(result.keypoint_scores) == 10
    outputs = {'label_map': torch.tensor([[[2, 2], [2, 0]]], dtype=torch.uint8)}
    result = interpret('segmentation', outputs, LABELS, placement=SAME, top_k=5, classes={0, 1})
    assert result.labels == ['cat'] and result.scores == [0.25] and (result.label_image == [[2, 2], [2, 0]]).all()


def test_classes_are_named_by_label_or_number() -> None:
    assert class_numbers([''], LABELS) is None and class_numbers([], LABELS) is None
    assert class_numbers(['dog', '0'], LABELS) == {0, 1} and class_numbers(['7'], []) == {7}
    assert class_numbers(['crane'], ['crane', 'dog', 'crane']) == {0, 2}, 'ImageNet has two cranes'
    for name, says in (('dug', 'closest labels are dog'), ('-1', 'neither'), ('99999999999', 'neither')):
        with pytest.raises(DynsplitError, match=says):
            class_numbers([name], LABELS)


def test_oriented_boxes_have_an_angle_and_are_not_clipped() -> None:
    outputs = objects(
        2, boxes=torch.tensor([[-1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]), angles=torch.tensor([0.5, 1.0])
    )
    result = interpret(
        'detection', outputs, [], placement=Resize((4, 4), pad='around').placement(2, 4), top_k=1, min_score=0.5
    )
    assert result.box_angles == [0.5] and result.boxes_px[0] == -1.0


@pytest.mark.parametrize('shape', [(1, 1, 4, 4), (1, 4, 4), (1, 3, 4, 4)])
def test_dense_values_are_those_of_each_pixel(shape) -> None:
    values = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    result = interpret('dense', {'values': values}, [], placement=Resize((4, 4), pad='end').placement(4, 8), top_k=1)
    assert result.dense.shape == (4, 8, shape[1] if len(shape) == 4 else 1) and result.dense.dtype == np.float32
    first = values.reshape(-1, 4, 4)[0]
    assert np.array_equal(result.dense[..., 0], np.kron(first[:2], np.ones((2, 2))))
    cut = interpret('dense', {'values': values}, [], placement=Resize((4, 4), (4, 4)).placement(4, 8), top_k=1)
    assert np.isnan(cut.dense[:, 0]).all() and np.isfinite(cut.dense[:, 2:6]).all()


def test_what_the_network_is_not_sure_of_is_passed_on() -> None:
    outputs = objects(1, scores=torch.tensor([torch.nan]), boxes=torch.full((1, 4), torch.inf))
    result = interpret('detection', outputs, [], placement=SAME, top_k=1, min_score=0.5)
    assert result.scores[0] != result.scores[0] and result.boxes_px == [torch.inf] * 4


@pytest.mark.parametrize(
    'changes',
    [
        {'boxes': torch.rand(2, 5)},
        {'boxes': torch.rand(3, 4)},
        {'boxes': torch.zeros(2, 4, dtype=torch.int64)},
        {'labels': torch.ones(2)},
        {'labels': torch.tensor([1, -1])},
        {'labels': torch.tensor([1, 2**31])},
        {'scores': torch.rand(2, 1)},
        {'scores': torch.ones(2, dtype=torch.bool)},
        {'masks': torch.rand(2, 2, 2)},
        {'masks': torch.rand(2, 2, 2, 2)},
        {'masks': torch.rand(2, 1, 0, 2)},
        {'keypoints': torch.rand(2, 5, 2)},
        {'keypoints': torch.rand(1, 5, 3)},
        {'keypoints': torch.rand(2, 5, 3).int()},
        {'keypoints_scores': torch.rand(2, 4)},
        {'angles': torch.rand(2, 1)},
        {'angles': torch.ones(2, dtype=torch.int64)},
    ],
)
def test_objects_whose_parts_do_not_fit_are_refused(changes) -> None:
    check_outputs('detection', objects(2))
    with pytest.raises(DynsplitError, match='do not fit together'):
        check_outputs('detection', objects(2, **changes))


def test_small_masks_do_not_become_a_flood_of_large_ones() -> None:
    check_outputs('detection', objects(1000))
    with pytest.raises(DynsplitError, match='1000 masks'):
        check_outputs('detection', objects(1001))


@pytest.mark.parametrize(
    'task, outputs, sentence',
    [
        ('detection', {'boxes.0': torch.rand(2, 4)}, 'boxes, labels and scores are needed'),
        ('detection', {}, 'are none'),
        ('classification', {'output': torch.rand(1, 3, 4, 4)}, r'float32 \[1, 3, 4, 4\].*must be \[1, classes\]'),
        ('classification', {'output': torch.rand(2, 3)}, 'of one image'),
        ('classification', {'output': torch.rand(1, 0)}, 'classes'),
        ('segmentation', {'output': torch.rand(1, 3)}, 'height, width'),
        ('segmentation', {'output': torch.rand(1, 8, 8)}, 'label map'),
        ('segmentation', {'output': torch.zeros(1, 8, 8, dtype=torch.int64)}, 'label map'),
        ('segmentation', {}, 'height, width'),
        ('dense', {}, 'height, width'),
        ('dense', {'values': torch.rand(1, 5, 8, 8)}, '1 to 4'),
        ('dense', {'values': torch.zeros(1, 8, 8, dtype=torch.int64)}, 'float'),
    ],
)
def test_outputs_of_another_task_are_named(task, outputs, sentence) -> None:
    with pytest.raises(DynsplitError, match=sentence):
        check_outputs(task, outputs)


def test_other_tasks_are_left_to_the_consumer() -> None:
    result = interpret('other', {'depth': torch.rand(1, 1, 4, 4)}, [], placement=SAME, top_k=1)
    assert not result.class_ids and result.label_image is None


def test_digest_tells_one_bit_apart_and_not_the_layout() -> None:
    values = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    same = {'b': values.T.contiguous().T, 'a': torch.tensor([1], dtype=torch.int64)}
    assert output_digest({'a': torch.tensor([1]), 'b': values}) == output_digest(same)
    changed = values.clone()
    changed.view(torch.int32)[1, 1] ^= 1
    for other in ({'b': changed, 'a': same['a']}, {'b': values.reshape(4, 3), 'a': same['a']}, {'b': values}):
        assert output_digest(other) != output_digest(same)
