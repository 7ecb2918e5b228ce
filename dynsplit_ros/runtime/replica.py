# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The program of a replica of a Ray pool: a process on any machine of the cluster that runs tails for the edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import pickle
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.policies.records import Tail
from dynsplit_ros.runtime.tails import Payload, Result


class Runner(Protocol):
    """The runner of a replica: a :class:`~dynsplit_ros.runtime.tails.TailRunner` with a profile."""

    def run(self, tail: Tail, payloads: Sequence[Payload]) -> tuple[list[Result], float]:
        """Return a result for each payload, and the seconds of the tail."""

    def prepare(self, tail: Tail, images: int) -> bool:
        """Build a tail and run it once; return whether that was necessary."""

    def profile(self) -> Any:
        """Return the profile of this machine, measured if necessary; None without one."""


@dataclass(frozen=True)
class ModelOnReplica:
    """
    Makes the runner of a replica from the model and the options of its :class:`~dynsplit_ros.partition.SplitModel`.

    ``fingerprint`` is that of the edge's front end: another version of a library on the replica could cut the model at
    other places. ``batches`` are the numbers of images to profile, ``threads`` the CPU threads of a tail (0: as PyTorch
    chooses).
    """

    model: Any
    options: Mapping[str, Any]
    fingerprint: str
    max_images: int = 1
    slowdown: float = 1.0
    threads: int = 0
    batches: Sequence[int] = field(default=(1,))

    def __call__(self) -> Runner:
        """Cut the model on this machine; raise DynsplitError if the result is not the front end's."""
        import torch

        from dynsplit_ros.partition import SplitModel
        from dynsplit_ros.profile.kept import kept_profile
        from dynsplit_ros.runtime.tails import TailRunner

        if self.threads:
            torch.set_num_threads(self.threads)
        split = SplitModel(self.model, **self.options)
        if split.fingerprint != self.fingerprint:
            raise DynsplitError(
                f'its fingerprint is {split.fingerprint[:12]} on the replica, but '
                f'{self.fingerprint[:12]} on the edge; install the same versions on all machines'
            )
        batches = set(self.batches)

        class WithProfile(TailRunner):
            def profile(self) -> Any:
                return kept_profile(split, progress=lambda text: None, batches=batches)

        return WithProfile(split, self.max_images, self.slowdown)


class NotLoadedError(Exception):
    """The replica has no model: Ray has restarted it, and the pool has not yet asked whether it is ready."""


class Replica:
    """The Ray actor: ``blob`` is a pickled function that returns the :class:`Runner`."""

    def __init__(self, blob: NDArray[np.uint8]) -> None:
        self._blob = blob
        self._runner: Runner | None = None
        self._error = ''

    def started(self) -> None:
        """Return when this replica has its resources and runs; the call does not load the model."""

    def ready(self, measures: bool) -> tuple[str, Any]:
        """Return why this replica cannot run tails (empty if it can), and its profile if ``measures``."""
        self._load()
        return self._error, self._runner.profile() if measures and self._runner is not None else None

    def has_loaded(self) -> bool:
        """Whether this replica has its model; the call does not load it."""
        return self._runner is not None

    def _load(self) -> None:
        if self._runner is None and not self._error:
            try:
                # the blob comes from the front end in the same cluster, which Ray also trusts
                self._runner = pickle.loads(self._blob.data)()
            except Exception as error:
                self._error = f'{type(error).__name__}: {error}' if not isinstance(error, DynsplitError) else str(error)

    def run(self, tail: Tail, payloads: Sequence[Payload]) -> tuple[list[Result], float]:
        """Run a tail once for all frames; see :meth:`Runner.run`. Raise NotLoadedError without a model."""
        if self._runner is None:
            raise NotLoadedError
        return self._runner.run(tail, payloads)

    def prepare(self, tail: Tail, images: int) -> bool:
        """Build and warm up a tail; return whether that was necessary and possible."""
        return self._runner is not None and self._runner.prepare(tail, images)
