# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""When to start on an image, so that its payload is ready just when link and edge are free for it."""

from __future__ import annotations

from collections.abc import Iterable
import math
from typing import Protocol

Key = tuple[int, str]

#: Weights of the newest frame in how long the edge takes for one, and in by how much that is off.
_NEWEST_SERVICE, _NEWEST_OFF = 0.3, 0.1
#: A head starts early by this share of what that is off, but by no more than this share of the edge's time: an edge
#: that waits for a payload costs more than a payload that waits for the edge.
_EARLY, _MOST_EARLY = 0.5, 0.05
#: The same where nothing of the frame rate may be given up.
_EARLY_FOR_RATE, _MOST_EARLY_FOR_RATE = 1.5, 0.15


class UnderWay(Protocol):
    """A frame without an answer: of which choice, when it left, when its receipt came (NaN: not yet)."""

    split_index: int
    codec: str
    sent_s: float
    received_s: float


class Pace:
    """
    Predicts from the last durations of each choice, a key of split index and codec, when the next frame may start.

    All durations are in seconds, as the robot's clock and the edge's own account have them.
    """

    def __init__(self) -> None:
        self._ready_s: dict[Key, float] = {}
        self._transfer_s: dict[Key, float] = {}
        # How long the edge takes, by split alone: decoding is a small part, and what one codec met, the next will meet.
        self._service_s: dict[int, float] = {}
        self._off_s: dict[int, float] = {}
        self._done_s = -math.inf  # when the edge was done with the last one

    def on_ready(self, key: Key, spent_s: float) -> None:
        """Note how long a frame took until its payload was ready, or, for local inference, altogether."""
        self._ready_s[key] = spent_s

    def on_received(self, key: Key, spent_s: float) -> None:
        """Note how long after its payload left a frame's receipt was back."""
        self._transfer_s[key] = spent_s

    def on_answered(self, frame: UnderWay, answered_s: float, held_s: float) -> None:
        """Note when a frame's answer came, and for how much of the time until then the edge held the frame."""
        received_s = self._received_s(frame)
        done_s = min(received_s + held_s, answered_s) if held_s >= 0 else answered_s
        # It began when it was there and the one before it was done.
        service_s = max(0.0, done_s - max(received_s, self._done_s))
        self._done_s = max(self._done_s, done_s)
        split = frame.split_index
        off_s = service_s - self._service_s.setdefault(split, service_s)
        before_s = self._off_s.get(split, 0.0)
        self._off_s[split] = before_s + _NEWEST_OFF * (abs(off_s) - before_s)
        self._service_s[split] += _NEWEST_SERVICE * off_s

    def _received_s(self, frame: UnderWay) -> float:
        if math.isnan(frame.received_s):
            return frame.sent_s + self._transfer_s.get((frame.split_index, frame.codec), 0.0)
        return frame.received_s

    def left_s(self, key: Key, spent_s: float) -> float:
        """Return how much longer a head takes that has run for ``spent_s``; of one never seen it is not known: 0."""
        return self._ready_s.get(key, 0.0) - spent_s

    def free_s(self, key: Key, under_way: Iterable[UnderWay]) -> float:
        """Return when a payload may leave and find the link free, and the edge when it arrives; -inf: at any time."""
        free_s, done_s = -math.inf, self._done_s
        for frame in under_way:
            received_s = self._received_s(frame)
            if math.isnan(frame.received_s):
                free_s = max(free_s, received_s)
            done_s = max(received_s, done_s) + self._service_s.get(frame.split_index, 0.0)
            free_s = max(free_s, done_s - self._transfer_s.get(key, math.inf))
        return free_s

    def start_s(self, key: Key, free_s: float, newer_s: float, waiting_share: float) -> float:
        """
        Return when to start on an image whose payload may leave at ``free_s``.

        A little early, unless a newer image, due at ``newer_s`` (NaN: nobody knows), comes before; more so where no
        ``waiting_share`` of the frame rate may be given up.
        """
        start_s = free_s - self._ready_s.get(key, math.inf)
        if not newer_s > start_s:
            return start_s
        off_s, service_s = self._off_s.get(key[0], 0.0), self._service_s.get(key[0], 0.0)
        if waiting_share > 0:
            return start_s - min(_EARLY * off_s, _MOST_EARLY * service_s)
        return start_s - min(_EARLY_FOR_RATE * off_s, _MOST_EARLY_FOR_RATE * service_s)
