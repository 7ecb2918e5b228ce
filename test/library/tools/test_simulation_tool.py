# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The simulate command: tables, files and pictures from profiles, and refusals in one line."""

from __future__ import annotations

import csv

import pytest
from worlds import bounded_profile, DATA

from dynsplit_ros.tools.simulate import main

EDGE = ['--edge-profile', str(DATA / 'resnet50.yaml'), '--workers', '1']


def rows(path) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_everything_asked_for_is_written(tmp_path, capsys) -> None:
    trace = tmp_path / 'walk.csv'
    trace.write_text('time_s,rate_mbps\n' + ''.join(f'{1000 + n / 10},{5 + n % 20}\n' for n in range(80)))
    code = main(
        [
            *EDGE,
            '--trace',
            str(trace),
            '--load',
            'step:1,4',
            '--figure',
            'time',
            'rates',
            'load',
            '--rates',
            '2',
            '50',
            '--loads',
            '1',
            '8',
            '--batches',
            '1',
            '2',
            '--output',
            str(tmp_path / 'out'),
        ]
    )
    assert code == 0
    out = tmp_path / 'out'
    policies = {row['policy']: row for row in rows(out / 'policies.csv')}
    assert set(policies) == {'dynamic', 'oracle', '0', '1', '2', '3'}
    assert all(float(row['mean_s']) > 0 for row in policies.values())
    frames = rows(out / 'frames.csv')
    assert {row['policy'] for row in frames} == set(policies)
    # The trace begins at its first line, whatever clock that was written by.
    assert max(float(row['rate_bps']) for row in frames) > 20e6
    for name in ('rates', 'load'):
        assert len(rows(out / f'{name}.csv')) == 2 * 2 * 6
    for name in ('time', 'rates', 'load'):
        assert (out / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    printed = capsys.readouterr().out
    assert 'dynamic' in printed and 'full offloading' in printed


def test_the_figure_of_the_bound_has_latency_and_bytes(tmp_path) -> None:
    options = ['--figure', 'agreement', '--rates', '20', '--shallowest-split', '2', '--seconds', '8', '--workers', '1']
    assert main([*bounded_profile(tmp_path), *options, '--output', str(tmp_path)]) == 0
    exact, bounded = rows(tmp_path / 'agreement.csv')
    assert float(exact['min_agreement']) == 1 and float(bounded['min_agreement']) < 1
    assert 0 < float(bounded['mean_payload_bytes']) < float(exact['mean_payload_bytes'])
    assert float(bounded['mean_s']) < float(exact['mean_s'])
    assert (tmp_path / 'agreement.png').read_bytes().startswith(b'\x89PNG')


def test_the_same_seed_writes_the_same_frames(tmp_path) -> None:
    written = []
    for folder in ('a', 'b'):
        assert main([*EDGE, '--seconds', '5', '--seed', '3', '--output', str(tmp_path / folder)]) == 0
        written.append((tmp_path / folder / 'frames.csv').read_text())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'MODEL'),
        (['--robot-profile', 'robot.yaml'], '--edge-profile'),
        (['--edge-profile', 'none.yaml'], 'none.yaml'),
        ([*EDGE, '--link', 'bogus:3'], 'bogus'),
        ([*EDGE, '--link', 'constant:-1'], 'constant:-1'),
        ([*EDGE, '--link', 'markov:nan,3'], 'markov'),
        ([*EDGE, '--link', 'step:1,2,900'], '900'),
        ([*EDGE, '--link', 'noisy:1,3'], 'share'),
        ([*EDGE, '--trace', 'none.csv'], 'none.csv'),
        ([*EDGE, '--load', 'constant:0'], '--load'),
        ([*EDGE, '--batch', '3', '--seconds', '1'], 'batch 3'),
        ([*EDGE, '--shallowest-split', '9', '--seconds', '1'], 'shallowest_split'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message, tmp_path, capsys) -> None:
    assert main([*arguments, '--output', str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('simulate: ') and message in error and '\n' not in error
