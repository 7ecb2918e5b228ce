# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each choice uses the fastest engines that the bound on the agreement allows."""

from __future__ import annotations

from dataclasses import replace
import math

import pytest
from worlds import measured

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.planner import (
    engines_below,
    engines_to_use,
    local_engine_to_use,
    Planner,
    PlannerConstraints,
    SystemEstimate,
)
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.profile.profile import AgreementRecord, LOSSLESS, merge, Profile, SystemProfile

FAST = 'openvino'
MACHINE = {'processor': 'p', 'instructions': 'AVX2', 'device': 'cpu', 'channels_last': 'no'}
SIDE = {'engine': FAST, 'version': '1', **MACHINE}
EAGER_SIDE = {'engine': 'eager', **MACHINE}
GOOD = Agreement(500, 500, 1e-6)
SLOWER = 4.0


def profile(
    factor: float = 0.25,
    found: Agreement | None = GOOD,
    pairs=((SIDE, SIDE), (SIDE, EAGER_SIDE)),
    lossy: Agreement | None = None,
) -> Profile:
    """Return a profile with an engine that takes a share of eager's times, and its agreement at every cut."""
    one = measured('efficientnet_b0')
    local = one.local_index
    cuts = tuple(
        replace(
            cut,
            engine_head_s={FAST: {n: factor * s for n, s in cut.head_s.items()}} if cut.index else {},
            engine_tail_s={FAST: {n: factor * s for n, s in cut.tail_s.items()}} if cut.index < local else {},
            codecs=cut.codecs
            if lossy is None or cut.index in (0, local)
            else {
                **cut.codecs,
                'quant8-zstd': replace(
                    cut.codecs['raw'],
                    lossless=False,
                    payload_bytes={n: size // 4 for n, size in cut.codecs['raw'].payload_bytes.items()},
                ),
            },
        )
        for cut in one.cuts
    )
    records = tuple(
        AgreementRecord(
            'classification',
            'x',
            head,
            tail,
            {
                index: {LOSSLESS: found, **({'quant8-zstd': lossy} if lossy and index < local else {})}
                for index in range(1, local + 1)
                if index < local or tail is EAGER_SIDE
            },
        )
        for head, tail in pairs
    )
    return replace(
        one, cuts=cuts, measured={**MACHINE, 'version of openvino': '1'}, agreements=records if found else ()
    )


def system(**options) -> SystemProfile:
    edge = profile(**options)
    return merge(edge.scaled(SLOWER), edge)


def plan(of: SystemProfile, rate_bps: float = 20e6, **constraints):
    return Planner(of, PlannerConstraints(**constraints)).plan(
        SystemEstimate.as_profiled(len(of.cuts), rate_bps, rtt_s=0.004)
    )


def used(of: SystemProfile, bound: float) -> set[tuple[str, str]]:
    return {
        (one.head_engine, one.tail_engine)
        for one in plan(of, min_agreement=bound).candidates
        if 0 < one.split_index < of.local_index
    }


def test_a_bound_of_1_leaves_eager_and_a_measured_bound_allows_the_engine() -> None:
    assert used(system(), 1.0) == {('eager', 'eager')}
    assert used(system(), 0.95) == {(FAST, FAST)}
    assert used(system(found=Agreement(470, 500, 1e-6)), 0.95) == {('eager', 'eager')}, 'the interval is too low'
    assert used(system(found=None), 0.0) == {(FAST, FAST)}, 'without a bound, nothing needs to be measured'


def test_engines_that_are_equal_to_the_bit_need_no_bound() -> None:
    equal = system(found=Agreement(10, 10, 0.0))
    assert used(equal, 1.0) == {(FAST, FAST)}
    assert local_engine_to_use(equal, 1) == FAST


def test_only_the_pair_that_was_measured_is_allowed() -> None:
    of = system(pairs=((EAGER_SIDE, SIDE),))
    assert used(of, 0.95) == {('eager', FAST)}
    assert local_engine_to_use(of, 1, 0.95) == 'eager', 'the whole model was not measured on the engine'


def test_the_head_must_keep_the_bound_with_a_tail_on_eager_too() -> None:
    assert used(system(pairs=((SIDE, SIDE),)), 0.95) == {('eager', 'eager')}, 'frames without an answer end on eager'
    assert used(system(pairs=((SIDE, SIDE), (SIDE, EAGER_SIDE))), 0.95) == {(FAST, FAST)}


def test_an_engine_that_is_slower_is_not_used() -> None:
    assert used(system(factor=2.0), 0.95) == {('eager', 'eager')}


@pytest.mark.parametrize(
    'change', [{'version of openvino': '2'}, {'processor': 'other'}, {'device': 'cuda'}, {'instructions': 'AVX512'}]
)
def test_agreement_of_another_version_or_machine_does_not_count(change) -> None:
    edge = profile(pairs=((SIDE, SIDE), (SIDE, EAGER_SIDE), (EAGER_SIDE, SIDE)))
    other = replace(edge, measured={**edge.measured, **change})
    assert used(merge(edge.scaled(SLOWER), other), 0.95) == {(FAST, 'eager')}
    assert used(merge(other, edge), 0.95) == {('eager', FAST)}


def test_the_edge_may_have_measured_the_pair() -> None:
    edge = profile()
    assert used(merge(replace(edge, agreements=()), edge), 0.95) == {(FAST, FAST)}


def test_each_codec_has_the_fastest_engines_that_are_allowed_with_it() -> None:
    of = system(lossy=Agreement(470, 500, 1e-2))
    eager = {'quant8-zstd': Agreement(499, 500)}
    of = replace(of, cuts=tuple(replace(cut, agreement=eager) for cut in of.cuts))
    cut = of.cuts[2]
    assert engines_to_use(cut, 1, 'raw', 0.95) == (FAST, FAST)
    assert engines_to_use(cut, 1, 'quant8-zstd', 0.95) == ('eager', 'eager')
    assert engines_to_use(cut, 1, 'quant8-zstd', 0.9) == (FAST, FAST)
    assert engines_to_use(cut, 1, 'quant8-zstd', 1.0) is None, 'loss is not allowed, whatever was measured'


def test_full_offloading_and_local_inference_have_one_part() -> None:
    of = system(pairs=((SIDE, SIDE), (SIDE, EAGER_SIDE), (EAGER_SIDE, SIDE)))
    candidates = plan(of, min_agreement=0.95).candidates
    assert {(one.head_engine, one.tail_engine) for one in candidates if one.split_index == 0} == {('eager', 'eager')}, (
        'its agreement was not measured'
    )
    assert (candidates[-1].head_engine, candidates[-1].tail_engine) == (FAST, '')


def test_the_predicted_times_are_those_of_the_engines() -> None:
    of = system()
    for one in plan(of, min_agreement=0.95).candidates:
        cut = of.cuts[one.split_index]
        if one.split_index:
            assert one.head_s == pytest.approx(0.25 * cut.head_s[1])
            assert one.tail_s == pytest.approx(0.25 * cut.tail_s[1] if one.codec else 0.0)


def test_engines_that_no_agreement_allows_are_named() -> None:
    assert engines_below(system(), 1.0) == [FAST] and engines_below(system(found=None), 0.95) == [FAST]
    assert engines_below(system(), 0.95) == [] == engines_below(system(found=None), 0.0)
    assert engines_below(system(pairs=((SIDE, SIDE),)), 0.95) == [FAST], 'the head is not measured with a tail on eager'


def test_the_decision_names_the_engines_and_frames_are_compared_with_their_times() -> None:
    of = system()
    monitor = MonitorPolicy(of, MonitorSettings(min_agreement=0.95))
    decision = monitor.tick(0.0)
    assert decision is not None and decision.split_index == of.local_index
    assert (decision.head_engine, decision.tail_engine, decision.local_engine) == (FAST, '', FAST)
    for number in range(20):
        monitor.on_frame(
            FrameRecord(
                sequence=number,
                split_index=of.local_index,
                head_engine=FAST,
                arrived_s=float(number),
                head_s=0.25 * of.cuts[-1].head_s[1],
                answered_s=float(number),
            )
        )
    monitor.tick(20.0)
    assert monitor.decision is not None
    local = monitor.decision.candidates[-1]
    assert local.head_s == pytest.approx(0.25 * of.cuts[-1].head_s[1], rel=0.05), 'the robot is as fast as profiled'


def test_a_profile_keeps_its_engines_in_a_file(tmp_path) -> None:
    one = profile()
    one.save(tmp_path / 'p.yaml')
    again = Profile.load(tmp_path / 'p.yaml')
    assert again.engines == ('eager', FAST)
    assert again.cuts[2].engine_tail_s[FAST][1] == pytest.approx(one.cuts[2].engine_tail_s[FAST][1], rel=1e-3)
    assert again.agreements == one.agreements and again.agreements[0].cuts[1][LOSSLESS].difference == 1e-6
    assert math.isinf(Agreement(1, 1).difference)
