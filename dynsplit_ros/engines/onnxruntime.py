# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime, on the CPU or with its CUDA provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynsplit_ros.engines import Options
from dynsplit_ros.engines.exported import converted, Run
from dynsplit_ros.errors import DynsplitError


def convert(part: nn.Module, example: tuple[torch.Tensor, ...], options: Options) -> Callable[..., Any]:
    """Return ``part`` as an ONNX model in a session of its own."""
    import onnxruntime

    provider: Any = 'CPUExecutionProvider'
    if options.device.type == 'cuda':
        if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
            raise DynsplitError(
                f'device {str(options.device)!r} was given, but this ONNX Runtime has no CUDA; '
                'install it with: pip install onnxruntime-gpu'
            )
        provider = ('CUDAExecutionProvider', {'device_id': options.device.index or 0})
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads

    def write(program: torch.export.ExportedProgram, file: Path) -> None:
        exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
        assert exported is not None
        exported.save(file)

    def load(file: Path) -> Run:
        session = onnxruntime.InferenceSession(file, settings, providers=[provider])
        names = [value.name for value in session.get_inputs()]

        def run(arguments: list[torch.Tensor]) -> list[torch.Tensor]:
            given = {name: argument.cpu().numpy() for name, argument in zip(names, arguments)}
            return [torch.from_numpy(result) for result in session.run(None, given)]

        return run

    return converted(part, example, options, 'model.onnx', write, load)
