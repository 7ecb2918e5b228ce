# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs tails on a server of the edge: decodes payloads, runs the tail, encodes answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import time

import torch
from torch import Tensor

from dynsplit_ros.codec import decode, encode_answer, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.records import Tail
from dynsplit_ros.tasks import condensed
from dynsplit_ros.tensors import of_image


@dataclass(frozen=True)
class EncodedAnswer:
    """The encoded outputs of one frame; :func:`~dynsplit_ros.codec.decode_answer` decodes them."""

    codec: str
    tensors: Sequence[EncodedTensor]


@dataclass(frozen=True)
class Payload:
    """The part of a frame that a server needs."""

    codec: str
    tensors: Sequence[EncodedTensor]
    min_score: float = -1.0


@dataclass(frozen=True)
class Failure:
    """Why a frame of a run has no outputs; ``fault`` is the text for the edge's log, empty for a bad payload."""

    reason: str
    fault: str = ''

    @classmethod
    def of(cls, what: str, error: Exception) -> Failure:
        """Return a failure that the edge caused, not the payload."""
        return cls(f'{what} ({type(error).__name__})', f'{what} ({type(error).__name__}: {error})')


Result = EncodedAnswer | Failure


class TailRunner:
    """
    Runs the tails of a split model for frames of at most ``max_images`` images.

    ``slowdown`` > 1 emulates a slower machine by sleeping after each tail.
    """

    def __init__(
        self, split: SplitModel, max_images: int = 1, slowdown: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._split = split
        self._max_images = max_images
        self._slowdown = slowdown
        self._clock = clock

    def run(self, tail: Tail, payloads: Sequence[Payload]) -> tuple[list[Result], float]:
        """
        Run a tail once for the frames of all payloads; return a result for each, and the seconds of the tail.

        An error in a payload affects only its frame; an error of the tail is raised.
        """
        decoded = [self._decode(tail[0], payload) for payload in payloads]
        readable = [tensors for tensors in decoded if not isinstance(tensors, Failure)]
        if not readable:
            return [failure for failure in decoded if isinstance(failure, Failure)], 0.0
        started_s, count = self._clock(), len(readable)
        tensors = (
            readable[0] if count == 1 else {name: torch.cat([each[name] for each in readable]) for name in readable[0]}
        )
        outputs = self._split.tail(*tail)(tensors)
        if self._slowdown > 1:
            time.sleep((self._clock() - started_s) * (self._slowdown - 1))
        tail_s = self._clock() - started_s
        by_name, number = self._split.output_specs is None, 0
        results: list[Result] = []
        for payload, each in zip(payloads, decoded):
            if isinstance(each, Failure):
                results.append(each)
            else:
                results.append(_encode(of_image(outputs, number, count, by_name), payload.min_score))
                number += 1
        return results, tail_s

    def prepare(self, tail: Tail, images: int, stop: Callable[[], bool] | None = None) -> bool:
        """Build a tail and run it once for ``images`` images; return False if that was not necessary."""
        return self._split.prepare_tail(tail[0], images, stop, tail[1])

    def _decode(self, split_index: int, payload: Payload) -> dict[str, Tensor] | Failure:
        try:
            return decode(payload.codec, payload.tensors, self._split.cuts[split_index].tensors, self._max_images)
        except DynsplitError as error:
            return Failure(str(error))
        except Exception as error:  # The other frames of the run must still be served.
            return Failure.of('activation not decoded', error)


def _encode(outputs: dict[str, Tensor], min_score: float) -> Result:
    try:
        return EncodedAnswer(*encode_answer(condensed('detection', outputs, min_score) if min_score >= 0 else outputs))
    except Exception as error:
        return Failure.of('answer not encoded', error)
