# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A process converts parts while a node works; it can fail or be ended at any time."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch

from dynsplit_ros.cache import cache_folder
from dynsplit_ros.engines import ENGINES
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.runtime.conversion import COMMAND, Conversion, Request

#: Longest wait for the process, in seconds: it imports torch on a machine that may be busy.
PATIENCE_S = 240
#: A conversion that does not end.
FOR_EVER = '__import__("time").sleep(600)'
MODEL = {'name': 'squeezenet1_1', 'weights': 'none', 'input_size': [32, 32]}


def request(fingerprint: str = 'none', **changes: Any) -> Request:
    return Request(**{'model': MODEL, 'options': {}, 'fingerprint': fingerprint, 'engine': 'openvino',
                      'precision': 'float32', 'heads': True, 'tails': False, 'threads': 1, **changes})


class Heard:
    """What a conversion tells."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.reasons: dict[str, str] | None = None
        self.fault = ''

    def done(self, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        self.told.set()

    def failed(self, fault: str) -> None:
        self.fault = fault
        self.told.set()


def converted(asked: Request, *command: str) -> Heard:
    heard = Heard()
    conversion = Conversion(asked, heard.done, heard.failed, *([command] if command else []))
    try:
        assert heard.told.wait(PATIENCE_S)
    finally:
        conversion.close(1.0)
    return heard


@pytest.mark.timeout(300)
def test_parts_that_another_process_has_converted_are_ready_without_a_conversion(tmp_path, monkeypatch) -> None:
    for package in ENGINES['openvino'].packages:
        pytest.importorskip(package, reason='engine openvino is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    split = SplitModel(load_model(**MODEL))
    kept = {'cache': cache_folder() / 'engines', 'tails': False, 'only_kept': True}
    assert set(split.add_engine('openvino', **kept).values()) == {
        'it is not converted yet'} and split.engines == ('eager',)
    heard = converted(request(split.fingerprint, batches=[1]))
    assert (heard.fault, heard.reasons) == ('', {})
    monkeypatch.setattr(torch.export, 'export', None)  # whoever converts here fails
    assert split.add_engine('openvino', **kept) == {}
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(split.head(split.local_index, 'openvino')(image), split.whole(image))
    assert len(list(tmp_path.glob('dynsplit_ros/*.yaml'))) == 1  # the profile


@pytest.mark.timeout(300)
def test_a_model_that_has_changed_since_is_named() -> None:
    assert 'start the node again' in converted(request('0123456789ab')).fault


@pytest.mark.parametrize('code, said', [
    ('import sys; sys.exit("no memory")', 'the process that converts ended: no memory'),
    ('import os; os.kill(os.getpid(), 9)', 'the process that converts ended: exit code -9'),
    ('print("[]")', 'the process that converts ended: exit code 0'),
])
def test_a_process_that_ends_without_an_answer_is_reported_in_one_sentence(code, said) -> None:
    assert converted(request(), sys.executable, '-S', '-c', code).fault == said


def test_the_process_ends_when_the_node_has_gone() -> None:
    process = subprocess.Popen([sys.executable, '-c', f'import os; os.nice = lambda by: {FOR_EVER}; {COMMAND}'],
                               stdin=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    assert process.stdin is not None
    process.stdin.write(b'{"niceness": 0}\n')
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 1


def test_a_conversion_that_is_closed_ends_its_process_and_tells_nothing(tmp_path: Path) -> None:
    heard, started = Heard(), tmp_path / 'started'
    code = f'open({str(started)!r}, "w").close(); {FOR_EVER}'
    conversion = Conversion(request(), heard.done, heard.failed, (sys.executable, '-S', '-c', code))
    deadline_s = time.monotonic() + PATIENCE_S
    while not started.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    conversion.close(60.0)
    assert not heard.told.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == 'conversion']
