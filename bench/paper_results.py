# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The best choice under each condition of bench/paper.py, computed from its rows; tables and pictures of docs/paper.md.

Seconds, bytes and bytes per second throughout. A gain is 1 - (latency of the best choice) / (latency of a static
choice) under one condition. Means and largest values are over all conditions, each counting the same; nothing is
clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')

from matplotlib import colormaps, pyplot as plt  # noqa: E402
from matplotlib.colors import BoundaryNorm, ListedColormap  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from bench.figures import Figures  # noqa: E402

Array = NDArray[np.float64]

#: The conditions: images of a batch, the link's rate, and how many times as long the server takes because of its load.
BATCHES = np.arange(1, 63)
RATES_BYTES_S = np.arange(1, 128) * 1e6
LOADS = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Pair:
    """
    A robot and an edge, by how many times as long as the measured core they take.

    ``robot`` and ``edge`` scale the network, ``robot_codec`` and ``edge_codec`` the codecs, which run on one core.
    """

    robot: float
    edge: float
    robot_codec: float
    edge_codec: float
    words: str


PAIRS = {
    'slow': Pair(8.0, 1.0, 8.0, 1.0, 'a robot 8 times slower than the measured core, and an edge like it'),
    'fast': Pair(1.0, 1 / 8, 1.0, 1.0, 'a robot like the measured core, and an edge 8 times faster'),
    'GPU': Pair(1 / 8, 1 / 64, 1.0, 1.0, 'a robot 8 times faster than the measured core, and an edge 64 times faster'),
}
#: Bounds of min_agreement; a count of bytes of the same name allows their codecs.
BOUNDS = ('0.98', '0.95')
#: How bytes are counted; each next count can only save time, except that the 8-bit image is sent from the second on.
COUNTS = {
    'elements': '4 bytes for each element, of the image too',
    'bytes': 'image of 8 bits, activations of 4 bytes for each element',
    'lossless': 'best lossless codec',
    **{bound: f'codecs that min_agreement {bound} allows' for bound in BOUNDS},
}
IMAGE, LOCAL = 'full offloading', 'local inference'
#: Batches by which the extrapolation is checked: from the largest measured one of each model back to these.
CHECK_FROM = (2, 8)


@dataclass
class Grid:
    """Latency in seconds of each choice: [choice, load, batch, rate]; the last choice is local inference."""

    latency_s: Array

    @property
    def best(self) -> NDArray[np.int64]:
        """The choice with the least latency: [load, batch, rate]."""
        return self.latency_s.argmin(axis=0)

    def shares(self) -> dict[str, float]:
        """Return the share of conditions in which offloading, splitting and local inference are best."""
        best, local = self.best, len(self.latency_s) - 1
        return {
            IMAGE: float((best == 0).mean()),
            'split': float(((best > 0) & (best < local)).mean()),
            LOCAL: float((best == local).mean()),
        }

    def gains(self) -> Array:
        """Return the gain of the best choice over each static choice: [choice, load, batch, rate]."""
        gains: Array = 1 - self.latency_s.min(axis=0) / self.latency_s
        return gains

    @property
    def best_static(self) -> int:
        """The static choice with the least mean ratio to the best choice, which is the hardest to beat."""
        return int(self.gains().mean(axis=(1, 2, 3)).argmin())


def per_image_s(row: dict[str, Any], batches: Array, last: int | None = None) -> Array:
    """
    Return the seconds from each cut to the next, for one image of a batch: [stage, batch].

    Between measured batches it is interpolated. Beyond the largest one (or ``last``), it stays that batch's.
    """
    known = sorted(int(batch) for batch in row['stage_s'] if last is None or int(batch) <= last)
    measured = np.array([row['stage_s'][str(batch)] for batch in known]) / np.array(known)[:, None]
    return np.array([np.interp(batches, known, of_stage) for of_stage in measured.T])


def extrapolation_errors(rows: list[dict[str, Any]], last: int) -> dict[str, float]:
    """Return, by model, how far the whole model's time at its largest measured batch is off when known up to last."""
    errors = {}
    for row in rows:
        largest = max(map(int, row['stage_s']))
        if largest > last:
            at = np.array([float(largest)])
            errors[row['model']] = float(per_image_s(row, at, last).sum() / per_image_s(row, at).sum() - 1)
    return errors


def grid(row: dict[str, Any], count: str, pair: str) -> Grid:
    """Compute all conditions of one model."""
    machines = PAIRS[pair]
    robot, edge = machines.robot, machines.edge
    stages_s = BATCHES * per_image_s(row, BATCHES.astype(float))
    heads_s = np.concatenate((np.zeros((1, len(BATCHES))), stages_s.cumsum(axis=0)))
    tails_s = heads_s[-1] - heads_s
    loads = np.array(LOADS)[:, None, None]
    choices = []
    for index, cut in enumerate(row['cuts']):
        computing_s = robot * heads_s[index][:, None] + edge * loads * tails_s[index][:, None]
        sending_s = [
            BATCHES[:, None]
            * (size / RATES_BYTES_S + machines.robot_codec * encode_s + machines.edge_codec * loads * decode_s)
            for size, encode_s, decode_s in _payloads(row, index, cut, count)
        ]
        choices.append(computing_s + np.minimum.reduce(sending_s))
    choices.append(np.broadcast_to(robot * heads_s[-1][:, None], choices[0].shape))
    return Grid(np.array(choices))


def _payloads(row: dict[str, Any], index: int, cut: dict[str, Any], count: str) -> list[tuple[float, float, float]]:
    """Return what may be sent for one image: bytes, seconds to encode and to decode on the measured machine."""
    if count == 'elements':
        return [(4 * cut['elements'], 0.0, 0.0)]
    if count == 'bytes':
        return [(cut['bytes'], 0.0, 0.0)]
    lossy = {codec for codecs in row['allowed'].values() for codec in codecs.values()}
    allowed = row['allowed'].get(count, {}).get(str(index))
    return [
        (of['bytes'], of['encode_s'], of['decode_s'])
        for name, of in cut['codecs'].items()
        if name == allowed or name not in lossy
    ]


def counts(row: dict[str, Any]) -> list[str]:
    """Return the counts of bytes that were measured for a model."""
    return [count for count in COUNTS if count not in BOUNDS or count in row['allowed']]


def add_figures(figures: Figures, rows: list[dict[str, Any]]) -> None:
    """Add what follows from the rows: the error of the extrapolation, shares and gains."""
    for last in CHECK_FROM:
        errors = extrapolation_errors(rows, last)
        if errors:
            worst = max(errors.values(), key=abs)
            figures.add(
                f'whole models, largest batch from batches up to {last}: worst error of {len(errors)}', 100 * worst, '%'
            )
    for pair in PAIRS:
        for count in COUNTS:
            grids = [grid(row, count, pair) for row in rows if count in counts(row)]
            if not grids:
                continue
            where = f'{pair} pair, {count}, mean over {len(grids)} models'
            for choice in (IMAGE, 'split', LOCAL):
                figures.add(
                    f'{where}: conditions in which {choice} is best',
                    100 * float(np.mean([found.shares()[choice] for found in grids])),
                    '%',
                )
            for name, at in ((IMAGE, 0), (LOCAL, -1)):
                figures.add(
                    f'{where}: mean gain over {name}',
                    100 * float(np.mean([found.gains()[at].mean() for found in grids])),
                    '%',
                )
            figures.add(
                f'{where}: mean gain over the best static choice',
                100 * float(np.mean([found.gains()[found.best_static].mean() for found in grids])),
                '%',
            )


def choice_names(row: dict[str, Any]) -> list[str]:
    """Return the names of the static choices."""
    return [IMAGE, *(f'split {index} ({cut["name"]})' for index, cut in enumerate(row['cuts']) if index), LOCAL]


def tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/paper.md by the names of their places."""
    rows = document['models']
    return {
        'bottlenecks': _bottlenecks(rows),
        'extrapolation': _extrapolation(rows),
        **{
            f'{pair} {what}': made(rows, pair)
            for pair in PAIRS
            for what, made in (('shares', _shares), ('gains', _gains))
        },
        'bounds': _bounds(rows),
        'measured': _measured(document),
    }


def _measured(document: dict[str, Any]) -> str:
    facts = document['measured']
    spent_s = sum(row['wall_s'] for row in document['models'])
    return (
        f'`{facts["command"]}`, {facts["when"]}, commit {facts["commit"]}: one core of {facts["processor"]}, torch '
        f'{facts["torch"]}; the models took {spent_s / 60:.0f} minutes in all, beside other programs.'
    )


def _bottlenecks(rows: list[dict[str, Any]]) -> str:
    lines = [
        '| model | image | blocks | below the image | and below all before | the same at 384 px | our cuts by '
        'elements | our cuts by bytes |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in rows:
        own = row['blocks'][str(row['side'])]
        common = row['blocks'].get('384')
        at_384 = f'{common["below_image"]}, {common["below_all_before"]}' if common else ''
        elements, by_bytes = (sum(cut[key] for cut in row['cuts']) for key in ('fewer_elements', 'fewer_bytes'))
        lines.append(
            f'| {row["model"]} | {row["side"]} px | {own["blocks"]} | {own["below_image"]} | '
            f'{own["below_all_before"]} | {at_384} | {elements} | {by_bytes} |'
        )
    return '\n'.join(lines)


def _extrapolation(rows: list[dict[str, Any]]) -> str:
    lines = [
        '| model | time of one image | batches measured | '
        + ' | '.join(f'error from batches up to {last}' for last in CHECK_FROM)
        + ' |',
        '| --- | ---: | --- | ' + '---: | ' * len(CHECK_FROM),
    ]
    errors = [extrapolation_errors(rows, last) for last in CHECK_FROM]
    for row in rows:
        cells = (f'{100 * of[row["model"]]:+.0f} %' if row['model'] in of else '' for of in errors)
        lines.append(
            f'| {row["model"]} | {1e3 * sum(row["stage_s"]["1"]):.0f} ms | {", ".join(row["stage_s"])} | '
            f'{" | ".join(cells)} |'
        )
    return '\n'.join(lines)


def _shares(rows: list[dict[str, Any]], pair: str) -> str:
    shown = [count for count in COUNTS if count not in BOUNDS]
    lines = [
        '| model | ' + ' | '.join(f'{count}: offload, split, local' for count in shown) + ' |',
        '| --- | ' + '--- | ' * len(shown),
    ]
    for row in rows:
        cells = [
            ', '.join(f'{100 * share:.0f}' for share in grid(row, count, pair).shares().values()) + ' %'
            for count in shown
        ]
        lines.append(f'| {row["model"]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _gains(rows: list[dict[str, Any]], pair: str) -> str:
    lines = [f'| model | over {IMAGE} | over {LOCAL} | over the best static choice |', '| --- | ---: | ---: | --- |']
    for row in rows:
        found = grid(row, 'lossless', pair)
        gains, best = found.gains(), found.best_static
        image, local = (f'{100 * of.mean():.0f} % (up to {100 * of.max():.0f} %)' for of in (gains[0], gains[-1]))
        lines.append(
            f'| {row["model"]} | {image} | {local} | {100 * gains[best].mean():.0f} % (up to '
            f'{100 * gains[best].max():.0f} %), {choice_names(row)[best]} |'
        )
    return '\n'.join(lines)


def _bounds(rows: list[dict[str, Any]]) -> str:
    lines = [
        '| pair | bytes counted | offload, split, local are best | mean gain over full offloading | over local | '
        'over the best static choice |',
        '| --- | --- | --- | ---: | ---: | --- |',
    ]
    row = next((row for row in rows if row['allowed']), None)
    for pair in PAIRS if row else ():
        for count in COUNTS:
            found = grid(row, count, pair)
            gains, best = found.gains(), found.best_static
            shares = ', '.join(f'{100 * share:.0f}' for share in found.shares().values())
            image, local, static = (f'{100 * gains[at].mean():.0f} %' for at in (0, -1, best))
            lines.append(
                f'| {pair} | {COUNTS[count]} | {shares} % | {image} | {local} | {static}, {choice_names(row)[best]} |'
            )
    return '\n'.join(lines)


def draw(document: dict[str, Any], folder: Path, source: str) -> None:
    """Write the pictures of docs/paper.md; each file names ``source``, the digest of the document that it shows."""
    rows = document['models']
    for name, figure in (('paper_map.png', _map(rows)), ('paper_shares.png', _bars(rows))):
        figure.savefig(folder / name, dpi=110, metadata={'Source': source})
        plt.close(figure)


#: What the map shows: model, pair, count of bytes, and load.
PANELS = (
    ('efficientnet_b0', 'fast', 'elements', 1.0), ('efficientnet_b0', 'fast', 'bytes', 1.0),
    ('efficientnet_b0', 'fast', 'lossless', 1.0),
    ('efficientnet_b0', 'GPU', 'elements', 1.0), ('efficientnet_b0', 'GPU', 'bytes', 1.0),
    ('efficientnet_b0', 'GPU', 'lossless', 1.0),
    ('efficientnet_lite0', 'GPU', 'lossless', 1.0), ('efficientnet_lite0', 'GPU', '0.98', 1.0),
    ('efficientnet_lite0', 'GPU', '0.95', 1.0),
)  # fmt: skip


def _map(rows: list[dict[str, Any]]) -> Any:
    known = {row['model']: row for row in rows}
    figure, axes = plt.subplots(3, 3, figsize=(11, 9.2), sharex=True, sharey=True, layout='constrained')
    for axis, (model, pair, count, load) in zip(axes.flat, PANELS):
        if model not in known or count not in counts(known[model]):
            continue
        found = grid(known[model], count, pair)
        choices = len(found.latency_s)
        colours = ListedColormap([colormaps['viridis'](at / (choices - 1)) for at in range(choices)])
        best = found.best[LOADS.index(load)]
        axis.pcolormesh(
            RATES_BYTES_S / 1e6,
            BATCHES,
            best,
            cmap=colours,
            norm=BoundaryNorm(np.arange(-0.5, choices), choices),
            shading='nearest',
            rasterized=True,
        )
        axis.set_xscale('log')
        axis.set_xlim(1, 127)
        axis.set_xticks([1, 2, 5, 10, 20, 50, 127], ['1', '2', '5', '10', '20', '50', '127'])
        axis.minorticks_off()
        axis.set_title(f'{model}, {pair} pair\n{COUNTS[count]}', fontsize=8)
        for choice in np.unique(best):
            rows_at, columns = np.nonzero(best == choice)
            if len(rows_at) > 0.02 * best.size:
                name = 'offload' if choice == 0 else 'local' if choice == choices - 1 else f'split {choice}'
                axis.text(
                    np.exp(np.log(RATES_BYTES_S[columns] / 1e6).mean()),
                    rows_at.mean() + 1,
                    name,
                    ha='center',
                    va='center',
                    fontsize=9,
                    color='white' if choice < 0.6 * choices else 'black',
                )
    for axis in axes[-1]:
        axis.set_xlabel('data rate, MB/s')
    for axis in axes[:, 0]:
        axis.set_ylabel('batch')
    figure.suptitle('best choice without load on the server')
    return figure


def _bars(rows: list[dict[str, Any]]) -> Any:
    shown = [count for count in COUNTS if count not in BOUNDS]
    figure, axes = plt.subplots(1, 3, figsize=(12, 1.2 + 0.42 * len(rows)), sharey=True, layout='constrained')
    for axis, pair in zip(axes, PAIRS):
        for number, count in enumerate(shown):
            shares = [100 * grid(row, count, pair).shares()['split'] for row in rows]
            axis.barh(np.arange(len(rows)) + 0.27 * (number - 1), shares, height=0.25, label=COUNTS[count])
        axis.set_yticks(range(len(rows)), [row['model'] for row in rows])
        axis.set_xlabel('conditions in which a split is best, %')
        axis.set_title(f'{pair} pair: {PAIRS[pair].words}'.replace(', and', ',\nand'), fontsize=8)
        axis.grid(axis='x', alpha=0.3)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8, loc='lower right')
    return figure
