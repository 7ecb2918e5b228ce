# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The launch files, with the real ``ros2 launch``; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import re
import signal
import subprocess

from conftest import DEADLINE_S, Observer, ROBOT, wait
import pytest
import yaml

from dynsplit_ros import msg

launch_ros = pytest.importorskip('launch_ros', reason='launch_ros is not in the Python package index')

pytestmark = pytest.mark.timeout(300)
COMMON = {
    'model',
    'weights',
    'device',
    'namespace',
    'params_file',
    'autostart',
    'respawn',
    'use_sim_time',
    'log_level',
    'transport',
    'discovery_server',
}
ARGUMENTS = {'edge': COMMON, 'robot': COMMON | {'image_topic', 'source'}}


def ros2_launch(side: str, *arguments: str) -> list[str]:
    """Return the command."""
    return ['ros2', 'launch', 'dynsplit_ros', f'{side}.launch.py', *arguments]


@contextmanager
def launched(log: Path, side: str, *arguments: str) -> Iterator[Callable[..., int]]:
    """Launch in a terminal's stead, yielding what types Ctrl-C into it, if wanted, and returns the exit code."""
    with log.open('w') as output:
        process = subprocess.Popen(
            ros2_launch(side, *arguments),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def end(*, interrupt: bool = True) -> int:
        if interrupt:
            os.killpg(process.pid, signal.SIGINT)
        return process.wait(DEADLINE_S)

    try:
        yield end
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(f'---- {log.name}\n{log.read_text()}')


def run(side: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what the command did that ends by itself."""
    command = ros2_launch(side, *arguments)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)


@pytest.mark.parametrize('side', ARGUMENTS)
def test_every_argument_is_described(side: str) -> None:
    result = run(side, '--show-args')
    assert result.returncode == 0, result.stdout
    shown = dict(re.findall(r"^    '(\w+)':\n        (.*)$", result.stdout, re.MULTILINE))
    assert set(shown) == ARGUMENTS[side]
    assert all(len(text) > 20 and text != 'no description given' for text in shown.values()), shown


@pytest.mark.parametrize('side', ARGUMENTS)
def test_a_missing_params_file_is_named(side: str) -> None:
    result = run(side, 'params_file:=/no/such/file.yaml')
    assert result.returncode != 0
    assert "params_file is '/no/such/file.yaml'" in result.stdout and 'process started' not in result.stdout


def test_a_choice_that_is_none_is_refused() -> None:
    result = run('robot', 'log_level:=loud')
    assert result.returncode != 0 and 'loud' in result.stdout and 'fatal' in result.stdout


@pytest.mark.parametrize('respawn', ['true', 'false'])
@pytest.mark.parametrize('side', ARGUMENTS)
def test_a_configuration_that_cannot_be_used_ends_the_launch_with_1(side: str, respawn: str) -> None:
    result = run(side, 'model:=no_such_model', f'respawn:={respawn}')
    assert result.returncode == 1, result.stdout
    assert result.stdout.count("'no_such_model'") == 1 and 'Traceback' not in result.stdout, result.stdout
    name = {'edge': 'edge_node', 'robot': 'camera_node'}[side]
    assert f'{name}-1 ended with code 2' in result.stdout
    assert result.stdout.count(f'[{name}-1]: process started') == 1


def test_a_node_that_dies_ends_the_launch_or_is_started_again(
    tmp_path: Path, model_parameters: dict[str, object]
) -> None:
    params_file = tmp_path / 'parameters.yaml'
    params_file.write_text(yaml.dump({'/**': {'ros__parameters': model_parameters}}))
    for respawn, code in (('true', 0), ('false', 1)):
        log = tmp_path / f'respawn_{respawn}.log'
        with launched(log, 'edge', f'params_file:={params_file}', f'respawn:={respawn}') as end:
            wait(lambda: ' serving ' in log.read_text(), 'the edge does not serve')
            os.kill(int(re.findall(r'process started with pid \[(\d+)\]', log.read_text())[-1]), signal.SIGKILL)
            if respawn == 'true':
                wait(lambda: log.read_text().count(': serving ') == 2, 'the edge was not started again')
            assert end(interrupt=respawn == 'true') == code
            assert ('ended with code -9' in log.read_text()) == (respawn == 'false')


def test_launched_system_answers_and_ends_cleanly(
    tmp_path: Path, ros: Callable[[Observer], Observer], model_parameters: dict[str, object]
) -> None:
    # The file says another model and a device that there is not: the arguments win over it, as text.
    parameters = {**model_parameters, 'model': 'no_such_model', 'device': 'no such device', 'pinned_split': 0}
    params_file = tmp_path / 'parameters.yaml'
    params_file.write_text(yaml.dump({'/**': {'ros__parameters': parameters}}))
    arguments = [f'params_file:={params_file}', 'model:=mobilenet_v2', 'device:=cpu']
    observer = ros(Observer())
    robot_log, edge_log = tmp_path / 'robot.log', tmp_path / 'edge.log'

    def logs() -> str:
        return robot_log.read_text() + edge_log.read_text()

    def answered() -> list[msg.Prediction]:
        return [one for one in list(observer.predictions) if one.timing.outcome == msg.FrameTiming.ANSWERED]

    with launched(edge_log, 'edge', *arguments) as stop_edge:
        with launched(
            robot_log, 'robot', *arguments, f'namespace:={ROBOT}', 'source:=true', 'image_topic:=/front/image'
        ) as stop_robot:
            wait(lambda: len(answered()) >= 5 or 'has died' in logs(), 'the edge answered no frames', 120)
            assert 'has died' not in logs()
            assert stop_robot() == 0
        assert stop_edge() == 0
    ended = re.findall(r'\[(\w+)-\d\]: process has finished cleanly', logs())
    assert sorted(ended) == ['camera_node', 'edge_node', 'image_source', 'monitor_node']
    assert 'Traceback' not in logs()
