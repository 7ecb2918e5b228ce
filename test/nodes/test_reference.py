# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The reference tables say what the code declares."""

from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[2]


def test_reference_is_not_stale() -> None:
    code = f'import sys; sys.path[:1] = []; sys.argv = ["reference", "--check"]; import runpy; runpy.run_path({str(ROOT / "scripts" / "reference.py")!r}, run_name="__main__")'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
