# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Conversion of a model's parts to another engine in a process of its own, while the node works on eager.

A conversion keeps a processor busy for minutes, and no library offers a way to stop one. The process keeps the
converted parts and their profile in the cache, from which the node then reads them as at a later start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
from dataclasses import asdict, dataclass
import json
import os
import subprocess
import sys
import threading
from typing import Any

import torch

from dynsplit_ros.cache import cache_folder
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.memory import keep_freed
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.kept import kept_profile

#: Unix niceness of the conversion, 0 to 19: with 10, the node has ten times its share of a processor that both want.
NICENESS = 10
#: The process, as Python runs it.
COMMAND = 'from dynsplit_ros.runtime.conversion import main; main()'


@dataclass(frozen=True)
class Request:
    """
    What to convert: the arguments of ``load_model`` and SplitModel, and the engine.

    ``fingerprint`` is the node's: the model could have changed since. ``batches`` are the numbers of images to profile,
    none if the node has a profile.
    """

    model: Mapping[str, Any]
    options: Mapping[str, Any]
    fingerprint: str
    engine: str
    precision: str
    heads: bool
    tails: bool
    threads: int
    batches: Sequence[int] = ()


class Conversion:
    """
    The process that converts, and a thread that waits for it.

    The thread calls ``done`` with the reasons why parts cannot be converted, by their names, or ``failed`` with why
    there is no conversion; neither after :meth:`close`. ``command`` replaces the process's command.
    """

    def __init__(self, request: Request, done: Callable[[dict[str, str]], None], failed: Callable[[str], None],
                 command: Sequence[str] = (sys.executable, '-c', COMMAND)) -> None:
        self._request = request
        self._done = done
        self._failed = failed
        self._command = command
        self._lock = threading.Lock()  # guards the two below
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='conversion', daemon=True)
        self._thread.start()

    def close(self, within_s: float) -> None:
        """
        End the process and the thread; a part that is being converted is lost, the others are kept.

        A call of ``done`` that is under way may take until ``within_s`` seconds are over.
        """
        with self._lock:
            self._closing = True
            if self._process is not None:
                self._process.kill()
        if self._thread is not threading.current_thread():
            self._thread.join(within_s)

    def _run(self) -> None:
        try:
            reasons = self._convert({**asdict(self._request), 'batches': []}, NICENESS)
            if self._request.batches:  # by another process, because times at a low priority would be too long
                self._convert(asdict(self._request), 0)
            if not self._closing:
                self._done(reasons)
        except Exception as error:  # whatever happens, the node goes on with eager
            if not self._closing:
                self._failed(str(error) or type(error).__name__)

    def _convert(self, request: Mapping[str, Any], niceness: int) -> dict[str, str]:
        """Run the process for a request; return why parts cannot be converted."""
        with self._lock:
            if self._closing:
                return {}
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
        with process:  # its standard input stays open until it ends: when the node goes, the process goes
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f'{json.dumps({**request, "niceness": niceness})}\n'.encode())
            said = process.stdout.read().decode(errors='replace').strip().splitlines()
        try:
            found = json.loads(said[-1])
            reasons, error = dict(found['reasons']), str(found['error'])
        except (IndexError, KeyError, TypeError, ValueError):
            last = said[-1] if said and process.returncode > 0 else f'exit code {process.returncode}'
            raise DynsplitError(f'the process that converts ended: {last}') from None
        if error:
            raise DynsplitError(error)
        return reasons


def main() -> None:
    """Be the process: read a request from standard input, convert, and write what failed as the last line."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_node, daemon=True).start()
    os.nice(asked.pop('niceness'))
    reasons, fault = {}, ''
    try:
        reasons = _carry_out(Request(**asked))
    except DynsplitError as error:
        fault = str(error)
    print(f'\n{json.dumps({"reasons": reasons, "error": fault})}', flush=True)


def _end_with_the_node() -> None:
    """End this process when its standard input ends, whatever ended the node."""
    sys.stdin.read()
    os._exit(1)


def _carry_out(request: Request) -> dict[str, str]:
    torch.set_num_threads(request.threads)
    keep_freed()
    split = SplitModel(load_model(**request.model), **request.options)
    if split.fingerprint != request.fingerprint:
        raise DynsplitError(f'the model is {split.fingerprint[:12]} now, but {request.fingerprint[:12]} was loaded; '
                            'start the node again')
    reasons = split.add_engine(request.engine, request.precision, heads=request.heads, tails=request.tails,
                               cache=cache_folder() / 'engines')
    if request.batches:
        kept_profile(split, lambda text: None, request.batches)
    return reasons
