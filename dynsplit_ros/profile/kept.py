# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""This machine's profile of a model, measured once and kept for the next start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
import contextlib
import fcntl
import os
from pathlib import Path

import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.profile.profile import Profile

#: Enough for a first choice, which what is measured while running corrects; the profile tool takes its time.
REPEATS = 7


def kept_profile(split: SplitModel, progress: Callable[[str], None], batches: Collection[int] = (1,)) -> Profile:
    """
    Return the profile of ``split`` on this machine for these batch sizes, measuring it where none is kept.

    Kept by fingerprint, device and threads in ``$XDG_CACHE_HOME/dynsplit_ros`` (``~/.cache`` by default); one that
    cannot be read is measured again, one that cannot be written is done without. Who starts at the same time measures
    one after the other, for beside each other they would find this machine far too slow, and keep that. ``progress``
    takes a few words.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'dynsplit_ros'
    path = folder / f'{split.fingerprint[:24]}_{split.device}_{torch.get_num_threads()}.yaml'.replace(':', '-')
    profile = _load(path, split)
    if profile is None or not set(batches) <= set(profile.batches):
        with _alone(folder / 'profiling.lock', progress):
            profile = _load(path, split)  # who was waited for may have measured just this
            if profile is None or not set(batches) <= set(profile.batches):
                progress('profiling this machine for the first start with this model, device and number of threads, '
                         'in a few seconds for a small model and a minute or more for a large one …')
                # Another node on this machine may need the batches that are there.
                needed = {*batches, *(profile.batches if profile else ())}
                profile = measure(split, sorted(needed), repeats=REPEATS, warm_up=2)
                _keep(profile, path, progress)
    else:
        progress(f'this machine was profiled before: {path}')
    if profile.doubt:
        progress(f'{profile.doubt}; to have it measured again, delete {path}')
    return profile


def _load(path: Path, split: SplitModel) -> Profile | None:
    """Return what is kept there for this model, if it can be read."""
    try:
        kept = Profile.load(path)
    except DynsplitError:
        return None
    return kept if kept.fingerprint == split.fingerprint else None


def _keep(profile: Profile, path: Path, progress: Callable[[str], None]) -> None:
    """Write a profile, whole or not at all."""
    try:
        unfinished = path.with_suffix(f'.{os.getpid()}')
        profile.save(unfinished)
        unfinished.replace(path)
        progress(f'kept the profile in {path}')
    except OSError as error:
        progress(f'the profile could not be kept ({error})')


@contextlib.contextmanager
def _alone(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that one process of this machine has at a time; where there can be none, do without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open('w')
    except OSError:
        yield
        return
    with lock:  # closing it lets go of the lock, as does the end of the process, whatever ended it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress('waiting for another node of this machine that is profiling …')
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system that has no locks
            pass
        yield
