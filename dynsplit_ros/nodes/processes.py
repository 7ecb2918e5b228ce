# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Start the package's nodes as processes of their own, and end them whatever happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
from pathlib import Path
import signal
import subprocess
import time
from types import TracebackType

from ament_index_python.packages import get_package_prefix
import yaml

from dynsplit_ros.errors import DynsplitError


def write_parameters(path: Path, parameters: Mapping[str, object]) -> Path:
    """Write a parameter file for whatever node reads it, and return its path."""
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': dict(parameters)}}))
    return path


class Processes:
    """
    Node processes with their logs in one folder.

    A context: at its end, each process that still runs gets SIGINT, and SIGKILL when it does not end in time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: set[str] = set()

    def start(
        self,
        name: str,
        executable: str,
        namespace: str,
        parameters: Mapping[str, object],
        remappings: Sequence[tuple[str, str]] = (),
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start a node, its command after ``prefix``; ``name`` is the process's here and the name of its log."""
        params_file = write_parameters(self.folder / f'{name}.yaml', parameters)
        command = [
            *prefix,
            str(Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / executable),
            '--ros-args',
            '-r',
            f'__ns:=/{namespace}',
            '--params-file',
            str(params_file),
        ]
        for old, new in remappings:
            command += ['-r', f'{old}:={new}']
        mode = 'ab' if name in self._started else 'wb'  # a log that another run left in the folder ends
        self._started.add(name)
        with self.log(name).open(mode) as log:
            # A session of its own, so that Ctrl-C at the terminal reaches the demonstration alone, which ends the rest.
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self.folder / f'{name}.log'

    def pid(self, name: str) -> int:
        """Return a process's id."""
        return self._running[name].pid

    def send(self, name: str, number: int) -> None:
        """Send a process a signal."""
        self._running[name].send_signal(number)

    def wait(self, name: str, within_s: float) -> int:
        """Wait for a process to end by itself and return its exit code."""
        return self._running[name].wait(within_s)

    def check(self) -> None:
        """Raise DynsplitError, with the end of its log, when a process has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                tail = self.log(name).read_text(errors='replace').strip().splitlines()[-5:]
                raise DynsplitError(
                    f'{name} ended with exit code {process.returncode}; its log ({self.log(name)}) ends '
                    'with:\n  ' + '\n  '.join(tail)
                )

    def stop(self, name: str, *, number: int = signal.SIGINT, within_s: float = 5.0) -> int:
        """End a process and return its exit code."""
        process = self._running.pop(name)
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline_s = time.monotonic() + 5
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
