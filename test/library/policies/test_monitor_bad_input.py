# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""For any input of peers, cameras and clocks, the monitor decides, and its decisions contain no NaN."""

from __future__ import annotations

from dataclasses import fields
import math
import random

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from worlds import system, Wire

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord, SplitDecision

PROFILE = system()
LOCAL = PROFILE.local_index
#: The instants and durations of a frame's record, and the rate of the frames.
FRAME_TIMES = [field.name for field in fields(FrameRecord) if field.name.endswith(('_s', '_hz'))]

times = st.one_of(st.floats(0, 1e3), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300]))
counts = st.one_of(st.integers(-2, 50), st.sampled_from([2**31, 2**64, -(2**63)]))
sizes = st.one_of(st.integers(0, 10**6), st.sampled_from([-1, 2**40]))
codecs = st.sampled_from(['raw', 'blosc2', '', 'unheard of'])
events = st.one_of(
    st.tuples(st.just('sent'), counts, times, counts, codecs, sizes),
    st.tuples(st.just('acknowledgement'), counts, times),
    st.tuples(
        st.just('frame'),
        counts,
        st.sampled_from(['answered', 'local', 'fell_back', 'late', 'eaten']),
        counts,
        codecs,
        counts,
        sizes,
        sizes,
        st.lists(times, min_size=len(FRAME_TIMES), max_size=len(FRAME_TIMES)),
    ),
    st.tuples(st.just('probe'), counts, times, times),
    st.tuples(st.just('load'), counts, counts, times, counts, times, times),
    st.tuples(st.just('tick'), times),
    st.tuples(st.just('next'), times),
)


def happen(monitor: MonitorPolicy, event) -> SplitDecision | None:
    """Pass one event to the monitor; return its decision if the event was a tick."""
    kind, *values = event
    if kind == 'sent':
        monitor.on_sent(*values)
    elif kind == 'acknowledgement':
        monitor.on_acknowledgement(*values)
    elif kind == 'frame':
        names = ('sequence', 'outcome', 'split_index', 'codec', 'images', 'payload_bytes', 'answer_bytes')
        monitor.on_frame(FrameRecord(**dict(zip(names, values)), **dict(zip(FRAME_TIMES, values[7]))))
    elif kind == 'probe':
        monitor.on_probe_answer(*values)
    elif kind == 'load':
        session, sequence, utilisation, queue, queueing_s, now_s = values
        monitor.on_load(LoadReport(session, sequence, utilisation, queue, queueing_s, utilisation), now_s)
    elif kind == 'tick':
        return monitor.tick(values[0])
    else:
        probe = monitor.next_probe(values[0])
        assert probe is None or probe.payload_bytes > 0
    return None


def check(decision: SplitDecision) -> None:
    """Assert that a decision can be followed, and that nothing in it is a NaN."""
    assert 0 <= decision.split_index <= LOCAL
    assert decision.codec in PROFILE.cuts[decision.split_index].codecs or decision.split_index == LOCAL
    assert math.isfinite(decision.predicted_latency_s) and decision.predicted_latency_s >= 0
    assert math.isfinite(decision.answer_timeout_s) and decision.answer_timeout_s >= 0
    assert decision.local_if_wait_s >= 0
    assert decision.reason and 'nan' not in decision.reason
    for candidate in decision.candidates:
        values = [value for value in vars(candidate).values() if isinstance(value, float)]
        assert np.isfinite(values).all(), candidate


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(events, max_size=40))
def test_no_event_makes_the_monitor_raise_or_decide_with_a_nan(history) -> None:
    monitor = MonitorPolicy(PROFILE)
    for event in history:
        decision = happen(monitor, event)
        if decision is not None:
            check(decision)
    link, load = monitor.link, monitor.load
    assert all(not math.isnan(value) for value in (link.throughput_bps, link.relative_uncertainty, link.rtt_s))
    assert all(not math.isnan(value) for value in (load.queueing_s, load.slowdown, load.utilisation))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(events, min_size=1, max_size=15))
def test_the_monitor_decides_well_again_after_impossible_observations(nonsense) -> None:
    wire = Wire(MonitorPolicy(PROFILE), rate_bps=100e6)
    wire.idle(2.0)
    for event in nonsense:
        happen(wire.monitor, event)
    wire.idle(1.0)
    decision = wire.monitor.tick(wire.now_s) or wire.monitor.decision
    assert decision is not None
    check(decision)


@pytest.mark.parametrize('outcome', ['answered', 'late', 'fell_back', 'local'])
def test_frames_of_unknown_splits_are_ignored(outcome) -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(2.0)
    before = wire.monitor.link.throughput_bps
    for split in (-1, LOCAL + 1, 10**6):
        wire.monitor.on_frame(
            FrameRecord(sequence=1, outcome=outcome, split_index=split, codec='raw', answered_s=wire.now_s, sent_s=0.0)
        )
        wire.monitor.on_sent(2, wire.now_s, split, 'raw', 1000)
    wire.tick()
    assert wire.monitor.link.throughput_bps == pytest.approx(before, rel=0.1)


def test_a_decision_names_the_latest_frame_that_it_accounts_for() -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(2.0)
    for _ in range(10):
        frame = wire.frame()
        frame.outcome = 'fell_back'
        wire.monitor.on_frame(frame)
        wire.idle(0.1)
    frames = [decision.last_frame for decision in wire.decisions]
    assert frames == sorted(frames) and frames[0] == -1 and frames[-1] == wire.sequence


def test_changed_settings_apply_with_the_existing_estimates() -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(2.0)
    for _ in range(10):
        wire.frame()
        wire.idle(0.1)
    known = wire.monitor.link
    with pytest.raises(DynsplitError, match='pinned_split'):
        wire.monitor.reconfigure(MonitorSettings(pinned_split=1, shallowest_split=2))
    assert wire.monitor.settings == MonitorSettings()
    wire.monitor.reconfigure(MonitorSettings(pinned_split=2, silence_s=5.0))
    wire.tick()
    assert wire.decisions[-1].split_index == 2
    assert wire.monitor.link.throughput_bps == pytest.approx(known.throughput_bps, rel=0.02)
    assert wire.monitor.link.rtt_s == known.rtt_s
    wire.lost = True
    wire.idle(3.0)
    assert wire.monitor.link.alive, 'silence is now what silence_s says'
    wire.idle(5.0)
    assert not wire.monitor.link.alive


def test_the_robot_runs_the_network_until_an_edge_answers() -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.lost = True
    wire.idle(1.0)
    assert wire.decisions and {decision.split_index for decision in wire.decisions} == {LOCAL}
    assert not wire.monitor.link.alive


def test_no_more_frames_are_sent_after_several_fallbacks() -> None:
    wire = Wire(MonitorPolicy(PROFILE), rate_bps=100e6)
    wire.idle(2.0)
    for _ in range(5):
        wire.frame()
    assert wire.decisions[-1].split_index == 0
    wire.lost = True
    for _ in range(3):
        wire.sequence += 1
        wire.monitor.on_sent(wire.sequence, wire.now_s, 0, 'raw', 150_528)
        sent_s = wire.now_s
        wire.idle(0.3)
        wire.monitor.on_frame(
            FrameRecord(
                sequence=wire.sequence,
                outcome='fell_back',
                split_index=0,
                codec='raw',
                payload_bytes=150_528,
                sent_s=sent_s,
                given_up_s=wire.now_s,
                finish_s=0.18,
            )
        )
        wire.tick()
    assert wire.decisions[-1].split_index == LOCAL


def test_the_same_history_gives_the_same_decisions() -> None:
    def decisions() -> list[tuple]:
        rng = random.Random(5)
        wire = Wire(MonitorPolicy(PROFILE, MonitorSettings()))
        for _ in range(60):
            wire.rate_bps = rng.choice([2e6, 20e6, 200e6])
            wire.frame(rng.randrange(LOCAL), rng.randrange(1000, 200_000))
            wire.idle(rng.random() / 10)
        return [(d.split_index, d.codec, d.predicted_latency_s, d.answer_timeout_s, d.reason) for d in wire.decisions]

    assert decisions() == decisions()
