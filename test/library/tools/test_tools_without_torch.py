# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The tools that only calculate, and the help of all of them, start without torch, which takes seconds to import."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[3]


def modules_after(program: str, *arguments: str) -> set[str]:
    """Return the modules that a process has imported at its end."""
    code = (
        f'import sys\nsys.path.insert(0, {str(ROOT)!r})\ntry:\n    {program}\nexcept SystemExit:\n    pass\n'
        'print("MODULES", *sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition('MODULES')[2].split())


@pytest.mark.parametrize('tool', ['cuts', 'profile', 'advise', 'simulate', 'report', 'dynsplit'])
def test_help_does_not_import_torch(tool) -> None:
    modules = modules_after(f'from dynsplit_ros.tools.{tool} import main; main(["--help"])')
    assert 'argparse' in modules and 'torch' not in modules


def test_advise_and_simulate_with_profiles_do_not_import_torch(tmp_path) -> None:
    profile = ['--edge-profile', str(ROOT / 'test/data/mobilenet_v2.yaml')]
    modules = modules_after(
        'from dynsplit_ros.tools.advise import main; main(sys.argv[1:])',
        *profile,
        '--loads',
        '1',
        '--plot',
        str(tmp_path / 'a.png'),
    )
    assert 'dynsplit_ros.planner.planner' in modules and 'torch' not in modules
    modules = modules_after(
        'from dynsplit_ros.tools.simulate import main; main(sys.argv[1:])',
        *profile,
        '--seconds',
        '3',
        '--workers',
        '1',
        '--output',
        str(tmp_path / 'out'),
    )
    assert 'dynsplit_ros.simulation.world' in modules and 'torch' not in modules


def test_a_worker_of_the_simulation_does_not_import_torch() -> None:
    modules = modules_after('import dynsplit_ros.simulation.compare, dynsplit_ros.tools.simulate')
    assert 'dynsplit_ros.simulation.world' in modules and 'torch' not in modules
