# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The example without ROS: two processes, every split, the whole model's bits."""

from pathlib import Path
import subprocess
import sys

import pytest
from worlds import DEADLINE_S

EXAMPLE = Path(__file__).resolve().parents[3] / 'examples' / 'two_processes.py'


@pytest.mark.timeout(180)
def test_every_split_gives_the_same_bits() -> None:
    command = [sys.executable, str(EXAMPLE)]
    with subprocess.Popen([*command, 'edge'], stdout=subprocess.PIPE, text=True) as edge:
        try:
            port = edge.stdout.readline().strip()
            robot = subprocess.run([*command, 'robot', port], capture_output=True, text=True, timeout=90)
            assert edge.wait(DEADLINE_S) == 0
        finally:
            edge.kill()
    assert robot.returncode == 0, robot.stderr
    lines = robot.stdout.splitlines()
    assert len(lines) > 3 and all(line.endswith(': the same, bit for bit') for line in lines), robot.stdout
