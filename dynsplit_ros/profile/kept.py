# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""This machine's profile of a model, measured once and kept for the next start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
import os
from pathlib import Path

from dynsplit_ros.cache import alone, cache_folder, digest
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import conditions, measure
from dynsplit_ros.profile.profile import Profile

#: Enough for a first choice, which what is measured while running corrects; the profile tool takes its time.
REPEATS = 7


def kept_profile(
    split: SplitModel, progress: Callable[[str], None], batches: Collection[int] = (1,), keep: bool = True
) -> Profile:
    """
    Return the profile of ``split`` under the present conditions for these batch sizes; measure it if none is kept.

    The files are in ``$XDG_CACHE_HOME/dynsplit_ros`` (``~/.cache`` by default). A file's name holds the model's
    fingerprint and a digest of :func:`conditions`, so machines that share a home folder do not share profiles. A file
    that cannot be read, or that was measured under other conditions, is measured again; a folder that cannot be
    written is done without. Processes that start at the same time on one machine measure one after the other, because
    each would slow the others down. ``progress`` takes a sentence; one of them names the file. Without ``keep``, a
    profile that is measured now is not written.
    """
    now = conditions(split)
    folder = cache_folder()
    # A node that converts only its own parts measures only these, so it has a file of its own.
    path = folder / f'{split.fingerprint[:24]}_{digest({**now, "parts": split.parts})}.yaml'
    profile = _load(path, split, now)
    if profile is None or not set(batches) <= set(profile.batches):
        with alone(
            folder / f'profiling_{digest({key: now[key] for key in ("host", "machine")})}.lock',
            lambda: progress('waiting for another node of this machine that is profiling …'),
        ):
            profile = _load(path, split, now)  # the process that held the lock may have measured just this
            if profile is None or not set(batches) <= set(profile.batches):
                progress(
                    'profiling this model on this machine, because no kept profile has its processor, versions '
                    'and settings; it takes a few seconds for a small model, a minute or more for a large one'
                )
                # Another node on this machine may need the batches that are there.
                needed = {*batches, *(profile.batches if profile else ())}
                profile = measure(split, sorted(needed), repeats=REPEATS, warm_up=2)
                if keep:
                    _keep(profile, path, progress)
    else:
        progress(f'using the profile that this machine measured before: {path}')
    if profile.doubt:
        progress(f'{profile.doubt}; to have it measured again, delete {path}')
    return of_ready_parts(profile, split)


def of_ready_parts(profile: Profile, split: SplitModel) -> Profile:
    """Return a profile without the times of parts that are not ready on their engine in this process."""
    return replace(
        profile,
        cuts=tuple(
            replace(
                cut,
                engine_head_s={
                    engine: seconds
                    for engine, seconds in cut.engine_head_s.items()
                    if split.has_head(cut.index, engine)
                },
                engine_tail_s={
                    engine: seconds
                    for engine, seconds in cut.engine_tail_s.items()
                    if split.has_tail(cut.index, engine)
                },
            )
            for cut in profile.cuts
        ),
    )


def differences(profile: Profile, split: SplitModel) -> str:
    """
    Say which conditions of ``profile`` are not those of ``split`` here; return an empty text if all are.

    A profile may have more engines than are ready here.
    """
    return ', '.join(
        f'{key} {profile.measured[key]!r} (here {value!r})'
        for key, value in conditions(split).items()
        if key in profile.measured
        and profile.measured[key] != value
        and not (key == 'engines' and set(value.split()) <= set(profile.measured[key].split()))
    )


def _load(path: Path, split: SplitModel, now: Mapping[str, str]) -> Profile | None:
    """Return what is kept there if it can be read and is of this model under these conditions."""
    try:
        kept = Profile.load(path)
    except DynsplitError:
        return None
    return kept if kept.fingerprint == split.fingerprint and now.items() <= kept.measured.items() else None


def _keep(profile: Profile, path: Path, progress: Callable[[str], None]) -> None:
    """Write a profile, whole or not at all."""
    try:
        unfinished = path.with_suffix(f'.{os.getpid()}')
        profile.save(unfinished)
        unfinished.replace(path)
        progress(f'kept the profile in {path}')
    except OSError as error:
        progress(f'the profile could not be kept ({error})')
