# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What overlapping the stages of a frame can gain: a model of the stages, on kept profiles and on models measured here.

Two overlaps: the robot resizes the next image while it waits for the link (built), and it encodes, or also sends, the
first tensors of a cut while the head goes on (not built). See "What overlaps" in docs/how_it_decides.md.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from pathlib import Path
import statistics
import sys
import time
from unittest import mock

from bench.figures import argument_parser, Figures

ROOT = Path(__file__).resolve().parents[1]
RATE_BPS = 20e6
#: How often each computation is timed.
REPEATS = 9
CODECS = ('blosc2', 'blosc2-sparse', 'quant4-zstd')
#: Time to convert and resize an image, in seconds: 640 x 480 raw, and 1920 x 1080 as a JPEG file.
RESIZE_S = {'640x480 raw': 0.0005, '1920x1080 JPEG': 0.012}


def beside_head(head_s: float, final_s: list[float], encode_s: list[float], send_s: list[float]) -> tuple[float, float]:
    """
    Return by how many seconds a payload is encoded earlier beside the head, and by how many more it then arrives.

    Tensor i is final ``final_s[i]`` after the start of a head that takes ``head_s``; one more core encodes it, and the
    link, free until then, carries it in ``send_s[i]``. The second number is for sending each tensor when it is encoded.
    On a robot without one more core, and for a cut of one tensor, both are 0.
    """
    encoded_s = sent_s = 0.0
    for final, encoding, sending in sorted(zip(final_s, encode_s, send_s)):
        encoded_s = max(encoded_s, final) + encoding
        sent_s = max(sent_s, encoded_s) + sending
    ready_s, arrived_s = max(encoded_s, head_s), max(sent_s, head_s)
    return head_s + sum(encode_s) - ready_s, ready_s + sum(send_s) - arrived_s


def seconds(*computations: Callable[[], object]) -> list[float]:
    """Return the median time of each computation; they take turns."""
    times: list[list[float]] = [[] for _ in computations]
    for _ in range(REPEATS):
        for compute, of_one in zip(computations, times):
            began_s = time.perf_counter()
            compute()
            of_one.append(time.perf_counter() - began_s)
    return [statistics.median(of_one) for of_one in times]


def measure_tensors(figures: Figures, name: str) -> None:
    """Measure, at each cut with several tensors, when each is final and how long it is encoded."""
    import torch

    from dynsplit_ros.codec import encode
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel

    torch.set_num_threads(1)
    split = SplitModel(load_model(name, weights='none'))
    image = torch.randint(0, 256, (1, *split.model.image_shape), dtype=torch.uint8)
    cuts = [cut for cut in split.cuts[1:-1] if len(cut.tensors) > 1]
    figures.add(f'{name}: cuts with several tensors, of {split.local_index - 1}', len(cuts), '')
    for cut in cuts:
        # A tensor is final at the first position where it is among those that flow there.
        firsts = [next(at for at in split.positions if tensor in at.tensors) for tensor in cut.tensors]
        parts = [split.head(position) for position in (cut, *firsts)]
        head_s, *final_s = seconds(*(functools.partial(part, image) for part in parts))
        final_s = [min(final, head_s) for final in final_s]
        activation = parts[0](image)
        for codec in CODECS:
            ones = [{tensor_name: tensor} for tensor_name, tensor in activation.items()]
            encode_s = seconds(*(functools.partial(encode, codec, one) for one in ones))
            send_s = [8 * memoryview(encode(codec, one)[0].data).nbytes / RATE_BPS for one in ones]
            total_s = head_s + sum(encode_s) + sum(send_s)
            hidden_s, earlier_s = beside_head(head_s, final_s, encode_s, send_s)
            where = f'{name}: split {cut.index}, {codec}'
            figures.add(f'{where}: head, encoding and link', total_s * 1e3, 'ms')
            figures.add(f'{where}: encoding beside the head gains', hidden_s * 1e3, 'ms')
            figures.add(f'{where}: the same, of the total', 100 * hidden_s / total_s, '%')
            figures.add(f'{where}: sending the first tensors first gains more', 100 * earlier_s / total_s, '%')


def measure_preparing(figures: Figures, model: str, duration_s: float) -> None:
    """Simulate a robot with and without preparing ahead, on a steady link and on one that varies by 40 %."""
    from dynsplit_ros.policies.camera import CameraPolicy
    from dynsplit_ros.profile.profile import merge, Profile
    from dynsplit_ros.simulation.trace import constant, noisy
    from dynsplit_ros.simulation.world import Scenario, simulate

    edge = Profile.load(ROOT / 'test' / 'data' / f'{model}.yaml')
    profile = merge(edge.scaled(3.0), edge)
    for image, resize_s in RESIZE_S.items():
        for link, trace in (('steady', constant(10e6, duration_s)), ('varying', noisy(10e6, 0.4, duration_s, 1))):
            scenario = Scenario(trace, duration_s, resize_s=resize_s, seed=1)
            overlapped_s = simulate(profile, scenario, '0').mean_per_image_s(3.0)
            with mock.patch.object(CameraPolicy, '_next_to_prepare', lambda self, start_s: None):
                plain_s = simulate(profile, scenario, '0').mean_per_image_s(3.0)
            where = f'{model}, images {image}, {link} link of 10 Mbit/s, split 0'
            figures.add(f'{where}: preparing ahead gains', (plain_s - overlapped_s) * 1e3, 'ms')
            figures.add(f'{where}: latency over that without', overlapped_s / plain_s, 'times', '<= 1.01')


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument('--seconds', type=float, default=30.0, help='simulated time of each run (default: 30)')
    parser.add_argument(
        '--tensors',
        nargs='*',
        default=['shufflenet_v2_x1_0', 'inception_v3'],
        metavar='MODEL',
        help='models whose cuts are measured (default: shufflenet_v2_x1_0 inception_v3)',
    )
    given = parser.parse_args()
    figures = Figures()
    for model in ('mobilenet_v2', 'efficientnet_b0', 'resnet50'):
        measure_preparing(figures, model, given.seconds)
    for model in given.tensors:
        measure_tensors(figures, model)
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
