# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A profile has the times of each ready engine's parts, and how far each pair of engines keeps the outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dynsplit_ros.engine_names import EAGER, version_key
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile import kept
from dynsplit_ros.profile.agreement import measure_agreement
from dynsplit_ros.profile.measure import conditions, measure
from dynsplit_ros.profile.profile import LOSSLESS, merge, Profile
from dynsplit_ros.tasks.agreement import largest_difference
from dynsplit_ros.tools import profile as profile_tool

SIZE = (32, 32)
#: PyTorch in bfloat16 is an engine that needs no further package and gives other results.
OTHER = 'eager-bfloat16'


def new_split(**parts: bool) -> SplitModel:
    split = SplitModel(load_model('squeezenet1_1', weights='none', input_size=SIZE))
    split.add_engine('eager', 'bfloat16', **parts)
    return split


@pytest.fixture(scope='module')
def split() -> SplitModel:
    return new_split()


@pytest.fixture(scope='module')
def profile(split) -> Profile:
    return measure(split, (1, 2), codecs=['raw', 'quant8-zstd'], repeats=1, warm_up=0)


def images(count: int) -> list[torch.Tensor]:
    return [
        torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        for number in range(count)
    ]


def test_each_part_that_is_ready_is_timed_for_each_batch(split, profile) -> None:
    assert profile.engines == (EAGER, OTHER)
    for cut in profile.cuts:
        assert set(cut.engine_head_s) == ({OTHER} if cut.index else set())
        assert set(cut.engine_tail_s) == ({OTHER} if cut.index < profile.local_index else set())
        for times in (cut.engine_head_s, cut.engine_tail_s):
            assert all(set(seconds) == {1, 2} and min(seconds.values()) > 0 for seconds in times.values())
    assert profile.measured['engines'] == f'{EAGER} {OTHER}' and version_key(OTHER) in profile.measured


def test_agreement_is_measured_for_every_pair_that_is_ready_with_and_without_loss(split) -> None:
    records = {record.engines: record for record in measure_agreement(split, images(2), 'two', ['quant8-zstd'])}
    assert set(records) == {(head, tail) for head in split.engines for tail in split.engines}
    local = split.local_index
    assert all(set(codecs) <= {'quant8-zstd'} for codecs in records[EAGER, EAGER].cuts.values())
    assert set(records[OTHER, EAGER].cuts) == set(range(1, local + 1))
    assert set(records[EAGER, OTHER].cuts) == set(range(local))
    assert set(records[OTHER, OTHER].cuts) == set(range(1, local))
    found = records[OTHER, OTHER].cuts[1]
    assert set(found) == {LOSSLESS, 'quant8-zstd'}
    assert found[LOSSLESS].images == 2 and 0 < found[LOSSLESS].difference < 0.2
    assert records[OTHER, EAGER].head['engine'] == OTHER and records[OTHER, EAGER].tail['engine'] == EAGER


def test_outputs_that_are_equal_to_the_bit_have_the_difference_0(split, monkeypatch) -> None:
    monkeypatch.setattr(split, 'tail', lambda cut, engine=EAGER: lambda tensors: split.whole(images(1)[0][None]))
    records = measure_agreement(split, images(1), 'one')
    assert all(record.cuts[1][LOSSLESS].is_exact for record in records if record.engines[1] == OTHER)


def test_the_pair_reaches_the_system_of_two_sides_that_run_it(split, profile) -> None:
    with_agreement = replace(profile, agreements=measure_agreement(split, images(2), 'two'))
    system = merge(with_agreement, profile)
    assert system.cuts[1].engine_agreement[OTHER, OTHER][LOSSLESS].images == 2 and system.agreement_images == 2
    elsewhere = replace(profile, measured={**profile.measured, 'processor': 'another'})
    assert (OTHER, OTHER) not in merge(with_agreement, elsewhere).cuts[1].engine_agreement


@pytest.mark.parametrize(
    'exact, other, difference',
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [2.0, -4.0], 0.25),
        ([0.0], [1.0], float('inf')),
        ([1.0], [float('nan')], float('inf')),
        ([1.0], [1.0, 2.0], float('inf')),
        ([], [], 0.0),
    ],
)
def test_the_largest_difference_is_a_share_of_the_largest_value(exact, other, difference) -> None:
    assert largest_difference({'x': torch.tensor(exact)}, {'x': torch.tensor(other)}) == difference
    assert largest_difference({'x': torch.tensor(exact)}, {'y': torch.tensor(other)}) == float('inf')


def test_a_kept_profile_is_of_the_parts_that_this_side_has(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(kept, 'REPEATS', 1)
    robot = kept.kept_profile(new_split(tails=False), lambda text: None)
    edge = kept.kept_profile(new_split(heads=False), lambda text: None)
    assert OTHER in robot.cuts[1].engine_head_s and OTHER not in robot.cuts[1].engine_tail_s
    assert OTHER in edge.cuts[1].engine_tail_s and OTHER not in edge.cuts[1].engine_head_s
    assert len(list((tmp_path / 'dynsplit_ros').glob('*.yaml'))) == 2
    plain = SplitModel(load_model('squeezenet1_1', weights='none', input_size=SIZE))
    assert 'engines' in conditions(plain)
    assert kept.kept_profile(plain, lambda text: None).engines == (EAGER,)


def test_a_part_that_is_not_ready_now_is_left_out_of_a_profile(split, profile) -> None:
    plain = SplitModel(load_model('squeezenet1_1', weights='none', input_size=SIZE))
    assert kept.of_ready_parts(profile, plain).engines == (EAGER,)
    assert kept.of_ready_parts(profile, split) == profile
    assert kept.differences(profile, plain) == '', 'the profile may have more engines'
    without = measure(plain, codecs=['raw'], repeats=1, warm_up=0)
    assert kept.differences(without, split).startswith("engines 'eager' (here 'eager eager-bfloat16')")


@pytest.mark.parametrize(
    'damage',
    [
        {'engine_head_s': {'x': {1: 0.1}}},
        {'engine_head_s': {'x': {1: -1.0, 2: 0.1}}},
        {'engine_tail_s': [1]},
        {'engine_tail_s': {'x' * 100_000: {1: 0.1, 2: 0.1}}},
    ],
)
def test_damaged_times_of_an_engine_are_refused_in_one_sentence(profile, damage) -> None:
    document = profile.to_document()
    document['cuts'][1] = {**document['cuts'][1], **damage}
    with pytest.raises(DynsplitError) as refused:
        Profile.from_document(document, 'the profile')
    assert '\n' not in str(refused.value)


def test_the_tool_measures_an_engine_and_prints_it(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    out = tmp_path / 'p.yaml'
    arguments = [
        'squeezenet1_1',
        '--input-size',
        '32',
        '32',
        '--repeats',
        '1',
        '--warm-up',
        '0',
        '--codec',
        'raw',
        '--output',
        str(out),
    ]
    assert profile_tool.main([*arguments, '--engine', 'eager', '--precision', 'bfloat16']) == 0
    assert Profile.load(out).engines == (EAGER, OTHER)
    assert f'squeezenet1_1 on {OTHER}' in capsys.readouterr().out
    assert profile_tool.main([*arguments, '--engine', 'onnxruntime', '--precision', 'bfloat16']) == 2
    assert "precision 'bfloat16' was given, but engine 'onnxruntime'" in capsys.readouterr().err
