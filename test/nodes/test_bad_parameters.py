# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Bad values of every parameter, tried in this process: each is refused with one sentence, or works."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.nodes.monitor_node import settings_of
from dynsplit_ros.nodes.split_model import load
from dynsplit_ros.parameters import allowed_models, CAMERA, EDGE, LINK_EMULATOR, MODEL, MONITOR, SOURCE
from dynsplit_ros.sources import open_source

NODES = {
    'camera_node': CAMERA,
    'edge_node': EDGE,
    'monitor_node': MONITOR,
    'image_source': SOURCE,
    'link_emulator': LINK_EMULATOR,
}
NAN, INF = float('nan'), float('inf')
ANYTHING = [
    None,
    True,
    3,
    -1,
    2**63 - 1,
    0.5,
    NAN,
    INF,
    -INF,
    1e308,
    '',
    'text',
    '\0',
    'x' * 10_000,
    b'bytes',
    {},
    [],
    [None],
    [True],
    [1],
    [-1, 2],
    [0.5],
    [NAN, 1.0, 2.0],
    [INF],
    [''],
    ['text'],
    ['a', 1],
    [[]],
    [b'x'],
]
OWN = """
from torch import nn
def ok(n=3): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))
def boom(): raise RuntimeError('boom')
def unfit(): return nn.Linear(7, 3)
class Text(nn.Module):
    def forward(self, image): return 'text'
"""
MODEL_VALUES = {
    'model': [
        '',
        'none',
        '/tmp',
        '\0',
        ':',
        'a:',
        'own:',
        '..own:ok',
        'own:boom',
        'own:unfit',
        'own:Text',
        'broken:ok',
        'raises:ok',
        'os:getcwd',
        'folder.pt2',
        'junk.pt2',
        'missing.pt2',
        'x' * 5000,
        'pipe.pt2',
        'dangling.pt2',
        'junk.pth/below.pt2',
    ],
    'weights': [
        '',
        'default',
        'IMAGENET1K_V1',
        '/tmp',
        'folder.pth',
        'junk.pth',
        'junk.safetensors',
        'list.pth',
        'pipe.pth',
        'dangling.pth',
        'junk.pth/below.pth',
        'other.pth',
        '\0.pth',
        'a/' * 3000 + '.pth',
    ],
    'model_arguments': ['[', '[]', 'null', '[' * 100_000, '{"n": -3}', '{"n": "a"}', '{"m": 1}', '{"\\ud800": 1}'],
    'profile': [
        '/missing',
        '/tmp',
        'junk.pth',
        'folder.pth',
        'date.yaml',
        '\0',
        '/dev/null',
        'x' * 5000,
        '/dev/zero',
        'pipe',
        'dangling',
        'junk.pth/below',
    ],
    'device': [
        '',
        'none',
        'cuda:99',
        'meta',
        'cpu:-1',
        'hpu',
        'privateuseone',
        'xla',
        '\0',
        'cpu:99999999999999999999',
    ],
    'std': [[1.0], [1.0, 0.0, 1.0], [1.0] * 4, []],
    'mean': [[1.0], [1e3] * 3],
    'input_size': [[1, 1], [0, 5], [5], [5, 0], [], [1, 2, 3]],
    'leaves': [[], ['none'], ['\0'], ['Sequential']],
    'labels': [[], ['a'] * 5],
    'task': ['segmentation', 'detection'],
}


@pytest.mark.parametrize(('node', 'name'), [(node, each.name) for node, declared in NODES.items() for each in declared])
def test_a_value_that_is_not_allowed_is_refused(node: str, name: str) -> None:
    declaration = next(each for each in NODES[node] if each.name == name)
    for value in ANYTHING:
        try:
            taken = declaration.check(value)  # type: ignore[arg-type]
        except DynsplitError as error:
            assert repr(name) in str(error) and '\n' not in str(error) and len(str(error)) < 1000
            continue
        assert type(taken) is type(declaration.default)
        if node == 'monitor_node':
            settings_of(SimpleNamespace(**{each.name: each.default for each in MONITOR} | {name: taken}))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with modules and files that cannot be used."""
    for name in ('folder.pt2', 'folder.pth'):
        (tmp_path / name).mkdir()
    for name in ('junk.pt2', 'junk.pth', 'junk.safetensors'):
        (tmp_path / name).write_bytes(b'\xff\0junk: [')
    for suffix in ('', '.pth', '.pt2'):
        os.mkfifo(tmp_path / f'pipe{suffix}')
        (tmp_path / f'dangling{suffix}').symlink_to('nowhere')
    for name, text in {'own.py': OWN, 'broken.py': 'def (', 'raises.py': '1 / 0', 'date.yaml': 'a: 2026-99-99'}.items():
        (tmp_path / name).write_text(text)
    torch.save([1], tmp_path / 'list.pth')
    torch.save({'x': torch.zeros(3)}, tmp_path / 'other.pth')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.mark.timeout(300)
@pytest.mark.parametrize('name', MODEL_VALUES)
def test_a_model_that_cannot_be_had_is_refused(own: None, name: str) -> None:
    given = {each.name: each.default for each in CAMERA} | {
        'model': 'own:ok',
        'weights': 'none',
        'input_size': [16, 16],
        'threads': 1,
    }
    log = SimpleNamespace(info=lambda text: None, warning=lambda text: None)
    refused = 0
    for value in MODEL_VALUES[name]:
        values = SimpleNamespace(**given | {name: value} | ({'std': [1.0] * 3} if name == 'mean' else {}))
        try:
            load(SimpleNamespace(get_logger=lambda: log, models=allowed_models(vars(values))), values, 1, is_edge=False)
        except DynsplitError as error:
            refused += 1
            assert len(str(error)) < 1000 + len(str(value)) and '\n' not in str(error)
    assert refused or name in ('leaves', 'labels', 'task')


def test_the_values_above_are_of_parameters() -> None:
    assert MODEL_VALUES.keys() <= {each.name for each in MODEL}


@pytest.mark.parametrize(
    'path',
    [
        '/missing',
        '/dev',
        '\0',
        '/dev/null',
        'x' * 5000,
        '99',
        '9' * 30,
        '²',
        'junk.mp4',
        'junk',
        'junk/below.png',
        'pipe',
        'dangling',
        'pipe.png',
        'pipes',
    ],
)
def test_a_source_that_cannot_be_played_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('junk.mp4', 'junk'):
        (tmp_path / name).write_bytes(b'junk')
    (tmp_path / 'pipes').mkdir()
    for name in ('pipe', 'pipe.png', 'pipes/pipe.png'):
        os.mkfifo(tmp_path / name)
    (tmp_path / 'dangling').symlink_to('nowhere')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DynsplitError) as error:
        open_source(path, 64, 48)
    assert '\n' not in str(error.value)
