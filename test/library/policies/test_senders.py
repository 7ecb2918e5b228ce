# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Two robots in one namespace are distinguished from a restarted one."""

from __future__ import annotations

import pytest

from dynsplit_ros.policies.senders import SenderSessions, WITHIN_S


@pytest.fixture(params=['on_camera', 'on_monitor'])
def heard(request):
    """Return the sessions, and the method that notes a session of a camera or of a monitor."""
    senders = SenderSessions()
    return senders, getattr(senders, request.param)


@pytest.mark.parametrize('period_s', [0.02, 0.25, 10.0])
@pytest.mark.parametrize('later_s', [0.0, 1000.0], ids=['together', 'the second one later'])
def test_two_senders_at_the_same_time_are_detected_at_any_rates(heard, period_s, later_s) -> None:
    senders, hear = heard
    now_s = 0.0
    while now_s < later_s:
        hear(1, now_s)
        now_s += max(period_s, 1.0)
        assert not senders.has_duplicate(now_s)
    end_s = now_s + 3 * period_s
    while now_s < end_s:
        hear(1, now_s)
        hear(2, now_s + period_s / 2)
        now_s += period_s
    assert senders.has_duplicate(now_s)


def test_restarts_do_not_count_as_two_senders(heard) -> None:
    senders, hear = heard
    for number in range(100):
        for beat in range(20):
            hear(session=number, now_s=number + beat / 20)
        assert not senders.has_duplicate(number + 1.0)


def test_a_late_message_of_a_node_that_ended_does_not_count_as_two_senders(heard) -> None:
    senders, hear = heard
    for session in (1, 1, 2, 1, 2, 2, 2):
        hear(session, 1.0)
        assert not senders.has_duplicate(1.0)


def test_two_senders_are_no_longer_reported_after_one_has_left(heard) -> None:
    senders, hear = heard
    for number in range(10):
        hear(number % 2, 0.1 * number)
    assert senders.has_duplicate(1.0)
    hear(1, 1.0)
    assert not senders.has_duplicate(1.1 + WITHIN_S)


@pytest.mark.parametrize('sessions, has_duplicate', [(8, True), (9, False), (100_000, False)])
def test_only_the_latest_eight_sessions_are_remembered(heard, sessions, has_duplicate) -> None:
    senders, hear = heard
    for number in range(sessions + 3):
        hear(number % sessions, 0.0)
    assert senders.has_duplicate(0.0) == has_duplicate


def test_a_camera_and_a_monitor_are_one_robot() -> None:
    senders = SenderSessions()
    for number in range(100):
        senders.on_camera(1, 0.1 * number)
        senders.on_monitor(2, 0.1 * number)
    assert not senders.has_duplicate(10.0)
