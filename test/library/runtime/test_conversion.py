# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A process converts parts while a node works; it can fail or be ended at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
import json
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
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime.conversion import (
    ANSWER,
    COMMAND,
    Conversion,
    ConversionClosed,
    ConversionRequest,
    ConversionResult,
)

#: Longest wait for the process, in seconds: it imports torch on a machine that may be busy.
PATIENCE_S = 240
#: A conversion that does not end.
FOR_EVER = '__import__("time").sleep(600)'
#: A model with few operations: what is tested here is what passes between two processes.
MODEL = {'name': 'own_model:build', 'weights': 'none', 'input_size': [32, 32]}
EXAMPLES = Path(__file__).resolve().parents[3] / 'examples'


@pytest.fixture(autouse=True)
def model_is_found(monkeypatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def request(fingerprint: str = 'none', **changes: Any) -> ConversionRequest:
    return ConversionRequest(
        **{
            'model': MODEL,
            'options': {},
            'fingerprint': fingerprint,
            'engine': 'openvino',
            'precision': 'float32',
            'heads': True,
            'tails': False,
            'threads': 1,
            **changes,
        }
    )


class Heard:
    """What a conversion tells."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.answer: ConversionResult | None = None
        self.fault = ''

    def read(self, answer: ConversionResult, check: Callable[[], None]) -> Callable[[], None]:
        self.answer = answer
        return self.told.set

    def failed(self, fault: str) -> None:
        self.fault = fault
        self.told.set()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def converted(asked: ConversionRequest, *command: str) -> Heard:
    heard = Heard()
    conversion = Conversion(asked, heard.read, heard.failed, *([command] if command else []))
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
    assert set(split.add_engine('openvino', **kept).values()) == {'it is not converted yet'} and split.engines == (
        'eager',
    )
    heard = converted(request(split.fingerprint, batches=[1]))
    assert heard.answer is not None and (heard.fault, heard.answer.reasons) == ('', {})
    monkeypatch.setattr(torch.export, 'export', None)  # whoever converts here fails
    assert split.add_engine('openvino', **kept) == {}
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(split.head(split.local_index, 'openvino')(image), split.whole(image))
    profile = Profile.from_document(heard.answer.profile, 'the profile')
    assert profile.engines == split.engines
    assert not list(tmp_path.glob('dynsplit_ros/*.yaml')), 'a profile that was measured beside live frames is kept'


@pytest.mark.timeout(300)
def test_a_model_that_has_changed_since_is_named() -> None:
    assert 'start the node again' in converted(request('0123456789ab')).fault


@pytest.mark.parametrize(
    'code, said',
    [
        ('import sys; sys.exit("no memory")', 'the process that converts ended: no memory'),
        ('import os; os.kill(os.getpid(), 9)', 'the process that converts ended: exit code -9'),
        ('print("[]")', 'the process that converts ended: exit code 0'),
    ],
)
def test_a_process_that_ends_without_an_answer_is_reported_in_one_sentence(code, said) -> None:
    assert converted(request(), sys.executable, '-S', '-c', code).fault == said


def test_the_process_ends_when_the_node_has_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, '-c', f'import os; os.nice = lambda by: {FOR_EVER}; {COMMAND}'],
        stdin=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    least_kept = Path(f'/proc/{process.pid}/oom_score_adj')
    wait_until(lambda: least_kept.read_text() == '1000\n')  # short of memory, the kernel ends it before the node
    process.stdin.write(b'{"niceness": 0}\n')
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 1


def test_a_conversion_that_is_closed_ends_its_process_and_tells_nothing(tmp_path: Path) -> None:
    heard, started = Heard(), tmp_path / 'started'
    code = f'open({str(started)!r}, "w").close(); {FOR_EVER}'
    conversion = Conversion(request(), heard.read, heard.failed, (sys.executable, '-S', '-c', code))
    wait_until(started.exists)
    conversion.close(60.0)
    assert not heard.told.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == 'conversion']


def answering(answer: ConversionResult, before: str = '', after: str = '') -> tuple[str, ...]:
    """Return a command that gives this answer; code before and after it can use ``asked``, the request's text."""
    said = f'{ANSWER}{json.dumps(asdict(answer))}'
    return sys.executable, '-S', '-c', f'asked = input()\n{before}\nprint({said!r})\n{after}'


def test_a_conversion_that_is_closed_while_the_node_reads_the_parts_takes_no_further_step() -> None:
    reading, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    heard = Heard()

    def read(answer: ConversionResult, check: Callable[[], None]) -> Callable[[], None]:
        reading.set()
        assert go_on.wait(PATIENCE_S)
        try:
            check()
        except ConversionClosed:
            closed.set()
        return heard.told.set  # as if the conversion had been closed after the last check

    conversion = Conversion(request(), read, heard.failed, answering(ConversionResult(converted=1)))
    assert reading.wait(PATIENCE_S)
    conversion.close(0.0)
    go_on.set()
    conversion.close(PATIENCE_S)
    assert closed.is_set() and not heard.told.is_set()


def test_parts_are_read_although_they_could_not_be_profiled() -> None:
    fails = 'import json, sys; json.loads(asked)["batches"] and sys.exit("no memory")'
    heard = converted(request(batches=[1]), *answering(ConversionResult(converted=1), before=fails))
    assert heard.answer == ConversionResult(converted=1, error='the process that converts ended: no memory')


def test_nothing_is_profiled_where_no_part_could_be_converted(tmp_path: Path) -> None:
    counts = f'open({str(tmp_path / "processes")!r}, "a").write("one ")'
    heard = converted(request(batches=[1]), *answering(ConversionResult({'head of a': 'no'}), counts))
    assert heard.answer == ConversionResult({'head of a': 'no'})
    assert (tmp_path / 'processes').read_text() == 'one '


def test_lines_that_a_library_writes_around_the_answer_change_nothing() -> None:
    goodbye = 'import sys; print("bye", file=sys.stderr)'
    heard = converted(request(), *answering(ConversionResult(converted=2), after=goodbye))
    assert heard.answer == ConversionResult(converted=2)


def test_the_process_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    package = tmp_path / 'installed' / 'dynsplit_ros' / 'runtime'
    package.mkdir(parents=True)
    (package / 'conversion.py').write_text('def main() -> None:\n    print("installed")\n')
    (tmp_path / 'dynsplit_ros.py').write_text('print("the working directory")')
    assert (
        subprocess.run(
            [sys.executable, '-S', '-c', COMMAND],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            env={'PYTHONPATH': str(tmp_path / 'installed')},
        ).stdout
        == b'installed\n'
    )
