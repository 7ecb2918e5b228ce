# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The page of benchmarks takes the figures as a benchmark wrote them, and has a place for each benchmark."""

import importlib.util
import json
from pathlib import Path
import re
import sys

from PIL import Image
import pytest

ROOT = Path(__file__).resolve().parents[3]


def module(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_figures_come_into_their_place(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['policy', '--quick'])
    figures = module('bench/figures.py').Figures()
    figures.add('mean over oracle', 1.015, '', '<= 1.03')
    figures.add('switches', 7.0, '1/min', '<= 2')
    figures.add('cores', 2, '')
    assert figures.finish(tmp_path / 'policy.json') == 1
    page = (
        'before\n<!-- bench policy -->\nPREVIOUS\n<!-- end -->\n'
        'between\n<!-- bench soak -->\nkept\n<!-- end -->\nafter\n'
    )
    made = module('scripts/benchmarks.py').render(page, tmp_path)
    assert 'PREVIOUS' not in made and 'kept' in made and made.startswith('before') and made.endswith('after\n')
    assert '**1 of 2 bars missed**, by `./run bench policy --quick` on 2' in made
    assert '| mean over oracle | 1.015 |  | <= 1.03 | yes |' in made
    assert '| switches | 7 | 1/min | <= 2 | **no** |' in made and '| cores | 2 |  |  |  |' in made


def test_simulations_come_into_their_places() -> None:
    simulations = module('scripts/simulations.py')
    means = {'dynamic': 0.1, 'oracle': 0.09, '0': 0.2, '1': 0.15, '2': 0.3}
    rows = [
        {'rate_mbps': rate, 'policy': policy, 'mean_s': str(mean_s / int(rate))}
        for rate in ('1', '2')
        for policy, mean_s in means.items()
    ]
    rates, models = simulations.rate_table(rows), simulations.model_table({'net': rows[:5]})
    assert rates.splitlines()[0] == '| Mbit/s | split 0 | 1 | local | **dynamic** |'
    assert rates.splitlines()[3] == '| 2 | 100 | **75** | 150 | 50 |'
    assert models.splitlines()[2] == '| net | 300 ms | 200 ms | 150 ms (1) | **100 ms** | 90 ms |'
    page = simulations.PAGE.read_text()
    made = simulations.render(page, {'rates': rates, 'models': models})
    assert rates in made and models in made
    assert simulations.render(made, {}) == made and len(re.findall('<!-- end -->', made)) == 4
    assert [command.split()[:2] for command in simulations.commands(page).values()] == [['./run', 'simulate']] * 4


def test_each_benchmark_has_a_place() -> None:
    programs = {path.stem for path in (ROOT / 'bench').glob('*.py') if "'__main__'" in path.read_text()}
    places = re.findall(r'<!-- bench (\S+) -->', (ROOT / 'docs' / 'benchmarks.md').read_text())
    assert programs <= set(places)


#: Places of docs/benchmarks.md without the file of a run, and so without a table. A new run removes its name from here.
WITHOUT_FILE = {'ablation', 'codecs', 'partition', 'soak', 'mutants', 'overlap'}
PAGES = module('scripts/benchmarks.py').PAGES


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_each_page_is_made_from_the_committed_files(page: Path) -> None:
    text = page.read_text()
    assert module('scripts/benchmarks.py').render(text) == text, 'run ./run exec python scripts/benchmarks.py'


def test_a_place_has_figures_exactly_if_it_has_a_file() -> None:
    places = dict(
        re.findall(r'<!-- bench (\S+) -->\n(.*?)<!-- end -->', (ROOT / 'docs' / 'benchmarks.md').read_text(), re.DOTALL)
    )
    assert {name for name, shown in places.items() if '|' not in shown} == WITHOUT_FILE
    assert {name for name in places if not (ROOT / 'docs' / 'data' / f'{name}.json').is_file()} == WITHOUT_FILE


def test_the_simulations_are_those_of_the_committed_files() -> None:
    simulations = module('scripts/simulations.py')
    page = simulations.PAGE.read_text()
    for path, tables in ((simulations.DATA, simulations.tables), (simulations.TRACES, simulations.trace_tables)):
        if path.is_file():
            assert simulations.render(page, tables(json.loads(path.read_text()))) == page


def test_the_table_of_images_says_what_each_form_costs() -> None:
    row = {
        'name': 'H.264, CRF 28',
        'width': 640,
        'height': 480,
        'bytes': 2048.0,
        'same_class': 0.975,
        'encode_s': 0.0061,
        'decode_s': 0.003,
    }
    document = {
        'measured': {'when': '2026-11-30', 'commit': 'abc'},
        'rate_hz': 10.0,
        'rows': [row],
        'model': 'net',
        'photographs': ['a.png'],
        'figures': [{'name': 'images', 'value': 20}],
    }
    shown = module('bench/images_results.py').tables(document)['table']
    assert '| 640 × 480 | H.264, CRF 28 | 2.0 | 0.16 | 97.5 % | 6.1 ms | 3.0 ms |' in shown
    assert shown.endswith('net, 20 images of 1 photographs, 2026-11-30, commit abc.')


def test_the_table_of_codecs_shows_bytes_and_agreement_of_each_split() -> None:
    def row(cut: int, codec: str, agreement: float, given_up: bool = False) -> dict[str, object]:
        return {'cut': cut, 'codec': codec, 'bytes': 1024.0, 'agreement': agreement, 'given_up': given_up}

    figures = {
        'photographs of the test, 1008 crops': 21,
        'best image codec for 0.98 (lossless)': 74.7,
        'split 1 (conv): smallest lossless payload': 241.5,
    }
    shown = module('bench/agreement_results.py').tables(
        {
            'measured': {'when': '2026-11-29'},
            'figures': [{'name': name, 'value': each} for name, each in figures.items()],
            'test': [row(0, 'jpeg75', 0.8, True), row(0, 'jpeg98', 0.946), row(1, 'quant8-zstd', 0.996)],
        }
    )['codecs']
    assert shown.splitlines()[2:6] == [
        '| smallest lossless | 74.7 KiB | 241.5 KiB |',
        '| `jpeg98` | 1.0 KiB, 94.6 % |  |',
        '| `jpeg75` | 1.0 KiB, below 90 % |  |',
        '| `quant8-zstd` |  | 1.0 KiB, 99.6 % |',
    ]
    assert shown.endswith('1008 crops of 21 photographs, 2026-11-29, by a run that did not record its commit.')


@pytest.mark.parametrize('picture', ['paper_map.png', 'paper_shares.png'])
def test_a_picture_is_drawn_from_the_committed_file(picture: str) -> None:
    data = ROOT / 'docs' / 'data' / f'{picture.partition("_")[0]}.json'
    with Image.open(ROOT / 'docs' / picture) as image:
        assert image.text['Source'] == module('scripts/benchmarks.py').source(data)
