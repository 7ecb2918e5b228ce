# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""``colcon build`` without --symlink-install (./run builds with it) installs everything where ROS 2 looks for it."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

from ament_index_python.packages import get_package_prefix
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_plain_build(tmp_path) -> None:
    source = tmp_path / 'src' / 'dynsplit_ros'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.*', 'out', 'test', 'docs'))
    colcon = [sys.executable, '-m', 'colcon'] if shutil.which('colcon') is None else ['colcon']
    environment = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHONSAFEPATH')}
    built = subprocess.run(
        [*colcon, 'build', '--cmake-args', f'-DPython3_EXECUTABLE={sys.executable}', '-DBUILD_TESTING=OFF'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = tmp_path / 'install' / 'dynsplit_ros'
    for name in ('camera_node', 'edge_node', 'monitor_node', 'image_source', 'cuts', 'profile', 'simulate'):
        program = prefix / 'lib' / 'dynsplit_ros' / name
        assert os.access(program, os.X_OK) and not program.is_symlink()
        # A virtual environment's Python at the build is the nodes' Python.
        assert program.read_text().startswith(f'#!{sys.executable}\n')
    assert os.access(prefix / 'bin' / 'dynsplit', os.X_OK)
    share = prefix / 'share' / 'dynsplit_ros'
    for name in (
        'launch/robot.launch.py',
        'launch/edge.launch.py',
        'config/robot.yaml',
        'config/edge.yaml',
        'msg/Activation.msg',
        'package.xml',
    ):
        assert (share / name).is_file()
    modules = next(prefix.glob('lib/python3*/site-packages'))
    assert (modules / 'dynsplit_ros' / 'partition' / 'split.py').is_file()
    code = (
        'import sys; sys.path[:1] = []; from dynsplit_ros.msg import Activation; import dynsplit_ros; '
        'import importlib.metadata as m; print(dynsplit_ros.__file__, m.version("dynsplit_ros"))'
    )
    seen = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **environment,
            'PYTHONPATH': str(modules),
            'LD_LIBRARY_PATH': os.pathsep.join([str(prefix / 'lib'), environment.get('LD_LIBRARY_PATH', '')]),
        },
    )
    assert seen.returncode == 0, seen.stderr
    from xml.etree import ElementTree

    version = ElementTree.parse(ROOT / 'package.xml').getroot().findtext('version')
    assert seen.stdout.split() == [str(modules / 'dynsplit_ros' / '__init__.py'), version]


def test_a_tool_may_start_processes_that_load_its_program_once_more(tmp_path) -> None:
    program = Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / 'simulate'
    done = subprocess.run(
        [
            program,
            '--edge-profile',
            str(ROOT / 'test' / 'data' / 'resnet50.yaml'),
            '--seconds',
            '5',
            '--workers',
            '2',
            '--output',
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and (tmp_path / 'policies.csv').is_file(), done.stderr


@pytest.mark.parametrize(
    'arguments',
    [['-c', 'import dynsplit_ros.msg'], ['-'], ['-m', 'timeit', '-n1', 'import dynsplit_ros.msg']],
    ids=['code', 'standard input', 'module'],
)
def test_a_program_in_the_repository_finds_the_messages(arguments) -> None:
    # Python finds the source folder before the built package there.
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        input='import dynsplit_ros.msg\n',
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_an_executable_names_the_package_that_its_python_lacks(tmp_path) -> None:
    (tmp_path / 'torch.py').write_text('raise ModuleNotFoundError("No module named torch", name="torch")\n')
    program = Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / 'cuts'
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [program, 'alexnet'], capture_output=True, text=True, timeout=60, env={**os.environ, 'PYTHONPATH': path}
    )
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert done.stderr.startswith(f"cuts: Python package 'torch' is not installed for {sys.executable}; docs/")
