# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Audits are drawn independently of the split and run only in pauses; a codec that disagrees is removed."""

import random

import pytest

from dynsplit_ros.policies.audit import AuditLedger, AuditScheduler
from dynsplit_ros.policies.records import FrameRecord

CHOICE = (2, 'quant4-zstd')
#: Number of the latest audits that count.
WINDOW = 500


def audits(truth, seed, frames=10_000, share=0.05, bound=0.9):
    """Audit frames that agree with this probability; return the ledger and the number of audits until the removal."""
    scheduler, ledger, chance = AuditScheduler(share, seed), AuditLedger(), random.Random(1000 + seed)
    taken_out = None
    for number in range(frames):
        agrees = chance.random() < truth
        if scheduler.draw():
            frame = FrameRecord(sequence=number)
            scheduler.on_answer(frame)
            assert scheduler.on_pause() is frame and scheduler.on_audited(frame)
            if ledger.on_audit(CHOICE, float(agrees), bound):
                taken_out = scheduler.counters.audited
    return ledger, taken_out


def test_the_published_interval_contains_the_true_agreement_in_17_of_20_runs():
    for truth in (0.95, 0.98):
        intervals = [audits(truth, seed)[0].agreement(CHOICE) for seed in range(20)]
        assert sum(found.low <= truth <= found.high for found in intervals) >= 17
        assert all(300 <= found.images <= WINDOW for found in intervals)


@pytest.mark.parametrize('bound', [0.95, 0.98])
def test_a_codec_that_disagrees_in_a_tenth_of_the_frames_is_removed_within_500_audits(bound):
    for seed in range(20):
        ledger, taken_out = audits(0.9, seed, share=0.2, bound=bound)
        assert taken_out is not None and taken_out <= 500
        reason = ledger.removed[CHOICE]
        assert 'quant4-zstd is taken out' in reason and f'min_agreement is {bound:g}' in reason and '\n' not in reason


def test_a_codec_that_keeps_the_bound_stays():
    assert [audits(0.995, seed, bound=0.98)[1] for seed in range(20)] == [None] * 20


def test_only_the_latest_500_audits_count():
    ledger = AuditLedger()
    for score in [0.0] * 40 + [1.0] * WINDOW:
        assert not ledger.on_audit(CHOICE, score, 0.01)
    assert ledger.agreement(CHOICE).images == WINDOW and ledger.agreement(CHOICE).share == 1.0


def test_fewer_than_50_audits_remove_no_codec():
    ledger = AuditLedger()
    assert not any(ledger.on_audit(CHOICE, 0.0, 0.98) for _ in range(49))
    assert ledger.on_audit(CHOICE, 0.0, 0.98) and not ledger.on_audit(CHOICE, 0.0, 0.98), 'the reason is said once'
    ledger.reset()
    assert not ledger.removed and ledger.agreement(CHOICE).images == 0


def test_each_choice_is_judged_by_its_own_audits():
    ledger = AuditLedger()
    for _ in range(WINDOW):
        ledger.on_audit(CHOICE, 0.0, 0.98)
        ledger.on_audit((2, 'quant8-zstd'), 1.0, 0.98)
    assert list(ledger.removed) == [CHOICE] and ledger.agreement((2, 'quant8-zstd')).share == 1.0


@pytest.mark.parametrize('score', [float('nan'), -0.1, 1.1, float('inf')])
def test_an_impossible_score_is_ignored(score):
    ledger = AuditLedger()
    assert not ledger.on_audit(CHOICE, score, 0.98) and ledger.agreement(CHOICE).images == 0


def test_the_draw_follows_the_share_and_the_seed():
    first, again, other = (AuditScheduler(0.01, seed) for seed in (3, 3, 4))
    drawn = [first.draw() for _ in range(20_000)]
    assert drawn == [again.draw() for _ in range(20_000)] and drawn != [other.draw() for _ in range(20_000)]
    assert 140 <= sum(drawn) <= 260 and first.counters.drawn == sum(drawn)
    assert not any(AuditScheduler(0.0).draw() for _ in range(1000))


def test_an_audit_that_is_interrupted_begins_again_until_a_newer_one_replaces_it():
    scheduler = AuditScheduler()
    first, second, third = (FrameRecord(sequence=number) for number in (1, 2, 3))
    scheduler.on_answer(first)
    assert scheduler.on_pause() is first and scheduler.on_pause() is None
    assert scheduler.on_work() is first and not scheduler.on_audited(first), 'it was to end'
    assert scheduler.on_pause() is first
    scheduler.on_answer(second)
    assert scheduler.on_work() is first and scheduler.counters.skipped == 1
    scheduler.on_answer(third)
    assert scheduler.counters.skipped == 2 and scheduler.on_pause() is third and scheduler.on_audited(third)
    assert scheduler.counters.audited == 1 and scheduler.on_work() is None


def test_audits_that_are_not_done_at_the_end_count_as_skipped():
    scheduler = AuditScheduler()
    scheduler.on_answer(FrameRecord(sequence=1))
    running = scheduler.on_pause()
    scheduler.on_answer(FrameRecord(sequence=2))
    assert scheduler.on_end() is running and scheduler.counters.skipped == 2 and scheduler.on_pause() is None
