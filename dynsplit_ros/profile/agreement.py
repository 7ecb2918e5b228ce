# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Measure how far each lossy codec at each cut keeps the unquantised model's outputs, on the user's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.codec import CODECS, decode, encode, usable_codecs
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import Cut, SplitModel
from dynsplit_ros.profile.measure import engine_of
from dynsplit_ros.profile.profile import AgreementRecord
from dynsplit_ros.tasks.agreement import agreement_of_image, MEASURES

#: A codec whose interval lies below this share is given up: no user wants it, and each image costs a tail.
_USELESS = 0.8
#: Images before a codec may be given up.
_FEWEST_IMAGES = 20


def measure_agreement(
    split: SplitModel,
    images: Iterable[torch.Tensor],
    source: str,
    codecs: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> AgreementRecord:
    """
    Return the agreement of every lossy codec at every cut with the whole model, which runs here on both sides.

    ``images`` are uint8 [3, H, W], resized by the model's own resize; they are read one by one. ``source`` says in
    words where they are from. ``codecs`` restricts what is measured. A codec that disagrees much is given up early; its
    agreement then has fewer images. ``progress`` takes the number of images done. Raises DynsplitError for images or
    outputs that do not fit, and when there is no image.
    """
    task = split.model.task
    if task not in MEASURES:
        raise DynsplitError(f'{split.model.name} has the task {task!r}, for which no agreement is defined; give --task '
                            f'with one of {", ".join(MEASURES)}')
    sending = split.cuts[: split.local_index]
    chosen = [
        [name for name in usable_codecs(cut.tensors, allow_lossy=True)
         if not CODECS[name].lossless and (codecs is None or name in codecs)]
        for cut in sending
    ]
    found = [{name: Agreement() for name in names} for names in chosen]
    done = 0
    for image in images:
        exact = split.whole(image[None])
        for cut, names in zip(sending, found):
            activation = split.head(cut)(image[None])
            for name, before in names.items():
                if before.images >= _FEWEST_IMAGES and before.high < _USELESS:
                    continue
                score = _score(split, cut, name, activation, task, exact)
                names[name] = Agreement(before.agreeing + score, before.images + 1)
        done += 1
        progress(done)
    if not done:
        raise DynsplitError('no image was given to measure the agreement with; name a folder or files with --image')
    engine = engine_of(split)
    return AgreementRecord(task, source, engine, engine, dict(enumerate(found)))


def _score(split: SplitModel, cut: Cut, codec: str, activation: Any, task: str, exact: Any) -> float:
    """Return the agreement of one image with one codec; 0 where the codec cannot carry the activation."""
    try:
        received = decode(codec, encode(codec, activation), cut.tensors)
    except DynsplitError:
        return 0.0  # a NaN, say: the robot would finish such a frame itself, but the codec is of no use here
    return agreement_of_image(task, exact, split.tail(cut)(received))
