# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Put the figures of docs/data into the pages: ``./run exec python scripts/benchmarks.py [FOLDER]``.

FOLDER (``docs/data``) holds what ``./run bench NAME --json docs/data/NAME.json`` wrote. The figures of a benchmark
replace what stands between ``<!-- bench NAME -->`` and ``<!-- end -->`` in a page; a table that its module makes
replaces what stands between ``<!-- NAME TABLE -->`` and ``<!-- end -->``. A place without a file keeps what it has.
"""

from __future__ import annotations

from collections.abc import Callable
import hashlib
import importlib
import json
from pathlib import Path
import re
import sys
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / 'docs' / 'data'
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
#: Modules by the name of the benchmark: ``tables(document)`` returns tables by name, and ``draw(document, folder,
#: source)``, where a module has it, writes pictures that name their source.
RESULTS = {
    'paper': 'bench.paper_results',
    'alternatives': 'bench.alternatives_results',
    'agreement': 'bench.agreement_results',
    'images': 'bench.images_results',
    'models': 'bench.models_results',
}
_PLACE = re.compile(r'(<!-- (bench|{}) (\S[^>]*?) -->\n)(.*?)(<!-- end -->)'.format('|'.join(RESULTS)), re.DOTALL)


def table(document: dict[str, Any]) -> str:
    """Return a benchmark's figures, and what they were measured with, as Markdown."""
    rows = ['| figure | value | unit | bar | holds |', '| --- | ---: | --- | --- | --- |']
    for row in document['figures']:
        holds = '' if row['bar'] is None else 'yes' if row['holds'] else '**no**'
        rows.append(f'| {row["name"]} | {row["value"]:.4g} | {row["unit"]} | {row["bar"] or ""} | {holds} |')
    facts = dict(document['measured'])
    command, when, processor, cores, memory_gib = map(
        facts.pop, ('command', 'when', 'processor', 'cores', 'memory_gib')
    )
    versions = ', '.join(f'{name} {value}' for name, value in facts.items() if value)
    barred = [row for row in document['figures'] if row['bar'] is not None]
    missed = sum(not row['holds'] for row in barred)
    met = f'All {len(barred)} bars met' if barred else 'Measured'
    verdict = f'**{missed} of {len(barred)} bars missed**' if missed else met
    return (
        f'{verdict}, by `{command}` on {when}: {cores} cores of {processor}, {memory_gib} GiB; {versions}.\n\n'
        + '\n'.join(rows)
    )


def render(page: str, folder: Path = DATA) -> str:
    """Return the page with the tables of the files that are there."""
    made: dict[str, dict[str, str]] = {}

    def section(match: re.Match[str]) -> str:
        start, kind, name, _, end = match.groups()
        path = folder / f'{name if kind == "bench" else kind}.json'
        if not path.is_file():
            return match[0]
        document = json.loads(path.read_text())
        if kind == 'bench':
            return f'{start}{table(document)}\n{end}'
        if kind not in made:
            make = _of(RESULTS[kind], 'tables')
            assert make is not None, RESULTS[kind]
            made[kind] = make(document)
        return f'{start}\n{made[kind][name]}\n\n{end}'

    return _PLACE.sub(section, page)


def source(path: Path) -> str:
    """Return what a picture names as its source: the file that it was drawn from, and the file's digest."""
    return f'{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}'


def _of(module: str, function: str) -> Callable[..., Any] | None:
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    found: Callable[..., Any] | None = getattr(importlib.import_module(module), function, None)
    return found


def main(folder: Path) -> None:
    """Renew the pages and the pictures."""
    for page in PAGES:
        page.write_text(render(page.read_text(), folder))
    for name, module in RESULTS.items():
        path = folder / f'{name}.json'
        draw = _of(module, 'draw')
        if path.is_file() and draw is not None:
            draw(json.loads(path.read_text()), ROOT / 'docs', source(path))


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
