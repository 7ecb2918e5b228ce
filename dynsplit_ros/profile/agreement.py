# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Measure how far codecs and engines keep the unquantised model's outputs at each cut, on the user's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import itertools
import math

import torch

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.codec import CODECS, decode, encode, usable_codecs
from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import Cut, SplitModel
from dynsplit_ros.profile.measure import engine_of
from dynsplit_ros.profile.profile import AgreementRecord, LOSSLESS
from dynsplit_ros.tasks.agreement import agreement_of_image, largest_difference, MEASURES

#: A codec whose interval lies below this share is given up: no user wants it, and each image costs a tail.
_USELESS = 0.8
#: Images before a codec may be given up.
_FEWEST_IMAGES = 20
Tensors = dict[str, torch.Tensor]


def measure_agreement(
    split: SplitModel,
    images: Iterable[torch.Tensor],
    source: str,
    codecs: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[AgreementRecord, ...]:
    """
    Return the agreement with the whole model, which runs here on both sides, for each pair of ready engines.

    It is measured for every lossy codec at every cut, and for engines other than eager also without loss. ``images``
    are uint8 [3, H, W], resized by the model's own resize; they are read one by one. ``source`` says in words where
    they are from. ``codecs`` restricts what is measured. A codec that disagrees much is given up early; its agreement
    then has fewer images. ``progress`` takes the number of images done. Raises DynsplitError for images or outputs that
    do not fit, and when there is no image.
    """
    task = split.model.task
    if task not in MEASURES:
        raise DynsplitError(
            f'{split.model.name} has the task {task!r}, for which no agreement is defined; give --task '
            f'with one of {", ".join(MEASURES)}'
        )
    found = {
        (head, tail): _to_measure(split, head, tail, codecs)
        for head, tail in itertools.product(split.engines, split.engines)
    }
    done = 0
    for image in images:
        exact = split.whole(image[None])
        for cut in split.cuts:
            index = cut.index or 0
            for head in split.engines:
                agreements = {tail: found[head, tail][index] for tail in split.engines if index in found[head, tail]}
                if not any(agreements.values()):
                    continue
                activation = split.head(cut, head)(image[None])
                for name in {name for of_tail in agreements.values() for name in of_tail}:
                    tails = [tail for tail, of_tail in agreements.items() if _is_wanted(of_tail.get(name))]
                    received = _received(cut, name, activation) if tails else None
                    for tail in tails:
                        outputs = split.tail(cut, tail)(received) if received is not None else None
                        agreements[tail][name] = _with_image(agreements[tail][name], task, exact, outputs)
        done += 1
        progress(done)
    if not done:
        raise DynsplitError('no image was given to measure the agreement with; name a folder or files with --image')
    return tuple(
        AgreementRecord(task, source, engine_of(split, head), engine_of(split, tail), cuts)
        for (head, tail), cuts in found.items()
        if cuts
    )


def _to_measure(
    split: SplitModel, head: str, tail: str, codecs: Sequence[str] | None
) -> dict[int, dict[str, Agreement]]:
    """Return what is to be measured with a pair of engines, by split and codec: the cuts at which both are ready."""
    found = {}
    for cut in split.cuts:
        is_local = cut.index == split.local_index
        if not (split.has_head(cut, head) and split.has_tail(cut, tail)) or is_local and head == EAGER:
            continue
        names = (
            [
                name
                for name in usable_codecs(cut.tensors, allow_lossy=True)
                if not CODECS[name].lossless and (codecs is None or name in codecs)
            ]
            if not is_local
            else []
        )
        found[cut.index or 0] = {name: Agreement() for name in names + [LOSSLESS] * ((head, tail) != (EAGER, EAGER))}
    return found


def _is_wanted(before: Agreement | None) -> bool:
    return before is not None and not (before.images >= _FEWEST_IMAGES and before.high < _USELESS)


def _received(cut: Cut, codec: str, activation: Tensors) -> Tensors | None:
    """Return what the edge would decode; None where the codec cannot carry the activation."""
    if codec == LOSSLESS:
        return activation
    try:
        return decode(codec, encode(codec, activation), cut.tensors)
    except DynsplitError:
        return None  # a NaN, say: the robot would finish such a frame itself, but the codec is of no use here


def _with_image(before: Agreement, task: str, exact: Tensors, outputs: Tensors | None) -> Agreement:
    """Return the agreement with one image more; ``outputs`` is None where there are none."""
    score = agreement_of_image(task, exact, outputs) if outputs is not None else 0.0
    difference = largest_difference(exact, outputs) if outputs is not None else math.inf
    largest = max(difference, before.difference) if before.images else difference
    return Agreement(before.agreeing + score, before.images + 1, float(f'{largest:.4g}'))
