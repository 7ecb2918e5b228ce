# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The advise command: its choices are the planner's, its latencies the simulation's, and refusals take one line."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
import json

import pytest
from rich.console import Console
from worlds import bounded_profile, DATA, measured, system

from dynsplit_ros.advice.conditions import Adviser, offloading_from_bps, pays_from_bps
from dynsplit_ros.planner import PlannerConstraints
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import merge, Profile, SystemProfile
from dynsplit_ros.simulation.trace import constant
from dynsplit_ros.simulation.world import Scenario, simulate
from dynsplit_ros.tools.advise import main, shown

EDGE = ['--edge-profile', str(DATA / 'efficientnet_b0.yaml')]


def adviser(profile: SystemProfile | None = None, **rules: object) -> Adviser:
    return Adviser(profile or system(), PlannerConstraints(**{'frame_rate_hz': 2.0, **rules}), rtt_s=0.004)  # type: ignore[arg-type]


@pytest.mark.parametrize('rate_bps, slowdown', [(2e6, 1.0), (15e6, 1.0), (100e6, 2.0)])
def test_predicted_latencies_are_those_of_the_simulation(rate_bps: float, slowdown: float) -> None:
    profile = system()
    advice = adviser(profile).at(rate_bps, slowdown)
    scenario = Scenario(
        link=constant(rate_bps, 20.0),
        duration_s=20.0,
        slowdown=constant(slowdown, 20.0),
        frame_rate_hz=2.0,
        noise=0.0,
        jitter_s=0.0,
    )
    for policy, predicted_s in (
        ('dynamic', advice.best.latency_s),
        (str(profile.local_index), advice.local.latency_s),
        ('0', advice.offloading.latency_s),
    ):
        simulated_s = simulate(profile, scenario, policy, MonitorSettings()).mean_s(since_s=5.0)
        if predicted_s < 0.5:  # what takes longer than an image's period is passed over for newer images, each its own
            assert predicted_s == pytest.approx(simulated_s, rel=0.1), policy


def test_the_picture_of_the_bound_shows_what_it_buys(tmp_path, capsys) -> None:
    pictures = [tmp_path / 'a.png', tmp_path / 'b.png']
    options = ['--loads', '1', '--plot', str(pictures[0]), '--agreement-plot', str(pictures[1])]
    assert main([*bounded_profile(tmp_path), *options]) == 0
    assert all(picture.read_bytes().startswith(b'\x89PNG') for picture in pictures)
    printed = capsys.readouterr().out
    assert 'min_agreement 1 at 5 Mbit/s' in printed
    assert 'min_agreement 0.982 at 5 Mbit/s: split 2 quant8-zstd' in printed


@pytest.mark.parametrize(
    'options, message',
    [
        (['--min-agreement', '0.98'], '--image FOLDER'),
        (['--min-agreement', '1.5'], 'min_agreement'),
        (['--agreement-plot', 'a.png'], '--image FOLDER'),
    ],
)
def test_a_bound_that_nothing_shows_is_refused_in_one_line(options, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*EDGE, '--loads', '1', *options]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('advise: ') and message in error and '\n' not in error


def test_ranges_join_and_their_ends_are_where_the_choice_changes() -> None:
    asked = adviser()
    ranges = asked.ranges(1e5, 1e9, 1.0)
    assert ranges[0].first.rate_bps == pytest.approx(1e5) and ranges[-1].last.rate_bps == pytest.approx(1e9)
    assert len(ranges) > 1
    for before, after in zip(ranges, ranges[1:]):
        assert 1 < after.first.rate_bps / before.last.rate_bps < 1.002
        assert (before.last.best.split_index, before.last.best.codec) != (
            after.first.best.split_index,
            after.first.best.codec,
        )
    # Where nothing but local inference and full offloading is used, the one begins where the other ends.
    pays, offloading = pays_from_bps(ranges, asked.profile.local_index), offloading_from_bps(ranges)
    assert pays and offloading and pays <= offloading
    assert asked.at(0.9 * pays, 1.0).best.split_index == asked.profile.local_index
    assert asked.at(1.1 * pays, 1.0).gain_over_local > 0


def test_a_robot_as_fast_as_the_edge_is_best_alone_and_a_hopeless_one_never() -> None:
    fast = adviser(system(slower=1.0))
    assert pays_from_bps(fast.ranges(1e5, 1e9, 1.0), fast.profile.local_index) is None
    assert offloading_from_bps(fast.ranges(1e5, 1e9, 1.0)) is None
    slow = adviser(system(slower=1000.0))
    assert pays_from_bps(slow.ranges(1e6, 1e9, 1.0), slow.profile.local_index) == 0


def test_images_that_must_stay_on_the_robot_do() -> None:
    ranges = adviser(shallowest_split=1).ranges(1e6, 1e9, 1.0)
    assert all(found.first.best.split_index >= 1 for found in ranges)
    assert ranges[-1].last.gain_over_offloading < 0  # what that costs is not hidden


def test_table_plot_and_json_are_written(tmp_path, capsys) -> None:
    out, plot = tmp_path / 'a' / 'advice.json', tmp_path / 'b' / 'advice.png'
    assert (
        main(['efficientnet_b0', '--rate', '20', *EDGE, '--loads', '1', '4', '--json', str(out), '--plot', str(plot)])
        == 0
    )
    printed = capsys.readouterr().out
    assert 'local inference' in printed and 'full offloading' in printed
    assert 'splitting stops paying below' in printed and '8 times as long' in printed  # the assumption is stated
    assert plot.read_bytes().startswith(b'\x89PNG')
    document = json.loads(out.read_text())
    assert [load['slowdown'] for load in document['loads']] == [1, 4] and document['frame_rate_hz'] == 20
    for load in document['loads']:
        assert load['pays_from_bps'] > 0
        for point in load['points']:
            assert point['latency_s'] <= min(point['local_s'], point['offloading_s']) * 1.0000001
            choice = next(
                r for r in load['ranges'] if r['from_bps'] * 0.998 <= point['rate_bps'] <= r['to_bps'] * 1.002
            )
            assert point['split_index'] in {choice['split_index']} | {
                r['split_index'] for r in load['ranges'] if abs(r['from_bps'] / point['rate_bps'] - 1) < 0.002
            }


def test_both_profiles_are_used(tmp_path) -> None:
    edge = measured('efficientnet_b0')
    robot = edge.scaled(3.0)
    robot.save(tmp_path / 'robot.yaml')
    out = tmp_path / 'advice.json'
    assert (
        main(
            [
                *EDGE,
                '--robot-profile',
                str(tmp_path / 'robot.yaml'),
                '--json',
                str(out),
                '--plot',
                str(tmp_path / 'plot.png'),
            ]
        )
        == 0
    )
    document = json.loads(out.read_text())
    assert document['assumed'] == []
    expected = adviser(merge(Profile.load(tmp_path / 'robot.yaml'), edge), frame_rate_hz=10.0)
    point = document['loads'][0]['points'][-1]
    assert point['local_s'] == pytest.approx(expected.at(point['rate_bps'], 1.0).local.latency_s)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'MODEL'),
        (['--robot-profile', 'robot.yaml'], '--edge-profile'),
        (['--edge-profile', 'none.yaml'], 'none.yaml'),
        (['resnet50', *EDGE], "'resnet50'"),
        ([*EDGE, '--link', '10', '1'], '--link'),
        ([*EDGE, '--codec', 'bogus'], 'bogus'),
        ([*EDGE, '--shallowest-split', '99'], 'shallowest_split'),
        (['no_such_model'], 'no_such_model'),
        (['alexnet', '--threads', '0'], '--threads'),
        ([*EDGE, '--bandwidth', '-1'], '--bandwidth'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message, tmp_path, capsys) -> None:
    assert main([*arguments, '--plot', str(tmp_path / 'plot.png')]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('advise: ') and message in error and '\n' not in error


@pytest.mark.parametrize(
    'option, value, message',
    [
        ('--rate', '0', 'not a positive number'),
        ('--plot', 'plot.xyz', 'does not end in .png'),
        ('--model-arguments', '[1]', 'not a JSON object'),
        ('--model-arguments', '{', 'not a JSON object'),
    ],
)
def test_what_an_option_cannot_be_is_refused_before_anything_is_done(option, value, message, capsys) -> None:
    with pytest.raises(SystemExit):
        main([*EDGE, option, value])
    assert message in capsys.readouterr().err


def test_a_narrow_terminal_gets_the_same_without_a_table() -> None:
    asked = adviser()
    ranges = {1.0: asked.ranges(1e6, 1e9, 1.0)}
    consoles = {width: Console(width=width, file=StringIO(), highlight=False) for width in (40, 140)}
    for width, console in consoles.items():
        console.print(shown(asked, ranges, width))
    narrow, wide = (console.file.getvalue() for console in consoles.values())  # type: ignore[attr-defined]
    assert '│' in wide and '│' not in narrow
    assert all(len(line) <= 40 for line in narrow.splitlines())
    words = ' '.join(narrow.split())
    for found in ranges[1.0]:
        name = 'full offloading' if found.first.best.split_index == 0 else str(found.first.best.split_index)
        assert name in words and found.first.best.codec in words


def test_profiles_of_different_models_are_refused(tmp_path, capsys) -> None:
    replace(measured('resnet50'), fingerprint='other').save(tmp_path / 'robot.yaml')
    assert main([*EDGE, '--robot-profile', str(tmp_path / 'robot.yaml'), '--plot', str(tmp_path / 'plot.png')]) == 2
    assert 'profile the same model on both' in capsys.readouterr().err
