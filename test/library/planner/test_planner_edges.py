# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Another edge replaces the one in use at once if the gain is certain, and after some regret if it is uncertain."""

from __future__ import annotations

import pytest

from dynsplit_ros.planner import EdgeHysteresis, PlannerConstraints
from dynsplit_ros.planner.hysteresis import EdgeScore

RULES = PlannerConstraints(switching_cost=0.01, confidence=3.5, frame_rate_hz=10.0)


def edge_score(score_s: float, spread_s: float = 0.0, robot_s: float = 0.05, robot_spread: float = 0.03) -> EdgeScore:
    return EdgeScore(score_s, spread_s, robot_s, robot_spread)


def chosen(near: EdgeScore, far: EdgeScore, times: int = 1, every_s: float = 0.25) -> list[str]:
    """Return the edge in use after each of several comparisons, which start with 'near'."""
    hysteresis, used, found = EdgeHysteresis(), 'near', []
    hysteresis.regret.reset(0.0)
    for number in range(1, times + 1):
        used, _ = hysteresis.choose(used, {'near': near, 'far': far}, RULES, number * every_s)
        found.append(used)
    return found


@pytest.mark.parametrize('far_s, used', [(0.1, 'near'), (0.0995, 'near'), (0.098, 'far'), (0.2, 'near')])
def test_a_gain_without_deviation_must_exceed_the_switching_cost(far_s, used) -> None:
    assert chosen(edge_score(0.1), edge_score(far_s)) == [used]


@pytest.mark.parametrize('near_spread_s, far_spread_s', [(0.004, 0.0), (0.0, 0.004)])
def test_a_gain_must_exceed_the_deviations_of_both_edges(near_spread_s, far_spread_s) -> None:
    for far_s, used in ((0.088, 'near'), (0.084, 'far')):
        assert chosen(edge_score(0.1, near_spread_s), edge_score(far_s, far_spread_s)) == [used]


def test_the_deviation_of_the_robot_counts_only_if_its_part_differs_between_edges() -> None:
    assert chosen(edge_score(0.1), edge_score(0.09)) == ['far']
    assert chosen(edge_score(0.1, robot_s=0.15), edge_score(0.09)) == ['near']


def test_the_regret_grows_until_it_outweighs_the_deviation() -> None:
    used = chosen(edge_score(0.1, 0.01), edge_score(0.09, 0.01), times=20)
    # Each of 10 frames per second adds a regret of 9 ms, until the sum is two latencies.
    assert used.index('far') == pytest.approx(0.2 / 0.09 / 0.25, abs=1)
    assert set(used[used.index('far') :]) == {'far'}


def test_the_edge_in_use_stays_if_another_one_is_equal() -> None:
    assert set(chosen(edge_score(0.1), edge_score(0.1), times=50)) == {'near'}


def test_edges_that_differ_by_a_millisecond_are_equal() -> None:
    """Unused edges seem better by that amount; otherwise the monitor would switch between two equal edges."""
    assert set(chosen(edge_score(0.008), edge_score(0.007), times=100)) == {'near'}
