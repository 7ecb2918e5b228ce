# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU, by way of torch.export; ``torch.compile(backend='openvino')`` fails with torch 2.11."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynsplit_ros.engines import Options
from dynsplit_ros.engines.exported import converted, one_by_one, Run
from dynsplit_ros.errors import DynsplitError

_logger = logging.getLogger(__name__)
_PRECISION = {'float32': 'f32', 'float16': 'f16', 'bfloat16': 'bf16'}


def convert(part: nn.Module, example: tuple[torch.Tensor, ...], options: Options) -> Callable[..., Any]:
    """Return ``part`` as a model of OpenVINO, kept as its own XML and BIN files and its compiled blob."""
    import openvino

    core = openvino.Core()
    wanted = _PRECISION[options.precision]
    settings: dict[str, Any] = {
        'INFERENCE_NUM_THREADS': options.threads,
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': wanted,
    }

    def write(program: torch.export.ExportedProgram, file: Path) -> None:
        openvino.save_model(openvino.convert_model(program), file, compress_to_fp16=False)

    def load(file: Path) -> Run:
        cached = {'CACHE_DIR': str(options.cache)} if file.parent == options.cache else {}

        def compiled(model: Any) -> Any:
            return core.compile_model(model, 'CPU', {**settings, **cached})

        model = core.read_model(file)  # all its dimensions are open
        one_frame = model.clone()
        # With known dimensions, mobilenet_v2 takes 7 % less time.
        one_frame.reshape({number: list(value[:1].shape) for number, value in enumerate(example)})
        of_one = compiled(one_frame)
        used = of_one.get_property('INFERENCE_PRECISION_HINT').to_string()
        if used != wanted:
            raise DynsplitError(
                f'precision {options.precision!r} was given, but OpenVINO computes in {used} on this '
                "processor; use precision 'float32'"
            )
        request_of_one = of_one.create_infer_request()

        @cache  # made when needed, because it has a further copy of the weights
        def request_of_several() -> Any:
            try:
                return compiled(model).create_infer_request()
            except Exception as error:  # such as one for lack of memory; the library has its own kinds of errors
                _logger.warning(
                    'OpenVINO cannot set up a part of the network for several frames (%s), so it runs them one by one',
                    (str(error).strip().splitlines() or [type(error).__name__])[0],
                )
                return None

        def infer(request: Any, arguments: list[torch.Tensor]) -> list[torch.Tensor]:
            results = request.infer([argument.numpy() for argument in arguments], share_inputs=True)
            return [torch.from_numpy(result) for result in results.to_tuple()]

        def run(arguments: list[torch.Tensor]) -> list[torch.Tensor]:
            if arguments[0].shape[0] == 1:
                return infer(request_of_one, arguments)
            if (request := request_of_several()) is not None:
                return infer(request, arguments)
            return one_by_one(partial(infer, request_of_one), arguments)

        return run

    return converted(part, example, options, 'model.xml', write, load)
