# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Waiting for newer images: the resulting age, and the cost in frame rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynsplit_ros.policies.staleness import mean_age, StalenessControl

PERIOD_S = 0.1


def play(periods: float, share: float, frames: int = 2000, jitter: float = 0.0) -> tuple[float, float]:
    """Return the mean age of images and the frames per busy time for a stage that takes this number of periods."""
    rng = np.random.default_rng(0)
    fresh, ages, free_s, taken = StalenessControl(), [], 0.0, -1
    for _ in range(frames):
        now_s = free_s
        while True:
            newest = math.floor(now_s / PERIOD_S + 1e-9)
            if newest > taken:
                start_s = fresh.start_s(newest * PERIOD_S, now_s, PERIOD_S, now_s)
                if start_s <= now_s:
                    break
                now_s = min(start_s, (newest + 1) * PERIOD_S)
            else:
                now_s = (taken + 1) * PERIOD_S
        fresh.on_start(PERIOD_S, share, now_s)
        taken = newest
        ages.append(now_s - newest * PERIOD_S)
        free_s = now_s + periods * PERIOD_S * (1 + jitter * float(rng.standard_normal()))
    return float(np.mean(ages)) / PERIOD_S, frames * max(periods, 1.0) * PERIOD_S / free_s


@pytest.mark.parametrize('periods', [0.5, 0.9, 1.01, 1.05, 1.1, 1.3, 1.5, 1.65, 1.75, 1.98, 2.02, 2.6, 3.3])
def test_the_mean_age_of_images_and_the_frame_rate_are_as_predicted(periods) -> None:
    age, rate = play(periods, 0.08)
    assert age == pytest.approx(float(mean_age(np.array([periods]), 0.08)[0]), abs=0.01)
    assert age < 0.26 and rate > 0.915


@pytest.mark.parametrize('periods', [1.01, 1.3, 2.02])
def test_without_a_waiting_share_the_camera_never_waits(periods) -> None:
    age, rate = play(periods, 0.0)
    assert age == pytest.approx(float(mean_age(np.array([periods]), 0.0)[0]), abs=0.06)
    assert rate == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize('share', [0.0, 0.08])
@pytest.mark.parametrize('periods', [0.9, 1.2, 1.5, 1.9, 2.1, 2.54, 3.5])
def test_the_age_of_sent_images_is_as_predicted_when_robot_and_link_alternate(periods, share) -> None:
    fresh, ages, now_s = StalenessControl(), [], 0.0
    for _ in range(1000):
        arrived_s = math.floor(now_s / PERIOD_S + 1e-9) * PERIOD_S
        start_s = fresh.start_s(arrived_s, now_s, PERIOD_S, now_s)
        if start_s > now_s:  # a newer image comes first
            now_s = arrived_s = arrived_s + PERIOD_S
        fresh.on_start(PERIOD_S, share, now_s)
        ages.append(now_s - arrived_s)
        now_s = arrived_s + PERIOD_S  # sent at once; the next image is begun when it arrives
        fresh.start_s(now_s, now_s, PERIOD_S, now_s)
        fresh.on_start(PERIOD_S, share, now_s)
        now_s += max(1.0, periods) * PERIOD_S
    age = float(np.mean(ages)) / PERIOD_S
    assert age == pytest.approx(float(mean_age(np.array([periods]), share, alternating=True)[0]), abs=0.02)


def test_a_robot_that_just_keeps_up_skips_almost_no_image() -> None:
    age, rate = play(0.95, 0.08, jitter=0.02)
    assert rate > 0.99 and age < 0.02


def test_the_wait_for_an_image_that_does_not_come_is_short() -> None:
    fresh = StalenessControl()
    for now_s in (0.0, 50.0):
        fresh.on_start(PERIOD_S, 0.08, now_s)
    assert fresh.start_s(100.0, 100.08, PERIOD_S, 100.08) == pytest.approx(100.0 + 1.1 * PERIOD_S)


@pytest.mark.parametrize('period_s', [math.nan, 0.0, math.inf])
def test_without_a_known_period_the_camera_never_waits(period_s) -> None:
    fresh = StalenessControl()
    for now_s in (0.0, 50.0, 100.0):
        fresh.on_start(period_s, 0.08, now_s)
        assert fresh.start_s(now_s, now_s + 0.09, period_s, now_s) == now_s + 0.09


def starts(control: StalenessControl, periods: float, begin_s: float, frames: int) -> list[float]:
    """Return the delay of each head after its earliest start, for a stage that takes this number of periods."""
    waits, now_s = [], begin_s
    for _ in range(frames):
        arrived_s = math.floor(now_s / PERIOD_S + 1e-9) * PERIOD_S
        start_s = control.start_s(arrived_s, now_s, PERIOD_S, now_s)
        newer_s = arrived_s + PERIOD_S
        waits.append(0.0 if start_s <= now_s else newer_s - now_s)
        now_s += waits[-1]
        control.start_s(max(arrived_s, now_s - PERIOD_S), now_s, PERIOD_S, now_s)
        control.on_start(PERIOD_S, 0.08, now_s)
        now_s += periods * PERIOD_S
    return waits


def test_a_long_silence_saves_no_more_than_one_period_of_waiting() -> None:
    control = StalenessControl()
    control.on_start(PERIOD_S, 0.08, 0.0)
    waits = starts(control, 1.5, 1000.0, 21)
    assert sum(waits[1:]) <= PERIOD_S + 0.08 * 20 * 1.6 * PERIOD_S


def test_a_wait_counts_from_the_instant_at_which_the_head_could_have_started() -> None:
    control = StalenessControl()
    for now_s in (0.0, 50.0):  # a whole period is saved
        control.on_start(PERIOD_S, 0.08, now_s)
    assert control.start_s(51.0, 51.06, PERIOD_S, 51.02) == pytest.approx(51.11)  # before the start is possible
    control.start_s(51.1, 51.06, PERIOD_S, 51.1)
    control.on_start(PERIOD_S, 0.08, 51.1)  # 0.04 s of the 0.1 s are spent, and 0.088 s saved: a period again
    assert control.start_s(51.2, 51.22, PERIOD_S, 51.22) == pytest.approx(51.31)


def test_a_wait_reduces_the_saved_time_once() -> None:
    control = StalenessControl()
    for now_s in (0.0, 1.0):
        control.on_start(PERIOD_S, 0.08, now_s)  # 0.08 s are saved
    control.start_s(1.1, 1.15, PERIOD_S, 1.15)
    control.on_start(PERIOD_S, 0.08, 1.2)  # 0.05 s are spent, and 0.016 s saved
    control.start_s(1.3, 1.3, PERIOD_S, 1.3)
    control.on_start(PERIOD_S, 0.08, 1.3)  # nothing is spent, and 0.008 s saved
    assert control.start_s(1.4, 1.452, PERIOD_S, 1.452) == pytest.approx(1.51)  # 0.048 s are within 0.054 s
    assert control.start_s(1.4, 1.44, PERIOD_S, 1.44) == 1.44


def test_a_long_wait_for_the_link_leaves_no_negative_saved_time() -> None:
    control = StalenessControl()
    control.on_start(PERIOD_S, 0.08, 0.0)
    control.start_s(1.0, 1.0, PERIOD_S, 1.0)
    control.on_start(PERIOD_S, 0.08, 61.0)  # the head waited a minute for the link
    control.on_start(PERIOD_S, 0.08, 61.5)  # 0.04 s are saved
    assert control.start_s(61.5, 61.57, PERIOD_S, 61.57) == pytest.approx(61.61)
    assert control.start_s(61.5, 61.55, PERIOD_S, 61.55) == 61.55


def test_the_age_of_an_image_counts_up_to_the_present_instant() -> None:
    control = StalenessControl()
    for now_s in (0.0, 50.0):  # a whole period is saved
        control.on_start(PERIOD_S, 0.08, now_s)
    assert control.start_s(51.0, 40.0, PERIOD_S, 51.06) == pytest.approx(51.11)


def test_an_image_younger_than_a_tenth_of_a_period_is_new() -> None:
    control = StalenessControl()
    for now_s in (0.0, 50.0):  # a whole period is saved
        control.on_start(PERIOD_S, 0.08, now_s)
    assert control.start_s(51.0, 51.008, PERIOD_S, 51.008) == 51.008
    assert control.start_s(51.0, 51.012, PERIOD_S, 51.012) == pytest.approx(51.11)
