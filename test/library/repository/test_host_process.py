# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The library changes no setting of the process that imports and uses it: the process may be somebody else's."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
from test_without_ros import library_modules

from dynsplit_ros import memory
from dynsplit_ros.codec import blosc
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.kept import kept_profile
from dynsplit_ros.profile.measure import measure

IMPORTS = """
import importlib, logging, os, signal, sys
sys.path[:1] = []
import blosc2, cv2, torch

def settings():
    released = blosc2.set_releasegil(False)
    blosc2.set_releasegil(released)
    return (released, blosc2.nthreads, torch.get_num_threads(), torch.is_grad_enabled(), cv2.getNumThreads(),
            dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            list(logging.getLogger().handlers), sys.getswitchinterval())

before = settings()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert settings() == before, (before, settings())
"""


def test_importing_the_library_changes_no_setting() -> None:
    result = subprocess.run([sys.executable, '-c', IMPORTS, *library_modules()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def told(monkeypatch) -> list[tuple]:
    """Return a list that gets an entry for each word to the C library's malloc."""
    calls: list[tuple] = []
    library = SimpleNamespace(mallopt=lambda *values: calls.append(values), malloc_trim=calls.append)
    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda *_: library)
    memory.keep_freed()
    assert calls
    calls.clear()
    return calls


@pytest.mark.parametrize(
    'profile',
    [lambda split: measure(split, repeats=1, warm_up=0), lambda split: kept_profile(split, print)],
    ids=['measure', 'kept_profile'],
)
def test_measuring_a_profile_leaves_malloc_as_it_is(told, profile, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    profile(SplitModel(load_model('squeezenet1_1', weights='none', input_size=(32, 32))))
    assert not told


@pytest.mark.parametrize('own', [False, True])
def test_compressing_lets_other_threads_run_and_puts_the_switch_back(monkeypatch, own) -> None:
    data, inside, before = np.zeros(100_000, np.uint8), [], blosc2.set_releasegil(own)
    compress2, decompress2 = blosc2.compress2, blosc2.decompress2

    def switch() -> bool:
        state = blosc2.set_releasegil(True)
        blosc2.set_releasegil(state)
        return state

    def note(function):
        def call(*arguments, **options):
            inside.append(switch())
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(blosc2, 'compress2', note(compress2))
    monkeypatch.setattr(blosc2, 'decompress2', note(decompress2))

    def work() -> None:
        for _ in range(20):
            chunk = bytearray(blosc.compress(data, 1, 'zstd', 'none'))
            blosc.decompress(memoryview(chunk), np.empty_like(data), 1, 'zstd', 'none')
            chunk[40:] = b'x' * len(chunk[40:])
            with pytest.raises(DynsplitError):
                blosc.decompress(memoryview(chunk[:-1]), np.empty_like(data), 1, 'zstd', 'none')

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = blosc2.set_releasegil(before)
    assert len(inside) >= 120 and all(inside)
    assert after is own
