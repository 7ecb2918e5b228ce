# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Copies of the package with a few pieces of its text replaced, and programs that run on such a copy."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path
import shutil

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'dynsplit_ros'


def copy_package(folder: Path) -> None:
    """Copy the package's sources into a folder."""
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns('__pycache__'))


def replaced(source: str, old: str, new: str, where: str) -> str:
    """Return the source with ``old`` replaced by ``new``; raises ValueError unless it holds ``old`` exactly once."""
    count = source.count(old)
    if count != 1:
        raise ValueError(f'{where} holds {old!r} {count} times, not once; adapt the replacement to the code')
    return source.replace(old, new)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a program that imports the copy in a folder and runs one thread."""
    paths: Iterable[str] = (str(folder), str(ROOT), os.environ.get('PYTHONPATH', ''))
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'PYTHONDONTWRITEBYTECODE': '1', 'OMP_NUM_THREADS': '1'}
