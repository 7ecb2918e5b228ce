# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Engines run a part of the network: a head, a tail or the whole model.

An engine is one module of this folder with one function, ``convert``, and one line in :data:`ENGINES`::

    def convert(part: nn.Module, example: tuple[Tensor, ...], options: Options) -> Callable[..., Any]

``example`` has the tensors of two frames that the part takes. The callable takes tensors of the same shapes, for any
number of frames if the part allows it, and returns what the part returns. One thread calls it at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError


@dataclass(frozen=True)
class Options:
    """
    How an engine converts and runs a part.

    ``precision`` is a data type of :data:`ENGINES`'s entry. ``cache`` is a folder of this part, engine, version and
    device where the engine keeps what it converted, or None. ``batches`` tells whether the number of frames may change.
    With ``only_kept``, an engine that keeps its conversions takes what is in the cache and converts nothing.
    ``several`` tells that runs of several frames will come; what an engine sets up for them is then there before them.
    """

    device: torch.device
    threads: int
    precision: str = 'float32'
    cache: Path | None = None
    batches: bool = True
    only_kept: bool = False
    several: bool = False


@dataclass(frozen=True)
class Engine:
    """
    What an engine offers.

    ``precisions`` are its data types, the default first; ``devices`` are types of torch devices; ``packages`` are what
    it imports, and ``pip`` installs them. ``exact``: with the first precision, head and tail give the result of the
    whole model to the bit. ``interruptible``: a running head can stop between two operations for a newer decision; the
    other engines finish their part first. ``keeps``: it keeps its conversions in the cache, where another process can
    put them.
    """

    precisions: tuple[str, ...]
    devices: tuple[str, ...]
    packages: tuple[str, ...] = ()
    pip: str = ''
    exact: bool = False
    interruptible: bool = False
    keeps: bool = False


#: The engines by name. TensorRT would be a further line, and a module ``tensorrt.py`` beside the others.
ENGINES = {
    'eager': Engine(('float32', 'float16', 'bfloat16'), ('cpu', 'cuda'), exact=True, interruptible=True),
    'inductor': Engine(('float32', 'float16', 'bfloat16'), ('cpu', 'cuda')),
    'openvino': Engine(('float32', 'float16', 'bfloat16'), ('cpu',), ('openvino',), 'openvino', keeps=True),
    'onnxruntime': Engine(
        ('float32',), ('cpu', 'cuda'), ('onnx', 'onnxscript', 'onnxruntime'), 'onnx onnxscript onnxruntime', keeps=True
    ),
}


def version_of(engine: str) -> str:
    """Return the versions of the packages that compute on this engine; they must be installed."""
    return ' '.join(map(_version, ENGINES[engine].packages)) or torch.__version__


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # another distribution has the module, such as onnxruntime-gpu
        return str(importlib.import_module(package).__version__)


def checked_engine(name: str, precision: str, device: torch.device) -> Engine:
    """
    Return the engine called ``name``.

    :raises DynsplitError: when there is none, or when it lacks a package, the precision or the device.
    """
    engine = ENGINES.get(name)
    if engine is None:
        raise DynsplitError(f'engine {name!r} was given; allowed are {", ".join(ENGINES)}')
    missing = [package for package in engine.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise DynsplitError(
            f'engine {name!r} was given, but {", ".join(missing)} is not installed; '
            f'install it with: pip install {engine.pip}'
        )
    if precision not in engine.precisions:
        reason = '; int8 needs a calibration on images, which no engine here offers' if precision == 'int8' else ''
        raise DynsplitError(
            f'precision {precision!r} was given, but engine {name!r} offers {", ".join(engine.precisions)}{reason}'
        )
    if device.type not in engine.devices:
        raise DynsplitError(
            f'device {str(device)!r} was given, but engine {name!r} runs on {", ".join(engine.devices)}'
        )
    return engine


def convert(name: str, part: nn.Module, example: tuple[torch.Tensor, ...], options: Options) -> Callable[..., Any]:
    """
    Return ``part`` as a callable of the engine called ``name``.

    :raises DynsplitError: when the engine cannot run the part; the sentence names what it does not support.
    """
    module = importlib.import_module(f'{__name__}.{name}')
    try:
        run: Callable[..., Any] = module.convert(part, example, options)
        with torch.inference_mode():  # what an engine sets up in a first run is there then
            run(*(value[:1] for value in example))
            if options.several:
                run(*example)
        return run
    except DynsplitError:
        raise
    except Exception as error:  # each library has its own kinds of errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DynsplitError(
            f"engine {name!r} cannot run this part of the network: {lines[0]}; use engine 'eager'"
        ) from error
