# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Collect a benchmark's figures, print each beside its bar, and write them as JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import operator
import os
from pathlib import Path
import shlex
import subprocess
import sys
import time
from typing import Any

_COMPARISONS = {'<=': operator.le, '<': operator.lt, '>=': operator.ge, '>': operator.gt, '==': operator.eq}


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser that every benchmark starts from: it has ``--json OUT``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures to this file')
    return parser


def add_photographs(parser: argparse.ArgumentParser) -> None:
    """Add the option of the benchmarks that take photographs."""
    parser.add_argument(
        '--photographs',
        type=Path,
        nargs='+',
        default=[],
        metavar='FOLDER',
        help='take all images of these folders (default: photographs that installed packages bring)',
    )


class Figures:
    """The figures of one benchmark, in the order in which they were measured."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}

    def add(self, name: str, value: float, unit: str, bar: str | None = None) -> bool:
        """
        Record and print one figure; return whether it holds.

        ``bar`` is a comparison with a number, such as ``'<= 1.03'``; ``None`` records a figure that has no bar.
        A NaN never holds.
        """
        holds = True
        if bar is not None:
            sign, limit = bar.split()
            holds = bool(_COMPARISONS[sign](value, float(limit)))
        self._rows.append({'name': name, 'value': value, 'unit': unit, 'bar': bar, 'holds': holds})
        verdict = '' if bar is None else ('  ok' if holds else '  MISSED')
        print(f'{name:<72} {value:>12.5g} {unit:<10} {bar or "":<12}{verdict}', flush=True)
        return holds

    def finish(self, json_path: Path | None) -> int:
        """Print the verdict, write the JSON if a path is given, and return the process's exit code."""
        missed = [row for row in self._rows if not row['holds']]
        print(f'\n{len(self._rows)} figures, {len(missed)} missed their bar', flush=True)
        if json_path is not None:
            json_path.parent.mkdir(parents=True, exist_ok=True)
            document = {'measured': measured(), 'figures': self._rows, **self.extra}
            json_path.write_text(json.dumps(document, indent=1) + '\n')
        return 1 if missed else 0


def measured() -> dict[str, Any]:
    """Return, for a person, by what command, when, on what machine and with which versions this was measured."""
    from dynsplit_ros.profile.measure import processor  # brings torch, which the processes that simulate do without

    pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return {
        'command': './run bench ' + shlex.join(sys.argv),
        'when': time.strftime('%Y-%m-%d', time.gmtime()),
        'processor': processor(),
        'cores': os.cpu_count(),
        'memory_gib': round(pages / 2**30),
        **{name: importlib.metadata.version(name) for name in ('torch', 'numpy', 'dynsplit_ros')},
        'commit': commit(),
    }


def commit() -> str:
    """Return the commit of the sources, with '+' if bench/ or the package has other changes; '' outside of git."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(['git', '-C', str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ''

    try:
        changed = git('status', '--porcelain', '--untracked-files=no', '--', 'bench', 'dynsplit_ros', 'examples')
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if changed else '')
    except OSError:  # no git on this machine
        return ''
