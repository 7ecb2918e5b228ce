# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The setting of Bakhtiarnia et al. (2022): EfficientNets, ViT and VGG by batch size, data rate and server load.

Each model is measured in a process of its own, with one thread and a limit of time; larger batches are extrapolated.
The rows of models that OUT already has are kept, so a run that was ended continues. bench/paper_results.py computes all
conditions from the rows. Times are processor time, so other programs of the machine change them little.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
import re
import resource
import subprocess
import sys
import time
from typing import Any

import cv2
import torch
from torchvision.models import get_model

from bench.figures import argument_parser, Figures
from bench.paper_results import add_figures, BOUNDS

ROOT = Path(__file__).resolve().parents[1]
#: The models, and the side of the image that each was trained for, in pixels.
SIDES = {
    'efficientnet_lite0': 224,
    'efficientnet_b0': 224, 'efficientnet_b1': 240, 'efficientnet_b2': 288, 'efficientnet_b3': 300,
    'efficientnet_b4': 380, 'efficientnet_b5': 456, 'efficientnet_b6': 528, 'efficientnet_b7': 600,
    'efficientnet_v2_s': 384, 'efficientnet_v2_m': 480, 'efficientnet_v2_l': 480,
    'vit_b_16': 224, 'vit_b_32': 224, 'vgg16': 224,
}  # fmt: skip
#: The one model whose pretrained weights the package index has; the others have seeded weights.
LITE = 'efficientnet_lite0'
#: The side at which the natural bottlenecks of all models are counted too.
COMMON_SIDE = 384
#: Modules whose outputs are the block outputs: of EfficientNet, ViT and VGG.
BLOCKS = ('MBConv', 'FusedMBConv', 'MBConvBlock', 'EncoderBlock', 'MaxPool2d')
BATCHES = (1, 2, 4, 8, 16, 32, 62)
#: Batches of each model that are measured in any case.
FEWEST_BATCHES = 2
REPEATS = 4
#: Processor seconds for the batches of one model; a batch that would exceed them is left to the extrapolation.
BUDGET_S = 8.0
#: Of one model's process. The largest model needs several minutes on a busy machine.
TIME_LIMIT_S, MEMORY_LIMIT_BYTES = 1200, 10 * 2**30
#: The name's number in malloc.h.
_M_MMAP_MAX = -4
PHOTOGRAPHS = ('chelsea', 'coffee')


def block_outputs(name: str, side: int) -> list[int]:
    """Return the elements of each block's output for one image, in the order of the network."""
    if name == LITE:
        module = _lite(side).module.to('meta')
    else:
        with torch.device('meta'):
            module = get_model(name, weights=None, **({'image_size': side} if name.startswith('vit') else {}))
    module.eval()
    found: list[int] = []
    for block in module.modules():
        if type(block).__name__ in BLOCKS:
            block.register_forward_hook(lambda block, inputs, output: found.append(output.numel()))
    with torch.no_grad():
        module(torch.zeros(1, 3, side, side, device='meta'))
    return found


def natural(elements: list[int], image: int) -> dict[str, int]:
    """Count the block outputs that are smaller than the image, and those smaller than all before them as well."""
    smallest, count = image, 0
    for size in elements:
        if size < smallest:
            smallest, count = size, count + 1
    return {'blocks': len(elements), 'below_image': sum(size < image for size in elements), 'below_all_before': count}


def _lite(side: int) -> Any:
    from dynsplit_ros.model import load_model

    return load_model('efficientnet_lite:lite0', weights='default', input_size=(side, side))


def measure(name: str, agreement: Path) -> dict[str, Any]:
    """Measure one model in this process, and return its row."""
    from dynsplit_ros import load_model, SplitModel
    from dynsplit_ros.memory import keep_freed

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed()
    # Nor is any large block mapped anew: the kernel's clearing of its pages is a third of the time of a large batch.
    ctypes.CDLL(None).mallopt(_M_MMAP_MAX, 0)
    side = SIDES[name]
    sides = (side,) if name == LITE else (side, COMMON_SIDE)
    row: dict[str, Any] = {
        'model': name,
        'side': side,
        'weights': 'pretrained' if name == LITE else 'seeded',
        'blocks': {str(size): natural(block_outputs(name, size), 3 * size**2) for size in sides},
    }
    model = _lite(side) if name == LITE else load_model(name, weights='none', input_size=(side, side))
    split = SplitModel(model)
    images = _photographs(split)
    allowed = _allowed(agreement) if name == LITE else {}
    row['cuts'] = [
        {
            'name': cut.name,
            'elements': cut.elements,
            'bytes': cut.nbytes,
            'fewer_bytes': cut.fewer_bytes,
            'fewer_elements': cut.fewer_elements,
            'macs_before': cut.macs_before,
            'codecs': _codecs(
                cut, activations, {codecs[cut.index] for codecs in allowed.values() if cut.index in codecs}
            ),
        }
        for cut, activations in zip(split.cuts, _activations(split, images))
    ]
    row['allowed'] = {bound: {str(cut): codec for cut, codec in codecs.items()} for bound, codecs in allowed.items()}
    row['stage_s'] = _stage_times(split, images)
    row['peak_bytes'] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return row


def _photographs(split: Any) -> list[torch.Tensor]:
    from skimage import data

    return [split.model.resize(getattr(data, name)()) for name in PHOTOGRAPHS]


def _allowed(agreement: Path) -> dict[str, dict[int, str]]:
    """Return, by bound, the smallest codec of each cut whose measured agreement min_agreement would accept."""
    profile = json.loads(agreement.read_text())['profile']
    result: dict[str, dict[int, str]] = {}
    for bound in BOUNDS:
        kept = [one for one in profile if not one['given_up'] and one['low'] >= float(bound)]
        smallest = sorted(kept, key=lambda one: -one['bytes'])
        result[bound] = {one['cut']: one['codec'] for one in smallest}  # the last of a cut is the smallest
    return result


def _activations(split: Any, images: list[torch.Tensor]) -> list[list[dict[str, torch.Tensor]]]:
    """Return what each cut sends for each image, by cut; the network runs once for an image."""
    result: list[list[dict[str, torch.Tensor]]] = [[] for _ in split.cuts[:-1]]
    with torch.inference_mode():
        for image in images:
            values: Any = (image[None],)
            for at, sent in enumerate(result):
                sent.append({spec.name: value.contiguous() for spec, value in zip(split.cuts[at].tensors, values)})
                values = split.stage(at, at + 1)(*values)
    return result


def _codecs(cut: Any, activations: list[dict[str, torch.Tensor]], lossy: set[str]) -> dict[str, dict[str, float]]:
    """Return bytes and processor seconds of the lossless codecs, and of those named, for one photograph on average."""
    from dynsplit_ros.codec import decode, encode, usable_codecs

    found = {}
    for codec in (*usable_codecs(cut.tensors), *sorted(lossy)):
        sizes, encode_s, decode_s = [], [], []
        for tensors in (activations[0], *activations):  # the first run warms up
            begin_s = time.process_time()
            payload = encode(codec, tensors)
            between_s = time.process_time()
            decode(codec, payload, cut.tensors)
            end_s = time.process_time()
            sizes.append(sum(memoryview(tensor.data).nbytes for tensor in payload))
            encode_s.append(between_s - begin_s)
            decode_s.append(end_s - between_s)
        found[codec] = {
            name: sum(values[1:]) / len(activations)
            for name, values in (('bytes', sizes), ('encode_s', encode_s), ('decode_s', decode_s))
        }
    return found


def _stage_times(split: Any, images: list[torch.Tensor]) -> dict[str, list[float]]:
    """Return, by batch, the least processor seconds from each cut to the next; batches until the budget is spent."""
    stages = [split.stage(at, at + 1) for at in range(split.local_index)]
    result: dict[str, list[float]] = {}
    spent_s = longest_s = 0.0
    for number, batch in enumerate(BATCHES):
        expected_s = longest_s * batch / max(BATCHES[number - 1], 1) * REPEATS
        if number >= FEWEST_BATCHES and spent_s + expected_s > BUDGET_S:
            break
        pictures = torch.stack([images[at % len(images)] for at in range(batch)])
        runs = []
        with torch.inference_mode():
            for _ in range(REPEATS):
                values: Any = (pictures,)
                marks = [time.process_time()]
                for stage in stages:
                    values = stage(*values)
                    marks.append(time.process_time())
                runs.append([end - begin for begin, end in zip(marks, marks[1:])])
                if len(runs) > 1 and sum(map(sum, runs)) > BUDGET_S / 3:
                    break
        result[str(batch)] = [min(times) for times in zip(*runs)]
        longest_s = sum(result[str(batch)])
        spent_s += sum(map(sum, runs))
    return result


def _in_own_process(name: str, agreement: Path) -> dict[str, Any]:
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    begin_s = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'bench.paper', '--one', name, '--agreement', str(agreement)],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f'paper: {name} did not end within {TIME_LIMIT_S} s; run again to continue') from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f'paper: {name} ended with exit code {error.returncode}: {error.stderr[-500:]}') from None
    row: dict[str, Any] = json.loads(done.stdout.strip().rpartition('\n')[2])
    return {**row, 'wall_s': round(time.monotonic() - begin_s)}


def main() -> int:
    """Measure what OUT lacks, and compute all conditions."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--only', default='', metavar='PATTERN', help='measure models in whose name this is found')
    parser.add_argument(
        '--agreement',
        type=Path,
        default=ROOT / 'docs' / 'data' / 'agreement.json',
        metavar='FILE',
        help='what ./run bench agreement wrote (default: docs/data/agreement.json)',
    )
    parser.add_argument('--one', choices=SIDES, help='measure this model in this process and print its row')
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.agreement)))
        return 0
    out: Path | None = arguments.json
    rows: dict[str, Any] = {}
    if out is not None and out.is_file():
        rows = {row['model']: row for row in json.loads(out.read_text())['models']}
    for name in SIDES:
        if name not in rows and re.search(arguments.only, name):
            rows[name] = _in_own_process(name, arguments.agreement)
            print(f'{name}: {rows[name]["wall_s"]} s, batches {", ".join(rows[name]["stage_s"])}', flush=True)
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps({'models': list(rows.values())}, indent=1) + '\n')
    figures = Figures()
    figures.extra['models'] = [rows[name] for name in SIDES if name in rows]
    b0 = natural(block_outputs('efficientnet_b0', COMMON_SIDE), 3 * COMMON_SIDE**2)
    figures.add('EfficientNet-B0 at 384 px: block outputs below the image', b0['below_image'], '', '== 15')
    figures.add('EfficientNet-B0 at 384 px: block outputs below all before', b0['below_all_before'], '', '== 4')
    add_figures(figures, figures.extra['models'])
    return figures.finish(out)


if __name__ == '__main__':
    raise SystemExit(main())
