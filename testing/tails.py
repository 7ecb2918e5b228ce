# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Replicas whose tails take a set time, by sleeping: two cores cannot show more than two of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import time

import numpy as np

from dynsplit_ros.codec import EncodedTensor
from dynsplit_ros.policies.records import Tail
from dynsplit_ros.runtime.tails import EncodedAnswer, Payload, Result


@dataclass(frozen=True)
class SleepingTails:
    """Makes replicas that sleep for ``service_s`` seconds in each run, and answer with ``answer_bytes`` bytes."""

    service_s: float = 0.0
    answer_bytes: int = 4000
    fails: str = ''

    def __call__(self) -> SleepingTails:
        """Return what runs in a replica; raise RuntimeError if it is to fail."""
        if self.fails:
            raise RuntimeError(self.fails)
        return self

    def run(self, tail: Tail, payloads: Sequence[Payload]) -> tuple[list[Result], float]:
        """Sleep, and answer each payload."""
        for payload in payloads:
            for tensor in payload.tensors:
                if len(tensor.data) != np.prod(tensor.shape):
                    raise ValueError('the payload is not what was sent')
        started_s = time.monotonic()
        if self.service_s:
            time.sleep(self.service_s)
        outputs = np.zeros(self.answer_bytes, np.uint8)
        answer = EncodedAnswer('raw', [EncodedTensor('logits', 'uint8', (1, self.answer_bytes), outputs)])
        return [answer] * len(payloads), time.monotonic() - started_s

    def prepare(self, tail: Tail, images: int) -> bool:
        """Do nothing."""
        return False

    def profile(self) -> None:
        """Return no profile."""
