# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What an edge does when a robot announces its next split: it prepares the tail before the first activation arrives.

One thread prepares, one tail at a time, so that neither the thread that runs tails nor the one that receives messages
waits for it. A robot has at most one announcement in line, its newest, and a tail that has run for as many images is
not prepared again: announcements, however many, cost each tail at most one run for each number of images.
"""

from __future__ import annotations

from collections.abc import Callable
import threading

from dynsplit_ros.codec import CODECS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import Interrupted, SplitModel


class Preparation:
    """Knows the split that each robot has announced, and prepares the tails; ``fault`` is told of one that fails."""

    def __init__(self, split: SplitModel, fault: Callable[[str], None]) -> None:
        self._split = split
        self._fault = fault
        self._changed = threading.Condition()  # guards all below
        self._announced: dict[str, tuple[int, str]] = {}
        self._in_line: dict[str, int] = {}  # robots whose tail may have to be prepared, first come first, with images
        self._prepared = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='preparation', daemon=True)
        self._thread.start()

    def announce(self, robot: str, fingerprint: str, split_index: int, codec: str, images: int = 1) -> None:
        """
        Note which split and codec a robot uses from now on, for frames of ``images`` images.

        Raises DynsplitError, and forgets what the robot announced before, where this edge cannot serve that.
        """
        try:
            self._check(fingerprint, split_index, codec)
        except DynsplitError:
            self.forget(robot)
            raise
        sends = split_index < self._split.local_index
        with self._changed:
            self._announced[robot] = split_index, codec if sends else ''
            if sends:
                self._in_line[robot] = images
                self._changed.notify()

    def _check(self, fingerprint: str, split_index: int, codec: str) -> None:
        last = self._split.local_index
        if fingerprint != self._split.fingerprint:
            raise DynsplitError(f'the decision is for the model {fingerprint[:12]!r}, but this edge serves '
                                f'{self._split.fingerprint[:12]}; run the same model, weights and input size on both')
        if not 0 <= split_index <= last:
            raise DynsplitError(f'the decision names split {split_index}, but this model has 0 to {last}; run the same '
                                'version of this package on all sides')
        if split_index < last and codec not in CODECS:
            raise DynsplitError(f'the decision names the codec {codec[:40]!r}, but known are {", ".join(CODECS)}; run '
                                'the same version of this package on all sides')

    def forget(self, robot: str) -> None:
        """Drop what a robot has announced."""
        with self._changed:
            self._announced.pop(robot, None)
            self._in_line.pop(robot, None)

    def announced(self) -> dict[str, tuple[int, str]]:
        """Return the split and the codec (empty for local inference) that each robot has announced."""
        with self._changed:
            return dict(self._announced)

    @property
    def prepared(self) -> int:
        """How many tails have been prepared."""
        with self._changed:
            return self._prepared

    def close(self, within_s: float) -> None:
        """Prepare nothing more and end the thread, which may take until it has built a part."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(min(within_s, threading.TIMEOUT_MAX))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._in_line and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                robot = next(iter(self._in_line))
                images, index = self._in_line.pop(robot), self._announced[robot][0]
            try:
                did = self._split.prepare_tail(index, images, lambda: self._closing)
            except Interrupted:
                return
            except Exception as error:  # the activation will meet the same, and the robot then hears of it
                self._fault(f'tail of split {index} not prepared ({type(error).__name__}: {error})')
                continue
            with self._changed:
                self._prepared += did
