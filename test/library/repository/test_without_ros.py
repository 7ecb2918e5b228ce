# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The library half knows nothing of ROS: it imports where there is none."""

from pathlib import Path
import subprocess
import sys

PACKAGE = Path(__file__).resolve().parents[3] / 'dynsplit_ros'
#: The rooms that are shells around the library, or show it.
WITH_ROS = ('nodes', 'messages', 'demo', 'launching.py', 'transport.py', 'tools/demo.py')

CODE = """
import importlib, sys
sys.path[:1] = []

class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top.startswith(('rclpy', 'launch', 'cv_bridge', 'ament')) or top.endswith(('_msgs', '_interfaces')):
            raise ImportError(f'{name} is of ROS')
        if name == 'dynsplit_ros.msg':
            raise ImportError('the messages are of ROS')

sys.meta_path.insert(0, NoRos())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1)
"""


def library_modules() -> list[str]:
    """Return the names of all modules but those that need ROS."""
    names = []
    for path in sorted(PACKAGE.rglob('*.py')):
        relative = path.relative_to(PACKAGE).as_posix()
        if not relative.startswith(WITH_ROS):
            parts = ['dynsplit_ros', *relative.removesuffix('.py').split('/')]
            names.append('.'.join(part for part in parts if part != '__init__'))
    return names


def test_the_library_imports_without_ros() -> None:
    names = library_modules()
    assert {'dynsplit_ros.partition', 'dynsplit_ros.planner', 'dynsplit_ros.runtime.robot'} <= set(names)
    result = subprocess.run([sys.executable, '-c', CODE, *names], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith(str(len(names)))
