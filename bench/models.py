# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Models that people bring: which of them load, how many natural cuts they have, and whether each cut is exact.

Each model is built from its configuration with seeded weights, in a process of its own with limits of time and memory.
Head plus tail are compared with the whole model, bit by bit, at each natural cut, for batches of one and two. A package
that is not installed is named, and its models are left out. With ``--only``, the rows of the other models stay as they
are in OUT, so a long run can be made in parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
import importlib
import importlib.util
import json
import math
import os
from pathlib import Path
import re
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch import nn

from bench.figures import argument_parser, Figures
from bench.models_results import exact

ROOT = Path(__file__).resolve().parents[1]
#: Of one model's process; export takes up to a minute on a busy machine.
TIME_LIMIT_S = 400
MEMORY_LIMIT_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Entry:
    """A model of the table: what ``load_model`` is given."""

    package: str
    name: str
    task: str
    side: int
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What distinguishes a row from the others."""
        return self.package, self.name, self.task

    @property
    def model(self) -> str:
        """The name of the model for ``load_model``."""
        if self.package == 'open_clip':
            return 'bench.models:open_clip_visual'
        return self.name if self.package == 'torchvision' else f'{self.package}:{self.name}'


#: Small configurations: the graph is that of the large ones, but shorter.
_SMALL = {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 96}
_RESNET = {'model_type': 'resnet', 'embedding_size': 16, 'hidden_sizes': [16, 32, 64, 64], 'depths': [1, 1, 1, 1],
           'out_features': ['stage4']}  # fmt: skip
_DETR = {'d_model': 32, 'encoder_layers': 1, 'decoder_layers': 1, 'encoder_ffn_dim': 64, 'decoder_ffn_dim': 64,
         'encoder_attention_heads': 4, 'decoder_attention_heads': 4, 'num_queries': 10, 'use_timm_backbone': False,
         'use_pretrained_backbone': False, 'backbone': None, 'backbone_config': _RESNET}  # fmt: skip
_RT_DETR = {
    'd_model': 32, 'encoder_hidden_dim': 32, 'encoder_in_channels': [32, 64, 64], 'encoder_ffn_dim': 64,
    'decoder_ffn_dim': 64, 'decoder_layers': 1, 'decoder_in_channels': [32, 32, 32], 'num_queries': 50,
    'backbone_config': {**_RESNET, 'model_type': 'rt_detr_resnet', 'layer_type': 'basic',
                        'out_features': ['stage2', 'stage3', 'stage4']},
}  # fmt: skip


def models() -> Iterator[Entry]:
    """Yield the models of the table."""
    for name in (
        'alexnet', 'convnext_tiny', 'densenet121', 'efficientnet_b0', 'googlenet', 'mnasnet1_0', 'mobilenet_v2',
        'mobilenet_v3_small', 'regnet_y_400mf', 'resnet18', 'shufflenet_v2_x1_0', 'squeezenet1_1', 'swin_t', 'vit_b_32',
    ):  # fmt: skip
        yield Entry('torchvision', name, 'classification', 64)
    for name in ('deeplabv3_mobilenet_v3_large', 'lraspp_mobilenet_v3_large'):
        yield Entry('torchvision', name, 'segmentation', 64)
    for name in ('fasterrcnn_mobilenet_v3_large_320_fpn', 'ssdlite320_mobilenet_v3_large'):
        yield Entry('torchvision', name, 'detection', 320)
    for name in (
        'cspresnet50', 'dla34', 'edgenext_xx_small', 'efficientnet_lite0', 'efficientvit_b0', 'ese_vovnet19b_dw',
        'ghostnet_100', 'hrnet_w18_small', 'lcnet_050', 'mobilenetv4_conv_small', 'mobilevit_xxs', 'poolformer_s12',
        'repvgg_a0', 'resnet10t', 'starnet_s1', 'deit_tiny_patch16_224',
    ):  # fmt: skip
        yield Entry('timm', name, 'classification', 96)
    for name in ('levit_128s', 'tiny_vit_5m_224'):
        yield Entry('timm', name, 'classification', 224)
    for name in ('bit', 'convnext', 'efficientnet', 'mobilenet_v2', 'poolformer', 'regnet', 'resnet'):
        yield Entry('transformers', name, 'classification', 64)
    for name in ('beit', 'dinov2', 'vit'):
        yield Entry('transformers', name, 'classification', 64, {**_SMALL, 'image_size': 64})
    yield Entry('transformers', 'mobilevit', 'classification', 64, {'image_size': 64})
    swin = {'embed_dim': 24, 'depths': [2, 2], 'num_heads': [2, 4], 'window_size': 4, 'image_size': 64}
    yield Entry('transformers', 'swin', 'classification', 64, swin)
    yield Entry('transformers', 'mobilevit', 'segmentation', 64, {'image_size': 64})
    yield Entry('transformers', 'segformer', 'segmentation', 64)
    yield Entry('transformers', 'detr', 'detection', 64, _DETR)
    yield Entry('transformers', 'conditional_detr', 'detection', 64, _DETR)
    yield Entry('transformers', 'rt_detr', 'detection', 64, _RT_DETR)
    yield Entry('transformers', 'yolos', 'detection', 64, {**_SMALL, 'image_size': [64, 64]})
    for name in ('yolov5n', 'yolov8n', 'yolo11n', 'yolo11n-seg', 'yolo11n-pose', 'yolo11n-obb'):
        yield Entry('ultralytics', name, 'detection', 96)
    yield Entry('ultralytics', 'yolo11n-cls', 'classification', 96)
    for name in ('DeepLabV3', 'FPN', 'Linknet', 'MAnet', 'PAN', 'PSPNet', 'Segformer', 'Unet', 'UnetPlusPlus'):
        yield Entry('segmentation_models_pytorch', name, 'segmentation', 128, {'encoder_name': 'resnet18'})
    for name, side in (('RN50', 224), ('ViT-S-32', 224), ('ViT-S-16', 224)):
        yield Entry('open_clip', name, 'other', side, {'name': name})


def open_clip_visual(name: str) -> nn.Module:
    """Return the image side of a model of open_clip; a factory for ``load_model``."""
    made: nn.Module = importlib.import_module('open_clip').create_model(name, pretrained=None).visual
    return made


def measure(entry: Entry) -> dict[str, Any]:
    """Load and split one model in this process, and return its row of the table."""
    from dynsplit_ros import load_model, SplitModel
    from dynsplit_ros.errors import DynsplitError, in_short

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    torch.set_num_threads(1)
    row = _row(entry)
    try:
        size = None if entry.name.startswith('ssd') else (entry.side, entry.side)  # it has one size
        model = load_model(
            entry.model,
            task=None if entry.package == 'torchvision' else entry.task,
            input_size=size,
            kwargs=entry.kwargs,
            weights='none',
        )
        model.name = entry.name
        start_s = time.perf_counter()
        split = SplitModel(model)
        row['load_s'] = time.perf_counter() - start_s
        row['tracer'] = split.tracer
        row['positions'] = len(split.positions)
        sizes = {
            'bytes': [cut.nbytes for cut in split.positions],
            'elements': [sum(math.prod(spec.shape) for spec in cut.tensors) for cut in split.positions],
        }
        places = {cut.position: cut for cut in split.cuts}
        for kind, numbers in sizes.items():
            smaller = [at for at in range(1, len(numbers)) if numbers[at] < min(numbers[:at])]
            row[f'natural_{kind}'] = len(smaller)
            places.update((at, split.positions[at]) for at in smaller)
        batches = [1] if model.max_batch == 1 else [1, 2]
        row['exact'] = {str(batch): _exact_cuts(split, list(places.values()), batch) for batch in batches}
        row['cuts'] = len(places)
    except DynsplitError as error:
        row['error'] = str(error)
    except Exception as error:  # a model's own code may raise any
        row['error'] = f'raised {in_short(error)}'
    return row


def _exact_cuts(split: Any, cuts: list[Any], batch: int) -> int:
    """Return at how many cuts head plus tail equal the whole model to the bit, on two batches of images."""
    from dynsplit_ros.partition.analysis import seeded_image
    from dynsplit_ros.partition.choose import same_tensors

    images = [seeded_image(split.model.input_size, batch, seed, split.model.image_shape[0]) for seed in (11, 12)]
    expected = [split.whole(image) for image in images]
    return sum(
        all(same_tensors(split.tail(cut)(split.head(cut)(image)), outputs) for image, outputs in zip(images, expected))
        for cut in cuts
    )


def main() -> int:
    """Measure, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--only', default='', metavar='PATTERN', help='models in whose "package name" this is found')
    parser.add_argument('--one', nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    entries = {entry.key: entry for entry in models()}
    if arguments.one:
        print(json.dumps(measure(entries[tuple(arguments.one)])))
        return 0
    missing = sorted({key[0] for key in entries if importlib.util.find_spec(key[0]) is None})
    for package in missing:
        print(f'{package} is not installed: its models are left out')
    rows = _kept_rows(arguments.json)
    for key, entry in entries.items():
        if entry.package not in missing and re.search(arguments.only, f'{entry.package} {entry.name}'):
            rows[key] = _in_own_process(entry)
            print(json.dumps(rows[key]), flush=True)
            _save(rows, arguments.json)
    chosen = [rows[key] for key in entries if key in rows]
    figures = Figures()
    figures.extra = {'models': chosen, 'missing': missing}
    figures.add('models', len(chosen), '', '>= 60')
    figures.add(
        'models that load and are exact at each cut', 100 * sum(map(exact, chosen)) / max(len(chosen), 1), '%', '>= 95'
    )
    unexplained = sum(not exact(row) and row.get('error', 'raised').startswith('raised') for row in chosen)
    figures.add('models that are not exact and have no sentence that says why', unexplained, '', '== 0')
    return figures.finish(arguments.json)


def _row(entry: Entry) -> dict[str, Any]:
    return {'package': entry.package, 'name': entry.name, 'task': entry.task, 'side': entry.side}


def _kept_rows(path: Path | None) -> dict[tuple[str, str, str], dict[str, Any]]:
    if path is None or not path.is_file():
        return {}
    rows = json.loads(path.read_text()).get('models', [])
    return {(row['package'], row['name'], row['task']): row for row in rows}


def _save(rows: dict[tuple[str, str, str], dict[str, Any]], path: Path | None) -> None:
    """Write the rows so far, so that a run that is ended loses one model at most."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({'models': list(rows.values())}, indent=1) + '\n')


def _in_own_process(entry: Entry) -> dict[str, Any]:
    """Measure one model in a process of its own; one that is killed has an error in its row."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, 'HF_HUB_OFFLINE': '1', 'PYTHONPATH': path}
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'bench.models', '--one', *entry.key],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            cwd=ROOT,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {**_row(entry), 'error': f'raised nothing in {TIME_LIMIT_S} s'}
    try:
        measured: dict[str, Any] = json.loads(done.stdout.strip().rpartition('\n')[2])
    except ValueError:
        return {**_row(entry), 'error': f'raised exit code {done.returncode}: {done.stderr[-300:]}'}
    return measured


if __name__ == '__main__':
    raise SystemExit(main())
