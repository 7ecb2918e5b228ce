# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The checkers find nothing: ruff and mypy as pyproject.toml sets them, and ament's where they are installed."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = [str(ROOT / name) for name in ('bench', 'cmake', 'dynsplit_ros', 'examples', 'launch', 'scripts', 'test')]
#: ament_flake8's own settings, with our line length and our package's name. Not checked: E203, slices as formatters
#: write them; A00, names that are a builtin's elsewhere; CNL, an empty line below a class; I, which ruff checks.
FLAKE8 = """
[flake8]
extend-ignore = A00,B902,C816,CNL100,D10,D203,D212,D401,D404,E128,E203,I100,I101,I201,I202,I300,W503
import-order-style = google
max-line-length = 120
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize('command', ['ruff check', 'ruff format --check', 'mypy'])
def test_nothing_is_found(command: str) -> None:
    program, *arguments = command.split()
    pytest.importorskip(program, reason=f'{program} is not installed')
    environment = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'MYPYPATH')}
    # mypy keeps its cache in the checkout, so that the next run looks at what has changed only.
    result = subprocess.run(
        [sys.executable, '-m', program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_ament_copyright(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    main = pytest.importorskip('ament_copyright.main', reason='ament_copyright is not installed')
    parser = importlib.import_module('ament_copyright.parser')
    apache2 = importlib.import_module('ament_copyright.licenses').apache2
    ours = apache2._replace(file_headers=[*apache2.file_headers, 'SPDX-License-Identifier: Apache-2.0'])
    monkeypatch.setattr(parser, 'get_licenses', lambda: {'apache2': ours})
    monkeypatch.setattr(parser, 'get_copyright_names', lambda: {'ours': 'dynsplit_ros developers'})
    assert main.main(FOLDERS) == 0, capsys.readouterr().out


def test_ament_pep257(capsys: pytest.CaptureFixture[str]) -> None:
    main = pytest.importorskip('ament_pep257.main', reason='ament_pep257 is not installed')
    assert main.main(['--ignore', *main._ament_ignore, 'D401', 'D415', '--', *FOLDERS]) == 0, capsys.readouterr().out


def test_ament_flake8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main = pytest.importorskip('ament_flake8.main', reason='ament_flake8 is not installed')
    config = tmp_path / 'flake8.ini'
    config.write_text(FLAKE8)
    assert main.main(['--config', str(config), *FOLDERS]) == 0, ''.join(capfd.readouterr())[-5000:]
