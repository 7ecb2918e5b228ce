# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Raw outputs to what a prediction says, in pixels of the source image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
import difflib
import hashlib
import math

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.loaded import are_probabilities
from dynsplit_ros.model.preprocess import Placement

#: A pixel belongs to an object where the network's mask exceeds this, as in torchvision's reference code.
MASK_THRESHOLD = 0.5
#: Channels of a dense output: an image message has no name for more.
MOST_CHANNELS = 4
#: Objects with a mask in one answer; torchvision's models give 100. Small masks that come in make large ones here.
MOST_MASKS = 1000
#: A detector's outputs for one image; the first three are always there.
_PARTS = ('boxes', 'labels', 'scores', 'masks', 'keypoints', 'keypoints_scores', 'angles')


@dataclass(frozen=True)
class Mask:
    """
    The pixels of one object: a rectangle of the source image, and which of its pixels are the object's.

    ``x`` and ``y`` are the rectangle's left column and upper row, ``seen`` is the network's own mask, bool [h, w], and
    ``rows`` and ``columns`` tell where in it those of the rectangle lie; none where no pixel is the object's.
    """

    x: int
    y: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    seen: NDArray[np.bool_]

    @property
    def pixels(self) -> NDArray[np.bool_]:
        """Which pixels of the rectangle are the object's, bool [height, width]; made anew, for masks are large."""
        return self.seen[self.rows][:, self.columns]


@dataclass(frozen=True)
class Result:
    """
    What was predicted for one image; entries belong together by position.

    ``class_ids`` are places in the model's labels; ``scores`` go from 0 to 1 (of a segmentation, shares of the image).
    ``boxes_px`` holds x_min, y_min, x_max, y_max of each object in pixels of the source image, one after the other;
    ``box_angles`` is the rotation of each box about its centre, clockwise in the image, in rad, if boxes are oriented;
    ``masks`` one for each object, where the model gives them; ``keypoints_px`` x and y of each keypoint of each object,
    with one entry of ``keypoint_scores`` for each. ``label_image`` is the class of each pixel of the source image,
    uint8 or uint16 [height, width]; the type's greatest value stands for what the network did not see. ``dense`` has
    the values of each pixel of the source image, float32 [height, width, channels], NaN where the network did not see
    it.
    """

    class_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    boxes_px: list[float] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    keypoints_px: list[float] = field(default_factory=list)
    keypoint_scores: list[float] = field(default_factory=list)
    label_image: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    box_angles: list[float] = field(default_factory=list)
    dense: NDArray[np.float32] | None = None


def check_outputs(task: str, outputs: Mapping[str, Tensor]) -> None:
    """Raise DynsplitError unless :func:`interpret` can read these outputs of one image."""
    if task == 'detection':
        parts = _objects(outputs)
        boxes, classes, scores = parts['boxes'], parts['labels'], parts['scores']
        masks, keypoints = parts.get('masks'), parts.get('keypoints')
        keypoint_scores = parts.get('keypoints_scores')
        fits = (
            boxes.ndim == 2
            and boxes.shape[1] == 4
            and classes.shape == scores.shape == boxes.shape[:1]
            and boxes.is_floating_point()
            and scores.is_floating_point()
            and not classes.is_floating_point()
            and bool(((classes.long() >= 0) & (classes.long() < 2**31)).all())
            and (
                masks is None
                or masks.ndim == 4
                and masks.shape[:2] == (len(boxes), 1)
                and min(masks.shape[2:]) > 0
                and len(masks) <= MOST_MASKS
            )
            and (
                keypoints is None
                or keypoints.ndim == 3
                and len(keypoints) == len(boxes)
                and keypoints.shape[2] == 3
                and keypoints.is_floating_point()
            )
            and (
                parts.get('angles') is None
                or parts['angles'].shape == scores.shape
                and parts['angles'].is_floating_point()
            )
            and (keypoint_scores is None or keypoints is not None and keypoint_scores.shape == keypoints.shape[:2])
        )
        if not fits:
            raise DynsplitError(
                f'{_in_words(parts)} do not fit together as objects, or there are classes outside of '
                f'0 to 2**31 or more than {MOST_MASKS} masks; run the same model on both sides'
            )
    elif task == 'dense':
        first = next(iter(outputs.values()), torch.empty(0))
        channels = first.shape[1] if first.ndim == 4 else 1
        if (
            first.ndim not in (3, 4)
            or len(first) != 1
            or not first.is_floating_point()
            or not first.numel()
            or channels > MOST_CHANNELS
        ):
            raise DynsplitError(
                f'the outputs of one image are {_in_words(outputs)}, but for the task dense the first '
                f'one must be float [1, height, width] or [1, 1 to {MOST_CHANNELS}, height, width]; '
                'set task to what the model does, or to other'
            )
    elif task in ('classification', 'segmentation'):
        first = next(iter(outputs.values()), torch.empty(0))
        dense = task == 'segmentation'
        fits = first.ndim == 3 and first.dtype in (torch.uint8, torch.int16) if dense else first.ndim == 2
        if not fits or len(first) != 1 or not first.numel():
            needed = 'scores [1, classes, height, width] or a label map' if dense else '[1, classes]'
            raise DynsplitError(
                f'the outputs of one image are {_in_words(outputs)}, but for the task {task} the first '
                f'one must be {needed}; set task to what the model does, or to other'
            )


def condensed(task: str, outputs: Mapping[str, Tensor], min_score: float) -> dict[str, Tensor]:
    """
    Return outputs without what no prediction shows, so that an answer is small; :func:`interpret` then says the same.

    A detector keeps its objects of at least ``min_score``, and of each mask which pixels are the object's, bool. All
    other outputs stay as they are. The outputs may be of several images ('boxes.0', 'boxes.1', …).
    """
    kept = dict(outputs)
    if task != 'detection':
        return kept
    for name, scores in outputs.items():
        image = name.removeprefix('scores')
        if image == name or image.lstrip('.').strip('0123456789') or not scores.is_floating_point() or scores.ndim != 1:
            continue
        shown = ~(scores < min_score)  # not "at least": a NaN is for the consumer to see
        for part in _PARTS:
            tensor = outputs.get(part + image)
            if tensor is not None and tensor.shape[:1] == scores.shape:
                kept[part + image] = tensor[shown] > MASK_THRESHOLD if part == 'masks' else tensor[shown]
    return kept


def interpret(
    task: str,
    outputs: Mapping[str, Tensor],
    labels: Sequence[str],
    *,
    placement: Placement,
    top_k: int,
    min_score: float = 0.0,
    scores: str | None = None,
    classes: Collection[int] | None = None,
) -> Result:
    """
    Return what the outputs of one image (batch 1, on the CPU) say; their shapes are those of torchvision's models.

    ``placement`` tells where the source image lies in the network's input. Classification: the ``top_k`` best classes
    with their probabilities; ``scores`` (LoadedModel.scores) says what the outputs are, ``None`` finds out from them.
    Detection: all objects of at least ``min_score``, best first. Segmentation: the classes that are there, with their
    share of the network's output, and the label image. Dense: the values of each pixel. ``classes`` are the numbers of
    the classes that may be named, ``None`` for all; the label image has all. For any other task, nothing. Raises
    DynsplitError as :func:`check_outputs` does.
    """
    check_outputs(task, outputs)
    first = next(iter(outputs.values()), torch.empty(0))
    if task == 'classification':
        values = _probabilities(first, scores)[0]
        wanted = (
            torch.tensor(sorted(number for number in classes if number < len(values)), dtype=torch.long)
            if (classes is not None)
            else torch.arange(len(values))
        )
        best, ids = values[wanted].topk(min(top_k, len(wanted)))
        return Result(*_named(wanted[ids], best, labels))
    if task == 'detection':
        return _detections(outputs, labels, placement, min_score, classes)
    if task == 'segmentation':
        kind = np.uint8 if first.dtype == torch.uint8 else np.uint16  # int16 is what PyTorch has in the place of it
        numbers = first[0].numpy().view(kind)
        shares, ids = (torch.from_numpy(np.bincount(numbers.ravel())) / numbers.size).sort(descending=True, stable=True)
        present = shares > 0
        if classes is not None:
            present &= _among(ids, classes)
        seen = placement.sample(numbers, int(np.iinfo(kind).max))
        return Result(*_named(ids[present], shares[present], labels), label_image=seen)
    if task == 'dense':
        pixels = first[0].float().reshape(-1, *first.shape[-2:]).permute(1, 2, 0).numpy()
        return Result(dense=placement.sample(pixels, math.nan))
    return Result()


def _probabilities(values: Tensor, scores: str | None) -> Tensor:
    """Return a probability for each class of a classifier's outputs [N, classes]."""
    if scores is None:
        scores = 'probabilities' if are_probabilities(values) else 'logits'
    if scores == 'probabilities':
        return values.float()
    return values.float().sigmoid() if scores == 'multilabel' else values.float().softmax(1)


def _detections(
    outputs: Mapping[str, Tensor],
    labels: Sequence[str],
    placement: Placement,
    min_score: float,
    classes: Collection[int] | None,
) -> Result:
    parts = _objects(outputs)
    chosen = ~(parts['scores'] < min_score)  # Not "at least": a NaN is for the consumer to see.
    if classes is not None:
        chosen &= _among(parts['labels'], classes)
    kept = {name: part[chosen] for name, part in parts.items()}

    boxes = placement.to_source(kept['boxes'].float().reshape(-1, 2, 2))
    points = kept.get('keypoints', torch.empty(0, 0, 3))
    masks = kept.get('masks', torch.empty(0, 1, 1, 1))[:, 0] > MASK_THRESHOLD
    return Result(
        *_named(kept['labels'], kept['scores'], labels),
        boxes_px=(boxes if 'angles' in kept else placement.clip(boxes)).flatten().tolist(),
        masks=[_mask(mask, placement) for mask in masks.numpy()],
        keypoints_px=placement.to_source(points[:, :, :2].float()).flatten().tolist(),
        keypoint_scores=kept.get('keypoints_scores', points[:, :, 2]).float().flatten().tolist(),
        box_angles=kept['angles'].float().tolist() if 'angles' in kept else [],
    )


def _among(ids: Tensor, classes: Collection[int]) -> Tensor:
    return torch.isin(ids, torch.tensor(sorted(classes), dtype=ids.dtype))


def class_numbers(names: Sequence[str], labels: Sequence[str]) -> frozenset[int] | None:
    """
    Return the numbers of the classes that ``names`` lists by label or number; None for all, which is [''].

    Raises DynsplitError for a name that is neither.
    """
    if list(names) in ([], ['']):
        return None
    numbers = set()
    for name in names:
        if name in labels:
            numbers |= {number for number, label in enumerate(labels) if label == name}
        elif name.isascii() and name.isdigit() and int(name) < 2**31:
            numbers.add(int(name))
        else:
            close = ', '.join(difflib.get_close_matches(name, labels, 3))
            raise DynsplitError(
                f"parameter 'classes' names {name[:100]!r}, which is neither a label nor a number"
                + (f'; the closest labels are {close}' if close else '; give its numbers')
            )
    return frozenset(numbers)


def _mask(seen: NDArray[np.bool_], placement: Placement) -> Mask:
    """Return an object's mask over the network's input, [h, w], as one over the source image."""
    starts, lines = [], []
    for axis in (0, 1):
        all_lines = placement.lines(axis, seen.shape[axis])
        used = np.flatnonzero(seen.any(1 - axis))
        start, end = np.searchsorted(all_lines, (used[0], used[-1] + 1)) if len(used) else (0, 0)
        starts.append(int(start))
        lines.append(all_lines[start:end])
    return Mask(starts[1], starts[0], lines[0], lines[1], seen)


def _objects(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a detector's outputs for its first image by their names."""
    parts = {name.removesuffix('.0'): tensor for name, tensor in outputs.items()}
    if not {'boxes', 'labels', 'scores'} <= parts.keys():
        raise DynsplitError(
            f'the outputs of one image are {_in_words(outputs)}, but for the task detection boxes, '
            'labels and scores are needed; set task to what the model does, or to other'
        )
    return {name: parts[name] for name in _PARTS if name in parts}


def _in_words(outputs: Mapping[str, Tensor]) -> str:
    words = [
        f'{name[:40]} {str(tensor.dtype).removeprefix("torch.")} {list(tensor.shape)}'
        for name, tensor in outputs.items()
    ]
    return ', '.join(words[:8]) + (', …' if len(words) > 8 else '') if words else 'none'


def _named(ids: Tensor, scores: Tensor, labels: Sequence[str]) -> tuple[list[int], list[float], list[str]]:
    """Return the first three parts of a Result."""
    numbers = [int(number) for number in ids]
    return numbers, scores.float().tolist(), [labels[number] if number < len(labels) else '' for number in numbers]


def output_digest(outputs: Mapping[str, Tensor]) -> int:
    """Return 64 bits of the BLAKE2 digest of the raw outputs: equal for outputs that are equal bit for bit."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(outputs):
        tensor = outputs[name].detach().cpu().contiguous()
        digest.update(f'{name}{tensor.dtype}{tuple(tensor.shape)}'.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b'')
    return int.from_bytes(digest.digest(), 'little')
