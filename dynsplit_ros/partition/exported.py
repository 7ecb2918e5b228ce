# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Trace a module with ``torch.export``, and keep the result on disk, because it takes up to half a minute.

torch.export runs the module's code on tensors without values, so Python code that looks at sizes, unpacks tensors or
builds output classes is no obstacle to it. What is kept holds no weights: they are the module's own. The loader of
:mod:`dynsplit_ros.model.sources.exported` reads it and executes nothing of what a file brings.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import hashlib
import inspect
import io
import json
import logging
import os
from pathlib import Path
from typing import Any
import warnings

import torch
from torch import fx, nn

from dynsplit_ros.cache import cache_folder
from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model import LoadedModel, name_outputs
from dynsplit_ros.model.sources.exported import load_exported
from dynsplit_ros.partition.analysis import seeded_image
from dynsplit_ros.partition.fingerprint import describe_modules, hash_tensors, state_of
from dynsplit_ros.partition.trace import INNER, operation, UntraceableError

_logger = logging.getLogger(__name__)


class _Exportable(nn.Module):
    """The model's module as it is exported: from a batch of images to outputs by name."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.inner = model.module
        self._image_list = model.image_list
        self._output_name = model.output_name

    def forward(self, values: torch.Tensor) -> dict[str, Any]:
        return name_outputs(self.inner(list(values.unbind(0)) if self._image_list else values), self._output_name)


def kept_path(model: LoadedModel, any_batch: bool) -> Path:
    """Return the file in which this module's exported program is kept, on this machine, for this torch."""
    digest = hashlib.sha256()
    classes = {type(module) for module in model.module.modules()}
    head = [
        1, torch.__version__, any_batch, model.image_list, model.output_name, model.input_size,
        describe_modules(model.module), sorted(_source(kind) for kind in classes),
    ]  # fmt: skip
    digest.update(json.dumps(head).encode())
    hash_tensors(digest, state_of(model.module))
    return cache_folder() / f'program_{digest.hexdigest()[:32]}.pt2'


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # made at run time, or not in Python
        return ''


def load_kept(model: LoadedModel, path: Path) -> nn.Module:
    """
    Return the program that is kept at ``path``, with the module's own weights.

    :raises Exception: of any kind when there is none, or when the file is damaged.
    """
    program, size, _ = load_exported(path)
    if size != model.image_shape:
        raise DynsplitError(f'{path} is for images of {size}')
    _share_weights(program, model.module)
    return program


def export(model: LoadedModel, path: Path, any_batch: bool) -> nn.Module:
    """
    Return the module's exported program, which shares the module's weights, and keep it at ``path``.

    :param any_batch: for batches of any size; otherwise for single images.
    :raises UntraceableError: when the code cannot be followed.
    """
    images = seeded_image(model.input_size, 2 if any_batch else 1, channels=model.image_shape[0])
    values = model.normalise(images)
    shapes = ({0: torch.export.Dim('batch')},) if any_batch else None
    with torch.no_grad(), _quiet():
        # A module may keep what it made for the last size of a batch, as YOLO's head does with its anchors. After one
        # image, a program for any batch makes that itself, and one for single images finds it made.
        model.whole(images[:1])
        try:
            program = torch.export.export(_Exportable(model), (values,), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # whatever the module's code, or torch's idea of it, raises
            raise UntraceableError(f'the operation {operation(error)} cannot be traced ({in_short(error)})') from error
        _keep(program, path)
        # Both ways to a program give the same graph, so that two machines agree on the fingerprint.
        with contextlib.suppress(Exception):
            return load_kept(model, path)
        module = program.module(check_guards=False)
        return fx.GraphModule(module, module.graph)


def _share_weights(program: nn.Module, module: nn.Module) -> None:
    """Put the module's own parameters and buffers in the place of those that came from the file."""
    own: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    for part_name, part in program.named_modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                path = '.'.join(filter(None, (part_name, name)))
                mine = own.get(path.removeprefix(f'{INNER}.'))
                if tensor is None or mine is None and not isinstance(tensor, nn.Parameter):
                    continue  # a constant of the program, such as a table of positions
                if mine is None or (mine.shape, mine.dtype) != (tensor.shape, tensor.dtype):
                    raise DynsplitError(f'the module has no tensor {path!r} of shape {tuple(tensor.shape)}')
                tensors[name] = mine


def _keep(program: Any, path: Path) -> None:
    """Write a program without its weights, whole or not at all."""
    weights = dict(program.state_dict)
    unfinished = path.with_name(f'{os.getpid()}_{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, tensor in weights.items():
            blank = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
            program.state_dict[name] = nn.Parameter(blank, False) if isinstance(tensor, nn.Parameter) else blank
        torch.export.save(program, unfinished)
        unfinished.replace(path)
    except Exception as error:  # no room, or a program that has no file format: it is exported at each start
        _logger.info('the exported program was not kept in %s (%s)', path, error)
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    finally:
        program.state_dict.update(weights)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch.export prints about a failure off the terminal: it is reported in one sentence, or not at all."""
    shapes = logging.getLogger('torch.fx.experimental.symbolic_shapes')
    level = shapes.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore')
        shapes.setLevel(logging.ERROR)
        try:
            yield
        finally:
            shapes.setLevel(level)
