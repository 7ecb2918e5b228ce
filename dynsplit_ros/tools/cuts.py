# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""List the cuts of a model: position, bytes that each cut sends, and share of the computation before it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import sys
from typing import Any, TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tools.model_options import add_model_options, split_model, writable

if TYPE_CHECKING:
    from dynsplit_ros.partition import Cut, SplitModel


def describe(cut: Cut) -> dict[str, Any]:
    """Return a cut as JSON holds it; bytes are those of a batch of one."""
    return {
        'index': cut.index,
        'position': cut.position,
        'name': cut.name,
        'tensors': [{'name': spec.name, 'dtype': spec.dtype, 'shape': list(spec.shape)} for spec in cut.tensors],
        'bytes': cut.nbytes,
        'macs_before': cut.macs_before,
        'elements': cut.elements,
        'fewer_bytes': cut.fewer_bytes,
        'fewer_elements': cut.fewer_elements,
    }


def main(argv: list[str] | None = None) -> int:
    """List the cuts of the model that ``argv`` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_options(parser)
    parser.add_argument('--all', action='store_true', help='list every position of the graph, not only the candidates')
    parser.add_argument('--json', type=writable, metavar='OUT', help='also write the cuts to this file')
    arguments = parser.parse_args(argv)
    try:
        split = split_model(arguments)
    except DynsplitError as error:
        print(f'cuts: {error}', file=sys.stderr)
        return 2
    cuts = (*split.positions, split.cuts[-1]) if arguments.all else split.cuts
    _print_table(split, cuts)
    if arguments.json is not None:
        document = {
            'model': arguments.model,
            'input_size': list(split.model.input_size),
            'fingerprint': split.fingerprint,
            'cuts': [describe(cut) for cut in cuts],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + '\n')
    return 0


def _print_table(split: SplitModel, cuts: Sequence[Cut]) -> None:
    height, width = split.model.input_size
    table = Table(
        title=f'{split.model.name} at {height}×{width}, fingerprint {split.fingerprint[:16]}',
        caption='natural: sends fewer bytes, or only fewer elements, than the image and each cut before',
    )
    for name, justify in (
        ('index', 'right'), ('cut', 'left'), ('tensors', 'left'), ('KiB', 'right'), ('MACs before', 'right'),
        ('natural', 'left'),
    ):  # fmt: skip
        table.add_column(name, justify=justify, overflow='fold')  # type: ignore[arg-type]
    for cut in cuts:
        tensors = '\n'.join(f'{spec.dtype} {"×".join(map(str, spec.shape))}' for spec in cut.tensors)
        natural = 'bytes' if cut.fewer_bytes else 'elements' if cut.fewer_elements else ''
        table.add_row(
            '' if cut.index is None else str(cut.index),
            cut.name,
            tensors or 'nothing',
            f'{cut.nbytes / 1024:.1f}',
            f'{100 * cut.macs_before:.1f} %',
            natural,
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == '__main__':
    raise SystemExit(main())
