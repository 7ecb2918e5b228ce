# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A module and everything that belongs to it; what each source of models returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dynsplit_ros.model.ending import Ending, parts
from dynsplit_ros.model.label_map import LabelMap
from dynsplit_ros.model.preprocess import Normalise, Resize

TASKS = ('classification', 'segmentation', 'detection', 'dense', 'other')
#: What the scores of a classifier are, and so what makes probabilities of them.
SCORES = ('logits', 'multilabel', 'probabilities')
#: Probabilities sum to 1 within this, float16 included; logits practically never do.
_SUM_TOLERANCE = 1e-2


@dataclass
class LoadedModel:
    """
    A module in evaluation mode and everything that belongs to it.

    ``module`` takes float images [N, channels, H, W] (the output of ``normalise``), or, if ``image_list`` is true, a
    list of N images [channels, H, W]. ``input_size`` is (H, W). ``max_batch`` is the largest N, ``None`` for any.
    ``torchvision`` marks models whose traces this package's tests cover. ``labels`` and ``keypoint_names`` are empty if
    the model has none. ``ending`` is the last step of the network, behind the module; a segmentation has a
    :class:`LabelMap` unless it brings another. ``scores`` says what the outputs of a classifier are: ``'logits'``
    (softmax makes probabilities), ``'multilabel'`` (sigmoid does) or ``'probabilities'``.
    """

    name: str
    module: nn.Module
    task: str
    labels: list[str]
    input_size: tuple[int, int]
    resize: Resize
    normalise: Normalise
    image_list: bool = False
    max_batch: int | None = None
    torchvision: bool = False
    seed: int = 0
    keypoint_names: list[str] = field(default_factory=list)
    ending: Ending | None = None
    scores: str = 'logits'

    def __post_init__(self) -> None:
        if self.task == 'segmentation' and self.ending is None:
            self.ending = LabelMap()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the 8-bit image that split 0 sends."""
        return (self.resize.channel_count, *self.input_size)

    def whole(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Return the named outputs of the unchanged module for ``image``, uint8 [N, channels, H, W].

        If there is an ``ending``, these are its outputs.
        """
        values = self.normalise(image)
        output = self.module(list(values.unbind(0)) if self.image_list else values)
        return name_outputs(
            output if self.ending is None else self.ending(self.ending.select(output)), self.output_name
        )

    @property
    def output_name(self) -> str:
        """The name of the output if the module returns a single tensor."""
        return {'classification': 'logits', 'segmentation': 'label_map', 'dense': 'values'}.get(self.task, 'output')


def are_probabilities(values: torch.Tensor) -> bool:
    """Tell whether a classifier's outputs [N, classes] have passed a softmax: none is negative, and they sum to 1."""
    return (
        values.ndim == 2
        and values.shape[1] > 1
        and bool((values >= 0).all())
        and bool(((values.float().sum(1) - 1).abs() < _SUM_TOLERANCE).all())
    )


def name_outputs(output: Any, name: str = 'output') -> dict[str, Any]:
    """
    Return the tensors in ``output`` by their path in it: keys, positions and field names joined by dots.

    A single tensor has the name ``name``. Containers are mappings, tuples, lists and dataclasses. A list of
    dictionaries, which is what a detector returns for its images, gives ``'boxes.0'``, ``'labels.0'``, ``'boxes.1'`` …:
    the key first, then the image. Anything but tensors is left out.
    """
    found: dict[str, Any] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, torch.Tensor):
            found['.'.join(path) or name] = value
            return
        for key, item in parts(value):
            # The dictionaries of a list are those of its images.
            if not path and isinstance(value, (tuple, list)) and not isinstance(item, (torch.Tensor, tuple, list)):
                for inner, part in parts(item):
                    visit(part, (inner, key))
            else:
                visit(item, (*path, key))

    visit(output, ())
    return found
