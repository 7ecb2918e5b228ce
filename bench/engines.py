# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What an engine gains and what splitting costs on it: OpenVINO, ONNX Runtime and torch.compile against eager PyTorch.

Times are medians of runs that take turns, on one thread. Local inference is the way from the 8-bit image to the
outputs, as camera_node runs it. The engine's own tool does the same work: it gets the same 8-bit image and the whole
model, normalisation included, exported for the shape of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import importlib.util
from pathlib import Path
import tempfile
import time
from typing import Any

import numpy as np
import torch

from bench.figures import argument_parser, Figures
from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.engines import ENGINES
from dynsplit_ros.memory import keep_freed
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel

#: Local inference on the best engine over eager may take at most this share.
MODELS = {'mobilenet_v2': 0.50, 'efficientnet_b0': 0.50, 'resnet50': 0.80}
#: The model whose conversions are timed.
CONVERTED = 'mobilenet_v2'


def main() -> int:
    """Measure, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--rounds', type=int, default=40, help='interleaved timed runs (40)')
    parser.add_argument('--models', nargs='+', choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        '--engines', nargs='+', default=['openvino', 'onnxruntime'], help='engines besides eager (openvino onnxruntime)'
    )
    parser.add_argument('--threads', type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed()
    figures = Figures()
    engines = [
        name
        for name in arguments.engines
        if all(importlib.util.find_spec(package) for package in ENGINES[name].packages)
    ]
    if not engines:
        raise SystemExit(
            f'none of the engines {", ".join(arguments.engines)} is installed; run: pip install -r '
            'requirements-engines.txt'
        )
    for name in arguments.models:
        _model(figures, name, engines, arguments.rounds)
    return figures.finish(arguments.json)


def _model(figures: Figures, name: str, engines: list[str], rounds: int) -> None:
    split = SplitModel(load_model(name))
    size = (1, 3, *split.model.input_size)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))
    local = split.local_index
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            began_s = time.perf_counter()
            failed = split.add_engine(engine, cache=Path(folder))
            cold_s = time.perf_counter() - began_s
            figures.add(f'{name}: parts that {engine} cannot run', len(failed), '', '== 0')
            again = SplitModel(load_model(name))
            assert again.fingerprint
            began_s = time.perf_counter()
            again.add_engine(engine, cache=Path(folder))
            kept_s = time.perf_counter() - began_s
            counts = name == CONVERTED and engine == 'openvino'
            figures.add(f'{name}: conversion of all parts to {engine}', cold_s, 's', '< 90' if counts else None)
            figures.add(f'{name}: the same from the cache', kept_s, 's', '< 3' if counts else None)
    whole: dict[str, Callable[[], Any]] = {EAGER: lambda: split.head(local)(image)}
    for engine in engines:
        whole[engine] = lambda engine=engine: split.head(local, engine)(image)  # type: ignore[misc]
        own = _own_tool(engine, split, image)
        if own is not None:
            whole[f'{engine} by its own tool'] = own
    median_s = _medians_s(whole, rounds)
    for what, seconds in median_s.items():
        figures.add(f'{name}: local inference, {what}', 1000 * seconds, 'ms')
    best = min(engines, key=lambda engine: median_s[engine])
    figures.add(
        f'{name}: local inference on {best} over eager', median_s[best] / median_s[EAGER], '', f'<= {MODELS[name]:.2f}'
    )
    figures.add(
        f'{name}: local inference on {best} over its own tool',
        median_s[best] / median_s[f'{best} by its own tool'],
        '',
        '<= 1.05',
    )
    for engine in engines:
        _cuts(figures, split, engine, image, rounds, has_bar=engine == best)


def _cuts(figures: Figures, split: SplitModel, engine: str, image: torch.Tensor, rounds: int, has_bar: bool) -> None:
    """Compare head plus tail with the whole model on one engine, at every candidate that has both parts."""
    exact = split.whole(image)
    for cut in split.cuts[1:-1]:
        head, tail, whole = split.head(cut, engine), split.tail(cut, engine), split.head(split.local_index, engine)
        times = _medians_s({'parts': lambda: tail(head(image)), 'whole': lambda: whole(image)}, rounds)
        figures.add(
            f'{split.model.name}: head + tail over the whole on {engine} at {cut.index} ({cut.name})',
            times['parts'] / times['whole'],
            '',
            '<= 1.10' if has_bar else None,
        )
        outputs = tail(head(image))
        difference = max(
            float((outputs[name] - value).abs().max() / value.abs().max()) for name, value in exact.items()
        )
        figures.add(f'{split.model.name}: largest difference from eager on {engine} at {cut.index}', difference, '')


def _medians_s(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median time of each run; they take turns, so that what slows the machine for a while slows all."""
    times_s: dict[str, list[float]] = {name: [] for name in runs}
    order = np.random.default_rng(0)
    for number in range(rounds + 3):
        for name in order.permutation(list(runs)):
            runs[name]()  # the caches then hold what this run needs, and not what the run before it needed
            began_s = time.perf_counter()
            runs[name]()
            if number >= 3:
                times_s[name].append(time.perf_counter() - began_s)
    return {name: float(np.median(seconds)) for name, seconds in times_s.items()}


def _own_tool(engine: str, split: SplitModel, image: torch.Tensor) -> Callable[[], Any] | None:
    """Return the whole model as the engine's own tool runs it on an 8-bit image; None for torch's own engine."""
    program = torch.export.export(torch.nn.Sequential(split.model.normalise, split.model.module), (image,))
    if engine == 'openvino':
        import openvino

        whole = openvino.convert_model(program)
        whole.reshape(list(image.shape))  # the conversion leaves all dimensions open, which costs time
        model = openvino.Core().compile_model(
            whole,
            'CPU',
            {
                'INFERENCE_NUM_THREADS': torch.get_num_threads(),
                'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_PRECISION_HINT': 'f32',
            },
        )
        request = model.create_infer_request()
        return lambda: request.infer([image.numpy()], share_inputs=True)
    if engine == 'onnxruntime':
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / 'model.onnx'
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
            assert exported is not None
            exported.save(file)
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(file, settings, providers=['CPUExecutionProvider'])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: image.numpy()})
    return None


if __name__ == '__main__':
    raise SystemExit(main())
