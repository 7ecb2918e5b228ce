# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""This machine's profile of a model, measured once and kept for the next start."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
    cannot be read is measured again, one that cannot be written is done without. ``progress`` takes a few words.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'dynsplit_ros'
    path = folder / f'{split.fingerprint[:24]}_{split.device}_{torch.get_num_threads()}.yaml'.replace(':', '-')
    try:
        kept = Profile.load(path)
        if kept.fingerprint == split.fingerprint:
            if set(batches) <= set(kept.batches):
                progress(f'this machine was profiled before: {path}')
                return kept
            batches = {*batches, *kept.batches}  # another node on this machine may need those
    except DynsplitError:
        pass
    progress('profiling this machine for the first start with this model; frames follow when it is done, in a few '
             'seconds for a small model and a minute or more for a large one …')
    profile = measure(split, sorted(batches), repeats=REPEATS, warm_up=2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two nodes may start at once: each writes its own file, and the last rename stands.
        unfinished = path.with_suffix(f'.{os.getpid()}')
        profile.save(unfinished)
        unfinished.replace(path)
        progress(f'kept the profile in {path}')
    except OSError as error:
        progress(f'the profile could not be kept ({error})')
    return profile
