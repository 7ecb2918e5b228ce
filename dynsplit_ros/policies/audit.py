# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Check the promise of ``min_agreement`` while it runs: which frames are audited, when, and what follows.

An audit computes on the robot, without loss, what the edge answered for a payload with loss, and compares both. The
camera side draws the frames and finds the time (:class:`AuditScheduler`); the monitor's side counts and takes codecs
out (:class:`AuditLedger`). Both are pure: no clock, no threads, and the random numbers are seeded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
import math
import random

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.policies.records import Choice, FrameRecord

#: Audits of a choice that count: its latest ones. More react later to a scene that changes, fewer find a codec that
#: disagrees a little more than allowed later or never.
WINDOW = 500
#: A choice stays until it has this many audits. With one of ten disagreeing by chance, the interval of few audits lies
#: below a bound that a good codec keeps.
MIN_AUDITS = 50


@dataclass
class AuditCounters:
    """
    Frames since the start: ``drawn`` for an audit, of these ``exact`` without loss anyway, ``audited`` and ``skipped``.

    The rest of those drawn are still to be audited, or failed.
    """

    drawn: int = 0
    exact: int = 0
    audited: int = 0
    skipped: int = 0


class AuditScheduler:
    """
    Draws a share of the frames, and audits them one at a time while the robot has nothing else to compute.

    An audit that the next frame interrupts begins again in the next pause. A newer one replaces it; then it is skipped.
    """

    def __init__(self, share: float = 0.0, seed: int = 0) -> None:
        self.share = share
        self.counters = AuditCounters()
        self._random = random.Random(seed)
        self._waiting: FrameRecord | None = None
        self._running: FrameRecord | None = None

    def draw(self) -> bool:
        """Return whether the frame that starts now is audited; it does not depend on its split."""
        is_drawn = self._random.random() < self.share
        self.counters.drawn += is_drawn
        return is_drawn

    def on_exact(self) -> None:
        """Note that a frame that was drawn turned out to be computed without loss."""
        self.counters.exact += 1

    def on_answer(self, frame: FrameRecord) -> None:
        """Note that a frame that was drawn has its answer; ``frame`` keeps activation and outputs."""
        self.counters.skipped += self._waiting is not None
        self._waiting = frame

    def on_pause(self) -> FrameRecord | None:
        """Return the frame to audit now that the robot has nothing else to compute, if there is one."""
        if self._running is not None or self._waiting is None:
            return None
        self._running, self._waiting = self._waiting, None
        return self._running

    def on_work(self) -> FrameRecord | None:
        """Return the frame whose audit must end at once because the robot has something to compute."""
        frame, self._running = self._running, None
        if frame is not None:
            if self._waiting is None:
                self._waiting = frame
            else:
                self.counters.skipped += 1
        return frame

    def on_audited(self, frame: FrameRecord) -> bool:
        """Note that an audit is done; return whether it counts: one that was to end does not."""
        if self._running is not frame:
            return False
        self._running = None
        self.counters.audited += 1
        return True

    def on_failed(self, frame: FrameRecord) -> None:
        """Skip an audit that could not be computed."""
        if self._running is frame:
            self._running = None
            self.counters.skipped += 1

    def on_end(self) -> FrameRecord | None:
        """Return the frame whose audit must end because the robot stops; what waits is skipped."""
        frame, self._running = self._running, None
        self.counters.skipped += (frame is not None) + (self._waiting is not None)
        self._waiting = None
        return frame


class AuditLedger:
    """
    The running agreement of each choice of split and codec, and the choices that are taken out.

    A choice is taken out when the upper end of the interval over its last WINDOW audits is below the bound; it stays
    out until :meth:`reset`.
    """

    def __init__(self) -> None:
        self._scores: dict[Choice, deque[float]] = {}  # the latest of each choice
        self._removed: dict[Choice, str] = {}

    def on_audit(self, choice: Choice, score: float, bound: float) -> str:
        """Take the agreement (0 to 1) of a frame; return why its choice is taken out now, empty if it is not."""
        if not 0 <= score <= 1 or math.isnan(score):
            return ''
        self._scores.setdefault(choice, deque(maxlen=WINDOW)).append(score)
        found = self.agreement(choice)
        if choice in self._removed or found.images < MIN_AUDITS or found.high >= bound:
            return ''
        split, codec = choice
        self._removed[choice] = (f'split {split} with {codec} is taken out: {found.agreeing:g} of its last '
                                 f'{found.images} audits agree, at most {found.high:.3f}, but min_agreement is '
                                 f'{bound:g}')
        return self._removed[choice]

    def agreement(self, choice: Choice) -> Agreement:
        """Return the agreement over the latest audits of a choice."""
        scores = self._scores.get(choice, ())
        return Agreement(sum(scores), len(scores))

    @property
    def choices(self) -> list[Choice]:
        """The choices that were audited."""
        return list(self._scores)

    @property
    def removed(self) -> Mapping[Choice, str]:
        """The choices that are taken out, and why."""
        return self._removed

    def reset(self) -> None:
        """Forget everything: another model, profile or bound."""
        self._scores.clear()
        self._removed.clear()
