# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Checks ``min_agreement`` in operation: which frames are audited, when, and which codecs are removed.

An audit computes a frame's tail on the robot from the exact activation, and compares the outputs with the edge's answer
to the lossy payload. On the camera side, :class:`AuditScheduler` draws the frames and finds the time for audits. On the
monitor's side, :class:`AuditLedger` counts their results and removes codecs. Both have no clock and no threads, and
their random numbers are seeded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
import math
import random

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.policies.records import Choice, FrameRecord

#: Number of the latest audits of a choice that count. With more, the ledger reacts later to a change of the scene. With
#: fewer, it may never find a codec that disagrees slightly too often.
WINDOW = 500
#: Least number of audits before a choice can be removed. With fewer, a good codec with a single disagreement by chance
#: would be removed.
MIN_AUDITS = 50


@dataclass
class AuditCounters:
    """
    Numbers of frames: ``drawn`` for audits; of these, ``exact`` (no lossy codec), ``audited``, ``skipped``.

    The other drawn frames still wait for their audit, or failed.
    """

    drawn: int = 0
    exact: int = 0
    audited: int = 0
    skipped: int = 0


class AuditScheduler:
    """
    Draws a share of the frames, and audits them one at a time while the robot has nothing else to compute.

    An audit that the next frame interrupts starts again in the next pause. If a newer audit replaces it, it is skipped.
    """

    def __init__(self, share: float = 0.0, seed: int = 0) -> None:
        self.share = share
        self.counters = AuditCounters()
        self._random = random.Random(seed)
        self._waiting: FrameRecord | None = None
        self._running: FrameRecord | None = None

    def draw(self) -> bool:
        """Return whether to audit the frame that starts now; the draw does not depend on its split."""
        is_drawn = self._random.random() < self.share
        self.counters.drawn += is_drawn
        return is_drawn

    def on_exact(self) -> None:
        """Note that a drawn frame used no lossy codec."""
        self.counters.exact += 1

    def on_answer(self, frame: FrameRecord) -> None:
        """Note that a drawn frame has its answer; ``frame`` holds activation and outputs."""
        self.counters.skipped += self._waiting is not None
        self._waiting = frame

    def on_pause(self) -> FrameRecord | None:
        """Return the frame to audit while the robot has nothing else to compute; None for none."""
        if self._running is not None or self._waiting is None:
            return None
        self._running, self._waiting = self._waiting, None
        return self._running

    def on_work(self) -> FrameRecord | None:
        """Return the frame whose audit must stop because the robot has something to compute; None for none."""
        frame, self._running = self._running, None
        if frame is not None:
            if self._waiting is None:
                self._waiting = frame
            else:
                self.counters.skipped += 1
        return frame

    def on_audited(self, frame: FrameRecord) -> bool:
        """Note that an audit is done; return False if it was stopped before."""
        if self._running is not frame:
            return False
        self._running = None
        self.counters.audited += 1
        return True

    def on_failed(self, frame: FrameRecord) -> None:
        """Count an audit that could not be computed as skipped."""
        if self._running is frame:
            self._running = None
            self.counters.skipped += 1

    def on_end(self) -> FrameRecord | None:
        """Return the frame whose audit must stop because the robot stops; audits that are not done count as skipped."""
        frame, self._running = self._running, None
        self.counters.skipped += (frame is not None) + (self._waiting is not None)
        self._waiting = None
        return frame


class AuditLedger:
    """
    The running agreement of each choice of split and codec, and the removed choices.

    A choice is removed when the upper end of the interval over its last WINDOW audits is below the bound. It stays
    removed until :meth:`reset`.
    """

    def __init__(self) -> None:
        self._scores: dict[Choice, deque[float]] = {}  # the latest of each choice
        self._removed: dict[Choice, str] = {}

    def on_audit(self, choice: Choice, score: float, bound: float) -> str:
        """Take the agreement (0 to 1) of a frame; return the reason if this removes its choice, empty otherwise."""
        if not 0 <= score <= 1 or math.isnan(score):
            return ''
        self._scores.setdefault(choice, deque(maxlen=WINDOW)).append(score)
        found = self.agreement(choice)
        if choice in self._removed or found.images < MIN_AUDITS or found.high >= bound:
            return ''
        split, codec = choice
        self._removed[choice] = (
            f'split {split} with {codec} is taken out: {found.agreeing:g} of its last '
            f'{found.images} audits agree, at most {found.high:.3f}, but min_agreement is '
            f'{bound:g}'
        )
        return self._removed[choice]

    def agreement(self, choice: Choice) -> Agreement:
        """Return the agreement over the latest audits of a choice."""
        scores = self._scores.get(choice, ())
        return Agreement(sum(scores), len(scores))

    @property
    def choices(self) -> list[Choice]:
        """The choices that have audits."""
        return list(self._scores)

    @property
    def removed(self) -> Mapping[Choice, str]:
        """The removed choices, and why."""
        return self._removed

    def reset(self) -> None:
        """Forget everything, after a change of model, profile or bound."""
        self._scores.clear()
        self._removed.clear()
