# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the rows of bench/images.py say: a table of docs/alternatives.md."""

from __future__ import annotations

from typing import Any


def tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the table of the page by the name of its place."""
    facts, rate_hz = document['measured'], document['rate_hz']
    lines = [
        f'| size | form | KiB for each image | Mbit/s at {rate_hz:g}/s | same class | encoding | decoding |',
        '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in document['rows']:
        lines.append(
            f'| {row["width"]} × {row["height"]} | {row["name"]} | {row["bytes"] / 1024:.1f} | '
            f'{8e-6 * row["bytes"] * rate_hz:.2f} | {100 * row["same_class"]:.1f} % | {1e3 * row["encode_s"]:.1f} ms | '
            f'{1e3 * row["decode_s"]:.1f} ms |'
        )
    images = next(figure['value'] for figure in document['figures'] if figure['name'] == 'images')
    where = (
        f'{document["model"]}, {images} images of {len(document["photographs"])} photographs, {facts["when"]}, '
        f'commit {facts["commit"]}.'
    )
    return {'table': '\n'.join(lines) + f'\n\n{where}'}
