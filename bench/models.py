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

ROOT = Path(__file__).resolve().parents[1]
#: Of one model's process; export takes up to a minute on a busy machine.
TIME_LIMIT_S = 400
MEMORY_LIMIT_BYTES = 6 * 2**30
_PLACE = re.compile(r'(<!-- models -->\n).*?(<!-- end -->)', re.DOTALL)


def models() -> Iterator[tuple[str, str, int, str]]:
    """Yield package, name, side of the image in pixels, and task."""
    for name in (
        'alexnet', 'convnext_tiny', 'densenet121', 'efficientnet_b0', 'googlenet', 'mnasnet1_0', 'mobilenet_v2',
        'mobilenet_v3_small', 'regnet_y_400mf', 'resnet18', 'shufflenet_v2_x1_0', 'squeezenet1_1', 'swin_t', 'vit_b_32',
    ):  # fmt: skip
        yield 'torchvision', name, 64, 'classification'
    for name in ('deeplabv3_mobilenet_v3_large', 'lraspp_mobilenet_v3_large'):
        yield 'torchvision', name, 64, 'segmentation'
    for name in ('fasterrcnn_mobilenet_v3_large_320_fpn', 'ssdlite320_mobilenet_v3_large'):
        yield 'torchvision', name, 320, 'detection'
    for name in (
        'cspresnet50', 'dla34', 'edgenext_xx_small', 'efficientnet_lite0', 'efficientvit_b0', 'ese_vovnet19b_dw',
        'ghostnet_100', 'hrnet_w18_small', 'lcnet_050', 'mobilenetv4_conv_small', 'mobilevit_xxs', 'poolformer_s12',
        'repvgg_a0', 'resnet10t', 'starnet_s1',
    ):  # fmt: skip
        yield 'timm', name, 96, 'classification'
    for name in ('deit_tiny_patch16_224', 'levit_128s', 'tiny_vit_5m_224'):
        yield 'timm', name, 224, 'classification'
    for name in (
        'Beit', 'Bit', 'ConvNext', 'Dinov2', 'EfficientNet', 'MobileNetV2', 'MobileViT', 'PoolFormer', 'RegNet',
        'ResNet', 'Swin', 'ViT',
    ):  # fmt: skip
        yield 'transformers', name, 64, 'classification'
    for name in ('MobileViT', 'Segformer'):
        yield 'transformers', name, 64, 'segmentation'
    for name in ('ConditionalDetr', 'Detr', 'RTDetr', 'Yolos'):
        yield 'transformers', name, 64, 'detection'
    for name in ('yolov5n', 'yolov8n', 'yolo11n', 'yolo11n-seg', 'yolo11n-pose', 'yolo11n-obb'):
        yield 'ultralytics', name, 96, 'detection'
    yield 'ultralytics', 'yolo11n-cls', 96, 'classification'
    for name in ('DeepLabV3', 'FPN', 'Linknet', 'MAnet', 'PAN', 'PSPNet', 'Segformer', 'Unet', 'UnetPlusPlus'):
        yield 'segmentation_models_pytorch', name, 128, 'segmentation'
    yield 'open_clip', 'RN50', 224, 'other'
    yield 'open_clip', 'ViT-S-32', 224, 'other'
    yield 'open_clip', 'MobileCLIP-S1', 256, 'other'


def build(package: str, name: str, task: str, side: int) -> nn.Module:
    """Return a model of a package other than torchvision, from its configuration; a factory for ``load_model``."""
    made: nn.Module = globals()[f'_{package}'](name, task, side)
    return made


def _timm(name: str, task: str, side: int) -> nn.Module:
    timm = importlib.import_module('timm')
    made: nn.Module = timm.create_model(name, pretrained=False)
    return made


#: Small configurations: the graph is the same as that of the large ones, but for its length.
_SMALL: dict[str, dict[str, Any]] = {
    'Beit': {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 96},
    'Dinov2': {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4},
    'ViT': {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 96},
    'Swin': {'embed_dim': 24, 'depths': [2, 2], 'num_heads': [2, 4], 'window_size': 4},
    'Yolos': {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 96},
}
_DETR = {'d_model': 32, 'encoder_layers': 1, 'decoder_layers': 1, 'encoder_ffn_dim': 64, 'decoder_ffn_dim': 64,
         'encoder_attention_heads': 4, 'decoder_attention_heads': 4, 'num_queries': 10}  # fmt: skip


def _transformers(name: str, task: str, side: int) -> nn.Module:
    transformers = importlib.import_module('transformers')
    ending = {'classification': 'ImageClassification', 'segmentation': 'SemanticSegmentation',
              'detection': 'ObjectDetection'}[task]
    settings = dict(_SMALL.get(name, {}))
    if name in ('Beit', 'Dinov2', 'MobileViT', 'Swin', 'ViT'):
        settings['image_size'] = side
    if name == 'Yolos':
        settings['image_size'] = [side, side]
    if name in ('ConditionalDetr', 'Detr'):
        backbone = transformers.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], out_features=['stage4'])
        settings = {**_DETR, 'use_timm_backbone': False, 'use_pretrained_backbone': False, 'backbone': None,
                    'backbone_config': backbone}
    config = getattr(transformers, f'{name}Config')(**settings)
    made: nn.Module = getattr(transformers, f'{name}For{ending}')(config)
    return made


def _ultralytics(name: str, task: str, side: int) -> nn.Module:
    tasks = importlib.import_module('ultralytics.nn.tasks')
    kinds = {'seg': 'SegmentationModel', 'pose': 'PoseModel', 'obb': 'OBBModel', 'cls': 'ClassificationModel'}
    made: nn.Module = getattr(tasks, kinds.get(name.partition('-')[2], 'DetectionModel'))(f'{name}.yaml', verbose=False)
    return made


def _segmentation_models_pytorch(name: str, task: str, side: int) -> nn.Module:
    package = importlib.import_module('segmentation_models_pytorch')
    made: nn.Module = getattr(package, name)('resnet18', encoder_weights=None, classes=5)
    return made


def _open_clip(name: str, task: str, side: int) -> nn.Module:
    made: nn.Module = importlib.import_module('open_clip').create_model(name, pretrained=None).visual
    return made


def measure(package: str, name: str, side: int, task: str) -> dict[str, Any]:
    """Load and split one model in this process, and return its row of the table."""
    from dynsplit_ros import load_model, SplitModel
    from dynsplit_ros.errors import DynsplitError, in_short

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    torch.set_num_threads(1)
    row: dict[str, Any] = {'package': package, 'name': name, 'task': task, 'side': side}
    own = package != 'torchvision'
    try:
        model = load_model(
            'bench.models:build' if own else name, weights='none', task=task if own else None,
            input_size=None if name.startswith('ssd') else (side, side),
            kwargs={'package': package, 'name': name, 'task': task, 'side': side} if own else None)
        model.name = name
        start_s = time.perf_counter()
        split = SplitModel(model)
        row['load_s'] = time.perf_counter() - start_s
        row['tracer'] = split.tracer
        row['positions'] = len(split.positions)
        sizes = {'bytes': [cut.nbytes for cut in split.positions],
                 'elements': [sum(math.prod(spec.shape) for spec in cut.tensors) for cut in split.positions]}
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

    images = [seeded_image(split.model.input_size, batch, seed) for seed in (11, 12)]
    expected = [split.whole(image) for image in images]
    return sum(all(same_tensors(split.tail(cut)(split.head(cut)(image)), outputs)
                   for image, outputs in zip(images, expected)) for cut in cuts)


def exact(row: dict[str, Any]) -> bool:
    """Return whether a model loads and is exact at each of its cuts, for each batch that it takes."""
    return 'error' not in row and all(number == row['cuts'] for number in row['exact'].values())


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table of Markdown."""
    lines = ['| package | model | task | loads in s | cuts by bytes | by elements | exact | tracer |',
             '| --- | --- | --- | ---: | ---: | ---: | --- | --- |']
    for row in rows:
        start = f'| {row["package"]} | {row["name"]} | {row["task"]} | '
        if 'error' in row:
            lines.append(f'{start} | | | **no**: {row["error"].replace("|", "/")} | |')
            continue
        batches = 'batches 1 and 2' if '2' in row['exact'] else 'batch 1'
        wrong = ', '.join(f'{number} of {row["cuts"]}' for number in row['exact'].values())
        lines.append(f'{start}{row["load_s"]:.1f} | {row["natural_bytes"]} | {row["natural_elements"]} | '
                     f'{batches if exact(row) else f"**no**: {wrong}"} | {row["tracer"]} |')
    return '\n'.join(lines) + '\n'


def main() -> int:
    """Measure, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--only', default='', metavar='PATTERN', help='models in whose "package name" this is found')
    parser.add_argument('--page', type=Path, help='put the table between the marks of this page')
    parser.add_argument('--one', nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        package, name, side, task = arguments.one
        print(json.dumps(measure(package, name, int(side), task)))
        return 0
    wanted = list(models())
    missing = sorted({package for package, *_ in wanted if importlib.util.find_spec(package) is None})
    for package in missing:
        print(f'{package} is not installed: its models are left out')
    rows = _kept_rows(arguments.json)
    figures = Figures()
    for package, name, side, task in wanted:
        if package in missing or not re.search(arguments.only, f'{package} {name}'):
            continue
        row = rows[package, name, task] = _in_own_process(package, name, side, task)
        print(json.dumps(row), flush=True)
        figures.extra['models'] = [rows[key] for key in _order(wanted) if key in rows]
        _save(figures, arguments.json)
    chosen = [rows[key] for key in _order(wanted) if key in rows]
    figures.extra = {'models': chosen, 'missing': missing}
    figures.add('models', len(chosen), '', '>= 60')
    figures.add('models that load and are exact at each cut', 100 * sum(map(exact, chosen)) / max(len(chosen), 1), '%',
                '>= 95')
    figures.add('models that are not exact and have no sentence that says why',
                sum(not exact(row) and row.get('error', 'raised').startswith('raised') for row in chosen), '', '== 0')
    if arguments.page:
        text = arguments.page.read_text()
        arguments.page.write_text(_PLACE.sub(lambda place: place[1] + '\n' + table(chosen) + '\n' + place[2], text))
    return figures.finish(arguments.json)


def _order(wanted: list[tuple[str, str, int, str]]) -> list[tuple[str, str, str]]:
    return [(package, name, task) for package, name, _, task in wanted]


def _kept_rows(path: Path | None) -> dict[tuple[str, str, str], dict[str, Any]]:
    if path is None or not path.is_file():
        return {}
    rows = json.loads(path.read_text()).get('models', [])
    return {(row['package'], row['name'], row['task']): row for row in rows}


def _save(figures: Figures, path: Path | None) -> None:
    """Write the rows so far, so that a run that is ended loses one model at most."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures.extra, indent=1) + '\n')


def _in_own_process(package: str, name: str, side: int, task: str) -> dict[str, Any]:
    """Measure one model in a process of its own; one that is killed has an error in its row."""
    row: dict[str, Any] = {'package': package, 'name': name, 'task': task, 'side': side}
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'bench.models', '--one', package, name, str(side), task],
            capture_output=True, text=True, timeout=TIME_LIMIT_S, cwd=ROOT, env=environment)
    except subprocess.TimeoutExpired:
        return {**row, 'error': f'raised nothing in {TIME_LIMIT_S} s'}
    last = done.stdout.strip().rpartition('\n')[2]
    try:
        measured: dict[str, Any] = json.loads(last)
    except ValueError:
        return {**row, 'error': f'raised exit code {done.returncode}: {done.stderr[-300:]}'}
    return measured


if __name__ == '__main__':
    raise SystemExit(main())
