# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Run a program in this process with a switch for its overlap: ``python -m testing.overlap_switch PROGRAM ARGUMENTS``.

After SIGUSR1 the camera side prepares no image ahead, after SIGUSR2 it does so again.
"""

from __future__ import annotations

import runpy
import signal
import sys

from dynsplit_ros.policies.camera import CameraPolicy

OFF, ON = signal.SIGUSR1, signal.SIGUSR2

_next_to_prepare = CameraPolicy._next_to_prepare
_is_on = True


def _switch(number: int, _: object) -> None:
    global _is_on
    _is_on = number == ON


def main() -> None:
    """Run the program."""
    CameraPolicy._next_to_prepare = (  # type: ignore[method-assign]
        lambda policy, start_s: _next_to_prepare(policy, start_s) if _is_on else None
    )
    for number in (OFF, ON):
        signal.signal(number, _switch)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
