# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the rows of bench/agreement.py say: the table of codecs in docs/tuning.md."""

from __future__ import annotations

import re
from typing import Any


def tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the table of the page by the name of its place."""
    facts, rows = document['measured'], document['test']
    figures = {figure['name']: figure['value'] for figure in document['figures']}
    splits = sorted({row['cut'] for row in rows if row['cut']})
    lines = [
        f'| codec | image | {" | ".join(f"split {split}" for split in splits)} |',
        '| --- | ---: ' + '| ---: ' * len(splits) + '|',
    ]
    smallest = {
        int(found[1]): value
        for name, value in figures.items()
        if (found := re.match(r'split (\d+) .*: smallest lossless payload', name))
    }
    lossless = [_kib(figures.get('best image codec for 0.98 (lossless)')), *(_kib(smallest.get(at)) for at in splits)]
    lines.append(f'| smallest lossless | {" | ".join(lossless)} |')
    found = {(row['cut'], row['codec']): row for row in rows}
    for codec in sorted({row['codec'] for row in rows}, key=_order):
        cells = [_cell(found.get((cut, codec))) for cut in (0, *splits)]
        lines.append(f'| `{codec}` | {" | ".join(cells)} |')
    name, photographs = next(
        (name, value) for name, value in figures.items() if name.startswith('photographs of the test')
    )
    where = f'{name.split()[-2]} crops of {photographs:.0f} photographs, {facts["when"]}, ' + (
        f'commit {facts["commit"]}.' if facts.get('commit') else 'by a run that did not record its commit.'
    )
    return {'codecs': '\n'.join(lines) + f'\n\n{where}'}


def _kib(size_kib: float | None) -> str:
    return '' if size_kib is None else f'{size_kib:.1f} KiB'


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ''
    share = 'below 90 %' if row['given_up'] else f'{100 * row["agreement"]:.1f} %'
    return f'{row["bytes"] / 1024:.1f} KiB, {share}'


def _order(codec: str) -> tuple[str, str, float]:
    """Return a key that puts the codecs of one kind together, the largest first."""
    kind, level, coder = re.fullmatch(r'(\D+)([\d.]+)(.*)', codec).groups()  # type: ignore[union-attr]
    return kind, coder, -float(level)
