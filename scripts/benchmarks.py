# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Put the figures of benchmarks into docs/benchmarks.md: ``./run exec python scripts/benchmarks.py [FOLDER]``.

FOLDER (``out/bench``) holds what ``./run bench NAME --json FOLDER/NAME.json`` wrote. In the page, what stands between
``<!-- bench NAME -->`` and ``<!-- end -->`` is replaced; a benchmark without a file keeps what it has.
"""

from __future__ import annotations

import json
from pathlib import Path
import re
import sys
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'benchmarks.md'


def table(document: dict[str, Any]) -> str:
    """Return a benchmark's figures, and what they were measured with, as Markdown."""
    rows = ['| figure | value | unit | bar | holds |', '| --- | ---: | --- | --- | --- |']
    for row in document['figures']:
        holds = '' if row['bar'] is None else 'yes' if row['holds'] else '**no**'
        rows.append(f'| {row["name"]} | {row["value"]:.4g} | {row["unit"]} | {row["bar"] or ""} | {holds} |')
    facts = dict(document['measured'])
    command, when, processor, cores, memory_gib = map(
        facts.pop, ('command', 'when', 'processor', 'cores', 'memory_gib'))
    versions = ', '.join(f'{name} {value}' for name, value in facts.items())
    barred = [row for row in document['figures'] if row['bar'] is not None]
    missed = sum(not row['holds'] for row in barred)
    met = f'All {len(barred)} bars met' if barred else 'Measured'
    verdict = f'**{missed} of {len(barred)} bars missed**' if missed else met
    return (f'{verdict}, by `{command}` on {when}: {cores} cores of {processor}, {memory_gib} GiB; {versions}.\n\n'
            + '\n'.join(rows))


def render(page: str, folder: Path) -> str:
    """Return the page with the tables of the files that are there."""
    def section(match: re.Match[str]) -> str:
        path = folder / f'{match[2]}.json'
        return f'{match[1]}\n{table(json.loads(path.read_text()))}\n{match[4]}' if path.is_file() else match[0]

    return re.sub(r'(<!-- bench (\S+) -->)(.*?)(<!-- end -->)', section, page, flags=re.DOTALL)


if __name__ == '__main__':
    PAGE.write_text(render(PAGE.read_text(), Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'out' / 'bench')))
