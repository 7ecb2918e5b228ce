# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Converts a model's parts to another engine in a separate process, while the node runs eager.

A conversion keeps a processor busy for minutes, and no library can stop one. The process stores the converted parts in
the cache, and the node reads them from there. A second process measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
from dataclasses import asdict, dataclass, field, replace
import json
import os
from pathlib import Path
import subprocess
import sys
import threading
from typing import Any

import torch

from dynsplit_ros.cache import engines_folder
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.memory import keep_freed
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.kept import kept_profile

#: Unix niceness of the conversion, 0 to 19: with 10, the node has ten times its share of a processor that both want.
NICENESS = 10
#: The process, as Python runs it. An empty entry of sys.path is the working directory, whose files are not the node's.
COMMAND = 'import sys; sys.path[:] = filter(None, sys.path); from dynsplit_ros.runtime.conversion import main; main()'
#: Prefix of the line with the process's answer; libraries can write other lines before and after it.
ANSWER = 'dynsplit_ros conversion: '


@dataclass(frozen=True)
class ConversionRequest:
    """
    What to convert: the arguments of ``load_model`` and SplitModel, and the target engine.

    ``fingerprint`` is that of the node's model, because the file could have changed since. ``batches`` are the numbers
    of images to profile, empty if the node has a profile of the engine. ``several`` says that the node will run several
    images at once.
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
    several: bool = False


@dataclass(frozen=True)
class ConversionResult:
    """
    The result of a process.

    ``reasons`` say, by the names of parts, why these are not converted. ``converted`` is the number of converted parts.
    ``profile`` is the document of their profile or None. ``error`` is the reason of a failure, or empty.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    converted: int = 0
    profile: dict[str, Any] | None = None
    error: str = ''


class ConversionClosed(Exception):
    """The conversion was closed; its thread ends."""


class Conversion:
    """
    The process that converts, and a thread that waits for it.

    The thread calls ``read`` with the process's result and with a function, which ``read`` calls between its steps. The
    function raises ConversionClosed once the conversion is closed. The thread then calls what ``read`` returned, or
    ``failed`` with why nothing was converted. Nothing is called after :meth:`close`. ``command`` replaces the process's
    command.
    """

    def __init__(
        self,
        request: ConversionRequest,
        read: Callable[[ConversionResult, Callable[[], None]], Callable[[], None]],
        failed: Callable[[str], None],
        command: Sequence[str] = (sys.executable, '-c', COMMAND),
    ) -> None:
        self._request = request
        self._read = read
        self._failed = failed
        self._command = command
        self._lock = threading.Lock()  # guards the two below; held while the result is taken
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='conversion', daemon=True)
        self._thread.start()

    def close(self, within_s: float) -> None:
        """
        End the process and the thread; the cache keeps parts that are already converted.

        The call waits at most ``within_s`` seconds for the present step of ``read``; no other step follows.
        """
        with self._lock:
            self._closing = True
            if self._process is not None:
                self._process.kill()
        if self._thread is not threading.current_thread():
            self._thread.join(within_s)

    def _run(self) -> None:
        try:
            self._unless_closed(self._outcome())
        except ConversionClosed:
            return
        except Exception as error:  # after any error, the node continues with eager
            reason = str(error) or type(error).__name__
            with contextlib.suppress(ConversionClosed):
                self._unless_closed(lambda: self._failed(reason))

    def _outcome(self) -> Callable[[], None]:
        answer = self._ask({**asdict(self._request), 'batches': []}, NICENESS)
        if self._request.batches and answer.converted:
            # Another process profiles, because times at a low priority would be too long.
            try:
                profile = self._ask(asdict(self._request), 0).profile
            except DynsplitError as error:  # the parts are converted nevertheless
                answer = replace(answer, error=str(error))
            else:
                answer = replace(answer, profile=profile)
        self._unless_closed()
        return self._read(answer, self._unless_closed)

    def _unless_closed(self, act: Callable[[], None] = lambda: None) -> None:
        """Call ``act``, for which :meth:`close` waits, or raise ConversionClosed."""
        with self._lock:
            if self._closing:
                raise ConversionClosed
            act()

    def _ask(self, request: Mapping[str, Any], niceness: int) -> ConversionResult:
        """Run the process for a request; return its answer, or raise DynsplitError if it has none."""
        with self._lock:
            if self._closing:
                raise ConversionClosed
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
            )
        with process:  # its standard input stays open until it ends: when the node ends, the process ends
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f'{json.dumps({**request, "niceness": niceness})}\n'.encode())
            said = process.stdout.read().decode(errors='replace').strip().splitlines()
        answers = [line.removeprefix(ANSWER) for line in said if line.startswith(ANSWER)]
        if not answers:
            last = said[-1] if said and process.returncode > 0 else f'exit code {process.returncode}'
            raise DynsplitError(f'the process that converts ended: {last}')
        answer = ConversionResult(**json.loads(answers[-1]))
        if answer.error:
            raise DynsplitError(answer.error)
        return answer


def main() -> None:
    """Carry out the request in the first line of standard input, and write the answer to standard output."""
    with contextlib.suppress(OSError):  # if memory is short, the kernel ends this process and not the node
        Path('/proc/self/oom_score_adj').write_text('1000')
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_node, daemon=True).start()
    os.nice(asked.pop('niceness'))
    try:
        answer = _carry_out(ConversionRequest(**asked))
    except DynsplitError as error:
        answer = ConversionResult(error=str(error))
    print(f'\n{ANSWER}{json.dumps(asdict(answer))}', flush=True)


def _end_with_the_node() -> None:
    """End this process when its standard input ends, which happens when the node ends for any reason."""
    sys.stdin.read()
    os._exit(1)


def _carry_out(request: ConversionRequest) -> ConversionResult:
    """Convert the parts; if the request has ``batches``, profile the converted parts instead."""
    torch.set_num_threads(request.threads)
    keep_freed()
    split = SplitModel(load_model(**request.model), **request.options)
    if split.fingerprint != request.fingerprint:
        raise DynsplitError(
            f'the model is {split.fingerprint[:12]} now, but {request.fingerprint[:12]} was loaded; '
            'start the node again'
        )
    reasons = split.add_engine(
        request.engine,
        request.precision,
        heads=request.heads,
        tails=request.tails,
        cache=engines_folder(),
        only_kept=bool(request.batches),
        several=request.several,
        hold=bool(request.batches),
    )
    parts = (len(split.cuts) - 1) * (request.heads + request.tails)
    # Frames run at the same time and make the measured times longer, so a later start measures again.
    profile = kept_profile(split, lambda text: None, request.batches, keep=False) if request.batches else None
    return ConversionResult(reasons, parts - len(reasons), profile.to_document() if profile is not None else None)
