# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Check and measure on a GPU what runs there: tails, the profiler, batches, other layouts, precisions and engines.

Run it on a machine with CUDA, with PyTorch and this package's library on the path: python scripts/gpu_check.py --json
OUT. It needs no ROS and takes less than four minutes. The exit status is 1 if a figure misses its bar.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import json
from pathlib import Path
import sys
import threading
import time
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynsplit_ros.codec import encode  # noqa: E402
from dynsplit_ros.engine_names import engine_name  # noqa: E402
from dynsplit_ros.estimators.load import LoadReport  # noqa: E402
from dynsplit_ros.model import load_model  # noqa: E402
from dynsplit_ros.partition import SplitModel  # noqa: E402
from dynsplit_ros.policies.edge import EdgeSettings  # noqa: E402
from dynsplit_ros.policies.records import EdgeFrame, Status  # noqa: E402
from dynsplit_ros.profile.measure import measure  # noqa: E402
from dynsplit_ros.runtime.edge import Edge  # noqa: E402
from dynsplit_ros.runtime.robot import decode_outputs  # noqa: E402
from dynsplit_ros.tasks.agreement import largest_difference  # noqa: E402

#: Largest difference of an output of a head on the CPU and a tail on the GPU from the whole model on the CPU, as a
#: share of its largest value. cuDNN adds up in another order, and may compute convolutions in TF32 (10 bits).
FLOAT32, TF32, BFLOAT16, FLOAT16 = 1e-4, 5e-3, 0.1, 0.02
MODELS = ('mobilenet_v2', 'resnet50')
BATCHES = (1, 2, 4, 8, 16, 32, 64)
#: Bytes on the device that may stay allocated after a model is given back: handles and workspaces of the libraries.
LEFT_BYTES = 32 * 2**20


@dataclass
class Check:
    """What is checked on, and what came of it; ``input_size`` is the models' own where it is None."""

    device: str = 'cuda'
    input_size: tuple[int, int] | None = None
    repeats: int = 20
    figures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, most: float | None = None) -> None:
        """Record and print a figure; ``most`` is its bar."""
        holds = most is None or value <= most
        self.figures.append({'name': name, 'value': value, 'unit': unit, 'bar': most, 'holds': holds})
        bar = '' if most is None else f'<= {most:g} {"ok" if holds else "MISSED"}'
        print(f'{name:<76} {value:>12.5g} {unit:<8} {bar}', flush=True)

    def split(self, name: str, device: str | None = None, **options: Any) -> SplitModel:
        """Return a model with random weights on the device."""
        model = load_model(name, weights='none', input_size=self.input_size)
        return SplitModel(model, device or self.device, **options)

    def image(self, split: SplitModel, images: int = 1) -> torch.Tensor:
        """Return seeded images for a model."""
        size = (images, *split.model.image_shape)
        return torch.from_numpy(np.random.default_rng(images).integers(0, 256, size, dtype=np.uint8))

    def median_s(self, run: Callable[[], Any]) -> float:
        """Return the median time of a run; results come back to the CPU, so a run ends when the device has."""
        times_s = []
        for number in range(self.repeats + 3):
            began_s = time.perf_counter()
            run()
            if number >= 3:
                times_s.append(time.perf_counter() - began_s)
        return float(np.median(times_s))


def exactness(check: Check, name: str) -> None:
    """Run heads on the CPU and tails on the device, and compare with the whole model on the CPU."""
    here, there = check.split(name, 'cpu'), check.split(name)
    image = check.image(here)
    whole = here.whole(image)
    for allow_tf32, most in ((False, FLOAT32), (True, TF32)):
        torch.backends.cudnn.allow_tf32 = allow_tf32
        worst = max(largest_difference(whole, there.tail(cut)(here.head(cut)(image))) for cut in here.cuts)
        check.add(
            f'{name}: head on the CPU and tail on the device, largest difference, TF32 {"on" if allow_tf32 else "off"}',
            worst,
            '',
            most,
        )
    own = there.whole(image)
    worst = max(largest_difference(own, there.tail(cut)(there.head(cut)(image))) for cut in there.cuts)
    check.add(f'{name}: head and tail on the device over its own whole model, largest difference', worst, '', FLOAT32)


def options(check: Check, name: str) -> None:
    """Compare layouts, precisions and engines with the whole model on the CPU, and time them."""
    plain = check.split(name, 'cpu')
    image = check.image(plain)
    whole = plain.whole(image)
    for layout in (False, True):
        split = check.split(name, channels_last=layout)
        words = 'channels last' if layout else 'contiguous'
        for engine, precision, most in (
            ('eager', 'float32', TF32),
            ('eager', 'bfloat16', BFLOAT16),
            ('eager', 'float16', FLOAT16),
            ('inductor', 'float32', TF32),
        ):
            failed = split.add_engine(engine, precision, heads=False)
            what = f'{name}: whole model, {words}, {engine}, {precision}'
            check.add(f'{what}, parts that cannot run', len(failed), '', 0)
            if not split.has_tail(0, engine_name(engine, precision)):
                continue
            tail = split.tail(0, engine_name(engine, precision))
            activation = split.head(0)(image)
            check.add(f'{what}, largest difference', largest_difference(whole, tail(activation)), '', most)
            check.add(f'{what}, time', 1000 * check.median_s(lambda: tail(activation)), 'ms')


def profiler(check: Check, name: str) -> None:
    """Profile with the device's events, and compare the whole model's time with a clock around it."""
    split = check.split(name)
    profile = measure(split, (1, 4), ['raw'], repeats=check.repeats, warm_up=3)
    image = check.image(split)
    run = split.head(split.local_index)
    profiled_s, clocked_s = profile.cuts[-1].head_s[1], check.median_s(lambda: run(image))
    check.add(f'{name}: profiled time of the whole model', 1000 * profiled_s, 'ms')
    check.add(
        f'{name}: profiled time over the clock, which also counts the way to the device and back',
        profiled_s / clocked_s,
        '',
        1.2,
    )
    heads_s = [cut.head_s[1] for cut in profile.cuts]
    check.add(
        f'{name}: heads that are faster than a shallower one',
        sum(later < earlier for earlier, later in zip(heads_s, heads_s[1:])),
        '',
        0,
    )


class _Answers:
    """What an edge does to the world; keeps the answers."""

    def __init__(self) -> None:
        self.frames: list[EdgeFrame] = []
        self.faults: list[str] = []
        self.changed = threading.Condition()

    def acknowledge(self, frame: EdgeFrame) -> None:
        """Say nothing."""

    def answer(self, frame: EdgeFrame) -> None:
        """Keep the answer."""
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()

    def report_load(self, report: LoadReport, queueing_s: Mapping[str, float]) -> None:
        """Say nothing."""

    def fault(self, reason: str) -> None:
        """Keep the fault."""
        self.faults.append(reason)


def batches(check: Check, name: str, robots: int = 8) -> None:
    """Have frames of several robots share runs of a tail, and compare each answer with the whole model on the CPU."""
    here, there = check.split(name, 'cpu'), check.split(name)
    profile = measure(there, (1, 2, 4, robots), ['raw'], repeats=3, warm_up=2)
    answers = _Answers()
    edge = Edge(there, answers, profile=profile, settings=EdgeSettings(max_batch=robots, max_batch_wait_s=0.2))
    images = [check.image(here, number + 1)[:1] for number in range(robots)]
    try:
        for _ in range(3):
            for number, image in enumerate(images):
                edge.submit(
                    EdgeFrame(
                        f'robot{number}', number, there.fingerprint, 1, 'raw', 60.0, encode('raw', here.head(1)(image))
                    )
                )
        with answers.changed:
            answers.changed.wait_for(lambda: len(answers.frames) == 3 * robots, 60.0)
    finally:
        edge.close()
    done = [frame for frame in answers.frames if frame.status is Status.OK]
    check.add(f'{name}: faults while {robots} robots share an edge', len(answers.faults), '', 0)
    check.add(
        f'{name}: frames without outputs',
        sum(frame.status not in (Status.OK, Status.SUPERSEDED) for frame in answers.frames),
        '',
        0,
    )
    check.add(f'{name}: frames in a run, the most', max((frame.times.batch for frame in done), default=0), '')
    check.add(
        f'{name}: largest difference of an answer from the whole model on the CPU',
        max(
            (
                largest_difference(
                    here.whole(images[frame.source]),
                    decode_outputs(here, frame.outputs.codec, frame.outputs.tensors, 1),
                )
                for frame in done
            ),
            default=float('inf'),
        ),
        '',
        TF32,
    )


def memory(check: Check, name: str) -> None:
    """Load a model, run it, give it back, and count what stays allocated on the device."""
    from dynsplit_ros.memory import give_back

    def allocated() -> int:
        return torch.cuda.memory_allocated() if check.device.startswith('cuda') else 0

    before = allocated()
    split = check.split(name)
    split.head(split.local_index)(check.image(split))
    check.add(f'{name}: memory of the device with the model', (allocated() - before) / 2**20, 'MiB')
    del split
    give_back()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    check.add(
        f'{name}: memory of the device after it is given back',
        (allocated() - before) / 2**20,
        'MiB',
        LEFT_BYTES / 2**20,
    )


def throughput(check: Check, name: str, sizes: tuple[int, ...] = BATCHES) -> None:
    """Time the tail of full offloading and that of a middle cut for several numbers of images."""
    split = check.split(name)
    for index in (0, split.local_index // 2):
        for images in sizes:
            activation = split.head(index)(check.image(split, images))
            tail = split.tail(index)
            rate_hz = images / check.median_s(lambda: tail(activation))
            check.add(f'{name}: images per second through the tail of split {index}, batch {images}', rate_hz, '1/s')


#: The checks in their order, the quick ones first.
CHECKS = (exactness, profiler, memory, batches, options, throughput)


def main(argv: list[str] | None = None) -> int:
    """Run all checks, print the figures, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', default='cuda', help='device to check (default: cuda)')
    parser.add_argument('--models', nargs='+', default=list(MODELS), metavar='NAME')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures to this file')
    parser.add_argument(
        '--seconds', type=float, default=220.0, help='start no further check after this time (default: 220)'
    )
    arguments = parser.parse_args(argv)
    if arguments.device.startswith('cuda') and not torch.cuda.is_available():
        print(
            'gpu_check: this machine has no CUDA device that PyTorch can use; run it on one that has, or try the '
            'program itself with --device cpu',
            file=sys.stderr,
        )
        return 2
    check, began_s, left_out = Check(arguments.device), time.monotonic(), []
    for step in CHECKS:
        for name in arguments.models:
            if time.monotonic() - began_s > arguments.seconds:
                left_out.append(f'{step.__name__} of {name}')
            else:
                step(check, name)
    missed = [figure for figure in check.figures if not figure['holds']]
    print(
        f'\n{len(check.figures)} figures, {len(missed)} missed their bar, {time.monotonic() - began_s:.0f} s'
        + (f'; no time was left for {", ".join(left_out)}' if left_out else '')
    )
    if arguments.json is not None:
        cuda = torch.device(arguments.device).type == 'cuda'
        measured = {
            'device': torch.cuda.get_device_name(arguments.device) if cuda else arguments.device,
            'torch': torch.__version__,
            'when': time.strftime('%Y-%m-%d', time.gmtime()),
        }
        arguments.json.write_text(
            json.dumps({'measured': measured, 'left_out': left_out, 'figures': check.figures}, indent=1) + '\n'
        )
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
