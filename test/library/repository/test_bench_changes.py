# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that change the sources, ablation and mutants: their changes fit the code, and what they conclude."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[3]


def python(*arguments: str) -> str:
    """Run Python in the repository's root, and return what it prints."""
    paths = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, f'{ran.stdout[-2000:]}{ran.stderr[-2000:]}'
    return ran.stdout


def test_each_switch_of_the_ablation_fits_the_sources() -> None:
    """A switch replaces text of the product: whoever changes that text adapts bench/switches.py."""
    assert len(python('-m', 'bench.ablation', '--list').splitlines()) > 50


def test_the_mutation_check_draws_the_same_changes_for_the_same_seed() -> None:
    first, again, other = (python('-m', 'bench.mutants', '--list', '--count', '20', '--seed', seed) for seed in '112')
    assert first == again != other and len(first.splitlines()) == 20


ELIMINATION = '''
import math
from bench.ablation import eliminate
from bench.switches import Switch

class Bench:
    """Without 'left' or 'right' nothing is lost, without both much; 'needed' costs 5 %, 'useless' nothing."""

    def measure_all(self, variants, reference=None):
        for switches in variants:
            off = {switch.name for switch in switches}
            cost = 0.05 * ('needed' in off) + 0.3 * ({'left', 'right'} <= off)
            yield {'links': [[cost + 0.001 * seed] for seed in range(3)]}

names = ('left', 'needed', 'right', 'useless')
removed, known, _ = eliminate(Bench(), [Switch('', name, ()) for name in names], math.inf, lambda line: None)
print(sorted(switch.name for switch in removed))
'''


def test_of_two_mechanisms_that_stand_in_for_each_other_the_ablation_keeps_one() -> None:
    assert python('-c', ELIMINATION).strip() == "['left', 'useless']"
