# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Decodes 100,000 hostile payloads in a separate process, so that a crash of a decoder fails the test."""

import importlib.util
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[3]
FUZZER = ROOT / 'test' / 'fuzz' / 'fuzz_codec.py'


def run_fuzzer(*options):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    # glibc then fills freed memory, so that reads of unwritten memory become visible.
    environment = {**os.environ, 'PYTHONPATH': path, 'MALLOC_PERTURB_': '165'}
    # A shell runs between both processes: peak memory survives an exec, and this process may have needed gigabytes for
    # other tests.
    return subprocess.run(
        ['/bin/sh', '-c', '"$@"; exit $?', 'sh', sys.executable, str(FUZZER), *map(str, options)],
        env=environment,
        capture_output=True,
        text=True,
        errors='replace',
        timeout=570,
    )


@pytest.mark.timeout(600)
def test_seeded_mutations_raise_no_other_error(tmp_path):
    """Decode 100,000 payloads of all codecs in about 15 s."""
    progress = tmp_path / 'case'
    done = run_fuzzer('--cases', 100_000, '--progress', progress)
    last = progress.read_text().strip() if progress.exists() else 'none'
    assert done.returncode == 0, (
        f'exit code {done.returncode}; to see it again: '
        f'python test/fuzz/fuzz_codec.py --first {last} --cases 1\n{done.stderr[-3000:]}'
    )
    assert '100000 cases' in done.stdout


@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec('atheris') is None, reason='atheris is not installed')
def test_coverage_guided_mutations_raise_no_other_error(tmp_path):
    """Decode at least 100,000 payloads that follow the branches of the decoders."""
    done = run_fuzzer(
        '--coverage',
        tmp_path / 'corpus',
        '-runs=150000',
        '-seed=1',
        '-rss_limit_mb=2048',
        f'-artifact_prefix={tmp_path}/',
    )
    # libFuzzer writes the case to one stream, atheris the exception to the other.
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-1000:]}'
    assert 'Done 150000 runs' in done.stderr


def test_the_fuzzer_reports_other_errors_and_wrong_shapes(monkeypatch):
    """The fuzzer's check fails if decoding raises another error than DynsplitError or accepts a wrong shape."""
    spec = importlib.util.spec_from_file_location('fuzz_codec', FUZZER)
    fuzz_codec = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'fuzz_codec', fuzz_codec)
    spec.loader.exec_module(fuzz_codec)
    case = fuzz_codec.valid_cases()[1]
    assert fuzz_codec.check(case)

    def broken(*_):
        raise KeyError('x')

    monkeypatch.setattr(fuzz_codec, 'decode', broken)
    with pytest.raises(KeyError):
        fuzz_codec.check(case)
    monkeypatch.setattr(fuzz_codec, 'decode', lambda *_: {})
    with pytest.raises(AssertionError):
        fuzz_codec.check(case)
