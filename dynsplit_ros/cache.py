# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The folder where this package keeps what takes long to make, and a lock for processes that make the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/dynsplit_ros``, by default in ``~/.cache``; it need not exist."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'dynsplit_ros'


def engines_folder() -> Path:
    """Return the folder in which engines keep converted parts; it need not exist."""
    return cache_folder() / 'engines'


def digest(values: Mapping[str, str]) -> str:
    """Return a short name for these values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def alone(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
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
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system that has no locks
            pass
        yield
