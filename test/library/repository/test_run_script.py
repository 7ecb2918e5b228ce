# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""./run sets up once, remakes what is broken, and names what is missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return scripts/run.py with its folders elsewhere, and the steps it takes recorded instead of taken."""
    spec = importlib.util.spec_from_file_location('run_script', ROOT / 'scripts' / 'run.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'VENV', tmp_path / '.venv')
    monkeypatch.setattr(module, 'PYTHON', tmp_path / '.venv' / 'bin' / 'python')
    monkeypatch.setattr(module, 'BUILD', tmp_path / '.build')
    monkeypatch.setattr(module, 'check_machine', lambda: None)
    monkeypatch.setattr(module, 'mend_cmake_files', lambda: None)
    (tmp_path / '.build').mkdir()
    module.steps = []

    def take(step, command, env=None):
        module.steps.append(step)
        if step == 'virtual environment':
            module.PYTHON.parent.mkdir(parents=True)
            module.PYTHON.write_text('#!/bin/sh\nexit 0\n')
            module.PYTHON.chmod(0o755)

    monkeypatch.setattr(module, 'run_logged', take)
    return module


WHOLE = ['virtual environment', 'packages', 'check of the packages']


def test_the_environment_is_made_once(run) -> None:
    run.make_environment(with_ros=False)
    run.make_environment(with_ros=False)
    assert run.steps == WHOLE


def test_a_broken_environment_is_made_again(run) -> None:
    run.make_environment(with_ros=False)
    run.PYTHON.write_text('#!/bin/sh\nexit 1\n')
    run.make_environment(with_ros=False)
    assert run.steps == 2 * WHOLE


def test_a_half_made_environment_is_made_again(run, monkeypatch) -> None:
    take = run.run_logged

    def interrupted(step, command, env=None):
        take(step, command, env)
        if step == 'packages':
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, 'run_logged', interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.make_environment(with_ros=False)
    run.make_environment(with_ros=False)
    assert run.steps == WHOLE[:2] + WHOLE


def test_changed_requirements_make_another(run, monkeypatch, tmp_path) -> None:
    run.make_environment(with_ros=False)
    changed = tmp_path / 'requirements.txt'
    changed.write_text('numpy\n')
    monkeypatch.setattr(run, 'REQUIREMENTS', changed)
    run.make_environment(with_ros=False)
    assert run.steps == 2 * WHOLE


@pytest.fixture
def checkout(run, monkeypatch, tmp_path):
    """Return a small copy of what the build reads, whose environment is set up."""
    root = tmp_path / 'checkout'
    for name in (
        'CMakeLists.txt',
        'package.xml',
        'setup.py',
        'cmake/executables.py',
        'dynsplit_ros/tools/dynsplit.py',
        'dynsplit_ros/errors.py',
        'launch/robot.launch.py',
        'config/robot.yaml',
        'msg/Tensor.msg',
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('one')
    monkeypatch.setattr(run, 'ROOT', root)
    run.VENV.mkdir()
    (run.VENV / 'complete').write_text('made')
    return root


def test_a_build_that_would_change_nothing_is_not_started(run, checkout) -> None:
    run.build()
    (checkout / 'dynsplit_ros' / 'errors.py').write_text('two')  # a link leads to it
    run.build()
    assert run.steps == ['build']


@pytest.mark.parametrize(
    'changed',
    [
        'msg/Tensor.msg',
        'msg/New.msg',
        'dynsplit_ros/new.py',
        'CMakeLists.txt',
        'setup.py',
        'launch/new.launch.py',
        'config/fastdds_new.xml',
        'dynsplit_ros/tools/dynsplit.py',
    ],
)
def test_a_change_that_the_build_reads_starts_it(run, checkout, changed) -> None:
    run.build()
    (checkout / changed).write_text('two')
    run.build()
    assert run.steps == 2 * ['build']


def test_a_removed_module_starts_the_build(run, checkout) -> None:
    run.build()
    (checkout / 'dynsplit_ros' / 'errors.py').unlink()
    run.build()
    assert run.steps == 2 * ['build']


def test_an_interrupted_build_is_finished_even_if_its_change_is_taken_back(run, checkout, monkeypatch) -> None:
    run.build()
    (checkout / 'msg' / 'Tensor.msg').write_text('two')
    with monkeypatch.context() as patch:
        patch.setattr(run, 'run_logged', lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.build()
    (checkout / 'msg' / 'Tensor.msg').write_text('one')
    run.build()
    assert run.steps == 2 * ['build']


def test_a_step_that_prints_nothing_shows_that_it_goes_on(monkeypatch, tmp_path, capfd) -> None:
    spec = importlib.util.spec_from_file_location('run_script_progress', ROOT / 'scripts' / 'run.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'BUILD', tmp_path)
    monkeypatch.setattr(module, 'PROGRESS_S', 0.01, raising=False)
    shown = tmp_path / 'shown'
    # The step ends when its progress was shown; without progress, after 20 s.
    waits = (
        'import pathlib, sys, time; print("Installing collected packages: torch", flush=True)\n'
        'end = time.monotonic() + 20\n'
        'while time.monotonic() < end and not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)'
    )

    def say(text: str) -> None:
        if 'Installing collected packages' in text:
            shown.touch()

    monkeypatch.setattr(module, 'say', say)
    module.run_logged('packages', [sys.executable, '-c', waits, str(shown)])
    assert shown.exists()


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(run, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location('run_script_again', ROOT / 'scripts' / 'run.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.shutil, 'which', lambda name: None)
    with pytest.raises(SystemExit, match='g\\+\\+.*apt-get install g\\+\\+'):
        module.check_machine()


def test_a_missing_python_is_named_with_the_command_that_installs_it(tmp_path) -> None:
    (tmp_path / 'dirname').symlink_to('/usr/bin/dirname')
    result = subprocess.run(
        ['/bin/sh', str(ROOT / 'run'), 'test'], capture_output=True, text=True, env={'PATH': str(tmp_path)}
    )
    assert result.returncode == 1 and 'apt-get install python3' in result.stderr


@pytest.mark.parametrize(
    'arguments, sentence',
    [
        (['dance'], "unknown command 'dance'"),
        (['bench'], 'codecs'),
        (['bench', 'nothing'], 'codecs'),
        (['exec'], 'exec needs a program'),
    ],
)
def test_a_wrong_command_is_answered_at_once(arguments, sentence) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / 'scripts' / 'run.py'), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'},
    )
    assert result.returncode == 1 and sentence in result.stderr


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h'], ['help']])
def test_help_lists_the_commands_and_is_no_error(arguments) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / 'scripts' / 'run.py'), *arguments], capture_output=True, text=True
    )
    assert result.returncode == 0 and 'usage: ./run COMMAND' in result.stdout and result.stderr == ''


def test_the_tools_hide_no_program_of_the_system(run, monkeypatch) -> None:
    monkeypatch.setenv('PATH', '/usr/bin')
    path = run.environment()['PATH'].split(os.pathsep)
    assert path[-2:] == ['/usr/bin', str(run.INSTALL / 'lib' / 'dynsplit_ros')]  # /usr/bin/top, and camera_node


def test_a_shared_environment_is_used_and_never_changed(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(run, 'SHARED_VENV', str(run.VENV))
    monkeypatch.setattr(run, 'build', lambda: None)
    with pytest.raises(SystemExit, match='DYNSPLIT_VENV names .*; name the .venv of a checkout'):
        run.set_up()
    run.VENV.mkdir()
    (run.VENV / 'complete').write_text('made for another checkout')
    run.set_up()
    assert run.steps == []


@pytest.mark.parametrize('distribution, suffix', [('', ''), ('jazzy', ''), ('kilted', '-kilted')])
def test_each_distribution_has_its_own_folders_and_requirements(monkeypatch, distribution, suffix) -> None:
    monkeypatch.setenv('DYNSPLIT_ROS', distribution)
    monkeypatch.delenv('DYNSPLIT_VENV', raising=False)
    spec = importlib.util.spec_from_file_location('run_script_again', ROOT / 'scripts' / 'run.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.VENV, module.BUILD) == (ROOT / f'.venv{suffix}', ROOT / f'.build{suffix}')
    name = distribution or 'jazzy'
    assert f'ros-{name}-rclpy==' in ''.join(file.read_text() for file in module.REQUIREMENTS_ROS)


@pytest.mark.parametrize(
    'environment, sentence',
    [
        ({'DYNSPLIT_ROS': 'humble'}, "DYNSPLIT_ROS is 'humble', but the package index has jazzy and kilted"),
        ({'DYNSPLIT_ROS': 'kilted', 'ROS_DISTRO': 'jazzy'}, 'but this shell has sourced ROS 2 jazzy'),
    ],
)
def test_a_distribution_that_cannot_be_had_is_named(tmp_path, environment, sentence) -> None:
    (tmp_path / 'share' / 'rclpy').mkdir(parents=True)
    result = subprocess.run(
        [sys.executable, str(ROOT / 'scripts' / 'run.py'), 'setup'],
        capture_output=True,
        text=True,
        env={**os.environ, 'AMENT_PREFIX_PATH': str(tmp_path), **environment},
    )
    assert result.returncode == 1 and sentence in result.stderr


def test_another_processor_without_ros_is_told_to_use_apt(run, monkeypatch) -> None:
    monkeypatch.setattr(run.platform, 'machine', lambda: 'aarch64')
    monkeypatch.setattr(run, 'ros_is_sourced', lambda: False)
    with pytest.raises(SystemExit, match='aarch64.*x86_64 only.*apt'):
        run.check_distribution()
    monkeypatch.setattr(run, 'ros_is_sourced', lambda: True)
    run.check_distribution()
