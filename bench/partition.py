# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What splitting costs: head plus tail against the whole module, memory, the time to list cuts, and resizing.

Also the first tail after a change of split, on an edge that prepares it and on one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
import subprocess
import sys
import time

import numpy as np
import torch
from torchvision.transforms import functional

from bench.figures import argument_parser, Figures
from dynsplit_ros.codec import encode
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.memory import keep_freed
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.records import EdgeFrame, EdgeTimes, Status
from dynsplit_ros.runtime.edge import Edge

#: Between two frames of the benchmark of changes, in seconds.
FRAME_PERIOD_S = 0.02
_PLAIN = """
import resource, torch
from dynsplit_ros.model import load_model
model = load_model('efficientnet_b7')
image = torch.zeros(1, 3, *model.input_size, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.inference_mode():
    model.whole(image)
"""
_LIST = """
from dynsplit_ros.tools.cuts import main
main(['efficientnet_b7'])
"""
_REPORT = """
import resource
print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> int:
    """Measure, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--rounds', type=int, default=100, help='interleaved timed runs per cut (100)')
    parser.add_argument('--changes', type=int, default=10, help='changes to each split, prepared and not (10)')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = Figures()
    for name in ('mobilenet_v2', 'resnet50'):
        _overhead(figures, name, arguments.rounds)
        _change_of_split(figures, name, arguments.changes)
    _one_copy(figures, 'resnet50')
    _listing(figures)
    _resizing(figures, 'mobilenet_v2', arguments.rounds)
    return figures.finish(arguments.json)


def _overhead(figures: Figures, name: str, rounds: int) -> None:
    """Time head plus tail and the whole module in turn, which of them first by turns as well."""
    split = SplitModel(load_model(name))
    generator = np.random.default_rng(0)
    size = (1, 3, *split.model.input_size)
    image = torch.from_numpy(generator.integers(0, 256, size, dtype=np.uint8))
    whole_s: dict[int, list[float]] = {cut.index or 0: [] for cut in split.cuts}
    split_s: dict[int, list[float]] = {cut.index or 0: [] for cut in split.cuts}
    for number in range(rounds + 3):
        for index in whole_s:
            head, tail = split.head(index), split.tail(index)

            def both(head=head, tail=tail):  # type: ignore[no-untyped-def]
                tail(head(image))

            def whole() -> None:
                split.whole(image)

            for run, times in ((both, split_s), (whole, whole_s))[:: 1 if number % 2 else -1]:
                start_s = time.perf_counter()
                run()
                if number >= 3:
                    times[index].append(time.perf_counter() - start_s)
    for cut in split.cuts:
        index = cut.index or 0
        # Of neighbours in time, so that what slows the machine for a while slows both.
        ratio = float(np.median(np.divide(split_s[index], whole_s[index])))
        figures.add(f'{name}: head + tail over the whole at {index} ({cut.name})', ratio, '', '<= 1.03')
    figures.add(f'{name}: the whole module', 1000 * float(np.median(sum(whole_s.values(), []))), 'ms')


class _Answers:
    """What an edge does to the world: keeps the times of each answer."""

    def __init__(self) -> None:
        self.times: SimpleQueue[EdgeTimes] = SimpleQueue()

    def acknowledge(self, frame: EdgeFrame) -> None:
        pass

    def answer(self, frame: EdgeFrame) -> None:
        if frame.status is not Status.OK:
            raise RuntimeError(frame.reason)
        self.times.put(frame.times)

    def report_load(self, report: LoadReport, queueing_s: Mapping[str, float]) -> None:
        pass

    def fault(self, reason: str) -> None:
        raise RuntimeError(reason)


def _change_of_split(figures: Figures, name: str, changes: int) -> None:
    """
    Change the split of an edge's robot, and compare the first tail with the later ones of the same split.

    Each change goes to a tail that this edge has not run yet, for it drops all that is built. Before, it serves another
    split. Frames come as from a camera, so that what the processor keeps between two of them is the same for all.
    """
    keep_freed()
    split = SplitModel(load_model(name))
    image = torch.zeros((1, 3, *split.model.input_size), dtype=torch.uint8)
    payloads = {cut.index or 0: encode('raw', split.head(cut)(image)) for cut in split.cuts[:-1]}
    answers = _Answers()
    edge = Edge(split, answers)

    def tail_s(index: int) -> float:
        time.sleep(FRAME_PERIOD_S)
        edge.submit(EdgeFrame('robot', None, split.fingerprint, index, 'raw', 60.0, payloads[index]))
        return answers.times.get(timeout=60).tail_s

    for prepared in (False, True):
        ratios: list[float] = []
        first_s: list[float] = []
        for number in range(changes):
            for index in payloads:
                split._cache.clear()
                other = (index + 1 + number) % len(payloads)
                for _ in range(3):
                    tail_s(other if other != index else (index + 1) % len(payloads))
                if prepared:
                    before = edge.counts()['prepared']
                    edge.on_split('robot', split.fingerprint, index, 'raw')
                    while edge.counts()['prepared'] == before:
                        time.sleep(0.001)
                first, *later = (tail_s(index) for _ in range(8))
                first_s.append(first)
                ratios.append(first / float(np.median(later)))
        how = 'prepared' if prepared else 'not prepared'
        figures.add(
            f'{name}: first tail after a change of split over the later ones, {how}',
            float(np.median(ratios)),
            '',
            '<= 1.2' if prepared else None,
        )
        figures.add(f'{name}: the same, largest of {len(ratios)} changes', max(ratios), '')
        figures.add(f'{name}: first tail after a change of split, {how}', 1000 * float(np.median(first_s)), 'ms')
    edge.close()


def _one_copy(figures: Figures, name: str) -> None:
    """Build head and tail of every candidate and count the weights' memory, and the process's growth."""
    model = load_model(name)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.module.parameters(), *model.module.buffers())}
    own |= {tensor.untyped_storage().data_ptr() for tensor in model.normalise.buffers()}
    weights = sum(tensor.untyped_storage().nbytes() for tensor in model.module.parameters())
    split = SplitModel(model)
    image = torch.zeros((1, 3, *model.input_size), dtype=torch.uint8)
    split.whole(image)
    before = _resident_bytes()
    for cut in split.cuts:
        split.tail(cut)(split.head(cut)(image))
    grown = _resident_bytes() - before
    foreign = [
        tensor
        for part in split._cache.values()
        for tensor in (*part.module.parameters(), *part.module.buffers())  # type: ignore[union-attr]
        if tensor.untyped_storage().data_ptr() not in own
    ]
    figures.add(f"{name}: tensors of heads and tails that are not the module's own", len(foreign), '', '== 0')
    figures.add(f'{name}: memory that all heads and tails add, over the weights', grown / weights, '', '<= 0.2')


def _resident_bytes() -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1]) * 1024
    raise RuntimeError('no VmRSS in /proc/self/status')


def _listing(figures: Figures) -> None:
    """List efficientnet_b7's cuts in a process of its own, against one that only loads and runs the model."""
    peaks = {}
    for what, program in (('plain', _PLAIN), ('list', _LIST)):
        start_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, '-c', program + _REPORT], capture_output=True, text=True, check=True, timeout=120
        )
        seconds = time.perf_counter() - start_s
        peaks[what] = int(done.stdout.rsplit('PEAK', 1)[1])
    figures.add('efficientnet_b7: time to list the cuts, process start included', seconds, 's', '< 10')
    ratio = peaks['list'] / peaks['plain']
    figures.add('efficientnet_b7: peak memory over that of model and one forward pass', ratio, '', '< 1.5')
    figures.add('efficientnet_b7: peak memory while listing', peaks['list'] / 2**20, 'MiB')


def _resizing(figures: Figures, name: str, rounds: int) -> None:
    """Time a camera image's way to the model's 8-bit input, and the same through float32, in turn."""
    resize = load_model(name, weights='none').resize
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    scaled = list(resize.placement(480, 640).scaled)

    def through_floats() -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
        tensor = functional.resize(tensor, scaled, resize.interpolation, antialias=resize.antialias)
        return functional.center_crop(tensor, list(resize.size)).contiguous()

    eight_bit_s, float_s = [], []
    for number in range(rounds + 3):
        for run, times in ((lambda: resize(image), eight_bit_s), (through_floats, float_s))[:: 1 if number % 2 else -1]:
            start_s = time.perf_counter()
            run()
            times.append(time.perf_counter() - start_s)
    figures.add(f'{name}: 640x480 to its input', 1000 * float(np.median(eight_bit_s[3:])), 'ms')
    ratio = float(np.median(np.divide(eight_bit_s[3:], float_s[3:])))
    figures.add(f'{name}: 640x480 to its input, over the way through float32', ratio, '', '<= 0.15')


if __name__ == '__main__':
    raise SystemExit(main())
