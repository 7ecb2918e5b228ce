# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Bad arguments of every tool: one sentence on standard error, and exit code 2."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
import sys

import pytest

PROFILE = str(Path(__file__).parents[2] / 'data' / 'alexnet.yaml')
WITH = ['--edge-profile', PROFILE]
TINY = ['own:ok', '--input-size', '32', '32']

OWN = """
import torch
from torch import nn
def ok(n=3): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))
def boom(): raise RuntimeError('boom')
def key(): raise KeyError
def unfit(): return nn.Linear(7, 3)
def none(): return None
class Text(nn.Module):
    def forward(self, image): return 'text'
"""
MODELS = [
    ['no_such_model'],
    [],
    [''],
    ['\0'],
    [':'],
    ['a:'],
    ['..own:ok'],
    ['own:none'],
    ['own:boom'],
    ['own:key'],
    ['own:unfit'],
    ['own:Text'],
    ['broken:ok'],
    ['raises:ok'],
    ['folder.pt2'],
    ['junk.pt2'],
    ['x' * 300 + '.pt2'],
    [*TINY, '--weights', 'folder.pth'],
    [*TINY, '--weights', 'pipe.pth'],
    [*TINY, '--weights', 'junk.pth/x.pth'],
    [*TINY, '--weights', 'junk.pth'],
    [*TINY, '--weights', 'junk.safetensors'],
    [*TINY, '--weights', 'a/' * 3000 + '.pth'],
    *([*TINY, '--model-arguments', text] for text in ('[', '{"n": -3}', '{"n": "a"}', '{"other": 1}')),
    ['own:ok', '--input-size', '1', '1'],
    ['own:ok', '--input-size', '0', '-1'],
    [*TINY, '--mean', '1', '2', 'nan', '--std', '1', '1', '1'],
    [*TINY, '--mean', '1', '2', '3'],
    [*TINY, '--seed', '9' * 30],
    [*TINY, '--task', 'none'],
    [*TINY, '--none'],
]
FILES = [
    'missing.yaml',
    'folder',
    'pipe',
    'dangling',
    'junk.yaml/below',
    '/dev/zero',
    'junk.yaml',
    'date.yaml',
    'list.yaml',
    'empty.yaml',
    '\0',
    'x' * 5000,
]
SYSTEM = [
    *([option, file] for option in ('--edge-profile', '--robot-profile') for file in FILES),
    [],
    *(
        [*WITH, *rest]
        for rest in (
            ['--rate', '0'],
            ['--rate', 'nan'],
            ['--round-trip', '-1'],
            ['--slowdown', '1e300'],
            ['--codec', 'none'],
            ['--shallowest-split', '-1'],
            ['--shallowest-split', '99'],
            ['--bandwidth', '-1'],
            ['--bandwidth', 'inf'],
            ['--objective', 'none'],
        )
    ),
    ['own:boom'],
    ['no_such_model'],
    [*TINY[:1], '--threads', '0'],
    [*TINY[:1], '--threads', '99999999'],
]
BAD = {
    'cuts': [
        *MODELS,
        [*TINY, '--json', 'folder'],
        [*TINY, '--json', '/proc/none/x.json'],
        [*TINY, '--json', '\0'],
        [*TINY, '--json', 'pipe'],
        [*TINY, '--json', 'junk.yaml/below'],
    ],
    'profile': [
        ['own:boom'],
        ['own:unfit'],
        *(
            [*TINY, *rest]
            for rest in (
                ['--repeats', '0'],
                ['--repeats', '-1'],
                ['--warm-up', '-1'],
                ['--threads', '-1'],
                ['--threads', '99999999'],
                ['--batch', '0'],
                ['--batch', 'x'],
                ['--image', 'missing.png'],
                ['--image', 'folder'],
                ['--image', 'pipe.png'],
                ['--plot', 'pipe.png'],
                ['--output', 'pipe'],
                ['--image', 'junk.png'],
                ['--codec', 'none'],
                ['--output', 'folder'],
                ['--output', '/proc/none/x.yaml'],
                ['--plot', 'plot.txt'],
                ['--plot', 'folder.png'],
                ['--device', 'none'],
                ['--device', 'hpu'],
                ['--device', 'meta'],
            )
        ),
    ],
    'advise': [
        *SYSTEM,
        *(
            [*WITH, *rest]
            for rest in (
                ['--link', '5', '1'],
                ['--link', '-1', '1'],
                ['--link', 'nan', '1'],
                ['--loads', '0'],
                ['--loads', 'x'],
                ['--plot', 'folder.png'],
                ['--json', 'folder'],
                ['--json', '/proc/none/x.json'],
            )
        ),
    ],
    'simulate': [
        *SYSTEM,
        *(
            [*WITH, *rest]
            for rest in (
                ['--link', 'none'],
                ['--link', 'markov:'],
                ['--link', 'markov:1'],
                ['--link', 'markov:a,b,c'],
                ['--link', 'markov:-1,2,3'],
                ['--link', 'constant:nan'],
                ['--trace', 'missing.csv'],
                ['--trace', 'folder'],
                ['--trace', 'pipe'],
                ['--trace', 'dangling'],
                ['--trace', 'junk.yaml/below'],
                ['--trace', 'junk.yaml'],
                ['--workers', 'x'],
                ['--output', 'junk.yaml'],
                ['--output', '/proc/none'],
                ['--figure', 'none'],
            )
        ),
    ],
    'report': [
        [],
        ['missing'],
        ['folder'],
        ['junk.yaml'],
        ['junk.mcap'],
        ['junk.db3'],
        ['list.json'],
        ['dict.json'],
        ['pipe.json'],
        ['pipe.mcap'],
        ['pipe'],
        ['dangling'],
        ['junk.yaml/below'],
        ['/dev/zero'],
        ['\0'],
        ['/dev/null'],
        ['junk.mcap', '--output', 'folder'],
        ['x' * 5000],
    ],
    'top': [
        ['--period', '0'],
        ['--period', 'nan'],
        ['--period', 'x'],
        ['--once', '--wait', '-1'],
        ['--once', '--wait', 'nan'],
        ['--once', '--wait', 'inf'],
        ['more'],
    ],
    'demo': [
        ['--seconds', '1'],
        ['--seconds', 'nan'],
        ['--seconds', 'inf'],
        ['--rate', '0'],
        ['--rate', 'nan'],
        ['--slowdown', '0.5'],
        ['--json', 'folder'],
        ['more'],
    ],
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with files that cannot be used."""
    for name in ('folder', 'folder.pt2', 'folder.pth', 'folder.png'):
        (tmp_path / name).mkdir()
    for name in ('junk.pth', 'junk.safetensors', 'junk.pt2', 'junk.yaml', 'junk.png', 'junk.mcap', 'junk.db3'):
        (tmp_path / name).write_bytes(b'\xff\x00junk: [')
    for name in ('pipe', 'pipe.pth', 'pipe.json', 'pipe.mcap', 'pipe.png'):
        os.mkfifo(tmp_path / name)
    (tmp_path / 'dangling').symlink_to('nowhere')
    for name, text in {
        'date.yaml': 'a: 2026-99-99',
        'list.yaml': '[1, 2]',
        'empty.yaml': '',
        'list.json': '[]',
        'dict.json': '{"frames": 3}',
        'own.py': OWN,
        'broken.py': 'def (',
        'raises.py': '1 / 0',
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        pytest.param(tool, arguments, id=f'{tool}-{number}')
        for tool, tries in BAD.items()
        for number, arguments in enumerate(tries)
    ],
)
def test_a_bad_argument_is_said_in_one_sentence(
    tool: str, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('sys.argv', [tool])
    main = importlib.import_module(f'dynsplit_ros.tools.{tool}').main
    for name in ('own', 'broken', 'raises'):
        sys.modules.pop(name, None)
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse
        code = end.code
    said = capsys.readouterr()
    assert code == 2, said
    both = said.err + said.out  # the demo has all that it says on standard output
    assert 'Traceback' not in both
    assert len([line for line in both.splitlines() if line.startswith(f'{tool}: ')]) == 1, said
