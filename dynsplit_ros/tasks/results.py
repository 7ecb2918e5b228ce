# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Raw outputs to what a prediction message says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import hashlib

import torch
from torch import Tensor

from dynsplit_ros.errors import DynsplitError


@dataclass(frozen=True)
class Result:
    """
    What was predicted for one image; entries belong together by position.

    ``boxes_px`` holds x_min, y_min, x_max, y_max of each object in pixels of the source image, one after the other.
    """

    class_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    boxes_px: list[float] = field(default_factory=list)


def interpret(task: str, outputs: Mapping[str, Tensor], labels: Sequence[str], *, top_k: int,
              scale_xy: tuple[float, float] = (1.0, 1.0)) -> Result:
    """
    Return what the outputs of one image (batch 1) say.

    ``scale_xy`` is the source image's width and height over the network's input's. Classification: the ``top_k`` best
    classes with their softmax. Detection: all objects, best first. Segmentation: the classes that are there, with
    their share of the pixels. Raises DynsplitError for objects whose parts do not fit together.
    """
    if task == 'classification':
        logits = next(iter(outputs.values()))[0].float()
        scores, ids = torch.softmax(logits, 0).topk(min(top_k, logits.numel()))
        boxes: list[float] = []
    elif task == 'detection':
        scores, ids, found = (_of_first_image(outputs, name) for name in ('scores', 'labels', 'boxes'))
        if not (scores.shape == ids.shape == found.shape[:1] and found.shape[1:] == (4,)):
            raise DynsplitError(f'classes {tuple(ids.shape)}, scores {tuple(scores.shape)} and boxes {tuple(found.shape)} do '
                                'not fit together; run the same model on both sides')
        boxes = (found.float() * torch.tensor([*scale_xy, *scale_xy])).flatten().tolist()
    else:
        classes = next(iter(outputs.values()))[0].argmax(0)
        ids, counts = classes.unique(return_counts=True)
        shares, order = (counts / classes.numel()).sort(descending=True)
        scores, ids, boxes = shares, ids[order], []
    numbers = [int(number) for number in ids]
    if not all(0 <= number < 2**31 for number in numbers):
        raise DynsplitError('there are classes outside of 0 to 2**31; run the same model on both sides')
    names = [labels[number] if number < len(labels) else '' for number in numbers]
    return Result(numbers, [float(score) for score in scores.float()], names, boxes)


def _of_first_image(outputs: Mapping[str, Tensor], name: str) -> Tensor:
    return outputs[f'{name}.0'] if f'{name}.0' in outputs else outputs[name]


def output_digest(outputs: Mapping[str, Tensor]) -> int:
    """Return 64 bits of the BLAKE2 digest of the raw outputs: equal for outputs that are equal bit for bit."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(outputs):
        tensor = outputs[name].detach().cpu().contiguous()
        digest.update(f'{name}{tensor.dtype}{tuple(tensor.shape)}'.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b'')
    return int.from_bytes(digest.digest(), 'little')
