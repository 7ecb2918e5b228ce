# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the engines outside PyTorch share: a part becomes a file once, and its results get their structure back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import TensorArgument
from torch.utils import _pytree as pytree

from dynsplit_ros.engines import Options
from dynsplit_ros.errors import DynsplitError

Run = Callable[[list[torch.Tensor]], list[torch.Tensor]]

#: This file is written last: it says that a folder is complete.
_STRUCTURE = 'structure.json'


def converted(
    part: nn.Module,
    example: tuple[torch.Tensor, ...],
    options: Options,
    file_name: str,
    write: Callable[[torch.export.ExportedProgram, Path], None],
    load: Callable[[Path], Run],
) -> Callable[..., Any]:
    """
    Return ``part`` as a callable that ``load`` made from the file that ``write`` wrote, now or at an earlier start.

    A file that is missing, incomplete or damaged is written again, unless ``options`` want what is kept. Where the part
    could be exported for one frame only, the callable runs several frames one after the other.

    :raises DynsplitError: when the part returns anything but tensors, and when it is wanted from the cache only, but is
        not there.
    """
    with _folder(options) as folder:
        file, structure_file = folder / file_name, folder / _STRUCTURE
        try:
            structure = _read(structure_file)
            run = load(file)
        except Exception:  # whatever a library says of a file that it cannot read
            if options.only_kept:
                raise DynsplitError('it is not converted yet') from None
            try:
                program, any_frames = _export(part, example, options.batches)
                write(program, file)
                structure = {'any_frames': any_frames, 'outputs': pytree.treespec_dumps(program.call_spec.out_spec)}
                run = load(file)
                structure_file.write_text(json.dumps(structure))
            except Exception:  # on a full disk, what is incomplete takes the room of other parts
                shutil.rmtree(folder, ignore_errors=True)
                raise
    outputs = pytree.treespec_loads(structure['outputs'])

    def call(*values: torch.Tensor) -> Any:
        arguments = [value.contiguous() for value in values]
        frames = arguments[0].shape[0]
        if structure['any_frames'] or frames == 1:
            results = run(arguments)
        else:
            results = one_by_one(run, arguments)
        return pytree.tree_unflatten(results, outputs)

    return call


def one_by_one(run: Run, arguments: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the results of several frames that run one after the other."""
    each = [run([argument[at : at + 1] for argument in arguments]) for at in range(arguments[0].shape[0])]
    return [torch.cat(of_each) for of_each in zip(*each)]


def _export(
    part: nn.Module, example: tuple[torch.Tensor, ...], batches: bool
) -> tuple[torch.export.ExportedProgram, bool]:
    """Return the program of ``part``, and whether it takes any number of frames or just one."""
    program = None
    with torch.no_grad():
        if batches:
            frames = torch.export.Dim('frames', min=1, max=1024)
            try:
                program = torch.export.export(part, example, dynamic_shapes=({0: frames},) * len(example))
            except Exception:  # the part is written for one number of frames; torch has many kinds of errors for that
                pass
        any_frames = program is not None
        if program is None:
            program = torch.export.export(part, tuple(value[:1] for value in example))
    for spec in program.graph_signature.output_specs:
        if not isinstance(spec.arg, TensorArgument):
            raise DynsplitError(
                'a part of the network returns a value that is not a tensor, which only the engine '
                "'eager' can run; use that"
            )
    return program, any_frames


def _read(file: Path) -> dict[str, Any]:
    structure = json.loads(file.read_text())
    return {'any_frames': bool(structure['any_frames']), 'outputs': str(structure['outputs'])}


@contextlib.contextmanager
def _folder(options: Options) -> Iterator[Path]:
    """Give the part's folder in the cache; a temporary one where it is missing or can be neither read nor written."""
    folder = options.cache
    if folder is not None:
        if not options.only_kept:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
        if folder.is_dir() and (os.access(folder, os.W_OK) or (folder / _STRUCTURE).exists()):
            yield folder
            return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
