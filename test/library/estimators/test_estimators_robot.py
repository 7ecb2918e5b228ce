# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The robot's own times from its frames, and the residuals of the predictions."""

from __future__ import annotations

import math

import pytest

from dynsplit_ros.estimators.robot import ResidualEstimator, RobotEstimator


def publishing_s(wait_s: float = 0.05, step: int = 1, is_local: bool = True, resize_s: float = 0.01) -> float:
    """Return the estimated publishing time after frames that end every 0.15 s and have a head of 0.1 s."""
    robot = RobotEstimator()
    for number in range(100):
        robot.on_frame(step * number, is_local, wait_s, resize_s, 0.1, 0.15 * number)
    return robot.publish_s


def test_publishing_takes_what_remains_between_two_local_frames_while_images_wait() -> None:
    assert publishing_s() == pytest.approx(0.04, rel=0.01)
    assert publishing_s(wait_s=0.001) == 0.0, 'the robot waited for an image'
    assert publishing_s(wait_s=0.003) > 0.0
    assert publishing_s(step=2) == 0.0, 'a frame between the two is missing'
    assert publishing_s(is_local=False) == 0.0
    assert publishing_s(resize_s=0.2) == 0.0, 'never negative'


@pytest.mark.parametrize('resize_s, expected_s', [(0.03, 0.03), (-0.01, 0.0), (10.0, 0.0), (math.nan, 0.0)])
def test_the_resize_time_is_the_mean_of_the_plausible_measurements(resize_s, expected_s) -> None:
    robot = RobotEstimator()
    for number in range(100):
        robot.on_frame(number, False, 0.0, resize_s, 0.1, number)
    assert robot.resize_s == pytest.approx(expected_s, rel=0.01)


def test_the_mean_times_follow_two_thirds_of_a_change_within_ten_frames() -> None:
    robot = RobotEstimator()
    for number in range(10):
        robot.on_frame(number, True, 0.05, 0.03, 0.1, 0.17 * number)
    assert robot.resize_s == pytest.approx(0.65 * 0.03, rel=0.01)
    assert robot.publish_s == pytest.approx(0.61 * 0.04, rel=0.01)


def test_a_head_during_which_another_frame_was_finished_is_ignored() -> None:
    robot = RobotEstimator()
    for number in range(20):
        robot.on_head(0, 0.3, 0.0004, 0.1, float(number))
    assert robot.times.factor == 1.0
    for number in range(20):
        robot.on_head(0, 0.3, 0.0, 0.1, 20.0 + number)
    assert robot.times.factor == pytest.approx(3.0, rel=0.2)


def test_the_prior_of_the_robots_factor_has_a_deviation_of_one_half() -> None:
    assert math.exp(RobotEstimator().times.spread) == pytest.approx(1.65, abs=0.01)


def test_the_residual_of_a_sent_frame_counts_for_all_splits_that_send() -> None:
    local, sent = ResidualEstimator(3), ResidualEstimator(3)
    for _ in range(20):
        local.on_frame(2, 0.11, 0.10, False)
        sent.on_frame(0, 0.11, 0.10, True)
    assert local.residual_s[:2].tolist() == [0.0, 0.0] and local.residual_s[2] == pytest.approx(0.01, rel=0.05)
    assert sent.residual_s[0] == pytest.approx(0.02, rel=0.05) and sent.residual_s[1] == pytest.approx(0.01, rel=0.05)
    assert sent.residual_s[2] == 0.0


@pytest.mark.parametrize('latency_s, step', [(1.0, 0.25), (0.0001, -0.25), (0.0, 0.0), (10.0, 0.0), (math.nan, 0.0)])
def test_one_frame_changes_a_residual_by_a_bounded_share_of_the_prediction(latency_s, step) -> None:
    residuals = ResidualEstimator(2)
    residuals.on_frame(1, latency_s, 0.1, False)
    assert residuals.residual_s[1] == pytest.approx(0.05 * 0.1 * step)


def test_residuals_decay() -> None:
    residuals = ResidualEstimator(2)
    residuals.on_frame(0, 0.12, 0.10, True)
    before_s = residuals.residual_s[0]
    for _ in range(700):
        residuals.on_frame(1, 0.1, 0.1, False)
    assert residuals.residual_s[0] == pytest.approx(before_s / 2, rel=0.05)
