# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Break things while frames are under way, and count what became of the frames.

A frame is accepted when the camera has reported it in any way, or when it has reported a later one of its session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import itertools
import math
import random
import signal
import time

from dynsplit_ros import msg
from dynsplit_ros.nodes.link_emulator import REMAPPINGS
from testing.rig import Rig, ROBOT, wait

RATE_HZ = 20.0
FAST_MBPS, SLOW_MBPS = 100.0, 0.05
#: An edge of these benchmarks starts in about this time, in seconds.
START_S = 6.0
#: The link's part of the fallback bound: a frame may be finished this long after it was sent, in seconds.
LEAST_BOUND_S = 0.2


@dataclass
class Faults:
    """A running system and what was done to it."""

    rig: Rig
    chance: random.Random
    injected: Counter[str] = field(default_factory=Counter)
    resumed_s: dict[str, list[float]] = field(default_factory=dict)
    killed_sessions: set[int] = field(default_factory=set)
    at_s: list[tuple[float, str]] = field(default_factory=list)  # when each was injected, and what
    split: int = 0
    rate_hz: float = RATE_HZ
    remappings: Sequence[tuple[str, str]] = REMAPPINGS  # to the emulated link; without, edge and robot meet directly
    edges: Sequence[str] = ('edge',)

    def start(self) -> None:
        """Start the nodes and wait until the edge answers."""
        if self.remappings:
            self.rig.processes.start('link', 'link_emulator', ROBOT, {'rates_mbps': [FAST_MBPS], 'delay_s': 0.001})
        for name in (*self.edges, 'monitor', 'camera'):
            self.start_node(name)
        self.rig.player.play(self.rate_hz)
        self.pin(0)

    def start_node(self, name: str) -> None:
        """Start an edge, the monitor or the camera."""
        if name in self.edges:
            prefix = self.rig.testbed.on(name) if self.rig.testbed is not None else ()
            self.rig.processes.start(name, 'edge_node', name, self.rig.parameters, prefix=prefix)
            return
        parameters = {'camera': self.rig.parameters, 'monitor': {'pinned_split': self.split}}[name]
        self.rig.processes.start(name, f'{name}_node', ROBOT, parameters, self.remappings)

    def kill_used(self) -> float:
        """Kill the edge in use and start it again; return after how many seconds another edge answered a frame."""
        return self._lose_used(
            'killed', lambda name: self.rig.processes.stop(name, number=signal.SIGKILL), self.start_node
        )

    def cut_used(self) -> float:
        """Cut the link to the edge in use and mend it; return after how many seconds another edge answered a frame."""
        assert self.rig.testbed is not None
        return self._lose_used('cut off', self.rig.testbed.cut, self.rig.testbed.mend)

    def _lose_used(self, what: str, lose: Callable[[str], object], restore: Callable[[str], None]) -> float:
        player = self.rig.player
        wait(
            lambda: player.link is not None and sum(state.alive for state in player.link.edges) == len(self.edges),
            'an edge is not heard',
        )
        used = next(seen.timing.edge for seen in reversed(player.seen) if seen.timing.edge)
        name = used.partition('/')[0]
        lost_s = time.monotonic()
        self.at_s.append((lost_s, f'edge in use {what} at split {self.split}'))
        lose(name)
        self.injected[f'edge in use {what}'] += 1

        def answered() -> list[float]:
            return [
                seen.at_s
                for seen in player.seen[-400:]
                if seen.timing.sent_s > lost_s
                and seen.timing.edge not in ('', used)
                and seen.timing.outcome == msg.FrameTiming.ANSWERED
            ]

        wait(answered, 'no other edge answers')
        # Before the next loss, both edges are there again, and not only not yet missed.
        wait(lambda: not any(state.alive for state in player.link.edges if state.edge == used), 'it is not missed')
        restore(name)
        return answered()[0] - lost_s

    def pin(self, split: int) -> None:
        """Have the monitor use one split, and wait until the edge answers a frame of it."""
        self.split = split
        self.rig.player.set('monitor_node', pinned_split=split)
        wait(lambda: math.isfinite(self.answered_after(time.monotonic() - 0.1, split)), f'no answer at split {split}')

    def answered_after(self, since_s: float, split: int) -> float:
        """Return when the first prediction after an instant came that the edge answered at this split; else NaN."""
        for seen in reversed(self.rig.player.seen[-400:]):
            if seen.at_s < since_s:
                break
            if seen.timing.outcome == msg.FrameTiming.ANSWERED and seen.timing.split_index == split:
                first = seen.at_s
                return min(
                    [first]
                    + [
                        other.at_s
                        for other in self.rig.player.seen[-400:]
                        if since_s <= other.at_s < first
                        and other.timing.outcome == msg.FrameTiming.ANSWERED
                        and other.timing.split_index == split
                    ]
                )
        return math.nan

    def inject(self, kind: str, split: int) -> None:
        """Inject a fault at a random instant, heal it after a random time, and wait until splitting has resumed."""
        self.pin(split)
        time.sleep(self.chance.uniform(0.0, 0.2))
        self.at_s.append((time.monotonic(), f'{kind} at split {split}'))
        healed_s = FAULTS[kind](self)
        self.injected[kind] += 1
        wait(lambda: math.isfinite(self.answered_after(healed_s(), split)), f'after {kind}, no answer at split {split}')
        self.resumed_s.setdefault(kind, []).append(self.answered_after(healed_s(), split) - healed_s())

    def under_way(self, at_s: float) -> str:
        """Return which fault was the latest at an instant."""
        return next((what for since_s, what in reversed(self.at_s) if since_s <= at_s), 'none yet')

    def hold(self) -> None:
        """Let a fault last for a while."""
        time.sleep(self.chance.uniform(0.1, 1.5))


def now() -> Callable[[], float]:
    """Return a function that returns the present instant for ever."""
    at_s = time.monotonic()
    return lambda: at_s


def _restart(name: str, number: int) -> Callable[[Faults], Callable[[], float]]:
    def do(faults: Faults) -> Callable[[], float]:
        if name == 'camera' and number == signal.SIGKILL:
            faults.killed_sessions.add(faults.rig.player.seen[-1].timing.session)
        served_s = faults.rig.serving_since() if name == 'edge' else 0.0
        faults.rig.processes.stop(name, number=number)
        faults.hold()
        faults.start_node(name)
        if name == 'edge':
            wait(lambda: faults.rig.serving_since() > served_s + 0.5, 'the edge did not start')
            return faults.rig.serving_since
        if name == 'monitor':
            return now()
        # A camera is back when it does frames at all.
        last = faults.rig.player.seen[-1].timing.session
        wait(lambda: faults.rig.player.seen[-1].timing.session != last, 'the camera did not come back')
        return now()

    return do


def _freeze(faults: Faults) -> Callable[[], float]:
    faults.rig.processes.send('edge', signal.SIGSTOP)
    faults.hold()
    faults.rig.processes.send('edge', signal.SIGCONT)
    return now()


def _link_at(rate_mbps: float) -> Callable[[Faults], Callable[[], float]]:
    def do(faults: Faults) -> Callable[[], float]:
        faults.rig.player.set('link_emulator', rates_mbps=[rate_mbps])
        faults.hold()
        faults.rig.player.set('link_emulator', rates_mbps=[FAST_MBPS])
        return now()

    return do


FAULTS: dict[str, Callable[[Faults], Callable[[], float]]] = {
    'edge killed': _restart('edge', signal.SIGKILL),
    'edge frozen': _freeze,
    'link cut': _link_at(0.0),
    f'link at {SLOW_MBPS:g} Mbit/s': _link_at(SLOW_MBPS),
    'edge restarted': _restart('edge', signal.SIGINT),
    'monitor killed': _restart('monitor', signal.SIGKILL),
    'camera restarted': _restart('camera', signal.SIGINT),
    'camera killed': _restart('camera', signal.SIGKILL),
}
STATES = (
    (msg.FrameTiming.ANSWERED, 'answered by the edge'),
    (msg.FrameTiming.LOCAL, 'local'),
    (msg.FrameTiming.FELL_BACK, 'finished on the robot'),
)
#: Faults that heal at once, and so can be injected often.
QUICK = ('edge frozen', 'link cut', f'link at {SLOW_MBPS:g} Mbit/s')


@dataclass(frozen=True)
class Account:
    """What became of the frames of all sessions."""

    accepted: int
    lost: int
    unheard: int  # done before the player and a camera that just started had found each other
    duplicated: int
    out_of_order: int
    wrong: int
    worst_gaps_s: list[tuple[float, float, str]]  # between predictions, since when, and under which fault
    worst_finishes_s: list[tuple[float, str]]  # of frames that fell back: from sending to prediction, over their bound
    states: Counter[int]


def account(faults: Faults) -> Account:
    """Count; the last frames of a camera that was killed died with it and count as neither."""
    seen = list(faults.rig.player.seen)
    lost = unheard = duplicated = out_of_order = accepted = 0
    for session in {session for session, _ in faults.rig.player.accepted}:
        sequences = [s.timing.sequence for s in seen if s.timing.session == session]
        told = {number for told_session, number in faults.rig.player.accepted if told_session == session}
        last = max(sequences, default=0) if session in faults.killed_sessions else max(told)
        first = min(sequences, default=1)
        accepted += last
        unheard += first - 1
        lost += last - first + 1 - len(set(sequences) & set(range(first, last + 1)))
        duplicated += len(sequences) - len(set(sequences))
        out_of_order += sum(a > b for a, b in itertools.pairwise(sequences))
    gaps = [
        (b.at_s - a.at_s, a.at_s, faults.under_way(a.at_s))
        for a, b in itertools.pairwise(seen)
        if a.timing.session == b.timing.session
    ]
    over = [
        (s.at_s - s.timing.sent_s - bound_s(faults, s.timing), faults.under_way(s.timing.sent_s))
        for s in seen
        if s.timing.outcome == msg.FrameTiming.FELL_BACK and math.isfinite(s.timing.sent_s)
    ]
    return Account(
        accepted,
        lost,
        unheard,
        duplicated,
        out_of_order,
        sum(not s.right for s in seen),
        sorted(gaps, reverse=True)[:5],
        sorted(over, reverse=True)[:5],
        Counter(s.timing.outcome for s in seen),
    )


def bound_s(faults: Faults, timing: msg.FrameTiming) -> float:
    """Return ``max(3 × predicted, 200 ms)`` by the decisions that were in force about when a frame was sent."""
    predicted = [
        decision.predicted_latency_s
        for at_s, decision in faults.rig.player.decisions
        if at_s <= timing.sent_s + 0.05 and decision.split_index == timing.split_index
    ]
    return max([LEAST_BOUND_S] + [3 * value for value in predicted[-3:]])


def settle(faults: Faults) -> dict[str, int]:
    """Offer no more, wait for what is under way, end the camera, and return its counters."""
    player = faults.rig.player
    player.play(0)
    quiet_s = [time.monotonic()]
    player.on_seen = lambda: quiet_s.__setitem__(0, time.monotonic())
    wait(lambda: time.monotonic() - quiet_s[0] > 2.0, 'predictions went on without images')
    code = faults.rig.processes.stop('camera')
    assert code == 0, f'the camera ended with exit code {code}'
    return faults.rig.last_counters()
