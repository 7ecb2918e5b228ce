# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The objective deadline chooses the split with most frames in time, even if another one has a lower mean."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from worlds import DATA, measured, system

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.rate import RATE_SHARES
from dynsplit_ros.planner import Planner, PlannerConstraints, SystemEstimate
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import merge
from dynsplit_ros.simulation.compare import summarise
from dynsplit_ros.simulation.trace import noisy
from dynsplit_ros.simulation.world import Scenario, simulate
from dynsplit_ros.tools.advise import main as advise

PROFILE = system(slower=6.0)


def plan(deadline_s: float, rates_bps, objective: str = 'deadline', **estimate):
    values = {'rate_spread': 0.5, 'robot_spread': 0.01, 'edge_spread': 0.01, **estimate}
    constraints = PlannerConstraints(objective=objective, deadline_s=deadline_s, frame_rate_hz=2.0)
    return Planner(PROFILE, constraints).plan(
        SystemEstimate.as_profiled(
            len(PROFILE.cuts), rate_bps=1.0, rtt_s=0.004, rates_bps=np.asarray(rates_bps), **values
        )
    )


def unsteady() -> np.ndarray:
    """Return the quantiles of a link that is slow for a quarter of the time and fast otherwise."""
    return np.where(np.asarray(RATE_SHARES) < 0.25, 2e6, 60e6)


LOCAL_S = PROFILE.cuts[-1].head_s[1]


def test_local_inference_is_chosen_on_an_unsteady_link_if_it_keeps_the_deadline() -> None:
    assert plan(1.2 * LOCAL_S, unsteady(), 'latency').split_index != PROFILE.local_index
    chosen = plan(1.2 * LOCAL_S, unsteady())
    assert chosen.split_index == PROFILE.local_index
    assert chosen.candidates[-1].late_share == 0.0


def test_the_link_is_used_if_local_inference_misses_the_deadline() -> None:
    chosen = plan(0.8 * LOCAL_S, unsteady())
    assert chosen.split_index != PROFILE.local_index and chosen.candidates[-1].late_share == 1.0
    best = next(one for one in chosen.candidates if (one.split_index, one.codec) == (chosen.split_index, chosen.codec))
    assert 0.1 < best.late_share < 0.5, 'the link is slow in a quarter of the time'
    assert best.late_share == min(one.late_share for one in chosen.candidates if one.allowed)


def test_the_fastest_of_the_choices_that_keep_the_deadline_is_chosen() -> None:
    steady = np.full(len(RATE_SHARES), 100e6)
    assert plan(10.0, steady).split_index == plan(10.0, steady, 'latency').split_index


def test_the_deviation_of_a_machine_raises_the_share_of_late_frames() -> None:
    late = [
        plan(1.01 * LOCAL_S, np.full(len(RATE_SHARES), 1e5), robot_spread=spread).candidates[-1].late_share
        for spread in (0.0, 0.01, 0.03, 1.0)
    ]
    assert late[0] == 0.0 < late[1] < late[2] < 0.6
    assert late[3] == late[2], 'a machine that was never measured counts as it was profiled'


def test_without_a_deadline_no_share_is_computed() -> None:
    assert all(one.late_share is None for one in plan(1.0, unsteady(), 'latency').candidates)


@pytest.mark.parametrize('deadline_s', [0.0, -1.0, math.nan, 1e9])
def test_an_impossible_deadline_is_refused_in_one_sentence(deadline_s) -> None:
    with pytest.raises(DynsplitError, match='deadline_s is .*, but must be between 0.001 and 60.0 s'):
        MonitorSettings(objective='deadline', deadline_s=deadline_s)


def test_in_a_simulation_more_frames_are_in_time_than_with_the_latency_as_objective() -> None:
    edge = measured()
    profile, deadline_s = merge(edge.scaled(6.0), edge), 1.15 * 6.0 * edge.cuts[-1].head_s[1]
    scenario = Scenario(link=noisy(15e6, 0.6, 60.0, 3), duration_s=60.0, frame_rate_hz=2.0, seed=3)
    shares = {}
    for objective in ('latency', 'deadline'):
        run = simulate(profile, scenario, 'dynamic', MonitorSettings(objective=objective, deadline_s=deadline_s))
        shares[objective] = summarise(run, 60.0, 5.0, deadline_s).in_time_share
    assert shares['latency'] < 0.97 and shares['deadline'] > 0.98


def test_a_split_whose_frames_the_robot_can_still_finish_in_time_is_never_late() -> None:
    broken = plan(3.0 * LOCAL_S, unsteady())
    safe = [one for one in broken.candidates if 0 < one.split_index < PROFILE.local_index]
    assert any(one.late_share == 0.0 and one.latency_s > 0 for one in safe)
    cut = PROFILE.cuts[broken.split_index]
    assert broken.answer_timeout_s + 1.5 * cut.finish_s[1] <= 3.0 * LOCAL_S


def test_advise_says_how_many_frames_are_in_time(tmp_path, capsys) -> None:
    out = tmp_path / 'advice.json'
    options = ['--objective', 'deadline', '--deadline', '0.1', '--plot', str(tmp_path / 'a.png'), '--json', str(out)]
    assert advise(['--edge-profile', str(DATA / 'mobilenet_v2.yaml'), '--loads', '1', *options]) == 0
    assert 'in time' in capsys.readouterr().out
    points = json.loads(out.read_text())['loads'][0]['points']
    assert points[0]['in_time_share'] == 0.0 and points[-1]['in_time_share'] == 1.0
