# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The model of the stages, on instants that are computed by hand; and the switch with which a bench compares."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

import pytest

from bench.overlap import beside_head

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    'final_s, encode_s, send_s, gains_s',
    [
        ([10.0], [1.0], [5.0], (0.0, 0.0)),  # one tensor is final with the head
        ([4.0, 10.0], [1.0, 1.0], [5.0, 5.0], (1.0, 5.0)),  # encoded at 5 and 11; sent until 10 and 16 instead of 21
        ([10.0, 4.0], [1.0, 1.0], [5.0, 5.0], (1.0, 5.0)),
        ([9.0, 10.0], [3.0, 1.0], [2.0, 2.0], (1.0, 1.0)),  # the second is encoded after the first, from 12 to 13
        ([1.0, 2.0], [1.0, 1.0], [1.0, 1.0], (2.0, 2.0)),  # no payload counts as ready before the head ends
    ],
)
def test_the_gain_of_working_beside_a_head(final_s, encode_s, send_s, gains_s) -> None:
    assert beside_head(10.0, final_s, encode_s, send_s) == pytest.approx(gains_s)


def test_the_switch_turns_preparing_ahead_off_and_on(tmp_path) -> None:
    program = tmp_path / 'program.py'
    program.write_text('''
import os, sys
from dynsplit_ros.policies.camera import CameraPolicy, Prepare
from dynsplit_ros.policies.records import SplitDecision
from testing.overlap_switch import OFF, ON

def prepares():
    """Whether the camera prepares an image while one is on the link whose transfer takes long."""
    camera = CameraPolicy(3)
    camera.on_decision(SplitDecision(1, 'raw', 60.0), 0.0)
    camera.on_image('image', 0.0)
    camera.on_prepared(1, 0.0)
    camera.on_head_done(None, 0.1)
    camera.on_payload_ready(1000, 0.1)
    camera.on_payload_sent(0.1)
    return any(isinstance(action, Prepare) for action in camera.on_image('image', 0.2))

seen = [prepares()]
for number in (OFF, ON):
    os.kill(os.getpid(), number)
    seen.append(prepares())
print(sys.argv[1:], seen)
''')
    done = subprocess.run(
        [sys.executable, '-m', 'testing.overlap_switch', str(program), '--ros-args'],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "['--ros-args'] [True, False, True]\n", done.stderr
