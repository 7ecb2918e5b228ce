# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Images are joined to batches."""

from __future__ import annotations

import math

import pytest

from dynsplit_ros.policies.image_batch import ImageBatcher


def test_one_image_is_a_batch_of_one_at_once() -> None:
    collector = ImageBatcher[str](cameras=1, batch=1, timeout_s=0.5)
    assert collector.add(0, 'a', 0.0) == ['a'] and collector.due(9.0) == []
    assert collector.add(0, 'b', 0.1) == ['b'] and collector.replaced == 0


def test_consecutive_images_of_one_camera_form_a_batch() -> None:
    collector = ImageBatcher[int](cameras=1, batch=3, timeout_s=0.5)
    assert [collector.add(0, number, 0.1 * number) for number in range(7)] == [[], [], [0, 1, 2], [], [], [3, 4, 5], []]
    assert collector.replaced == 0


def test_the_last_images_of_a_camera_that_stops_form_a_batch() -> None:
    collector = ImageBatcher[int](cameras=1, batch=3, timeout_s=0.5)
    collector.add(0, 0, 0.0)
    collector.add(0, 1, 0.4)
    assert collector.due(0.49) == []
    assert collector.due(0.51) == [0, 1] and collector.due(5.0) == []


def test_a_batch_holds_the_newest_image_of_each_camera_in_their_order() -> None:
    collector = ImageBatcher[str](cameras=3, batch=3, timeout_s=0.5)
    assert collector.add(2, 'c1', 0.0) == [] and collector.add(0, 'a1', 0.1) == []
    assert collector.add(2, 'c2', 0.2) == [], 'the second image of a camera is not one of another'
    assert collector.add(1, 'b1', 0.3) == ['a1', 'b1', 'c2']
    assert collector.replaced == 1


def test_a_silent_camera_does_not_delay_batches() -> None:
    collector = ImageBatcher[str](cameras=2, batch=2, timeout_s=0.5)
    assert collector.add(0, 'a1', 0.0) == [], 'at first the other is waited for'
    assert collector.add(1, 'b1', 0.1) == ['a1', 'b1']
    assert collector.add(0, 'a2', 0.2) == [] and collector.add(0, 'a3', 0.5) == []
    assert collector.due(0.59) == [], 'the other was heard 0.49 s ago'
    assert collector.due(0.71) == ['a3']
    assert collector.add(0, 'a4', 0.8) == ['a4'], 'nor is it waited for again …'
    assert collector.add(1, 'b2', 0.9) == [], '… until it is back'
    assert collector.add(0, 'a5', 1.0) == ['a5', 'b2']


def test_a_batch_of_slow_cameras_waits_no_longer_than_the_bound() -> None:
    collector = ImageBatcher[str](cameras=2, batch=2, timeout_s=0.5)
    collector.add(0, 'a1', 0.0)
    collector.add(1, 'b1', 0.0)
    assert collector.add(0, 'a2', 0.4) == [] and collector.add(0, 'a3', 0.8) == ['a3']


def test_the_measured_rate_follows_the_cameras() -> None:
    collector = ImageBatcher[int](cameras=1, batch=2, timeout_s=0.5)
    assert math.isnan(collector.rate_hz)
    now_s = 0.0
    for period_s in 0.05, 0.01, 0.2:
        for _ in range(50):
            collector.add(0, 0, now_s)
            now_s += period_s
        assert collector.rate_hz == pytest.approx(0.5 / period_s)
