# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The lossy codecs that a bound on the agreement allows, and the bounds that are refused."""

from dataclasses import replace

import pytest

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner import codecs_to_choose_from, Planner, PlannerConstraints
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import AgreementRecord, CodecProfile, CutProfile, merge, Profile

LOSSY = {'quant4': (Agreement(470, 500), 20_000), 'quant8': (Agreement(500, 500), 40_000)}
ENGINE = {'engine': 'eager'}


def codec(size, lossless=True):
    return CodecProfile({1: size}, {1: 1e-4}, {1: 1e-4}, lossless)


def profile(agreement=True, images=500):
    codecs = {
        'raw': replace(codec(160_000), encode_s={1: 0.0}),
        'blosc2': codec(80_000),
        'worse': replace(codec(90_000), encode_s={1: 2e-4}),
        **{name: codec(size, False) for name, (_, size) in LOSSY.items()},
    }
    cuts = tuple(
        CutProfile(
            index,
            f'cut {index}',
            True,
            160_000,
            index / 2,
            {1: 0.01 * index},
            {1: 0.01 * (2 - index)},
            {} if index == 2 else codecs,
        )
        for index in range(3)
    )
    found = {name: Agreement(one.agreeing * images / 500, images) for name, (one, _) in LOSSY.items()}
    records = (AgreementRecord('classification', 'x', ENGINE, ENGINE, {1: found}),) if agreement else ()
    one = Profile('net', 'f', 'cpu', 1, cuts, 4000, ENGINE, records)
    return merge(one, replace(one, agreements=()))


def allowed(at=1, **constraints):
    return set(codecs_to_choose_from(profile().cuts[at], 1, **constraints))


def test_by_default_every_lossless_codec_that_is_best_at_some_rate_may_be_chosen():
    assert allowed() == {'raw', 'blosc2'}


@pytest.mark.parametrize('bound, lossy', [(0.999, set()), (0.98, {'quant8'}), (0.9, {'quant4'})])
def test_a_bound_allows_codecs_whose_interval_lies_above_it(bound, lossy):
    # At 0.9, quant4 takes fewer bytes and no more time than every other codec but raw.
    assert allowed(min_agreement=bound) - {'raw', 'blosc2'} == lossy


def test_a_codec_without_measured_agreement_at_a_cut_is_not_allowed_there():
    assert allowed(0, min_agreement=0.9) == {'raw', 'blosc2'}
    assert allowed(0, min_agreement=0.0) == {'raw', 'quant4'}


def test_codecs_restricts_the_bound_and_neither_overrides_the_other():
    assert allowed(codecs=('blosc2', 'quant4'), min_agreement=0.98) == {'blosc2'}
    assert allowed(codecs=('blosc2', 'quant8'), min_agreement=0.98) == {'quant8'}
    assert allowed(codecs=('quant8',)) == set()


@pytest.mark.parametrize(
    'constraints, system, says',
    [
        (
            {'min_agreement': 0.98},
            profile(False),
            "no measured agreement; run './run profile net --image FOLDER'.*189 images",
        ),
        ({'min_agreement': 0.99}, profile(images=20), r'at least 381 images.*on 20; run .*--image FOLDER'),
        ({'codecs': ('raw', 'quant8')}, profile(False), "'quant8', which is lossy.*--image FOLDER.*agreement to 0"),
        ({'codecs': ('quant8',), 'min_agreement': 0.9}, profile(False), r"'quant8', which is lossy.*--image FOLDER"),
        ({'min_agreement': float('nan')}, profile(), 'min_agreement'),
        ({'min_agreement': 1.1}, profile(), 'min_agreement'),
    ],
)
def test_a_bound_without_enough_measurements_is_refused_with_the_command_to_run(constraints, system, says):
    with pytest.raises(DynsplitError, match=says) as refused:
        Planner(system, PlannerConstraints(**constraints))
    assert '\n' not in str(refused.value)


def test_with_a_bound_of_0_a_lossy_codec_needs_no_agreement():
    Planner(profile(False), PlannerConstraints(codecs=('raw', 'quant8'), min_agreement=0.0))


def test_a_monitor_keeps_its_bound_if_a_new_one_is_refused():
    monitor = MonitorPolicy(profile(False), MonitorSettings())
    with pytest.raises(DynsplitError, match='--image FOLDER'):
        monitor.reconfigure(replace(monitor.settings, min_agreement=0.98))
    assert monitor.settings.min_agreement == 1.0
