# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The reference tables say what the code declares."""

from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[2]


def test_reference_is_not_stale() -> None:
    code = 'import runpy, sys; sys.path[:1] = []; runpy.run_path(sys.argv[0], run_name="__main__")'
    code = f'import sys; sys.argv = sys.argv[1:]; {code}'
    command = [sys.executable, '-c', code, str(ROOT / 'scripts' / 'reference.py'), '--check']
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
