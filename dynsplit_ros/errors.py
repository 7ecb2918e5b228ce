# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The one family of errors that this package raises for what it was given, and a sentence for a missing package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import stat
import sys
import traceback

#: Exit code of a node whose configuration cannot be used: to start it again would not help.
CONFIGURATION_EXIT_CODE = 2


class DynsplitError(ValueError):
    """
    Something given to the package cannot be used.

    The message is one sentence for a person: what was given, what is allowed, and what to do.
    """


def missing_package(error: ModuleNotFoundError) -> str:
    """Return one sentence for a person whose Python lacks a package, with the remedy."""
    return (
        f'Python package {str(error.name).partition(".")[0]!r} is not installed for {sys.executable}; '
        "docs/tutorial.md says under 'Install it on both machines' what to install and what to source"
    )


@contextmanager
def in_one_sentence(what: str, remedy: str) -> Iterator[None]:
    """
    Raise DynsplitError for any other exception: a model's own code, or what a library makes of a file, may raise any.

    The sentence names the place where it was raised, for the person whose code it is.
    """
    try:
        yield
    except DynsplitError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise DynsplitError(
            f'{what}: {in_short(error)} ({Path(place.filename).name}, line {place.lineno}); {remedy}'
        ) from error


def check_file(path: str | Path, what: str) -> None:
    """Raise DynsplitError unless ``path`` leads to a regular file: opening a named pipe could wait without end."""
    try:
        reason = '' if stat.S_ISREG(Path(path).stat().st_mode) else 'it is no regular file'
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
    if reason:
        raise DynsplitError(f'{what} {str(path)[:200]!r} cannot be read ({reason}); name a regular file')


def in_short(error: BaseException) -> str:
    """Return an exception's type and the beginning of its text, on one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:300]}{"…" if len(text) > 300 else ""}' if text else type(error).__name__
