# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The scheduler starts an image so that its payload is ready when link and edge are free."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np
import pytest

from dynsplit_ros.parameters import CAMERA
from dynsplit_ros.policies.pacing import SendScheduler

KEY, OTHER = (0, 'raw'), (3, 'blosc2')


@dataclass
class Unanswered:
    sent_s: float
    acknowledged_s: float = math.nan
    split_index: int = 0
    codec: str = 'raw'
    edge: str = ''


def scheduler(transfer_s: float = 0.01, service_s: float = 0.1, ready_s: float = 0.005) -> SendScheduler:
    known = SendScheduler()
    for number, key in enumerate((KEY, OTHER)):
        known.on_ready(key, ready_s)
        known.on_acknowledged(key, transfer_s)
        answer(known, service_s, key, sent_s=float(number))
    return known


def answer(
    known: SendScheduler, held_s: float, key: tuple[int, str] = KEY, late_s: float = 0.03, *, sent_s: float
) -> None:
    """Note the answer to a frame that was sent at ``sent_s`` and that the edge held for ``held_s`` seconds."""
    known.on_answered(Unanswered(sent_s, sent_s + 0.01, *key), sent_s + 0.01 + held_s + late_s, held_s)


@pytest.mark.parametrize(('transfer_s', 'held_s', 'free_s'), [(0.01, 0.1, 5.1), (0.2, 0.01, 5.2)])
def test_a_payload_leaves_when_the_link_is_free_and_finds_the_edge_free(transfer_s, held_s, free_s) -> None:
    known = scheduler(transfer_s, held_s)
    assert known.send_s(KEY, [Unanswered(5.0)]) == pytest.approx(free_s)
    # The edge is free at that instant, however long the answer takes.
    answer(known, held_s, late_s=9.0, sent_s=2.5)
    assert known.send_s(KEY, [Unanswered(5.0)]) == pytest.approx(free_s)


def test_an_acknowledgement_replaces_the_predicted_transfer_time() -> None:
    assert scheduler().send_s(KEY, [Unanswered(5.0, 5.05)]) == pytest.approx(5.05 + 0.1 - 0.01)


def test_a_payload_waits_for_all_frames_under_way_each_with_the_times_of_its_choice() -> None:
    known = scheduler()
    assert known.send_s(KEY, [Unanswered(5.0), Unanswered(5.02, split_index=3, codec='blosc2')]) == pytest.approx(5.2)
    assert known.send_s(OTHER, []) == -math.inf


def test_a_choice_never_made_starts_at_once() -> None:
    assert scheduler().send_s((1, 'raw'), [Unanswered(5.0, 5.01)]) == -math.inf
    assert scheduler().start_s((1, 'raw'), 5.0) == -math.inf
    assert scheduler().remaining_s((1, 'raw'), 0.5) < 0


def test_the_service_time_is_averaged_and_follows_changes() -> None:
    known, rng, now_s = scheduler(), np.random.default_rng(0), 0.0
    for held_s in (0.1, 0.3):
        predicted = []
        for number in range(500):
            now_s += 2.0
            answer(known, held_s * math.exp(0.1 * float(rng.standard_normal())), sent_s=now_s)
            if number >= 8:
                predicted.append(known.send_s(KEY, [Unanswered(now_s + 1.0, now_s + 1.01)]) - now_s - 1.0)
        assert predicted[0] == pytest.approx(held_s, rel=0.15)
        assert np.std(predicted) < 0.06 * held_s


def test_a_head_starts_so_that_its_payload_is_ready_when_it_may_leave() -> None:
    assert scheduler().start_s(KEY, 6.0) == pytest.approx(6.0 - 0.005)


def test_the_service_time_does_not_contain_the_wait_for_the_frame_before() -> None:
    known = scheduler()
    for number in range(50):
        sent_s = 10.0 + number * 0.4
        first, second = (Unanswered(sent_s + wait_s, sent_s + wait_s + 0.01) for wait_s in (0.0, 0.02))
        # The second one arrives 0.08 s early and waits; the edge finishes both 0.1 s apart.
        assert known.send_s(KEY, [first, second]) == pytest.approx(sent_s + 0.2, abs=0.001)
        known.on_answered(first, sent_s + 0.13, 0.1)
        assert known.send_s(KEY, [second]) == pytest.approx(sent_s + 0.2, abs=0.001)
        known.on_answered(second, sent_s + 0.23, 0.18)


@pytest.mark.parametrize('held_s', [math.nan, math.inf, -1.0, 1e9])
def test_an_impossible_held_time_is_bounded_by_the_arrival_of_the_answer(held_s) -> None:
    known = scheduler()
    for number in range(100):
        known.on_answered(Unanswered(10.0 + number, 10.01 + number), 10.2 + number, held_s)
    assert 200.0 <= known.send_s(KEY, [Unanswered(200.0)]) <= 200.2 + 1e-9
    assert math.isfinite(known.start_s(KEY, 206.0))


def test_an_answer_before_the_expected_arrival_means_that_the_edge_took_no_time() -> None:
    """The acknowledgements are lost, and each answer comes sooner than the payload was expected to arrive."""
    known = scheduler(transfer_s=0.2)
    for number in range(20):
        known.on_answered(Unanswered(10.0 + number), 10.05 + number, 0.01)
    assert known.send_s(KEY, [Unanswered(50.0, 50.01)]) == pytest.approx(50.01 - 0.2, abs=1e-3)


def test_with_two_servers_the_next_payload_need_not_wait_for_the_frame_before_it() -> None:
    known = scheduler(transfer_s=0.01, service_s=0.1)
    known.on_servers(2)
    assert known.send_s(KEY, [Unanswered(5.0, 5.01)]) < 5.0, 'the second server is free'
    both = [Unanswered(5.0, 5.01), Unanswered(5.03, 5.04)]
    assert known.send_s(KEY, both) == pytest.approx(5.11 - 0.01)
    known.on_servers(1)
    assert known.send_s(KEY, both) == pytest.approx(5.21 - 0.01)


def test_frames_on_two_servers_do_not_make_the_service_time_longer() -> None:
    known = SendScheduler()
    known.on_servers(2)
    for number in range(10):
        sent_s = 1.0 + 0.05 * number
        known.on_answered(Unanswered(sent_s, sent_s), sent_s + 0.1, 0.1)
    known.on_servers(1)
    assert known.send_s(KEY, [Unanswered(5.0, 5.0)]) == -math.inf, 'no transfer is known'
    known.on_acknowledged(KEY, 0.0)
    assert known.send_s(KEY, [Unanswered(5.0, 5.0)]) == pytest.approx(5.1)


def test_at_most_16_servers_count() -> None:
    (most,) = (parameter.maximum for parameter in CAMERA if parameter.name == 'max_unanswered')
    known = scheduler()
    known.on_servers(65535)
    frame = Unanswered(5.0, 5.01)
    assert known.send_s(KEY, [frame] * (most - 1)) < 5.0, 'one server is free'
    assert known.send_s(KEY, [frame] * most) == pytest.approx(5.11 - 0.01)
    known.on_servers(0)
    assert known.send_s(KEY, [Unanswered(5.0)]) == pytest.approx(5.1)
