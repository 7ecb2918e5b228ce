# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Simulate what docs/how_it_decides.md tells, and put the figures there: ``./run exec python scripts/simulations.py``.

With ``--traces FOLDER`` it simulates only the measured links in that folder: columns time_s,rate_mbps in CSV files.

Some minutes. The rows go to docs/data/simulations.json. In the page, tables of that file replace what stands between
``<!-- simulation NAME -->`` and ``<!-- end -->``; docs/simulation.png is replaced, too. The files of each simulation
stay in out/simulation.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
import re
import shutil
import sys
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'how_it_decides.md'
DATA = ROOT / 'docs' / 'data' / 'simulations.json'
TRACES = ROOT / 'docs' / 'data' / 'link_traces.json'
OUT = ROOT / 'out' / 'simulation'
#: Further models of the page; test/data has their profiles.
MODELS = ('mobilenet_v2', 'efficientnet_b0', 'resnet50')
#: Part of a measured link that is simulated, in seconds, and the profiles of test/data that are used.
TRACE_S, TRACE_MODELS = 120, ('efficientnet_b0',)


def main() -> None:
    """Run the page's own commands, keep their rows, and renew the page."""
    sys.path.append(str(ROOT))
    from bench.figures import measured
    from dynsplit_ros.tools import simulate

    runs = commands(PAGE.read_text())
    for model, command in runs.items():
        print(model, flush=True)
        arguments = command.removeprefix('./run simulate').split()
        if simulate.main([*arguments, '--output', str(OUT / model)]):
            raise SystemExit(1)
    shutil.copy(OUT / 'alexnet' / 'time.png', ROOT / 'docs' / 'simulation.png')
    document = {
        'measured': {**measured(), 'command': './run exec python scripts/simulations.py'},
        'rates': read(OUT / 'alexnet' / 'rates.csv'),
        'models': {model: read(OUT / model / 'policies.csv') for model in runs},
    }
    DATA.write_text(json.dumps(document, indent=1) + '\n')
    PAGE.write_text(render(PAGE.read_text(), tables(document)))


def follow_traces(folder: Path) -> None:
    """Simulate each measured link in a folder with each profile in test/data, keep the rows, and renew the page."""
    sys.path.append(str(ROOT))
    from bench.figures import measured
    from dynsplit_ros.tools import simulate

    rows = {}
    for trace in sorted(folder.glob('*.csv')):
        for model in TRACE_MODELS:
            output = OUT / f'{trace.stem}.{model}'
            if simulate.main(
                [
                    '--edge-profile',
                    str(ROOT / 'test' / 'data' / f'{model}.yaml'),
                    '--trace',
                    str(trace),
                    '--seconds',
                    str(TRACE_S),
                    '--workers',
                    '1',
                    '--output',
                    str(output),
                ]
            ):
                raise SystemExit(1)
            rows[f'{trace.stem}, {model}'] = read(output / 'policies.csv')
    command = './run exec python scripts/simulations.py --traces FOLDER'
    document = {'measured': {**measured(), 'command': command}, 'rows': rows}
    TRACES.write_text(json.dumps(document, indent=1) + '\n')
    PAGE.write_text(render(PAGE.read_text(), trace_tables(document)))


def trace_tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the table of the measured links by the name of its place."""
    facts = document['measured']
    return {
        'traces': f'{model_table(document["rows"])}\n\n`{facts["command"]}`, {facts["when"]}, commit {facts["commit"]}.'
    }


def tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page by the names of their places."""
    facts = document['measured']
    where = f'`{facts["command"]}`, {facts["when"]}, commit {facts["commit"]}.'
    return {'rates': rate_table(document['rates']), 'models': f'{model_table(document["models"])}\n\n{where}'}


def commands(page: str) -> dict[str, str]:
    """Return the page's commands by model."""
    lines = re.search(r'<!-- simulation commands -->\n```sh\n(.*?)```', page, re.DOTALL)[1]
    alexnet, first = lines.replace('\\\n', ' ').strip().splitlines()
    return {'alexnet': alexnet} | {model: first.partition('#')[0].replace(MODELS[0], model) for model in MODELS}


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def rate_table(rows: list[dict[str, str]]) -> str:
    """Return the mean latency of each policy at each rate as Markdown, the best fixed split bold."""
    rates = list(dict.fromkeys(row['rate_mbps'] for row in rows))
    mean_ms = {(row['rate_mbps'], row['policy']): 1000 * float(row['mean_s']) for row in rows}
    fixed = [policy for policy in dict.fromkeys(row['policy'] for row in rows) if policy.isdigit()]
    lines = [f'| Mbit/s | split {" | ".join(fixed[:-1])} | local | **dynamic** |', '| --- ' * (len(fixed) + 2) + '|']
    for rate in rates:
        best = min(fixed, key=lambda policy: mean_ms[rate, policy])
        cells = [
            f'**{mean_ms[rate, policy]:.0f}**' if policy == best else f'{mean_ms[rate, policy]:.0f}' for policy in fixed
        ]
        lines.append(f'| {" | ".join([rate, *cells])} | {mean_ms[rate, "dynamic"]:.0f} |')
    return '\n'.join(lines)


def model_table(runs: dict[str, list[dict[str, str]]]) -> str:
    """Return each model's mean latencies over one link as Markdown."""
    lines = ['| model | local inference | full offloading | best fixed split | dynamic | oracle |', '| --- ' * 6 + '|']
    for model, rows in runs.items():
        mean_ms = {row['policy']: 1000 * float(row['mean_s']) for row in rows}
        fixed = [policy for policy in mean_ms if policy.isdigit()]
        best = min(fixed, key=mean_ms.__getitem__)
        lines.append(
            f'| {model} | {mean_ms[fixed[-1]]:.0f} ms | {mean_ms["0"]:.0f} ms | {mean_ms[best]:.0f} ms '
            f'({best}) | **{mean_ms["dynamic"]:.0f} ms** | {mean_ms["oracle"]:.0f} ms |'
        )
    return '\n'.join(lines)


def render(page: str, tables: dict[str, str]) -> str:
    """Return the page with these tables in their places."""
    return re.sub(
        r'(<!-- simulation (\w+) -->\n)(.*?)(\n<!-- end -->)',
        lambda match: f'{match[1]}{tables[match[2]]}{match[4]}' if match[2] in tables else match[0],
        page,
        flags=re.DOTALL,
    )


if __name__ == '__main__':
    if sys.argv[1:2] == ['--traces'] and len(sys.argv) == 3:
        follow_traces(Path(sys.argv[2]))
    else:
        main()
