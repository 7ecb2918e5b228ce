# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The monitor removes a lossy codec whose audits disagree, gives the reason, and uses another one."""

from dataclasses import replace

import pytest
from worlds import bounded, Wire

from dynsplit_ros.policies.audit import MIN_AUDITS
from dynsplit_ros.policies.monitor import MonitorPolicy as Monitor
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import merge

SETTINGS = MonitorSettings(min_agreement=0.98, shallowest_split=2, frame_rate_hz=2.0)
LOSSY = (2, 'quant8-zstd')


def wire(settings=SETTINGS) -> Wire:
    edge = bounded()
    return Wire(Monitor(merge(edge.scaled(8.0), edge), settings), rate_bps=20e6)


def decided(link: Wire) -> tuple[int, str]:
    """Let the monitor learn the link, and return its choice."""
    link.idle(5.0)
    return link.decisions[-1].choice


def disagree(monitor: Monitor, audits: int = MIN_AUDITS) -> list[str]:
    """Report audits of which every fifth agrees."""
    return [reason for number in range(audits) if (reason := monitor.on_audit(*LOSSY, float(number % 5 == 0)))]


def test_a_codec_whose_audits_disagree_is_removed_and_another_is_used() -> None:
    link = wire()
    assert decided(link) == LOSSY
    (reason,) = disagree(link.monitor)
    link.tick()
    assert link.decisions[-1].choice != LOSSY, 'at once'
    assert 'split 2 with quant8-zstd is taken out' in reason and 'min_agreement is 0.98' in reason
    assert decided(link) != LOSSY
    assert LOSSY not in [(one.split_index, one.codec) for one in link.decisions[-1].candidates]
    assert not disagree(link.monitor, 500), 'it stays out, and that is said once'


def test_audits_that_agree_change_nothing() -> None:
    link = wire()
    before = decided(link)
    assert not any(link.monitor.on_audit(*LOSSY, 1.0) for _ in range(600))
    assert decided(link) == before and link.monitor.audits.agreement(LOSSY).images == 500


def test_changed_settings_keep_a_codec_removed_unless_the_bound_changes() -> None:
    link = wire()
    disagree(link.monitor)
    link.monitor.reconfigure(replace(SETTINGS, silence_s=2.0))
    assert decided(link) != LOSSY
    link.monitor.reconfigure(replace(SETTINGS, min_agreement=0.9))
    assert decided(link) == LOSSY and not link.monitor.audits.removed


def test_a_pinned_split_does_not_override_the_bound() -> None:
    link = wire(replace(SETTINGS, pinned_split=2, codecs=('quant8-zstd',)))
    assert decided(link) == LOSSY
    assert disagree(link.monitor)
    assert decided(link) != LOSSY


@pytest.mark.parametrize(
    'split_index, codec, agreement',
    [(-1, 'raw', 1.0), (99, 'raw', 0.0), (2, 'unheard of', 0.0), (2, 'quant8-zstd', float('nan')), (2, '', 2.0)],
)
def test_an_impossible_audit_is_ignored(split_index, codec, agreement) -> None:
    monitor = wire().monitor
    assert not any(monitor.on_audit(split_index, codec, agreement) for _ in range(100))
    assert not monitor.audits.removed and all(monitor.audits.agreement(one).images == 0 for one in [LOSSY])


def test_the_pin_on_a_split_with_a_removed_choice_stays_lifted() -> None:
    settings = replace(SETTINGS, pinned_split=2, codecs=('quant8-zstd',))
    link = wire(settings)
    assert disagree(link.monitor)
    link.monitor.set_edge('far', link.monitor.profile)
    link.monitor.reconfigure(replace(settings, silence_s=2.0))
    other = 3, 'quant8-zstd'
    assert any(link.monitor.on_audit(*other, 0.0) for _ in range(MIN_AUDITS)), 'a second choice is taken out'
    assert decided(link) not in (LOSSY, other)
