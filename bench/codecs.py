# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Codecs: how small, and how fast on one core, on real cuts of seeded models and on photographs.

Each figure is of encode and decode as the nodes call them, checks and Python included. The lossless codecs' results are
compared bit by bit; what the lossy ones do to a model's outputs is measured by the benchmark ``agreement``. Speeds are
raw bytes divided by the median time, summed over all cuts of a group. The smallest cuts, of some KiB, cost a fixed 30
to 50 µs and are listed by their time. The codec raw shows what copying the same bytes costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import os
import statistics
import time

import cv2
from skimage import data
import torch

from bench.figures import argument_parser, Figures
from dynsplit_ros.codec import CODECS, decode, encode, usable_codecs
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import Cut, SplitModel
from dynsplit_ros.tensors import TensorSpec

SIDE = 224
PHOTOGRAPHS = ('astronaut', 'coffee', 'chelsea', 'rocket')
#: The lossless codecs that have bars: the best for dense activations, for those after a ReLU, and for images.
DENSE_CODEC, RELU_CODEC, IMAGE_CODEC = 'blosc2', 'blosc2-sparse', 'blosc2-image'
#: The lossy codecs of about 4 bits per element that must keep the speed of a link of 1 Gbit/s, with the lossless ones
#: above. One of them needs an optional package.
LOSSY_CODECS = ('quant4-zstd', 'quant6-jpegls')
REPETITIONS = 15


@dataclass(frozen=True)
class Measured:
    """One codec on one cut: bytes before and after, median times."""

    raw_bytes: int
    payload_bytes: int
    encode_s: float
    decode_s: float

    @property
    def ratio(self) -> float:
        """Payload by raw bytes."""
        return self.payload_bytes / self.raw_bytes


def measure(codec: str, tensors: dict[str, torch.Tensor]) -> Measured:
    """Time a codec on tensors of batch 1, and compare what comes out where it is lossless."""
    specs = [
        TensorSpec(name, str(value.dtype).removeprefix('torch.'), tuple(value.shape)) for name, value in tensors.items()
    ]
    encode_s, decode_s = [], []
    for _ in range(REPETITIONS):
        start_s = time.perf_counter()
        encoded = encode(codec, tensors)
        encoded_s = time.perf_counter()
        decoded = decode(codec, encoded, specs)
        decode_s.append(time.perf_counter() - encoded_s)
        encode_s.append(encoded_s - start_s)
    same = all(torch.equal(decoded[name], value) for name, value in tensors.items())
    if CODECS[codec].lossless and not same:
        raise AssertionError(f'{codec} lost something of {specs}')
    return Measured(
        sum(spec.nbytes for spec in specs),
        sum(memoryview(tensor.data).nbytes for tensor in encoded),
        statistics.median(encode_s),
        statistics.median(decode_s),
    )


def report(figures: Figures, what: str, results: Sequence[Measured], ratio_bar: str | None, barred: bool) -> None:
    """Add the size and the two speeds of one codec over a group of cuts."""
    raw_bytes = sum(result.raw_bytes for result in results)
    speed_bar = '> 150' if barred else None
    ratio = sum(result.payload_bytes for result in results) / raw_bytes
    figures.add(f'{what}: payload / raw', ratio, '', ratio_bar)
    if barred and len(results) > 1:
        figures.add(f'{what}: payload / raw, the largest', max(r.ratio for r in results), '')
    figures.add(f'{what}: encode', raw_bytes / sum(r.encode_s for r in results) / 1e6, 'MB/s', speed_bar)
    figures.add(f'{what}: decode', raw_bytes / sum(r.decode_s for r in results) / 1e6, 'MB/s', speed_bar)


def photographs() -> list[torch.Tensor]:
    """Return photographs as split 0 sends them, uint8 [1, 3, SIDE, SIDE]."""
    images = []
    for name in PHOTOGRAPHS:
        picture = cv2.resize(getattr(data, name)(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        images.append(torch.from_numpy(picture).permute(2, 0, 1).contiguous()[None])
    return images


def activations(split: SplitModel, cuts: Sequence[Cut], image: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """Return what flows at each cut."""
    return {cut.name: split.head(cut)(image) for cut in cuts}


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return 1 if a bar is missed."""
    options = argument_parser(__doc__.strip().splitlines()[0]).parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = Figures()
    images = photographs()

    split = SplitModel(load_model('mobilenet_v2', weights='none', seed=0))
    candidates = [cut for cut in split.cuts if cut.natural]
    flows = activations(split, candidates, images[0])
    codecs = usable_codecs(candidates[0].tensors, allow_lossy=True)
    results = {codec: {name: measure(codec, flow) for name, flow in flows.items()} for codec in codecs}
    for name, result in results[DENSE_CODEC].items():
        what = f'mobilenet_v2 {name} ({result.raw_bytes / 1024:.1f} KiB), {DENSE_CODEC}'
        figures.add(f'{what}: payload / raw', result.ratio, '', '<= 0.88')
        figures.add(f'{what}: encode', 1e6 * result.encode_s, 'us')
        figures.add(f'{what}: decode', 1e6 * result.decode_s, 'us')
    for codec in codecs:
        report(
            figures,
            f'mobilenet_v2 candidates, {codec}',
            list(results[codec].values()),
            '<= 0.88' if codec == DENSE_CODEC else None,
            codec in (DENSE_CODEC, *LOSSY_CODECS),
        )

    split = SplitModel(load_model('resnet50', weights='none', seed=0))
    after_relu = [
        cut for cut in split.positions if len(cut.tensors) == 1 and cut.name.rpartition('.')[2].startswith('relu')
    ]
    flows = activations(split, after_relu, images[0])
    results = {codec: {name: measure(codec, flow) for name, flow in flows.items()} for codec in codecs}
    for cut in after_relu:
        # The bar is the candidates'. Some others have only a third of zeros: the mantissas of the rest, as
        # good as random, alone take 0.48 of the size, and exponents and the mask of zeros come on top.
        ratio = results[RELU_CODEC][cut.name].ratio
        bar = '<= 0.55' if cut.natural else None
        figures.add(f'resnet50 {cut.name}, {RELU_CODEC}: payload / raw', ratio, '', bar)
    for codec in codecs:
        report(
            figures,
            f'resnet50 after ReLU, {codec}',
            list(results[codec].values()),
            '<= 0.55' if codec == RELU_CODEC else None,
            codec in (RELU_CODEC, *LOSSY_CODECS),
        )

    for codec in usable_codecs([TensorSpec('image', 'uint8', tuple(images[0].shape))], allow_lossy=True):
        group = [measure(codec, {'image': image}) for image in images]
        report(figures, f'{len(images)} photographs, {codec}', group, None, codec == IMAGE_CODEC)
    return figures.finish(options.json)


if __name__ == '__main__':
    raise SystemExit(main())
