# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The public names: there, documented, and imported only when used."""

import importlib
import inspect
from pathlib import Path
import subprocess
import sys

import pytest

import dynsplit_ros


@pytest.mark.parametrize('name', dynsplit_ros.__all__)
def test_each_name_is_there_and_documented(name: str) -> None:
    value = getattr(dynsplit_ros, name)
    assert name in dir(dynsplit_ros)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)
        assert value.__module__.startswith('dynsplit_ros.')


def test_a_name_of_a_room_with_a_list_of_its_own_is_on_it() -> None:
    for module, names in dynsplit_ros.PUBLIC.items():
        own = getattr(importlib.import_module(f'dynsplit_ros.{module}'), '__all__', names)
        assert set(names) <= set(own), module


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        'import sys; sys.path[:1] = []; import dynsplit_ros; from dynsplit_ros import DynsplitError, parameters; '
        "assert 'torch' not in sys.modules; from dynsplit_ros import encode; assert 'torch' in sys.modules"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.timeout(300)
def test_a_users_type_checker_sees_our_types(tmp_path: Path) -> None:
    pytest.importorskip('mypy', reason='mypy is not installed')
    code = tmp_path / 'user.py'
    code.write_text('from dynsplit_ros import load_model, SplitModel\nreveal_type(SplitModel(load_model(3)).cuts)\n')
    result = subprocess.run(
        [sys.executable, '-m', 'mypy', code, '--cache-dir', tmp_path / 'cache'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert 'tuple[dynsplit_ros.partition.split.Cut, ...]' in result.stdout
    assert 'incompatible type "int"; expected "str"' in result.stdout


def test_an_unknown_name_is_refused_as_python_does() -> None:
    assert not hasattr(dynsplit_ros, 'no_such_name')
    with pytest.raises(ImportError, match='no_such_name'):
        exec('from dynsplit_ros import no_such_name')
