# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How far the outputs for one image agree with the unquantised model's, by task."""

from __future__ import annotations

from collections.abc import Mapping
import math

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.parameters import MIN_SCORE
from dynsplit_ros.tasks.results import check_outputs

#: Boxes of one label match from this intersection over union on, as in PASCAL VOC.
MIN_IOU = 0.5
#: Largest Euclidean norm of the difference, as a share of the norm of the model's output, for 'dense' and 'other'.
MOST_DIFFERENCE = 0.01

#: What the agreement of an image is, by task, in words.
MEASURES = {
    'classification': 'same best class',
    'detection': f'F1 of boxes with a score of at least {MIN_SCORE}, same label and IoU of at least {MIN_IOU}',
    'segmentation': 'share of equal pixels',
    'dense': f'the values differ by at most {MOST_DIFFERENCE} of their Euclidean norm',
    'other': f'each output differs by at most {MOST_DIFFERENCE} of its Euclidean norm',
}


def agreement_of_image(task: str, exact: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> float:
    """
    Return how far ``outputs`` for one image (batch 1, on the CPU) agree with ``exact``, from 0 to 1 (MEASURES).

    Raises DynsplitError when ``exact`` does not have the outputs of that task.
    """
    if task not in MEASURES:
        raise DynsplitError(f'the task is {task!r}, but agreement is measured for {", ".join(MEASURES)}; give --task')
    check_outputs(task, exact)
    check_outputs(task, outputs)
    if task == 'detection':
        return _f1(exact, outputs)
    if task in ('dense', 'other'):
        return float(all(_near(value, outputs[name]) for name, value in exact.items()))
    name = next(iter(exact))
    if task == 'classification':
        return float(bool((outputs[name].argmax(1) == exact[name].argmax(1)).all()))
    return float((outputs[name] == exact[name]).double().mean())


def largest_difference(exact: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> float:
    """
    Return the largest difference of an element from ``exact``, as a share of the largest value of that output.

    0 if all are equal to the bit, infinity if shapes or names differ or a difference is no number.
    """
    if exact.keys() != outputs.keys():
        return math.inf
    largest = 0.0
    for name, value in exact.items():
        other = outputs[name]
        if value.shape != other.shape:
            return math.inf
        if value.numel() and not torch.equal(value, other):
            share = float((other.double() - value.double()).abs().max() / value.double().abs().max())
            largest = max(largest, share) if math.isfinite(share) else math.inf
    return largest


def _near(exact: Tensor, value: Tensor) -> bool:
    if exact.shape != value.shape:
        return False
    if not exact.is_floating_point():
        return torch.equal(exact, value)
    difference = torch.linalg.vector_norm(value.double() - exact.double())
    return bool(difference <= MOST_DIFFERENCE * torch.linalg.vector_norm(exact.double()))


def _f1(exact: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> float:
    """Return the F1 score of the detected boxes, each matched with at most one; 1 where both sides have none."""
    true_boxes, true_labels = _detected(exact)
    boxes, labels = _detected(outputs)
    if not len(true_boxes) and not len(boxes):
        return 1.0
    overlaps = box_iou(boxes, true_boxes).nan_to_num() * (labels[:, None] == true_labels[None])
    matches = 0
    for row in overlaps:  # best score first, as detectors give them
        if row.numel() and row.max() >= MIN_IOU:
            overlaps[:, int(row.argmax())] = 0.0
            matches += 1
    return 2 * matches / (len(boxes) + len(true_boxes))


def _detected(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the boxes [N, 4] and labels [N] that count."""
    parts = {name.removesuffix('.0'): tensor for name, tensor in outputs.items()}
    kept = parts['scores'] >= MIN_SCORE
    return parts['boxes'][kept].double(), parts['labels'][kept]
