# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the rows of bench/models.py say: the table of docs/models.md."""

from __future__ import annotations

from typing import Any


def exact(row: dict[str, Any]) -> bool:
    """Return whether a model loads and is exact at each of its cuts, for each batch that it takes."""
    return 'error' not in row and all(number == row['cuts'] for number in row['exact'].values())


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [
        '| package | model | task | loads in s | cuts by bytes | by elements | exact | tracer |',
        '| --- | --- | --- | ---: | ---: | ---: | --- | --- |',
    ]
    for row in rows:
        start = f'| {row["package"]} | {row["name"]} | {row["task"]} | '
        if 'error' in row:
            lines.append(f'{start} | | | **no**: {row["error"].replace("|", "/")} | |')
            continue
        batches = 'batches 1 and 2' if '2' in row['exact'] else 'batch 1'
        wrong = ', '.join(f'{number} of {row["cuts"]}' for number in row['exact'].values())
        lines.append(
            f'{start}{row["load_s"]:.1f} | {row["natural_bytes"]} | {row["natural_elements"]} | '
            f'{batches if exact(row) else f"**no**: {wrong}"} | {row["tracer"]} |'
        )
    return '\n'.join(lines)


def tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the table of the page by the name of its place."""
    facts = document['measured']
    missing = f' Packages that were not installed: {", ".join(document["missing"])}.' if document['missing'] else ''
    where = (
        f'{len(document["models"])} models, {facts["when"]}, torch {facts["torch"]}, commit {facts["commit"]}.{missing}'
    )
    return {'table': f'{where}\n\n{_table(document["models"])}'}
