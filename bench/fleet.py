# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Replicas of tails on a Ray cluster of this machine, behind an edge node and its robots.

The benchmark starts the cluster, with several nodes. Tails take a set time by sleeping. Robots are publishers without
PyTorch. The front end's rate is that of an edge node whose tails do nothing, over that of a bare node that makes the
same copies.
"""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
import contextlib
import importlib.util
import json
import os
from pathlib import Path
from queue import SimpleQueue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import psutil

from bench.figures import argument_parser, Figures
from bench.network import with_root
from dynsplit_ros.runtime.ray_pool import INLINE_BYTES, INLINE_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
ROBOTS = 12
#: Seconds of a tail, and pixels of an image with 20, 150 and 600 kB.
SERVICE_S = 0.05
SIDES = {20: 82, 150: 224, 600: 447}
PARTS = ('latency', 'scaling', 'fairness', 'kills', 'front end')


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        '--only',
        nargs='+',
        choices=PARTS,
        default=PARTS,
        metavar='PART',
        help=f'measure only these: {", ".join(PARTS)}',
    )
    parser.add_argument('--seconds', type=float, default=15.0, help='time of each rate (default: 15)')
    parser.add_argument(
        '--kill-seconds', type=float, default=60.0, help='time in which replicas are killed (default: 60)'
    )
    parser.add_argument('--calls', type=int, default=400, help='calls of each way for the latency (default: 400)')
    given = parser.parse_args()
    if importlib.util.find_spec('ray') is None:
        print('fleet: Ray is not installed; pip install -r requirements-fleet.txt', file=sys.stderr)
        return 2
    from domain_coordinator import domain_id

    figures = Figures()
    with domain_id() as domain, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            'ROS_DOMAIN_ID': str(domain),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'RAY_USAGE_STATS_ENABLED': '0',
            'RAY_worker_niceness': '0',
            'OMP_NUM_THREADS': '1',
            'RAY_AUTH_MODE': 'disabled',  # the clusters are on this machine, and end with the benchmark
            INLINE_VARIABLE: str(INLINE_BYTES),  # the pool comes too late: the cluster imports Ray before
            **with_root(),
        }
        bench = Bench(figures, Path(folder), given.seconds)
        if 'front end' in given.only:
            bench.front_end()
        if 'latency' in given.only:
            # One node: chance would place the bare actor on the caller's of several nodes, and the replica on another.
            with cluster(further_nodes=0) as address:
                latency(figures, address, given.calls)
        with cluster() as address:
            if 'scaling' in given.only:
                bench.scaling(address)
            if 'fairness' in given.only:
                bench.fairness(address)
            if 'kills' in given.only:
                bench.kills(address, given.kill_seconds)
    return figures.finish(given.json)


@contextlib.contextmanager
def cluster(further_nodes: int = 2) -> Iterator[str]:
    """Start a Ray cluster of a head with a processor and nodes with processors for two replicas; yield its address."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False, 'object_store_memory': 2**27}
    )
    try:
        for _ in range(further_nodes):
            made.add_node(num_cpus=2, object_store_memory=2**27)
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()


class Robots:
    """The process with the robots."""

    def __init__(self, robots: int, side: int, timeout_s: float = 5.0) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                '-m',
                'testing.fleet_robots',
                '--robots',
                str(robots),
                '--side',
                str(side),
                '--timeout',
                str(timeout_s),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.servers = -1
        self._frames: SimpleQueue[list[dict[str, Any]]] = SimpleQueue()
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if 'frames' in said:
                if said['torch']:
                    raise RuntimeError('the robots have imported torch')
                self._frames.put(said['frames'])
            else:
                with self._changed:
                    self.servers = said['servers']
                    self._changed.notify_all()

    def wait_for(self, servers: int, within_s: float = 120.0) -> None:
        """Wait until the edge reports a number of servers."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.servers == servers, within_s):
                raise RuntimeError(f'the edge has {self.servers} servers after {within_s:g} s, not {servers}')

    def wait_below(self, servers: int, within_s: float = 30.0) -> None:
        """Wait until the edge reports fewer servers."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.servers < servers, within_s):
                raise RuntimeError(f'the edge still has {self.servers} servers')

    def begin(self, command: str) -> None:
        """Begin to send."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + '\n')
        self._process.stdin.flush()

    def frames(self) -> list[dict[str, Any]]:
        """Return the frames of the command that was begun, as soon as it has ended."""
        return self._frames.get(timeout=600)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Bench:
    """What is measured with nodes."""

    def __init__(self, figures: Figures, folder: Path, seconds: float) -> None:
        self._figures, self._folder, self._seconds = figures, folder, seconds

    @contextlib.contextmanager
    def _edge(self, address: str, replicas: int, robots: int, side: int = SIDES[20]) -> Iterator[Robots]:
        """Run an edge node with replicas, and robots."""
        from dynsplit_ros.nodes.processes import Processes

        parameters = {
            'model': 'testing.sleeping_network:Sleep',
            'model_arguments': json.dumps({'service_s': SERVICE_S}),
            'weights': 'none',
            'cut': False,
            'input_size': [side, side],
            'engine_pool': 'ray',
            'ray_address': address,
            'replicas': [replicas, replicas],
            'edge_name': 'fleet',
        }
        fleet = Robots(robots, side)
        try:
            with Processes(self._folder) as processes:
                processes.start('edge', 'edge_node', '', parameters)
                try:
                    fleet.wait_for(replicas)
                    yield fleet
                except Exception:
                    print(processes.log('edge').read_text()[-3000:], file=sys.stderr)
                    raise
        finally:
            fleet.close()

    def scaling(self, address: str) -> None:
        """Offer more than 4 replicas can do, and count the answers with 1, 2 and 4."""
        rates: dict[int, float] = {}
        for replicas in (1, 2, 4):
            with self._edge(address, replicas, ROBOTS) as robots:
                robots.begin(f'send 10 {self._seconds}')
                rates[replicas] = answered_hz(robots.frames(), self._seconds)
            self._figures.add(
                f'answers per second with {replicas} replicas, tails of {1e3 * SERVICE_S:g} ms', rates[replicas], '1/s'
            )
        self._figures.add('2 replicas over 1', rates[2] / rates[1], 'times', '>= 1.9')
        self._figures.add('4 replicas over 1', rates[4] / rates[1], 'times', '>= 3.6')

    def fairness(self, address: str) -> None:
        """Send 60 frames per second to replicas that can do 40."""
        with self._edge(address, 2, ROBOTS) as robots:
            robots.begin(f'send 5 {self._seconds}')
            frames = robots.frames()
        answered = np.bincount([frame['robot'] for frame in frames if frame['statuses'] == [0]], minlength=ROBOTS)
        self._figures.add(
            f"{ROBOTS} robots at 5 frames/s and 2 replicas: Jain's index of their answers",
            float(answered.sum() ** 2 / (ROBOTS * (answered**2).sum())),
            '',
            '>= 0.99',
        )
        self._figures.add(
            'the same: frames without exactly one answer',
            sum(len(frame['statuses']) != 1 for frame in frames),
            '',
            '== 0',
        )

    def kills(self, address: str, seconds: float) -> None:
        """Kill one replica after the other, each after the last one is ready again."""
        kills = 0
        with self._edge(address, 3, ROBOTS) as robots:
            robots.begin(f'send 2 {seconds + 5}')
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                pids = replica_pids()
                os.kill(pids[kills % len(pids)], signal.SIGKILL)
                kills += 1
                robots.wait_below(3)
                robots.wait_for(3)
            frames = robots.frames()
        self._figures.add(f'replicas killed in {seconds:g} s', kills, '')
        self._figures.add(
            'frames without exactly one answer while replicas were killed',
            sum(len(frame['statuses']) != 1 for frame in frames),
            '',
            '== 0',
        )
        self._figures.add(
            f'frames without outputs of {len(frames)}, none of whose deadlines had passed',
            sum(frame['statuses'] != [0] for frame in frames),
            '',
            '== 0',
        )
        latest_s = max(frame['answered_s'] - frame['sent_s'] for frame in frames)
        self._figures.add('longest wait for an answer while replicas were killed', 1e3 * latest_s, 'ms')

    def front_end(self) -> None:
        """Compare an edge node whose tails do nothing with a bare node; both have two payloads ahead of 6 robots."""
        for kilobytes, side in SIDES.items():
            rates: dict[str, list[float]] = {'bare': [], 'edge': []}
            cpu_ms: dict[str, list[float]] = {'bare': [], 'edge': []}
            for _ in range(3):  # in turn, so that what else the machine does meets both alike
                for kind in rates:
                    rate_hz, share = self._pumped(kind, side)
                    rates[kind].append(rate_hz)
                    cpu_ms[kind].append(1e3 * share / rate_hz)
            bare_hz, edge_hz = (float(np.median(rates[kind])) for kind in ('bare', 'edge'))
            self._figures.add(f'{kilobytes} kB: answers per second of a bare node', bare_hz, '1/s')
            self._figures.add(f'{kilobytes} kB: answers per second of the front end', edge_hz, '1/s')
            self._figures.add(
                f'{kilobytes} kB: processor time of a frame in a bare node', float(np.median(cpu_ms['bare'])), 'ms'
            )
            self._figures.add(
                f'{kilobytes} kB: processor time of a frame in the front end', float(np.median(cpu_ms['edge'])), 'ms'
            )
            self._figures.add(
                f'{kilobytes} kB: front end over bare node',
                edge_hz / bare_hz,
                'times',
                '>= 0.8' if kilobytes < 600 else None,
            )

    def _pumped(self, kind: str, side: int) -> tuple[float, float]:
        """Return answers per second and the share of a processor that the node takes."""
        robots = Robots(6, side)
        parameters = (
            []
            if kind == 'bare'
            else [
                'model:=testing.sleeping_network:Sleep',
                'model_arguments:="{\\"service_s\\": 0.0}"',
                'weights:=none',
                'cut:=false',
                f'input_size:=[{side}, {side}]',
                'edge_name:=fleet',
            ]
        )
        command = [
            sys.executable,
            '-m',
            'testing.noop_edge',
            kind,
            '--ros-args',
            *(argument for parameter in parameters for argument in ('-p', parameter)),
        ]
        with (self._folder / 'front_end.log').open('wb') as log:
            node = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            robots.wait_for(1)
            time.sleep(1.0)
            robots.begin('pump 2 2')
            robots.frames()
            process = psutil.Process(node.pid)
            before = process.cpu_times()
            robots.begin(f'pump 2 {self._seconds}')
            frames = robots.frames()
            after = process.cpu_times()
            spent_s = after.user + after.system - before.user - before.system
            return answered_hz(frames, self._seconds), spent_s / self._seconds
        finally:
            robots.close()
            node.send_signal(signal.SIGINT)
            node.wait(30)


def answered_hz(frames: Sequence[dict[str, Any]], seconds: float) -> float:
    """Return the answers with outputs per second, of all but the first fifth of the time."""
    begin_s = min(frame['sent_s'] for frame in frames)
    counted = [
        frame
        for frame in frames
        if frame['statuses'] == [0] and 0.2 * seconds <= frame['answered_s'] - begin_s < seconds
    ]
    return len(counted) / (0.8 * seconds)


def replica_pids() -> list[int]:
    """Return the processes of all replicas on this machine that this benchmark has started."""
    return [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if any('ray::Replica' in part for part in cmdline(process))
    ]


def cmdline(process: psutil.Process) -> list[str]:
    """Return the words of a process's command, none if it has ended."""
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


class Answers:
    """What an edge does to the world: keeps the answers."""

    def __init__(self) -> None:
        self.all: SimpleQueue[Any] = SimpleQueue()
        self.servers = 0

    def acknowledge(self, frame: Any) -> None:
        """Do nothing."""

    def answer(self, frame: Any) -> None:
        """Keep a frame."""
        self.all.put((time.perf_counter(), frame))

    def report_load(self, report: Any, queueing_s: Any) -> None:
        """Keep the number of servers."""
        self.servers = report.servers

    def keep_profile(self, profile: Any) -> None:
        """Do nothing."""

    def fault(self, reason: str) -> None:
        """Show it."""
        print(reason, file=sys.stderr)


class BareActor:
    """The process that calls a bare actor."""

    def __init__(self, address: str, inline_bytes: int | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != INLINE_VARIABLE}
        if inline_bytes is not None:
            environment[INLINE_VARIABLE] = str(inline_bytes)
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'testing.bare_actor', address],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, count: int, calls: int) -> list[float]:
        """Call the actor with ``count`` bytes, ``calls`` times; return the seconds of each call."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f'{count} {calls}\n')
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def latency(figures: Figures, address: str, calls: int) -> None:
    """Compare a frame through edge and pool, less its tail, with a call of a bare actor with the same bytes."""
    # A process with a connection to Ray costs the others little while it does nothing.
    actors = {'bare': BareActor(address), 'inline': BareActor(address, INLINE_BYTES)}
    try:
        for kilobytes, side in SIDES.items():
            found = {name: 1e3 * seconds for name, seconds in _latencies(address, actors, side, calls).items()}
            figures.add(f'{kilobytes} kB: a call of a bare Ray actor, median', found['bare'], 'ms')
            figures.add(
                f'{kilobytes} kB: the same with arguments in the call as the pool has them', found['inline'], 'ms'
            )
            figures.add(f'{kilobytes} kB: a frame through edge and pool less its tail, median', found['pool'], 'ms')
            figures.add(f'{kilobytes} kB: pool over bare actor', found['pool'] / found['bare'], 'times')
            figures.add(
                f'{kilobytes} kB: pool over bare actor with arguments in the call',
                found['pool'] / found['inline'],
                'times',
                '<= 1.3' if kilobytes == 150 else None,
            )
    finally:
        for actor in actors.values():
            actor.close()


def _latencies(address: str, actors: dict[str, BareActor], side: int, calls: int) -> dict[str, float]:
    """Return the median seconds of each way; blocks of 25 calls take turns, and the first two blocks do not count."""
    from dynsplit_ros.codec import EncodedTensor
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel
    from dynsplit_ros.policies.edge import EdgeSettings
    from dynsplit_ros.policies.records import EdgeFrame, Status
    from dynsplit_ros.runtime.edge import Edge
    from dynsplit_ros.runtime.ray_pool import RayPool
    from testing.tails import SleepingTails

    split = SplitModel(
        load_model(
            'testing.sleeping_network:Sleep', weights='none', kwargs={'service_s': 0.0}, input_size=(side, side)
        ),
        cut=False,
    )
    answers = Answers()
    edge = Edge(
        split, answers, servers=RayPool(SleepingTails(), address=address), settings=EdgeSettings(load_period_s=0.05)
    )
    data = array.array('B', bytes(3 * side * side))

    def pooled() -> float:
        begin_s = time.perf_counter()
        edge.submit(
            EdgeFrame(
                'robot',
                None,
                split.fingerprint,
                0,
                'raw',
                60.0,
                payload=[EncodedTensor('image', 'uint8', (1, 3, side, side), data)],
            )
        )
        end_s, frame = answers.all.get(timeout=60)
        if frame.status is not Status.OK:
            raise RuntimeError(frame.reason)
        return float(end_s - begin_s - frame.times.tail_s)

    try:
        while not answers.servers:
            time.sleep(0.05)
        block, seconds = 25, {name: [] for name in ('pool', *actors)}  # type: dict[str, list[float]]
        for number in range(2 + -(-calls // block)):
            for name in seconds:
                these = [pooled() for _ in range(block)] if name == 'pool' else actors[name].seconds(len(data), block)
                seconds[name] += these if number >= 2 else []
        return {name: float(np.median(values)) for name, values in seconds.items()}
    finally:
        edge.close(10.0)


if __name__ == '__main__':
    sys.exit(main())
