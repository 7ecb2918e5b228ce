# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Twenty thousand frames with the split changing every fifty, as fast as they go, watching what each process holds.

Camera, edge and monitor run as processes with a small network. Images follow predictions, a few ahead; the decisions
are made here, one split after the other, local inference among them, while a real monitor works beside on all that it
hears. Memory is each process's own (unique set size).
"""

from __future__ import annotations

import argparse
from pathlib import Path
import sys
import tempfile
import time

import numpy as np
import psutil

from bench.figures import argument_parser, Figures
from dynsplit_ros import msg
from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.nodes import topics
from testing.rig import Rig, rig, ROBOT, wait

NAMES = ('camera', 'edge', 'monitor')
#: Images that may be offered and not yet predicted.
AHEAD = 3
CODECS = ('raw', 'blosc2')
#: Name of the edge.
EDGE = 'edge'


class Driver:
    """Offers an image for each prediction, and changes split and codec as frames go by."""

    def __init__(self, made: Rig, frames: int, every: int) -> None:
        self.rig, self.frames, self.every = made, frames, every
        self.changes = 0
        self._split = topics.SPLIT.publisher(made.player)
        self._node = made.player
        self._node.on_seen = self.step
        self._node.create_timer(0.5, self._prod)
        self._last = -1
        self._start = 0

    def begin(self) -> None:
        """Count from here on."""
        self._start = len(self._node.seen)
        self._node.offered = 0
        for _ in range(AHEAD):
            self.step()

    @property
    def done(self) -> int:
        """Predictions so far."""
        return len(self._node.seen) - self._start

    def decide(self, number: int) -> None:
        """Publish the decision for the ``number``-th stretch of frames."""
        splits = self.rig.split.local_index + 1
        index = number % splits
        last = self._node.seen[-1].timing if self._node.seen else msg.FrameTiming()
        self._split.publish(
            to_message(
                msg.SplitDecision,
                sequence=number + 1,
                edge=EDGE,
                fingerprint=self.rig.split.fingerprint,
                split_index=index,
                split_name=self.rig.split.cuts[index].name,
                codec=CODECS[number // splits % len(CODECS)],
                head_engine=EAGER,
                tail_engine=EAGER,
                local_engine=EAGER,
                reason='the soak says so',
                answer_timeout_s=2.0,
                local_if_wait_s=60.0,
                last_frame_session=last.session,
                last_frame=last.sequence,
            )
        )

    def step(self) -> None:
        """Offer the next image, and change the split where it is time."""
        if self.done // self.every != self._last:
            self._last = self.done // self.every
            self.decide(self._last)
            self.changes += 1
        if self.done < self.frames:
            self._node.offer()

    def _prod(self) -> None:
        """Offer one more where images were passed over and nothing moves."""
        if self._node.seen and time.monotonic() - self._node.seen[-1].at_s > 0.4:
            self.step()


def sample(processes: dict[str, psutil.Process]) -> dict[str, tuple[int, int, int]]:
    """Return bytes of memory, threads and open files of each process."""
    return {
        name: (process.memory_full_info().uss, process.num_threads(), process.num_fds())
        for name, process in processes.items()
    }


def endpoints(made: Rig) -> int:
    """Return how many publishers and subscriptions the graph holds."""
    node = made.player
    return sum(
        node.count_publishers(name) + node.count_subscribers(name) for name, _ in node.get_topic_names_and_types()
    )


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argument_parser(__doc__.strip().splitlines()[0])
    parser.add_argument('--frames', type=int, default=20_000, help='frames (default 20000)')
    parser.add_argument('--settled', type=int, default=2_000, help='growth counts after this many (default 2000)')
    parser.add_argument('--every', type=int, default=50, help='frames between two changes of the split (default 50)')
    parser.add_argument('--input-size', type=int, default=32, help='height and width of the network (default 32)')
    parser.add_argument('--logs', type=Path, default=None, help="folder for the nodes' logs (default: a temporary one)")
    given: argparse.Namespace = parser.parse_args(argv)
    folder = given.logs or Path(tempfile.mkdtemp(prefix='dynsplit_soak_'))
    figures = Figures()
    with rig(folder, given.input_size) as made:
        made.processes.start('edge', 'edge_node', 'edge', {**made.parameters, 'edge_name': EDGE})
        made.processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': -1}, [('split', 'split_of_monitor')])
        made.processes.start('camera', 'camera_node', ROBOT, made.parameters)
        driver = Driver(made, given.frames, given.every)
        player = made.player
        wait(
            lambda: player.count_publishers('prediction') and player.count_publishers('edge_load'), 'no camera or edge'
        )
        driver.decide(0)
        player.offer()
        wait(lambda: (player.offer(), time.sleep(0.2), player.seen)[-1], 'no first prediction')
        time.sleep(1.0)  # what else was offered for a start is through
        processes = {name: psutil.Process(made.processes.pid(name)) for name in NAMES}
        driver.begin()
        started_s = time.monotonic()
        samples: list[tuple[int, dict[str, tuple[int, int, int]]]] = []
        ends = {}
        while driver.done < given.frames:
            before = driver.done
            if not samples or before - samples[-1][0] >= 250:
                samples.append((before, sample(processes)))
                if before >= given.settled and 'settled' not in ends:
                    ends['settled'] = endpoints(made)
                if len(samples) % 8 == 1:
                    mebibytes = ', '.join(
                        f'{name} {values[0] / 2**20:.1f} MiB' for name, values in samples[-1][1].items()
                    )
                    print(f'{before:6d} frames, {time.monotonic() - started_s:5.0f} s: {mebibytes}', flush=True)
            made.processes.check()
            wait(lambda before=before: driver.done >= min(before + 50, given.frames), 'frames stopped')
        took_s = time.monotonic() - started_s
        samples.append((driver.done, sample(processes)))
        ends['end'] = endpoints(made)
        time.sleep(1.0)
        seen = list(player.seen)
        code = made.processes.stop('camera')
        last = made.last_counters()
    sequences = [one.timing.sequence for one in seen]
    settled = [values for number, values in samples if number >= given.settled]
    figures.add('frames', driver.done, 'frames', f'>= {given.frames}')
    figures.add('duration', took_s, 's', '<= 600')
    figures.add('rate', driver.done / took_s, 'frames/s')
    figures.add('changes of the split', driver.changes, 'changes', f'>= {given.frames // given.every}')
    states = np.array([one.timing.outcome for one in seen])
    for state, name in (
        (msg.FrameTiming.ANSWERED, 'answered by the edge'),
        (msg.FrameTiming.LOCAL, 'local'),
        (msg.FrameTiming.FELL_BACK, 'finished on the robot'),
    ):
        figures.add(f'  of these, {name}', int((states == state).sum()), 'frames')
    figures.add('frames lost', last['accepted'] - len(set(sequences)), 'frames', '== 0')
    figures.add(
        'duplicated or out of order', sum(b != a + 1 for a, b in zip(sequences, sequences[1:])), 'frames', '== 0'
    )
    figures.add('differ from the whole model', sum(not one.right for one in seen), 'frames', '== 0')
    for name in NAMES:
        # The first and the last eighth of the samples, so that neither end is one lucky reading.
        uses = np.array([values[name][0] for values in settled], dtype=float)
        part = max(1, len(uses) // 8)
        growth = np.median(uses[-part:]) / np.median(uses[:part]) - 1
        figures.add(f'{name}: memory after {given.settled} frames', float(np.median(uses[:part])) / 2**20, 'MiB')
        figures.add(f'{name}: growth since', 100 * float(growth), '%', '< 2')
        figures.add(f'{name}: threads gained', settled[-1][name][1] - settled[0][name][1], 'threads', '<= 0')
        figures.add(f'{name}: open files gained', settled[-1][name][2] - settled[0][name][2], 'files', '<= 0')
    figures.add('publishers and subscriptions gained', ends['end'] - ends['settled'], 'endpoints', '<= 0')
    figures.add("camera's exit code", code, '', '== 0')
    figures.extra = {
        'samples': [
            {'frames': number, **{name: dict(zip(('bytes', 'threads', 'files'), values[name])) for name in NAMES}}
            for number, values in samples
        ],
        'logs': str(folder),
    }
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
