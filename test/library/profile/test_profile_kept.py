# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""This machine's profile: measured once under the same conditions, by one process at a time, and kept."""

from dataclasses import replace
import fcntl
import platform
import threading

import pytest
import torch
from worlds import DEADLINE_S

from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile import kept, measure
from dynsplit_ros.profile.measure import conditions
from dynsplit_ros.profile.profile import Profile


@pytest.fixture(scope='module')
def split() -> SplitModel:
    return SplitModel(load_model('squeezenet1_1', input_size=(64, 64)))


@pytest.fixture(scope='module')
def measured(split) -> Profile:
    return measure.measure(split, codecs=['raw'], repeats=1, warm_up=0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'dynsplit_ros'


def test_it_is_measured_once_and_again_only_for_more_batch_sizes(split, folder, monkeypatch) -> None:
    told: list[str] = []
    first = kept.kept_profile(split, told.append)
    assert told[0].startswith('profiling this model on this machine')
    assert told[1].startswith(f'kept the profile in {folder}')
    both = kept.kept_profile(split, told.append, (2,))
    assert (first.batches, both.batches) == ((1,), (1, 2))
    monkeypatch.setattr(kept, 'measure', None)
    del told[:]
    again = kept.kept_profile(split, told.append)
    assert again.batches == (1, 2)
    assert told[0] == f'using the profile that this machine measured before: {next(folder.glob("*.yaml"))}'
    assert sorted(path.suffix for path in folder.iterdir()) == ['.lock', '.yaml']


def test_a_file_that_cannot_be_read_is_measured_again_and_one_that_cannot_be_written_is_done_without(
    split, folder, monkeypatch
) -> None:
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
    (lock_file,) = folder.glob('profiling_*.lock')
    waits = threading.Event()
    got: list[Profile] = []
    with lock_file.open('w') as lock:  # another process that is measuring
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=lambda: got.append(
                kept.kept_profile(split, lambda text: waits.set() if 'waiting for another' in text else None)
            )
        )
        thread.start()
        assert waits.wait(DEADLINE_S)
        assert not got
        path.write_text(content)
    thread.join(DEADLINE_S)
    assert got == [Profile.load(path)]


#: One case for each condition that decides the times: what differs from the first measurement.
CONDITIONS = (
    'host',
    'machine',
    'processor',
    'cores',
    'quota',
    'instructions',
    'threads',
    'device',
    'channels_last',
    'engines',
    'python',
    'torch',
    'torchvision',
    'numpy',
    'blosc2',
    'codecs',
    'format',
)


def test_the_cases_below_are_all_conditions(split) -> None:
    assert tuple(conditions(split)) == CONDITIONS


@pytest.mark.parametrize('condition', CONDITIONS)
def test_another_condition_is_measured_anew_whether_the_name_or_the_content_tells(
    split, measured, folder, monkeypatch, condition
) -> None:
    told: list[str] = []
    monkeypatch.setattr(kept, 'measure', lambda *_, **__: measured)
    here = kept.kept_profile(split, told.append)
    (path,) = folder.glob('*.yaml')
    now = conditions(split)
    other = {**now, condition: 'other'}
    # A machine under the other condition finds nothing under its own name.
    calls: list[str] = []
    elsewhere = replace(here, measured={**here.measured, **other})
    monkeypatch.setattr(kept, 'conditions', lambda _: other)
    monkeypatch.setattr(kept, 'measure', lambda *_, **__: calls.append('there') or elsewhere)
    assert kept.kept_profile(split, told.append).measured[condition] == 'other'
    assert kept.kept_profile(split, told.append).fingerprint == split.fingerprint
    assert len(list(folder.glob('*.yaml'))) == 2 and calls == ['there']
    # A file of the right name with another content, as a copied folder has it.
    elsewhere.save(path)
    monkeypatch.setattr(kept, 'conditions', lambda _: now)
    monkeypatch.setattr(kept, 'measure', lambda *_, **__: calls.append('here') or here)
    assert kept.kept_profile(split, told.append).measured[condition] == now[condition]
    assert calls == ['there', 'here'] and Profile.load(path).measured[condition] == now[condition]
    assert kept.differences(elsewhere, split).startswith(f"{condition} 'other' (here ")
    assert kept.differences(here, split) == ''


def test_conditions_follow_the_machine_the_versions_and_the_settings(split, monkeypatch) -> None:
    first = conditions(split)

    def changed() -> set[str]:
        return {key for key, value in conditions(split).items() if value != first[key]}

    model = split.model
    other = conditions(SplitModel(load_model('squeezenet1_1', input_size=model.input_size), channels_last=True))
    assert {key for key in first if other[key] != first[key]} == {'channels_last'}
    with_engine = SplitModel(load_model('squeezenet1_1', input_size=model.input_size), cut=False)
    with_engine.add_engine('eager', 'bfloat16')
    other = conditions(with_engine)
    assert {key for key in other if other[key] != first.get(key)} == {'engines', 'version of eager-bfloat16'}
    with monkeypatch.context() as patched:
        patched.setattr(platform, 'node', lambda: 'robot7')
        patched.setattr(torch, '__version__', '1.0')
        patched.setattr(torch, 'get_num_threads', lambda: 77)
        patched.setattr(measure, 'processor', lambda: 'Cortex-A76')
        assert changed() == {'host', 'torch', 'threads', 'processor'}
    with monkeypatch.context() as patched:
        patched.setattr(measure, '_read_line', lambda path: f'content of {path}')
        assert changed() == {'machine', 'quota'}
        assert 'machine-id' not in str(conditions(split))  # it stays on this machine


def test_a_machine_that_was_busy_is_told_of(split, measured, monkeypatch) -> None:
    told: list[str] = []
    profile = measured
    *before, whole = profile.cuts
    busy = replace(profile, cuts=(*before, replace(whole, head_s={1: 0.04}, head_spread_s={1: 0.16})))
    quiet = replace(profile, cuts=(*before, replace(whole, head_s={1: 0.04}, head_spread_s={1: 0.02})))
    assert quiet.doubt == ''
    monkeypatch.setattr(kept, 'measure', lambda *_, **__: busy)
    kept.kept_profile(split, told.append, (2,))
    assert told[-1].startswith('this machine was busy') and '40.0 ± 160.0 ms' in told[-1]
    assert told[-1].endswith('.yaml')
