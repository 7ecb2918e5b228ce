# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The choices of split and codec, with their profiled times and sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.agreement import Agreement, images_needed
from dynsplit_ros.engine_names import EAGER, Engines
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner.constraints import ALL_CODECS, OBJECTIVES, PlannerConstraints
from dynsplit_ros.profile.profile import CodecProfile, LOSSLESS, SystemCut, SystemProfile, undominated

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Bound on the agreement that an error message assumes if the user has set none.
_USUAL_BOUND = 0.98


class Choices:
    """
    A table with one row for each choice; local inference is the last one.

    ``engines`` lists, for each choice, the fastest pair of engines that the constraints allow (:func:`engines_to_use`).
    Columns are arrays of shape [choices]: ``split`` (split index), ``is_local`` and its opposite ``sends``,
    ``payload_bytes``, ``bits`` (payload and answer; the answer's bits are divided by ``downlink_ratio``),
    ``answer_bits``, and the profiled times in seconds ``head_s``, ``encode_s``, ``decode_s``, ``tail_s`` and
    ``finish_s`` (the tail on the robot). ``allowed`` says which choices the constraints allow while the edge answers.
    ``codecs`` and ``names`` (of the splits) are lists of the same length. Raises DynsplitError if the constraints do
    not fit the profile.
    """

    def __init__(
        self, profile: SystemProfile, constraints: PlannerConstraints, batch: int, downlink_ratio: float
    ) -> None:
        _check(profile, constraints, batch)
        local, bound = profile.cuts[-1], constraints.min_agreement
        rows = [
            (cut, name, codec)
            for cut in profile.cuts[:-1]
            for name, codec in codecs_to_choose_from(cut, batch, constraints.codecs, bound).items()
        ]
        engines = [engines_to_use(cut, batch, name, bound) or (EAGER, EAGER) for cut, name, _ in rows]
        local_engine = local_engine_to_use(profile, batch, bound)
        self.engines = [*engines, (local_engine, '')]
        self.codecs = [name for _, name, _ in rows] + ['']
        self.names = [cut.name for cut, _, _ in rows] + [local.name]
        self.split = np.array([cut.index for cut, _, _ in rows] + [local.index])
        self.is_local: Flags = self.split == local.index
        self.sends: Flags = np.logical_not(self.is_local)
        self.payload_bytes = _column([codec.payload_bytes[batch] for _, _, codec in rows] + [0])
        self.answer_bits = 8 * profile.answer_bytes * batch / downlink_ratio * self.sends
        self.bits = 8 * self.payload_bytes + self.answer_bits
        self.head_s = _column(
            [cut.head_on(head)[batch] for (cut, _, _), (head, _) in zip(rows, engines)]
            + [local.head_on(local_engine)[batch]]
        )
        self.encode_s = _column([codec.encode_s[batch] for _, _, codec in rows] + [0.0])
        self.decode_s = _column([codec.decode_s[batch] for _, _, codec in rows] + [0.0])
        self.tail_s = _column([cut.tail_on(tail)[batch] for (cut, _, _), (_, tail) in zip(rows, engines)] + [0.0])
        self.finish_s = _column([cut.finish_s[batch] for cut, _, _ in rows] + [0.0])

        self.allowed: Flags = (self.split >= constraints.shallowest_split) | self.is_local
        if constraints.pinned_split >= 0:
            self.allowed &= self.split == constraints.pinned_split
        if not self.allowed.any():
            raise DynsplitError(
                f'no choice is left: pinned_split {constraints.pinned_split}, shallowest_split '
                f'{constraints.shallowest_split}, codecs {list(constraints.codecs)}, min_agreement '
                f'{constraints.min_agreement:g}; allow another split or codec'
            )

    def __len__(self) -> int:
        return len(self.codecs)

    @property
    def local(self) -> int:
        """Row of local inference."""
        return len(self) - 1

    def describe(self, choice: int) -> str:
        """Return a choice in words."""
        engines = ' and '.join(filter(None, self.engines[choice])) if {*self.engines[choice]} - {EAGER, ''} else ''
        if choice == self.local:
            return f'local inference on {engines}' if engines else 'local inference'
        words = self.names[choice], self.codecs[choice], *([engines] if engines else [])
        return f'split {self.split[choice]} ({", ".join(words)})'


def codecs_to_choose_from(
    cut: SystemCut, batch: int, codecs: Collection[str] = ALL_CODECS, min_agreement: float = 1.0
) -> dict[str, CodecProfile]:
    """Return the codecs that a user allows at a cut, without those that are best at no rate and load."""
    usable = {
        name: engines
        for name in cut.codecs
        if codecs == ALL_CODECS or name in codecs
        if (engines := engines_to_use(cut, batch, name, min_agreement)) is not None
    }
    front = undominated(
        {
            name: (
                codec.payload_bytes[batch],
                codec.encode_s[batch],
                codec.decode_s[batch],
                _compute_s(cut, batch, usable[name]),
            )
            for name, codec in cut.codecs.items()
            if name in usable
        }
    )
    return {name: cut.codecs[name] for name in front}


def engines_to_use(cut: SystemCut, batch: int, codec: str, min_agreement: float = 1.0) -> Engines | None:
    """
    Return the fastest engines of head and tail whose agreement with this codec keeps a bound; None if no pair keeps it.

    The robot runs the tail of a frame without an answer on eager, and so does an edge whose engine is not ready. So the
    head's engine must also keep the bound with an eager tail. A bound of 1 allows eager on both sides, and pairs whose
    outputs were measured equal to the bit.
    """
    allowed = [
        pair
        for pair in cut.pairs
        if all(_keeps_bound(cut, codec, one, min_agreement) for one in (pair, (pair[0], EAGER)))
    ]
    return min(allowed, key=lambda pair: _compute_s(cut, batch, pair), default=None)  # eager is the first of equal ones


def local_engine_to_use(profile: SystemProfile, batch: int, min_agreement: float = 1.0) -> str:
    """Return the robot's fastest engine on which the whole network keeps a bound on the agreement."""
    local = profile.cuts[-1]
    found = {head: agreement.get(LOSSLESS, Agreement()) for (head, _), agreement in local.engine_agreement.items()}
    allowed = [
        EAGER,
        *(engine for engine in local.engine_head_s if _keeps(found.get(engine, Agreement()), min_agreement)),
    ]
    return min(allowed, key=lambda engine: local.head_on(engine)[batch])


def engines_below(profile: SystemProfile, min_agreement: float) -> list[str]:
    """Return the engines that are ready but keep the bound in no measured pair."""
    ready = {name for cut in profile.cuts for name in (*cut.engine_head_s, *cut.engine_tail_s)}
    kept = {
        name
        for cut in profile.cuts
        for pair in cut.engine_agreement
        if _keep_without_loss(cut, pair, min_agreement)
        for name in pair
    }
    return sorted(ready - kept) if min_agreement > 0 else []


def _keeps_bound(cut: SystemCut, codec: str, pair: Engines, bound: float) -> bool:
    is_eager, lossless = pair == (EAGER, EAGER), cut.codecs[codec].lossless
    agreement = cut.agreement if is_eager else cut.engine_agreement.get(pair, {})
    found = agreement.get(LOSSLESS if lossless else codec, Agreement())
    if lossless:
        return is_eager or _keeps(found, bound)
    return bound == 0 or bound < 1 and found.low >= bound


def _keep_without_loss(cut: SystemCut, pair: Engines, bound: float) -> bool:
    """Whether a pair of engines keeps a bound with a lossless codec, also with an eager tail."""
    return all(
        one == (EAGER, EAGER) or _keeps(cut.engine_agreement.get(one, {}).get(LOSSLESS, Agreement()), bound)
        for one in (pair, (pair[0], EAGER))
    )


def _keeps(found: Agreement, bound: float) -> bool:
    """Whether a measured agreement with a lossless codec keeps a bound."""
    return bound == 0 or found.is_exact or bound < 1 and found.low >= bound


def _compute_s(cut: SystemCut, batch: int, pair: Engines) -> float:
    head, tail = pair
    return cut.head_on(head)[batch] + cut.tail_on(tail)[batch]


def _check_agreement(profile: SystemProfile, constraints: PlannerConstraints) -> None:
    """Raise DynsplitError if the user asks for a lossy codec whose agreement was not measured on enough images."""
    bound, images = constraints.min_agreement, profile.agreement_images
    if bound == 0:
        return
    command = f"'./run profile {profile.model} --image FOLDER' on the robot, with at least"
    lossy = sorted({name for cut in profile.cuts for name, codec in cut.codecs.items() if not codec.lossless})
    measured = {
        name for cut in profile.cuts for found in (cut.agreement, *cut.engine_agreement.values()) for name in found
    }
    unmeasured = [name for name in lossy if name in constraints.codecs and name not in measured]
    if unmeasured:
        raise DynsplitError(
            f'codecs names {unmeasured[0]!r}, which is lossy, but the profile of {profile.model!r} has no measured '
            f'agreement of it; run {command} {images_needed(min(bound, _USUAL_BOUND))} images, or set min_agreement to '
            '0'
        )
    if bound < 1 and not measured:
        raise DynsplitError(
            f'min_agreement is {bound:g}, but the profile of {profile.model!r} has no measured agreement; run '
            f'{command} {images_needed(bound)} images, or set min_agreement to 1'
        )
    if bound < 1 and images < images_needed(bound):
        raise DynsplitError(
            f'min_agreement is {bound:g}, which at least {images_needed(bound)} images can show, but the agreement of '
            f'{profile.model!r} was measured on {images}; run {command} that number of images'
        )


def _column(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)


def _check(profile: SystemProfile, constraints: PlannerConstraints, batch: int) -> None:
    """Raise DynsplitError if the constraints name a batch, codec or split that the profile does not have."""
    if batch not in profile.batches:
        raise DynsplitError(
            f'batch {batch} was not profiled, only {list(profile.batches)}: profile it, or use one of these'
        )
    if not 0 <= constraints.min_agreement <= 1:
        raise DynsplitError(f'min_agreement is {constraints.min_agreement}, but must be between 0 and 1')
    _check_agreement(profile, constraints)
    if constraints.objective not in OBJECTIVES:
        raise DynsplitError(f'the objective {constraints.objective!r} is not known: use one of {", ".join(OBJECTIVES)}')
    for name, index in (
        ('shallowest_split', constraints.shallowest_split),
        ('pinned_split', max(constraints.pinned_split, 0)),
    ):
        if not 0 <= index <= profile.local_index:
            raise DynsplitError(
                f'{name} is {index}, but {profile.model!r} has the splits 0 to {profile.local_index}; name one of these'
            )
