# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand corrupted messages at the nodes' callbacks, in processes of their own; see test/fuzz."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import subprocess
import sys
from types import ModuleType

import pytest

pytest.importorskip('rclpy', reason='the node tests need ROS 2')

from dynsplit_ros.errors import DynsplitError  # noqa: E402
from dynsplit_ros.policies.edge import EdgePolicy  # noqa: E402
from dynsplit_ros.runtime import robot  # noqa: E402

FUZZER = Path(__file__).parents[1] / 'fuzz' / 'fuzz_messages.py'


def run_fuzzer(*options: object) -> subprocess.CompletedProcess[str]:
    # A shell between the two: this process's peak memory would count as the fuzzer's.
    return subprocess.run(
        ['/bin/sh', '-c', '"$@"; exit $?', 'sh', sys.executable, str(FUZZER), *map(str, options)],
        capture_output=True,
        text=True,
        errors='replace',
        timeout=280,
    )


@pytest.mark.timeout(300)
def test_seeded() -> None:
    """About half a minute."""
    done = run_fuzzer('--cases', 60_000, '--seed', 0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '60000 cases' in done.stdout


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec('atheris') is None, reason='atheris is not installed')
def test_coverage_guided(tmp_path: Path) -> None:
    """About as long."""
    done = run_fuzzer(
        '--coverage',
        tmp_path / 'corpus',
        '-runs=40000',
        '-seed=1',
        '-rss_limit_mb=4096',
        f'-artifact_prefix={tmp_path}/',
    )
    # libFuzzer writes the case to one stream, atheris the exception to the other.
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-1000:]}'
    assert 'Done 40000 runs' in done.stderr


@pytest.fixture
def fuzzer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the fuzzer, which waits less for what does not come."""
    spec = importlib.util.spec_from_file_location('fuzz_messages', FUZZER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'fuzz_messages', module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'DEADLINE_S', 1.0)
    return module


def test_it_sees_an_answer_that_is_not_checked(fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot, 'check_outputs', lambda *_: None)
    with pytest.raises(DynsplitError):
        fuzzer.run_seeded(0, 0, 2000)


def test_it_sees_an_activation_without_an_answer(fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EdgePolicy, '_refuse', lambda *_: None)
    with pytest.raises(fuzzer.queue.Empty):
        fuzzer.run_seeded(0, 0, 2000)


def test_the_cases_are_the_same_each_time(fuzzer: ModuleType) -> None:
    chances = [fuzzer.random.Random('0/1') for _ in range(2)]
    first, second = (
        fuzzer.corrupt(fuzzer.msg.Activation(tensors=[fuzzer.msg.Tensor()] * 2), chance) for chance in chances
    )
    assert repr(first) == repr(second)
