# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The look-ahead oracle: the sequence of choices with the least mean latency, searched with the whole future known.

The search runs on a compact model of robot, link and edge. Its state is a row of a table, so it can be copied. A row is
one sequence of choices. Rows advance frame by frame; a beam keeps the best rows among those whose latest frame has the
same image: some that end with local inference, and some that end with a payload. The simulation then carries out the
best sequence with the camera's policy, so its latencies are those of the simulation. The model leaves out probes,
heartbeats, load reports and answer timeouts, and the scenario's disturbances (pauses, bursts, lost messages). Its edge
serves all robots in the order of arrival. In a scenario with disturbances or other robots the sequence need not be the
best one.

The objective is the mean latency over all offered images. A dropped image counts with the latency of the frame before
it, which kept the camera busy: otherwise a policy would gain from dropping images while frames are slow. The model
keeps the camera's rules. A head starts so that its payload is ready when the link, or the edge, is free. If both are
free, the camera waits for a newer image only within the share of the frame rate that the settings allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.engine_names import Engines
from dynsplit_ros.policies.pacing import DEFAULT_UNANSWERED
from dynsplit_ros.policies.records import Choice
from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.trace import Trace

Array = NDArray[np.float64]
Rows = NDArray[Any]  # of _ROW

#: Sequences that the beam keeps for each image and kind of latest choice. A narrower beam misses those that pay off
#: several frames later. For resnet50 on three Markov links, widths from 12 to 96 differ by at most 0.1 % in cost.
WIDTH = 16
#: Number of sequences of least cost that are compared with each other, as a multiple of the width. With fewer, equal
#: sequences fill the beam; the time grows with the square.
_COMPARED = 4

#: One sequence of choices. ``cost_s`` is the sum of the latencies of all images before the latest frame, ``latency_s``
#: that of the latest frame, which also counts for the images dropped after it. ``saved_s`` is the time that the camera
#: may still spend on waiting for newer images. The other times are instants: until when robot and edge are busy; when
#: the latest payload is acknowledged; the latest answers, newest first; when the latest answer enters the downlink, and
#: until when the downlink is busy with and without it; the latest delivery; the start of the latest head. ``other``
#: counts the other robots' frames that the edge has served, ``parent`` is the position in the log of the sequence
#: without its latest frame.
_ROW = np.dtype(
    [
        ('cost_s', float),
        ('saved_s', float),
        ('robot_s', float),
        ('edge_s', float),
        ('acknowledged_s', float),
        ('answers_s', float, DEFAULT_UNANSWERED),
        ('entered_s', float),
        ('down_s', float),
        ('down_before_s', float),
        ('delivered_s', float),
        ('started_s', float),
        ('latency_s', float),
        ('other', int),
        ('image', int),
        ('choice', int),
        ('parent', int),
    ]
)


@dataclass(frozen=True)
class Future:
    """
    The future apart from the choices; times in seconds, rates in bit/s.

    ``up``, ``down`` and ``slowdown`` are traces as in a scenario; a message takes ``one_way_s`` more. A lead precedes
    each payload on the uplink. ``others_at_s`` are the arrivals of other robots' frames at the edge; each takes
    ``others_s`` before slowdown. Row i of ``noise`` holds the factors for the head, finishing and edge times of image
    i. Row i of ``delays_s`` holds the extra delays of its payload, acknowledgement and answer. Image i arrives at ``i /
    frame_rate_hz``.
    """

    up: Trace
    down: Trace
    slowdown: Trace
    others_at_s: Sequence[float]
    others_s: float
    noise: Sequence[Sequence[float]]
    delays_s: Sequence[Sequence[float]]
    one_way_s: float
    lead_bytes: int
    acknowledgement_bytes: int
    frame_rate_hz: float
    batch: int


@dataclass(frozen=True)
class PlannedFrame:
    """One frame of a plan: its image, its choice, the instant at which its head starts, and its predicted latency."""

    image: int
    choice: Choice
    start_s: float
    latency_s: float


class Search:
    """
    Beam search for the best sequence of choices.

    ``choices`` are pairs of split and codec (local inference: ''), ``engines`` the engines of their heads and tails.
    The camera may give up ``waiting_share`` (0 to 1) of the frame rate to wait for newer images.
    """

    def __init__(
        self,
        profile: SystemProfile,
        future: Future,
        choices: Sequence[Choice],
        engines: Sequence[Engines],
        waiting_share: float,
    ) -> None:
        self._future, self._choices, self._waiting_share = future, choices, waiting_share
        self._up, self._down, self._slowdown = _Curve(future.up), _Curve(future.down), _Curve(future.slowdown)
        self._noise, self._delays_s = np.array(future.noise), np.array(future.delays_s)
        self._others_at_s = np.array([*future.others_at_s, math.inf])
        self._images = len(future.noise)
        self._answer_bits = 8.0 * profile.answer_bytes * future.batch
        cuts = [profile.cuts[split] for split, _ in choices]
        codecs = [cut.codecs[codec] if codec else None for cut, (_, codec) in zip(cuts, choices)]
        batch = future.batch
        self._is_local = np.array([codec is None for codec in codecs])
        self._ready_s = np.array(
            [
                cut.head_on(head)[batch] + (codec.encode_s[batch] if codec else 0.0)
                for cut, codec, (head, _) in zip(cuts, codecs, engines)
            ]
        )
        self._bits = np.array(
            [8.0 * (future.lead_bytes + codec.payload_bytes[batch]) if codec else 0.0 for codec in codecs]
        )
        self._served_s = np.array(
            [
                codec.decode_s[batch] + cut.tail_on(tail)[batch] if codec else 0.0
                for cut, codec, (_, tail) in zip(cuts, codecs, engines)
            ]
        )

    def best(self, width: int | None = WIDTH) -> list[PlannedFrame]:
        """Return the best sequence that a beam of this width finds; None keeps all sequences."""
        waiting: dict[int, list[Rows]] = {-1: [self._origin()]}
        log: list[Rows] = []
        logged = 0
        for image in range(-1, self._images - 1):
            if image not in waiting:
                continue
            rows = self._keep(np.concatenate(waiting.pop(image)), image, width)
            for successors in self._successors(rows):
                successors['parent'] += logged
                for reached in np.unique(successors['image']):
                    waiting.setdefault(int(reached), []).append(successors[successors['image'] == reached])
            log.append(rows)
            logged += len(rows)
        ends = np.concatenate(waiting[self._images - 1])
        return self._steps(ends[int((ends['cost_s'] + ends['latency_s']).argmin())], np.concatenate(log))

    def _keep(self, rows: Rows, image: int, width: int | None) -> Rows:
        """
        Return the rows worth keeping, of those whose latest frame has this image.

        Rows that end with local inference are pruned separately from the others, so that rows of both kinds stay. Right
        before the link stops, all rows that send cost less than one that computes for a second on the robot.
        """
        is_local = self._is_local[rows['choice']]
        return np.concatenate(
            [
                _prune(some, image, self._future.frame_rate_hz, width)
                for some in (rows[is_local], rows[~is_local])
                if len(some)
            ]
        )

    def _steps(self, row: Any, log: Rows) -> list[PlannedFrame]:
        steps = []
        while row['image'] >= 0:
            steps.append(
                PlannedFrame(
                    int(row['image']), self._choices[row['choice']], float(row['started_s']), float(row['latency_s'])
                )
            )
            row = log[row['parent']]
        return steps[::-1]

    def _origin(self) -> Rows:
        """Return the one row before the first frame."""
        row = np.zeros(1, _ROW)
        for name in ('robot_s', 'edge_s', 'acknowledged_s', 'answers_s', 'entered_s', 'delivered_s'):
            row[name] = -math.inf
        row['image'] = -1
        return row

    def _successors(self, rows: Rows) -> Iterator[Rows]:
        """Yield the rows that are one frame longer, for each choice and each possible start of its head."""
        rate_hz = self._future.frame_rate_hz
        number, choice = (index.ravel() for index in np.indices((len(rows), len(self._choices))))
        before = rows[number]
        before['parent'], before['choice'] = number, choice
        image = self._newest(before, before['robot_s'])
        soonest_s = np.maximum(before['robot_s'], image / rate_hz)
        # The head starts as late as possible so that its payload is ready when the link, or the edge, is free.
        ready_s = self._ready_s[choice] * self._noise[image, 0]
        send_s = np.maximum(soonest_s + ready_s, _link_free_s(before))
        arrive_s = self._arrive_s(choice, image, send_s)
        edge_s, _ = self._serve_others(arrive_s, before)
        for_link_s = np.where(self._is_local[choice], soonest_s, send_s - ready_s)
        with np.errstate(invalid='ignore'):
            slack_s = np.where(np.isfinite(arrive_s), np.maximum(0.0, edge_s - arrive_s), 0.0)
        for_edge_s = np.where(self._is_local[choice], soonest_s, for_link_s + slack_s)
        yield self._advance(before, self._newest(before, for_link_s), for_link_s, 0.0)
        later = for_edge_s > for_link_s
        if later.any():
            yield self._advance(before[later], self._newest(before, for_edge_s)[later], for_edge_s[later], 0.0)
        newer = self._newest(before, for_edge_s) + 1
        # While link or edge are busy for some choice, the camera waits anyway, and may then take any other choice.
        busy_until_s = for_edge_s.reshape(len(rows), -1).max(axis=1)[number]
        is_busy = newer / rate_hz <= busy_until_s
        wait_s = np.where(is_busy, 0.0, newer / rate_hz - for_edge_s)
        waits = (newer < self._images) & (wait_s <= before['saved_s'])
        if waits.any():
            yield self._advance(before[waits], newer[waits], (newer / rate_hz)[waits], wait_s[waits])

    def _newest(self, rows: Rows, time_s: Array) -> NDArray[np.int_]:
        """Return the newest image at a time, or the next one if none has arrived since the latest frame."""
        arrived = np.floor(np.maximum(time_s, 0.0) * self._future.frame_rate_hz + 1e-9)
        return np.asarray(np.minimum(np.maximum(arrived, rows['image'] + 1), self._images - 1), dtype=int)

    def _advance(self, before: Rows, image: NDArray[np.int_], start_s: Array, waited_s: Array | float) -> Rows:
        """Return the rows after one more frame of ``image``, whose head begins at ``start_s``."""
        future, choice = self._future, before['choice']
        after = before.copy()
        start_s = np.maximum(start_s, image / future.frame_rate_hz)
        ready_s = start_s + self._ready_s[choice] * self._noise[image, 0]
        send_s = np.maximum(ready_s, _link_free_s(before))
        arrive_s = self._arrive_s(choice, image, send_s)
        answer_before = before['entered_s'] <= arrive_s  # and not after the acknowledgement
        down_s = np.where(answer_before, before['down_s'], before['down_before_s'])
        acknowledged_s = (
            self._down.end_of(np.maximum(arrive_s, down_s), 8.0 * future.acknowledgement_bytes)
            + future.one_way_s
            + self._delays_s[image, 1]
        )
        edge_s, other = self._serve_others(arrive_s, before)
        begin_s = np.maximum(arrive_s, edge_s)
        edge_s = begin_s + self._served_s[choice] * self._noise[image, 2] * self._slowdown.at(begin_s)
        down_s = self._down.end_of(np.maximum(edge_s, before['down_s']), self._answer_bits)
        answered_s = down_s + future.one_way_s + self._delays_s[image, 2]

        sends = ~self._is_local[choice]
        done_s = np.where(sends, answered_s, ready_s)
        after['robot_s'] = np.where(sends, send_s, ready_s)
        after['answers_s'][sends] = np.column_stack((answered_s, before['answers_s'][:, :-1]))[sends]
        after['down_before_s'][sends] = before['down_s'][sends]
        for name, value in (
            ('acknowledged_s', acknowledged_s),
            ('edge_s', edge_s),
            ('entered_s', edge_s),
            ('down_s', down_s),
            ('other', other),
        ):
            after[name][sends] = value[sends]
        after['delivered_s'] = np.maximum(done_s, before['delivered_s'])
        after['latency_s'] = after['delivered_s'] - image / future.frame_rate_hz
        after['cost_s'] += (image - np.maximum(before['image'], 0)) * before['latency_s']
        since_s = np.where(before['image'] < 0, 0.0, start_s - before['started_s'])
        saved_s = before['saved_s'] - waited_s + self._waiting_share * since_s
        after['saved_s'] = np.clip(saved_s, 0.0, 1 / future.frame_rate_hz) if self._waiting_share > 0 else 0.0
        after['started_s'], after['image'] = start_s, image
        reached: Rows = after[np.isfinite(done_s)]
        return reached

    def _arrive_s(self, choice: NDArray[np.int_], image: NDArray[np.int_], send_s: Array) -> Array:
        end_s = self._up.end_of(send_s, self._bits[choice])
        return np.asarray(end_s + self._future.one_way_s + self._delays_s[image, 0])

    def _serve_others(self, until_s: Array, rows: Rows) -> tuple[Array, NDArray[np.int_]]:
        """Return the end of the edge's work on frames that have arrived, and the number of served frames of others."""
        edge_s, other = rows['edge_s'].copy(), rows['other'].copy()
        until_s = np.where(np.isfinite(until_s), until_s, -math.inf)
        while (arrived := self._others_at_s[other] <= until_s).any():
            begin_s = np.maximum(self._others_at_s[other], edge_s)[arrived]
            edge_s[arrived] = begin_s + self._future.others_s * self._slowdown.at(begin_s)
            other += arrived
        return edge_s, other


class _Curve:
    """A trace that is evaluated at arrays of instants."""

    def __init__(self, trace: Trace) -> None:
        self._times_s, self._values = np.array(trace.times_s), np.array(trace.values)
        self._total = np.concatenate(([0.0], np.cumsum(np.diff(self._times_s) * self._values[:-1])))

    def _number(self, time_s: Array) -> NDArray[np.int_]:
        return np.maximum(np.searchsorted(self._times_s, time_s, 'right') - 1, 0)

    def at(self, time_s: Array) -> Array:
        """Return the value at each time."""
        return np.asarray(self._values[self._number(time_s)])

    def end_of(self, start_s: Array, amount: Array | float) -> Array:
        """Return when the integral from ``start_s`` has grown by ``amount``; infinite where it never does."""
        number = self._number(start_s)
        with np.errstate(invalid='ignore', divide='ignore'):
            target = self._total[number] + self._values[number] * (start_s - self._times_s[number]) + amount
            last = np.clip(np.searchsorted(self._total, target, 'left') - 1, number, len(self._values) - 1)
            end_s = self._times_s[last] + (target - self._total[last]) / self._values[last]
            end_s = np.where(self._values[last] > 0, np.maximum(start_s, end_s), np.inf)
        return np.where(np.isfinite(start_s), end_s, np.inf)


def _link_free_s(rows: Rows) -> Array:
    """Return when the link takes the next payload: one at a time, and a limited number of unanswered frames."""
    return np.asarray(np.maximum(rows['acknowledged_s'], rows['answers_s'][:, -1]))


def _prune(rows: Rows, image: int, rate_hz: float, width: int | None) -> Rows:
    """
    Return the rows worth keeping, of those whose latest frame has this image.

    A row is removed if another one costs no more, is busy no longer, and has saved at least the same time. To be free
    earlier is not always an advantage: the camera may then start on an older image.
    """
    next_s = (image + 1) / rate_hz
    busy_s = np.maximum(np.column_stack((rows['robot_s'], _link_free_s(rows), rows['edge_s'])), next_s)
    answers_s = np.maximum(np.column_stack((rows['down_s'], rows['delivered_s'], rows['answers_s'][:, :-1])), next_s)
    # Rank the rows by their cost when the robot is free again, minus the mean cost of the images until then.
    dropped = np.floor((busy_s[:, 0] - next_s) * rate_hz)
    mean_s = (rows['cost_s'] + rows['latency_s']).min() / max(1, image + 1)
    rank_s = rows['cost_s'] + rows['latency_s'] + (rows['latency_s'] - mean_s) * dropped
    order = np.lexsort((-rows['saved_s'], *busy_s.T, rank_s))
    if width is not None:
        order = order[: _COMPARED * width]
    costs_s = np.column_stack((rows['cost_s'], rows['latency_s'], answers_s))
    rows, busy_s, costs_s = rows[order], busy_s[order], costs_s[order]
    # [i, j]: the time by which row i is busy longer than row j, and whether j dominates i; of equal rows the first one
    # does.
    longer_s = busy_s[:, None, :] - busy_s[None, :, :]
    no_worse = (longer_s >= 0).all(axis=2) & (costs_s[:, None, :] >= costs_s[None, :, :]).all(axis=2)
    no_worse &= rows['saved_s'][None, :] - longer_s.max(axis=2) >= rows['saved_s'][:, None]
    no_worse &= np.tri(len(rows), k=-1, dtype=bool) | ~no_worse.T
    return np.asarray(rows[~no_worse.any(axis=1)][:width])
