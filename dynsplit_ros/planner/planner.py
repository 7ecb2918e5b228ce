# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The predicted latency of every choice of split and codec, and the choice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.rate import RATE_EDGES
from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.runtime.freshness import mean_age

Array = NDArray[np.float64]

#: Of times, ascending from 0, at which nothing lies: the probability at each, and beyond each.
_WEIGHTS: Array = np.concatenate((np.zeros(1), np.diff(RATE_EDGES)[::-1]))
_BEYOND: Array = 1 - np.cumsum(_WEIGHTS)
#: Times this, they become the expected time capped at each of them: E[min(x, c)] = E[x; x <= c] + c P(x > c).
_CAP: Array = np.tril(np.tile(_WEIGHTS, (len(_WEIGHTS), 1))) + np.diag(_BEYOND)
#: The median among them.
_MIDDLE = len(_WEIGHTS) // 2
#: What adds up from head, tail, encode, decode, queueing, round trip, bits on the link, finishing on the robot, and
#: resizing and publishing, which every image needs.
_SUMS: Array = np.array(
    (
        (1, 0, 1, 0, 0, 0, 0, 0, 1, 0),  # on the robot before sending
        (1, 0, 1, 0, 0, 0, 0, 0, 1, 1),  # on the robot altogether
        (0, 1, 0, 1, 1, 0, 0, 0, 0, 0),  # at the edge
        (0, 0, 0, 0, 0, 0, 1, 0, 0, 0),  # on the link
        (1, 1, 1, 1, 1, 1, 0, 0, 1, 0),  # everything but the link
        (0, 1, 0, 1, 1, 1, 1, 0, 0, 0),  # from sending to the answer
        (0, -1, 0, -1, -1, -1, 0, 1, 0, 0),  # by how much finishing takes longer than edge and round trip
    ),
    dtype=np.float64,
)
#: An estimate of a machine's factor that is less sure than this is not measured, so it does not waver either.
_FLUCTUATION = 0.03
#: The same of the link's rate. Where it is less sure than this, the expected latencies weigh the doubt, and waiting for
#: more would cost frames.
_LINK_FLUCTUATION = 0.10
#: A rate that moved this far (natural logarithm) since the choice in force was last the best does not waver: it has
#: changed.
_CHANGE = 0.5
#: How frames of one choice fell short of the prediction makes that of another one less by this share at most.
_MOST_FASTER = 0.5
#: A link whose rate is surer than this is steady: what it will carry next is foreseen. One that varies may become
#: faster at any moment, and then the robot should not be busy.
STEADY = 0.1
#: Taking turns has to gain this factor: how the frames fall between the images is foreseen no better.
_TURNS = 1.02
#: A wait for an answer is cut short no sooner than at this many times what was predicted.
_PATIENCE = 1.5
#: Nor sooner than this after what was predicted, in seconds: schedulers pause, and a frame given up is work
#: done twice.
_PATIENCE_S = 0.02
#: Finishing a frame beside other work may take this many times as long as profiled.
_FINISHING = 1.5
#: Relative spread of a frame's slowest stage: whether it keeps up with the images is known no better.
_STAGE_SPREAD = 0.03
#: For how many periods of the images the slowest stage may be busy with a frame, where waiting is predicted.
_PERIODS: Array = np.linspace(0.0, 20.0, 4001, dtype=np.float64)
_PER_PERIOD = (len(_PERIODS) - 1) / float(_PERIODS[-1])
#: How old images are then on average, in periods, where the link's rate alone decides whether it keeps up.
_LINK_AGE = 0.15
#: Latencies' worth of frames that not changing may cost before it is done in spite of doubt.
_MISSED = 2.0


@dataclass(frozen=True)
class Rules:
    """
    What may be chosen, and what is wanted.

    ``objective`` is 'latency' (of one frame) or 'frame_rate' (of many: the slowest stage decides).
    ``shallowest_split`` is the least split index that may leave the robot (privacy), ``bandwidth_bps`` (0:
    none) bounds what is sent on average, at ``frame_rate_hz`` images offered, ``pinned_split`` (-1: none)
    fixes the split, and ``codecs`` names those allowed. ``switching_cost`` (share of the predicted latency)
    is what a change of split must gain at least, and ``confidence`` how many standard deviations of that gain
    it must gain beyond it, unless it adds up. ``fallback_s`` (0: none) replaces the bound of max(3 x
    predicted, 0.2 s) for waiting. ``waiting_share`` (0..1) is what the camera gives up of the frame rate so that
    images are new.
    """

    objective: str = 'latency'
    codecs: tuple[str, ...] = ('raw', 'blosc2')
    shallowest_split: int = 0
    pinned_split: int = -1
    bandwidth_bps: float = 0.0
    frame_rate_hz: float = 10.0
    switching_cost: float = 0.01
    confidence: float = 3.5
    fallback_s: float = 0.0
    waiting_share: float = 0.08


@dataclass
class Outlook:
    """
    What is believed of link and machines when a choice is made.

    ``now_s`` only ever serves for differences. ``rates_bps`` are the rates of the next transfer at
    :data:`~dynsplit_ros.estimators.rate.RATE_SHARES`; ``rate_spread`` is the standard deviation of the natural
    logarithm of the link's rate, without what single transfers vary by. ``robot_factor`` and ``edge_factor``
    are how many times as long as profiled the machines take, and the two spreads the standard deviations of
    their natural logarithms; ``robot`` and ``edge`` hold, by split index, what head and tail take beyond that.
    ``resize_s`` is what the robot spends on each image before its head, ``publish_s`` what it spends on the frame
    when that is done. ``off_s`` is, by split index, by how much frames have lately taken longer than predicted
    without it.
    """

    now_s: float
    rates_bps: Array
    rate_spread: float
    rtt_s: float
    alive: bool
    queueing_s: float
    robot: Array
    edge: Array
    off_s: Array
    robot_factor: float
    edge_factor: float
    robot_spread: float
    edge_spread: float
    resize_s: float = 0.0
    publish_s: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """
    What is predicted for one choice, and whether it may be chosen.

    ``wait_s`` is how old the image is when its head starts, the other parts follow in their order,
    ``latency_s`` is the expected sum, with waits for answers bounded.
    """

    split_index: int
    split_name: str
    codec: str
    payload_bytes: int
    wait_s: float
    head_s: float
    encode_s: float
    transmit_s: float
    rtt_s: float
    queueing_s: float
    decode_s: float
    tail_s: float
    answer_s: float
    latency_s: float
    frame_rate_hz: float
    allowed: bool


@dataclass
class Plan:
    """
    A choice, why, and what was predicted for every one.

    ``predicted_s`` is the expected latency of a frame from its image's arrival, ``after_send_s`` the part of
    it after its payload left, ``fallback_after_s`` how long after sending the robot waits for the answer, and
    ``local_if_wait_s`` says that an image which would wait longer than this for link and edge is better done
    here at once. ``settled`` says that nothing else was predicted to be better.
    """

    split_index: int
    split_name: str
    codec: str
    reason: str
    predicted_s: float
    after_send_s: float
    fallback_after_s: float
    local_if_wait_s: float
    changed: bool
    settled: bool
    _planner: Planner = field(repr=False)
    _outlook: Outlook = field(repr=False)
    _latency_s: Array = field(repr=False)
    _age_s: Array = field(repr=False)
    _allowed: Any = field(repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The prediction for every choice; made when asked for."""
        return self._planner.candidates(self._outlook, self._latency_s, self._age_s, self._allowed)


@functools.lru_cache
def _ages(waiting_share: float, turns: bool) -> Array:
    """Return :func:`mean_age` at each of :data:`_PERIODS`, as stages that vary by :data:`_STAGE_SPREAD` see it."""
    exact = mean_age(_PERIODS, waiting_share, turns)
    ages = np.zeros(len(_PERIODS))
    deviations = np.linspace(-3, 3, 61)
    weights = np.exp(-(deviations**2) / 2)
    for deviation, weight in zip(deviations, weights / weights.sum()):
        ages += weight * np.interp(_PERIODS * (1 + _STAGE_SPREAD * deviation), _PERIODS, exact)
    return ages


class Planner:
    """
    Chooses among the cuts of ``profile`` for frames of ``batch`` images under ``rules``.

    Raises DynsplitError when the rules leave nothing to choose.
    """

    def __init__(
        self, profile: SystemProfile, rules: Rules, batch: int = 1, downlink_ratio: float = 1.0
    ) -> None:
        if batch not in profile.batches:
            raise DynsplitError(
                f'batch {batch} was not profiled, only {list(profile.batches)}: profile it, or use one of these'
            )
        if rules.objective not in ('latency', 'frame_rate'):
            raise DynsplitError(
                f"the objective {rules.objective!r} is not known: use 'latency' or 'frame_rate'"
            )
        local = profile.local_index
        for what, index in (
            ('shallowest_split', rules.shallowest_split),
            ('pinned_split', max(rules.pinned_split, 0)),
        ):
            if not 0 <= index <= local:
                raise DynsplitError(f'{what} is {index}, but {profile.model!r} has the splits 0 to {local}')
        self.rules = rules
        self.local_index = local
        self.names = [cut.name for cut in profile.cuts]
        self.splits: list[int] = []
        self.codecs: list[str] = []
        rows: list[tuple[float, ...]] = []
        for cut in profile.cuts:
            for name, codec in cut.codecs.items():
                if name in rules.codecs and cut.index != local:
                    self.splits.append(cut.index)
                    self.codecs.append(name)
                    rows.append(
                        (
                            cut.head_s[batch],
                            codec.encode_s[batch],
                            codec.payload_bytes[batch],
                            codec.decode_s[batch],
                            cut.tail_s[batch],
                            cut.finish_s[batch],
                        )
                    )
        self.splits.append(local)
        self.codecs.append('')
        rows.append((profile.cuts[-1].head_s[batch], 0.0, 0, 0.0, 0.0, 0.0))
        table = np.array(rows, dtype=np.float64).T
        self._head, self._encode, self.payload_bytes, self._decode, self._tail, self._finish = table
        self._index = np.array(self.splits)
        self._answer_bytes = profile.answer_bytes * batch / downlink_ratio
        # 1 for a choice that sends, 0 for local inference.
        self._sends = (self._index != local).astype(np.float64)
        self._bits = (self.payload_bytes + self._answer_bytes) * 8 * self._sends
        self._per_bit = 1 / np.maximum(self._bits, 1e-9)
        allowed = (self._index >= rules.shallowest_split) | (self._sends == 0)
        if rules.pinned_split >= 0:
            allowed &= self._index == rules.pinned_split
        if not allowed.any():
            raise DynsplitError(
                f'no choice is left: pinned_split {rules.pinned_split}, shallowest_split {rules.shallowest_split}, '
                f'codecs {list(rules.codecs)}; allow another split or codec'
            )
        self._allowed = allowed
        self._local_only = self._sends == 0
        self._excluded = None if allowed.all() else np.where(allowed, 0.0, np.inf)
        self.expect(rules.frame_rate_hz)
        self._chosen: int | None = None
        self._missed_s = 0.0
        self._planned_s = 0.0
        self._usual_s = math.inf  # a bit's time on the link when the choice in force was last the best
        self._bit_s = np.zeros(len(RATE_EDGES))
        # What predictions are sums of, in the order of the columns of _SUMS; head and tail are corrected for each cut.
        self._parts = np.array(
            (
                self._head,
                self._tail,
                self._encode,
                self._decode,
                self._sends,
                self._sends,
                self._bits,
                self._finish,
                np.ones(len(self.splits)),
                np.ones(len(self.splits)),
            )
        )

    @property
    def waiting_share(self) -> float:
        """What the camera may give up of the frame rate: nothing where that is the objective."""
        return self.rules.waiting_share if self.rules.objective == 'latency' else 0.0

    def expect(self, frame_rate_hz: float) -> None:
        """Plan for another number of frames offered per second from now on."""
        self.rules = replace(self.rules, frame_rate_hz=frame_rate_hz)
        period_s = 1 / frame_rate_hz
        self._period_per_bit = self._per_bit * period_s
        self._per_stage_s = _PER_PERIOD / period_s
        self._ages_s = _ages(self.waiting_share, False) * period_s
        self._turn_ages_s = _ages(self.waiting_share, True) * period_s
        self._link_ages_s = _BEYOND * ((_LINK_AGE if self.waiting_share else 0.5) * period_s)

    def stay(self, now_s: float) -> None:
        """Note that the choice in force is the best at ``now_s`` as well, so nothing is missed by it."""
        self._missed_s, self._planned_s = 0.0, now_s

    def plan(self, outlook: Outlook) -> Plan:
        """Predict every choice under the outlook, and choose."""
        # Of a bit's time on the link: x ascends, and capped is E[min(x, c)] at each c of x; both begin at 0.
        x = self._bit_s
        np.divide(1.0, outlook.rates_bps[::-1], out=x[1:])
        capped = _CAP.dot(x)
        usual_s = float(x[_MIDDLE])
        before, on_robot, at_edge, on_link, sure, predicted, more = self._sums(outlook, usual_s)
        # Waiting is bounded: after a while the robot finishes the frame itself, and whichever is done first
        # counts.
        bound = self._bound(predicted)
        more += bound
        more *= self._per_bit
        transfer = np.interp(more, x, capped)
        transfer *= self._bits
        # Who cannot keep up finds, when ready for the next, that the newest image has aged.
        period_s = 1 / self.rules.frame_rate_hz
        slowest = np.maximum(on_robot, at_edge)
        np.maximum(slowest, on_link, out=slowest)
        age_s = self._ages_s.take((slowest * self._per_stage_s).astype(np.intp), mode='clip')
        np.maximum(age_s, np.interp(self._period_per_bit, x, self._link_ages_s), out=age_s)
        fresh = sure + transfer
        fresh += np.maximum(outlook.off_s.take(self._index), fresh * -_MOST_FASTER)
        latency = fresh + age_s
        allowed = self._allowed if outlook.alive else self._local_only
        expected = latency
        local_s, steady = float(fresh[-1]), outlook.rate_spread < STEADY
        if allowed[-1] and self.rules.objective == 'latency' and steady:
            # In turns: the robot does the next image alone, begun when it arrives, while the link is busy.
            age = float(self._turn_ages_s[min(int(float(before[-1]) * self._per_stage_s), len(_PERIODS) - 1)])
            in_turns = (fresh + (local_s + age)) * (_TURNS / 2)
            expected = np.where((before < period_s) & (on_link > at_edge), np.minimum(latency, in_turns), latency)
        score = expected
        if self.rules.objective != 'latency' or self.rules.bandwidth_bps > 0:
            stage = np.maximum(slowest, self._bits * float(capped[-1]))
            if self.rules.objective != 'latency':
                score = stage + 1e-3 * latency
            if self.rules.bandwidth_bps > 0:
                allowed = allowed & (
                    self.payload_bytes * 8 / np.maximum(stage, period_s) <= self.rules.bandwidth_bps
                )
        if allowed is not self._allowed:
            score = np.where(allowed, score, np.inf)
        elif self._excluded is not None:
            score = score + self._excluded
        best = int(score.argmin())
        if not math.isfinite(score[best]):
            best = len(self.splits) - 1  # the budget allows nothing: the robot alone sends nothing
        chosen, changed, why = self._choose(best, score, before, at_edge, usual_s, outlook)
        fixed_s = float(at_edge[chosen]) + outlook.rtt_s * float(self._sends[chosen])
        fallback_s = self._fallback_s(
            chosen,
            fixed_s,
            float(predicted[chosen]),
            float(self._finish[chosen]) * outlook.robot_factor,
            float(bound[chosen]),
            capped,
        )
        # An image that would wait for longer than this is done here at once: in turns, than half of what one that is
        # sent at once is faster by; else, where local inference, begun at once, beats the waiting that it saves.
        spare_s = math.inf
        latency_s = float(latency[chosen])
        if expected[chosen] < latency_s:
            spare_s = max(0.0, local_s - float(fresh[chosen])) / 2
        elif (
            allowed[-1]
            and slowest[chosen] > period_s
            and local_s < latency_s
            and (steady or at_edge[chosen] > on_link[chosen])
            and before[chosen] < period_s / 2
        ):
            spare_s = max(0.0, local_s - latency_s + period_s / 2)
        index = self.splits[chosen]
        return Plan(
            index,
            self.names[index],
            self.codecs[chosen],
            why,
            latency_s,
            fixed_s + float(transfer[chosen]),
            fallback_s,
            spare_s,
            changed,
            chosen == best,
            self,
            outlook,
            latency,
            age_s,
            allowed,
        )

    def _sums(self, outlook: Outlook, bit_s: float) -> Array:
        """
        Return the sums of :data:`_SUMS` in seconds for each choice, [7, choices], if a bit takes ``bit_s``.

        One product: for so few numbers, each call costs more than what it computes.
        """
        parts, robot, edge = self._parts, outlook.robot_factor, outlook.edge_factor
        np.multiply(self._head, outlook.robot.take(self._index), out=parts[0])
        np.multiply(self._tail, outlook.edge.take(self._index), out=parts[1])
        scales = np.array((
            robot, edge, robot, edge, outlook.queueing_s, outlook.rtt_s, bit_s, robot, outlook.resize_s,
            outlook.publish_s))
        sums: Array = (_SUMS * scales).dot(parts)
        return sums

    def _bound(self, predicted: Array) -> Array:
        """Return the longest wait for an answer, by the predicted one."""
        if self.rules.fallback_s > 0:
            return np.full(len(predicted), self.rules.fallback_s)
        bound: Array = predicted * 3.0
        return np.maximum(bound, 0.2, out=bound)

    def candidates(
        self, outlook: Outlook, latency_s: Array, age_s: Array, allowed: NDArray[np.bool_]
    ) -> tuple[Candidate, ...]:
        """Return the parts of each choice's predicted latency."""
        bit_s = float(_WEIGHTS[1:] @ (1 / outlook.rates_bps[::-1]))
        before, _, at_edge, on_link, *_ = self._sums(outlook, bit_s)
        candidates = []
        for i, (split, codec) in enumerate(zip(self.splits, self.codecs)):
            sends = bool(self._sends[i])
            stage_s = max(float(before[i]), float(at_edge[i]), float(on_link[i]), 1e-9)
            candidates.append(
                Candidate(
                    split_index=split,
                    split_name=self.names[split],
                    codec=codec,
                    payload_bytes=int(self.payload_bytes[i]),
                    wait_s=float(age_s[i]),
                    head_s=float(self._head[i] * outlook.robot[split] * outlook.robot_factor),
                    encode_s=float(self._encode[i] * outlook.robot_factor),
                    transmit_s=float(self.payload_bytes[i]) * 8 * bit_s,
                    rtt_s=outlook.rtt_s * sends,
                    queueing_s=outlook.queueing_s * sends,
                    decode_s=float(self._decode[i] * outlook.edge_factor),
                    tail_s=float(self._tail[i] * outlook.edge[split] * outlook.edge_factor),
                    answer_s=self._answer_bytes * 8 * bit_s * sends,
                    latency_s=float(latency_s[i]),
                    frame_rate_hz=1 / stage_s,
                    allowed=bool(allowed[i]),
                )
            )
        return tuple(candidates)

    def _choose(
        self, best: int, score: Array, before: Array, at_edge: Array, usual_s: float, outlook: Outlook
    ) -> tuple[int, bool, str]:
        current = self._chosen
        if current is None or not math.isfinite(score[current]):
            if current is None:
                why = 'first choice by these settings'
            elif not outlook.alive:
                why = 'the edge does not answer'
            elif self.rules.pinned_split >= 0:
                why = 'pinned, and the edge answers'
            else:
                why = f'{self._say(current)} is not allowed now'
        elif best == current:
            self.stay(outlook.now_s)
            self._usual_s = usual_s
            why = f'{self._say(current)} is still best' if outlook.alive else 'the edge does not answer'
            return current, False, why
        else:
            gain = float(score[current] - score[best])
            # What a change of each belief by one standard deviation would change of the gain.
            changed = abs(math.log(usual_s / self._usual_s)) > _CHANGE  # the rate
            bit_s = 0.0 if changed else min(outlook.rate_spread, _LINK_FLUCTUATION) * usual_s
            spread = math.hypot(
                bit_s * float(self._bits[current] - self._bits[best]),
                min(outlook.robot_spread, _FLUCTUATION) * float(before[current] - before[best]),
                min(outlook.edge_spread, _FLUCTUATION) * float(at_edge[current] - at_edge[best]),
            )
            needed = self.rules.switching_cost * float(score[current]) + self.rules.confidence * spread
            # What was missed by not changing adds up; enough of it overrules the doubt.
            frames = self.rules.frame_rate_hz * min(1.0, outlook.now_s - self._planned_s)
            self._missed_s = max(
                0.0, self._missed_s + frames * (gain - self.rules.switching_cost * float(score[current]))
            )
            self._planned_s = outlook.now_s
            if gain <= needed and self._missed_s < _MISSED * float(score[current]):
                what = f'{gain * 1e3:.1f} ms, but {needed * 1e3:.1f} ms are needed to change'
                return current, False, f'{self._say(best)} would gain {what}'
            why = f'{gain * 1e3:.1f} ms less than {self._say(current)}'
        self._chosen, self._usual_s = best, usual_s
        self.stay(outlook.now_s)
        return (
            best,
            best != current,
            (
                f'{self._say(best)}: {why}; {outlook.rates_bps[len(outlook.rates_bps) // 2] / 1e6:.3g} Mbit/s, '
                f'round trip {outlook.rtt_s * 1e3:.1f} ms, edge queue {outlook.queueing_s * 1e3:.1f} ms, '
                f'edge {outlook.edge_factor:.2g} times its profile'
            ),
        )

    def _say(self, choice: int) -> str:
        index = self.splits[choice]
        return (
            'local inference'
            if index == self.local_index
            else f'split {index} ({self.names[index]}, {self.codecs[choice]})'
        )

    def _fallback_s(
        self, chosen: int, fixed_s: float, predicted_s: float, finish_s: float, bound_s: float, capped: Array
    ) -> float:
        """
        Return how long to wait for an answer before finishing the frame here.

        Waiting for tau costs E[min(T, tau)] + P(T > tau) x finish; it is least where the expected rest of the
        wait exceeds the time to finish here. Kept so short that the frame is finished within the bound, unless that
        were impatient.
        """
        if self.rules.fallback_s > 0 or not self._sends[chosen]:
            return bound_s
        patience_s = _PATIENCE * predicted_s + _PATIENCE_S
        bits = float(self._bits[chosen])
        best = int((bits * capped + finish_s * _BEYOND).argmin())
        best_s = fixed_s + bits * float(self._bit_s[best])
        return max(patience_s, min(best_s, bound_s - _FINISHING * finish_s - _PATIENCE_S))
