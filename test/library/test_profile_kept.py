# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""This machine's profile: measured once, by one process at a time, and kept."""

from dataclasses import replace
import fcntl
import threading

import pytest

from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile import kept
from dynsplit_ros.profile.profile import Profile


@pytest.fixture(scope='module')
def split() -> SplitModel:
    return SplitModel(load_model('squeezenet1_1', input_size=(64, 64)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'dynsplit_ros'


def test_it_is_measured_once_and_again_only_for_more_batch_sizes(split, folder, monkeypatch) -> None:
    told: list[str] = []
    first = kept.kept_profile(split, told.append)
    assert told[0].startswith('profiling this machine') and told[1].startswith(f'kept the profile in {folder}')
    both = kept.kept_profile(split, told.append, (2,))
    assert (first.batches, both.batches) == ((1,), (1, 2))
    monkeypatch.setattr(kept, 'measure', None)
    del told[:]
    again = kept.kept_profile(split, told.append)
    assert again.batches == (1, 2) and told[0].startswith('this machine was profiled before: ')
    assert sorted(path.suffix for path in folder.iterdir()) == ['.lock', '.yaml']


def test_a_file_that_cannot_be_read_is_measured_again_and_one_that_cannot_be_written_is_done_without(
        split, folder, monkeypatch) -> None:
    told: list[str] = []
    kept.kept_profile(split, told.append)
    path = next(folder.glob('*.yaml'))
    path.write_text('no: profile\n')
    kept.kept_profile(split, told.append)
    assert Profile.load(path).fingerprint == split.fingerprint
    monkeypatch.setenv('XDG_CACHE_HOME', str(path))
    del told[:]
    assert kept.kept_profile(split, told.append).fingerprint == split.fingerprint
    assert told[1].startswith('the profile could not be kept')


def test_who_starts_at_once_measures_one_after_the_other(split, folder, monkeypatch) -> None:
    told: list[str] = []
    kept.kept_profile(split, told.append)
    path = next(folder.glob('*.yaml'))
    content = path.read_text()
    path.unlink()
    monkeypatch.setattr(kept, 'measure', None)
    waits = threading.Event()
    got: list[Profile] = []
    with (folder / 'profiling.lock').open('w') as lock:  # another process that is measuring
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: got.append(
            kept.kept_profile(split, lambda text: waits.set() if 'waiting for another' in text else None)))
        thread.start()
        assert waits.wait(30)
        assert not got
        path.write_text(content)
    thread.join(30)
    assert got == [Profile.load(path)]


def test_a_machine_that_was_busy_is_told_of(split, monkeypatch) -> None:
    told: list[str] = []
    profile = kept.kept_profile(split, told.append)
    *before, whole = profile.cuts
    busy = replace(profile, cuts=(*before, replace(whole, head_s={1: 0.04}, head_spread_s={1: 0.16})))
    quiet = replace(profile, cuts=(*before, replace(whole, head_s={1: 0.04}, head_spread_s={1: 0.02})))
    assert quiet.doubt == ''
    monkeypatch.setattr(kept, 'measure', lambda *_, **__: busy)
    kept.kept_profile(split, told.append, (2,))
    assert told[-1].startswith('this machine was busy') and '40.0 ± 160.0 ms' in told[-1]
    assert told[-1].endswith('.yaml')
