# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The real nodes on a shaped link between two network namespaces, against what its rate says and against each other.

Three parts: 'link' (each cut's latency over the sum of its parts; frames offered faster than the link carries them;
latency with and without overlap), 'system' (the dynamic system against every fixed split while the rate steps), 'cpu'
(what the nodes cost without a model). Needs root, ip and tc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass
import math
import os
from pathlib import Path
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np

from bench.figures import argument_parser, Figures
from dynsplit_ros.engine_names import EAGER
from testing import overlap_switch
from testing.setting import Setter
from testing.testbed import CPU_PERIOD_US, Testbed

ROBOT = 'robot1'
LINK_RATES_BPS = (5e6, 20e6, 100e6)
STEP_RATES_BPS = (1e6, 5e6, 20e6, 100e6, 5e6)
FRAMES = 15
OFFERED = 200
#: The rate at which overlap is measured, turns with and without it, and frames of each turn in haste.
OVERLAP_RATE_BPS = 20e6
TURNS = 5
HASTY_FRAMES = 45
RATE_HZ = 10.0
#: How long the dynamic system has the rate before a step, in seconds, and how often it meets each step.
SETTLING_S = 5.0
STEPS = 3
#: A fixed choice may be the best at a rate if a short turn of it took at most so many times as long as the best one's.
CONTENDING = 1.4


def identity() -> Any:
    """Return a model that does nothing but hand on three numbers of its image, for the cost of the nodes alone."""
    from torch import nn, Tensor

    class Corner(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :, 0, 0]

    return Corner()


@dataclass
class Seen:
    """A prediction: when it came here, its image's stamp (both by the monotonic clock, in s), and its timing."""

    at_s: float
    shown_s: float
    timing: Any


class Bench:
    """The nodes of one robot and its edges on a testbed, and a node here that plays camera, consumer and monitor."""

    def __init__(
        self,
        testbed: Testbed,
        folder: Path,
        *,
        transport: str,
        model: dict[str, object],
        monitor: dict[str, object] | None = None,
        size: tuple[int, int] = (480, 640),
        edges: int = 1,
        switch: bool = False,
    ) -> None:
        import rclpy
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        from dynsplit_ros import msg
        from dynsplit_ros.messages.images import from_rgb
        from dynsplit_ros.nodes import topics
        from dynsplit_ros.nodes.base_node import make_executor
        from dynsplit_ros.nodes.processes import Processes
        from dynsplit_ros.nodes.spinning import Spinning
        from dynsplit_ros.transport import environment

        self.seen: list[Seen] = []
        self.profiles: dict[str, Any] = {}
        self.acknowledgements: dict[int, float] = {}
        self.loads = 0
        self._number = 0
        self._chance = np.random.default_rng(0)
        os.environ |= environment(transport)
        self.processes = Processes(folder / 'logs')
        # A machine's profile is kept by model, not by its share of a core: each side has a cache of its own.
        for side, name, executable, namespace, parameters in (
            *(('edge', name, 'edge_node', name, model) for name in ('edge', 'edge2')[:edges]),
            ('robot', 'camera', 'camera_node', ROBOT, model),
            *((('robot', 'monitor', 'monitor_node', ROBOT, monitor),) if monitor is not None else ()),
        ):
            wrapped = [sys.executable, '-m', 'testing.overlap_switch'] if switch and name == 'camera' else []
            self.processes.start(
                name,
                executable,
                namespace,
                parameters,
                prefix=[*testbed.on(side), *wrapped],
                env={'XDG_CACHE_HOME': str(folder / side), **with_root()},
            )
        rclpy.init()
        self.node = node = rclpy.create_node('bench', namespace=f'/{ROBOT}')
        self._image = from_rgb(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        self._images = node.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._split = topics.SPLIT.publisher(node) if monitor is None else None
        self._probe: Any = None  # to the edge, whose name its profile has
        deep = QoSProfile(depth=1000)
        node.create_subscription(msg.Prediction, 'prediction', self._on_prediction, deep)
        node.create_subscription(msg.Acknowledgement, 'acknowledgement', self._on_acknowledgement, deep)
        topics.ROBOT_PROFILE.subscription(node, lambda message: self.profiles.__setitem__('robot', message))
        topics.EDGE_PROFILE.subscription(node, self._on_edge_profile)
        topics.EDGE_LOAD.subscription(node, lambda message: setattr(self, 'loads', self.loads + 1))
        self._setter = Setter(node)
        self._spinning = Spinning(make_executor())
        self._spinning.add(node)

    def _on_edge_profile(self, message: Any) -> None:
        from dynsplit_ros.nodes import topics

        self._activation = topics.ACTIVATION.name_to(message.edge, self.node)
        self._probe = topics.PROBE.publisher(self.node, topics.PROBE.name_to(message.edge, self.node))
        self.profiles['edge'] = message  # at last: ready() then uses the others

    def _on_prediction(self, message: Any) -> None:
        stamp = message.header.stamp
        self.seen.append(Seen(time.monotonic(), stamp.sec + stamp.nanosec / 1e9, message.timing))

    def _on_acknowledgement(self, message: Any) -> None:
        if message.kind == message.PROBE:
            self.acknowledgements[message.sequence] = time.monotonic()

    def wait(self, happened: Callable[[], object], what: str, within_s: float = 180.0) -> None:
        """Wait for something, and fail when a process ends or it takes too long."""
        deadline_s = time.monotonic() + within_s
        while not happened():
            self.processes.check()
            if time.monotonic() > deadline_s:
                raise RuntimeError(f'{what} did not happen within {within_s:g} s; logs: {self.processes.folder}')
            time.sleep(0.002)

    def ready(self) -> None:
        """Wait until the nodes have found each other in all directions, and an edge's load report has come."""
        self.wait(
            lambda: (
                len(self.profiles) == 2
                and self._images.get_subscription_count()
                and self.loads
                and self._probe.get_subscription_count()
                and self.node.count_subscribers(self._activation)
                and self.node.count_publishers(self._activation)
            ),
            'discovery',
        )

    def round_trip_s(self) -> float:
        """Return the median round trip of an empty probe."""
        from dynsplit_ros import msg
        from dynsplit_ros.messages.fields import to_message

        times = []
        for _ in range(1, 16):
            key = self._number = self._number + 1
            sent_s = time.monotonic()
            self._probe.publish(to_message(msg.Probe, session=1, sequence=key))
            with contextlib.suppress(RuntimeError):  # a lost probe measures nothing
                self.wait(lambda: key in self.acknowledgements, 'an acknowledgement', 1.0)
                times.append(self.acknowledgements[key] - sent_s)
        return statistics.median(times)

    def choose(self, split_index: int, codec: str) -> None:
        """Play the monitor."""
        from dynsplit_ros import msg
        from dynsplit_ros.messages.fields import to_message

        self._split.publish(
            to_message(
                msg.SplitDecision,
                fingerprint=self.profiles['robot'].fingerprint,
                edge=self.profiles['edge'].edge,
                split_index=split_index,
                codec=codec,
                head_engine=EAGER,
                tail_engine=EAGER,
                local_engine=EAGER,
                answer_timeout_s=20.0,
                local_if_wait_s=math.inf,
            )
        )

    def show(self) -> float:
        """Publish an image and return its stamp."""
        now_ns = time.monotonic_ns()
        stamp = self._image.header.stamp
        stamp.sec, stamp.nanosec = now_ns // 10**9, now_ns % 10**9
        self._images.publish(self._image)
        return stamp.sec + stamp.nanosec / 1e9

    def show_and_wait(self) -> Seen:
        """Publish an image and return its prediction."""
        shown_s = self.show()
        self.wait(lambda: any(seen.shown_s == shown_s for seen in self.seen[-3:]), 'a prediction', 30.0)
        return next(seen for seen in self.seen[-3:] if seen.shown_s == shown_s)

    def play(self, rate_hz: float, until: Callable[[], object], within_s: float = 180.0, jitter_s: float = 0.0) -> None:
        """
        Offer images at a rate until something has happened, and fail when a process ends or it takes too long.

        Each is late by up to ``jitter_s``, drawn at random.
        """
        began_s = next_s = time.monotonic()
        while not until():
            self.processes.check()
            if time.monotonic() > began_s + within_s:
                raise RuntimeError(
                    f'frames did not come as expected within {within_s:g} s; logs: {self.processes.folder}'
                )
            self.show()
            next_s += 1 / rate_hz
            time.sleep(max(0.0, next_s + self._chance.uniform(0.0, jitter_s) - time.monotonic()))

    def watch(self, seconds: float) -> list[Seen]:
        """
        Offer 10 images/s for some seconds; return the predictions of those that were shown meanwhile.

        A share of a core is dealt out anew every few milliseconds. A strict rate would meet each of its periods at
        the same point for as long as it lasts, and the same choice would take 43 ms in one run and 63 ms in the next.
        """
        began_s = time.monotonic()
        self.play(RATE_HZ, lambda: time.monotonic() - began_s >= seconds, jitter_s=CPU_PERIOD_US / 1e6)
        ended_s = time.monotonic()
        self.play(RATE_HZ, lambda: self.seen and self.seen[-1].shown_s >= ended_s)  # what is under way comes in order
        return [seen for seen in self.seen if began_s <= seen.shown_s < ended_s]

    def overlap(self, is_on: bool) -> None:
        """Have the camera node prepare images ahead, or not; it was started with ``switch``."""
        os.kill(self.processes.pid('camera'), overlap_switch.ON if is_on else overlap_switch.OFF)

    def pin(self, split_index: int) -> None:
        """Have the monitor use one split, and wait until frames do; -1 has it choose."""
        self._setter.set(f'/{ROBOT}/monitor_node', pinned_split=split_index)
        pinned_s = time.monotonic()
        self.play(
            RATE_HZ, lambda: self.seen[-1].shown_s > pinned_s and split_index in (-1, self.seen[-1].timing.split_index)
        )

    def settle(self, split_index: int) -> None:
        """Show images one by one until the split is in use, and three more, so that what is first is done."""
        self.wait(lambda: self.show_and_wait().timing.split_index == split_index, 'the change of split')
        for _ in range(3):
            self.show_and_wait()

    def close(self) -> None:
        """End everything."""
        self.processes.__exit__(None, None, None)
        self._spinning.close()


@contextlib.contextmanager
def bench(*args: Any, **options: Any) -> Iterator[Bench]:
    """Return a Bench that is ready, and end it."""
    stage = Bench(*args, **options)
    try:
        stage.ready()
        yield stage
    finally:
        stage.close()


def with_root() -> dict[str, str]:
    """Return the environment in which a process finds bench and testing."""
    root = str(Path(__file__).resolve().parent.parent)
    return {'PYTHONPATH': os.pathsep.join(filter(None, (os.environ.get('PYTHONPATH'), root)))}


def middle(values: Any) -> float:
    """Return the median."""
    return float(np.median(list(values)))


def compute_s(timing: Any) -> tuple[float, float]:
    """Return what robot and edge computed for a frame, in seconds."""
    return timing.resize_s + timing.head_s + timing.encode_s, timing.decode_s + timing.tail_s


def measure_link(figures: Figures, folder: Path, models: list[str], transport: str) -> None:
    """Measure every cut of the models at every rate, one frame at a time, then frames in haste."""
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel

    for model in models:
        cuts = SplitModel(load_model(model, weights='none')).cuts
        parameters = {'model': model, 'weights': 'none', 'threads': 1}
        with (
            Testbed(LINK_RATES_BPS[-1]) as testbed,
            bench(testbed, folder, transport=transport, model=parameters, switch=True) as stage,
        ):
            for rate_bps in LINK_RATES_BPS:
                testbed.set_rate(rate_bps)
                rtt_s = stage.round_trip_s()
                where = f'{model} at {rate_bps / 1e6:g} Mbit/s'
                figures.add(f'{where}: round trip', rtt_s * 1e3, 'ms')
                sustained = {}
                for cut in cuts[:-1]:
                    if cut.nbytes * 8 / rate_bps >= 1.0:
                        continue
                    stage.choose(cut.index, 'raw')
                    stage.settle(cut.index)
                    timings = [stage.show_and_wait().timing for _ in range(FRAMES)]
                    # Each frame against its own parts, since a busy machine computes at varying speed.
                    ideal_s = [sum(compute_s(t)) + t.payload_bytes * 8 / rate_bps + rtt_s for t in timings]
                    if middle(ideal_s) < 1.0:
                        ratio = middle(t.latency_s / s for t, s in zip(timings, ideal_s))
                        figures.add(
                            f'{where}: split {cut.index} ({cut.nbytes} bytes), latency over its parts',
                            ratio,
                            'times',
                            '<= 1.10',
                        )
                        sustained[cut.index] = max(
                            *(middle(compute_s(t)[i] for t in timings) for i in (0, 1)), cut.nbytes * 8 / rate_bps
                        )
                # The largest that is done in a minute keeps the link busy; on a fast link the deepest keeps the robot
                # busy.
                hasty = {
                    max(
                        (index for index in sustained if sustained[index] <= 60 / OFFERED),
                        key=lambda index: cuts[index].nbytes,
                    )
                }
                for index in sorted(hasty | ({max(sustained)} if rate_bps == LINK_RATES_BPS[-1] else set())):
                    in_haste(figures, stage, where, index, cuts, rate_bps, sustained[index])
                if rate_bps == OVERLAP_RATE_BPS:
                    for index, codec in ((0, 'blosc2-image'), (2, 'blosc2-sparse')):
                        measure_overlap(
                            figures, stage, f'{where}: split {index}, {codec}', index, codec, rate_bps, rtt_s
                        )


def measure_overlap(
    figures: Figures, stage: Bench, where: str, index: int, codec: str, rate_bps: float, rtt_s: float
) -> None:
    """
    Compare a coding codec's latency with the model of the stages, and with the latency without overlap, in turns.

    One frame at a time takes the sum of its parts. Of images in haste, a period apart, the newest one is half a period
    old on average when its work begins, and no frame waits for anything else.
    """
    stage.choose(index, codec)
    stage.wait(lambda: stage.show_and_wait().timing.codec == codec, 'the change of codec')
    for _ in range(3):
        stage.show_and_wait()
    alone: dict[bool, list[Any]] = {True: [], False: []}
    for turn in range(2 * TURNS):
        stage.overlap(turn % 2 == 0)
        alone[turn % 2 == 0] += [stage.show_and_wait().timing for _ in range(FRAMES // TURNS)]

    def parts_s(timing: Any) -> float:
        return sum(compute_s(timing)) + timing.payload_bytes * 8 / rate_bps + rtt_s

    timings = [timing for of_turn in alone.values() for timing in of_turn]
    period_s = max(
        1 / 60,
        max(middle(compute_s(t)[i] for t in timings) for i in (0, 1)) / 3,
        middle(t.payload_bytes for t in timings) * 8 / rate_bps / 3,
    )
    hasty: dict[bool, list[Any]] = {True: [], False: []}
    for turn in range(2 * TURNS):
        stage.overlap(turn % 2 == 0)
        stage.seen.clear()
        stage.play(1 / period_s, lambda: len(stage.seen) >= HASTY_FRAMES)
        hasty[turn % 2 == 0] += [seen.timing for seen in stage.seen[5:HASTY_FRAMES]]
    stage.overlap(True)
    for how, of_turns, age_s in (('one at a time', alone, 0.0), ('in haste', hasty, period_s / 2)):
        mean_s = {is_on: statistics.fmean(t.latency_s for t in seen) for is_on, seen in of_turns.items()}
        model_s = statistics.fmean(parts_s(t) for t in of_turns[True]) + age_s
        figures.add(f'{where}, {how}: latency over the model of the stages', mean_s[True] / model_s, 'times', '<= 1.10')
        # Each against its own parts, since the machine's speed varies more from turn to turn than the overlap gains.
        other_s = statistics.fmean(parts_s(t) for t in of_turns[False]) + age_s
        figures.add(
            f'{where}, {how}: the same over that without overlap',
            mean_s[True] / model_s / (mean_s[False] / other_s),
            'times',
            '<= 1.02',
        )
        figures.add(f'{where}, {how}: mean latency over that without overlap', mean_s[True] / mean_s[False], 'times')


def in_haste(
    figures: Figures, stage: Bench, where: str, index: int, cuts: Any, rate_bps: float, stage_s: float
) -> None:
    """Offer images thrice as fast as the slowest stage carries them; latency must not grow, nor that stage idle."""
    stage.choose(index, 'raw')
    stage.settle(index)
    link_s = cuts[index].nbytes * 8 / rate_bps
    stage.seen.clear()
    stage.play(min(60.0, 3 / stage_s), lambda: len(stage.seen) >= OFFERED)
    seen = stage.seen[:OFFERED]
    quarter = len(seen) // 4
    early, late = (middle(s.timing.latency_s for s in part) for part in (seen[5 : 5 + quarter], seen[-quarter:]))
    figures.add(
        f'{where}: split {index} in haste, latency of the last quarter of {OFFERED} over the first',
        late / early,
        'times',
        '<= 1.10',
    )
    # The mean, as the rate is one: that of frames follows from the sum of their times.
    slowest_s = max(link_s, *(statistics.fmean(compute_s(s.timing)[i] for s in seen) for i in (0, 1)))
    rate_hz = (len(seen) - 6) / (seen[-1].at_s - seen[5].at_s)
    figures.add(f'{where}: split {index} in haste, frames/s times the slowest stage', rate_hz * slowest_s, '', '>= 0.9')


def measure_system(figures: Figures, folder: Path, model: str, seconds: float, splits: list[int] | None) -> None:
    """
    Step the rate under the dynamic system; beside it, every fixed split, full offloading and local inference.

    The machine's own speed drifts by a half within seconds to minutes, so all choices take turns at each rate, in one
    system whose split is pinned meanwhile. A short turn of each tells which fixed ones may be the best; their turns
    then lie around the steps of the dynamic system, which first has the rate before, then the step.
    """
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel

    local = SplitModel(load_model(model, weights='none')).local_index
    fixed = {
        ('offloading' if i == 0 else 'local' if i == local else f'split {i}'): i
        for i in (range(local + 1) if splits is None else splits)
    }
    latencies: dict[str, list[list[float]]] = {policy: [[] for _ in STEP_RATES_BPS] for policy in ('dynamic', *fixed)}
    steps_seen: dict[str, list[list[tuple[float, int, float]]]] = {}
    with (
        Testbed(STEP_RATES_BPS[-1], {'robot': 0.25, 'edge': 1.0}) as testbed,
        bench(
            testbed,
            folder,
            transport='wired',
            model={'model': model, 'weights': 'none', 'threads': 1},
            monitor={'pinned_split': -1},
        ) as stage,
    ):
        stage.play(RATE_HZ, warmed(stage, 5.0))
        for number, rate_bps in enumerate(STEP_RATES_BPS):
            where = f'step {number + 1}, {rate_bps / 1e6:g} Mbit/s'
            runs = {policy: of_steps[number] for policy, of_steps in latencies.items()}

            def turn(policies: list[str], seconds: float, runs: dict[str, list[float]] = runs) -> None:
                for policy in policies:
                    stage.pin(fixed[policy])
                    runs[policy] += [s.timing.latency_s for s in stage.watch(seconds)]

            testbed.set_rate(rate_bps)
            turn([*fixed], seconds / 4)
            mean_s = {policy: np.mean(runs[policy]) for policy in fixed}
            contenders = [policy for policy in fixed if mean_s[policy] <= CONTENDING * min(mean_s.values())]
            used: list[tuple[int, float]] = []
            after_step: list[list[tuple[float, int, float]]] = steps_seen.setdefault(where, [])
            turn(contenders, seconds * 3 / 4)
            for _ in range(STEPS):
                stage.pin(-1)
                testbed.set_rate(STEP_RATES_BPS[number - 1])
                stage.watch(SETTLING_S)
                testbed.set_rate(rate_bps)
                began_s = time.monotonic()
                seen = stage.watch(seconds)
                runs['dynamic'] += [s.timing.latency_s for s in seen]
                after_step.append([(s.shown_s - began_s, s.timing.split_index, s.timing.latency_s) for s in seen])
                settled = statistics.mode(s.timing.split_index for s in seen)
                used.append((settled, next(s.shown_s for s in seen if s.timing.split_index == settled) - began_s))
                turn(contenders, seconds * 3 / 4)
            for policy, run in runs.items():
                figures.add(f'{where}: {policy}', float(np.mean(run)) * 1e3, 'ms')
            best = min(contenders, key=lambda policy: np.mean(runs[policy]))
            figures.add(
                f'{where}: dynamic over the best fixed choice ({best})',
                float(np.mean(runs['dynamic']) / np.mean(runs[best])),
                'times',
                '<= 1.10',
            )
            for time_number, (settled, after_s) in enumerate(used, 1):
                figures.add(f'{where}: split {settled} in use after, time {time_number}', after_s, 's', '<= 1')
    # A fixed split that is slow answers fewer frames in a slow step: each step counts alike.
    overall = {policy: float(np.mean([np.mean(run) for run in runs])) for policy, runs in latencies.items()}
    for policy, overall_s in overall.items():
        figures.add(f'whole run: {policy}', overall_s * 1e3, 'ms')
        if policy != 'dynamic':
            figures.add(f'whole run: dynamic over {policy}', overall['dynamic'] / overall_s, 'times', '< 1')
    figures.extra['latencies_s'] = latencies
    #: Of each step, each time: when an image was shown after it (s), the split of its frame, and its latency (s).
    figures.extra['after_steps'] = steps_seen


def warmed(stage: Bench, seconds: float) -> Callable[[], object]:
    """Return what tells that frames have been coming for some seconds."""

    def happened() -> bool:
        return bool(stage.seen) and time.monotonic() - stage.seen[0].at_s > seconds

    return happened


def measure_cpu(figures: Figures, folder: Path, seconds: float) -> None:
    """Run the nodes at 10 frames/s with a model that does nothing and read their CPU time."""
    import psutil

    parameters = {'model': 'bench.network:identity', 'weights': 'none', 'threads': 1, 'input_size': [224, 224]}
    with (
        Testbed(100e6) as testbed,
        bench(testbed, folder, transport='wired', model=parameters, monitor={'pinned_split': 0}) as stage,
    ):
        stage.play(RATE_HZ, warmed(stage, 3.0))
        nodes = {name: psutil.Process(stage.processes.pid(name)) for name in ('camera', 'edge', 'monitor')}
        before = {name: sum(process.cpu_times()[:2]) for name, process in nodes.items()}
        stage.seen.clear()
        began_s = time.monotonic()
        stage.play(RATE_HZ, lambda: time.monotonic() - began_s >= seconds)
        spent_s = time.monotonic() - began_s
        figures.add('frames/s with a model that does nothing', len(stage.seen) / spent_s, '1/s')
        for name, process in nodes.items():
            share = (sum(process.cpu_times()[:2]) - before[name]) / spent_s
            figures.add(f'CPU of {name}_node', 100 * share, '% of a core', '< 15')


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        '--part', action='append', choices=('link', 'system', 'cpu'), help='only this part; may be repeated'
    )
    parser.add_argument('--model', action='append', help='only this model (default: mobilenet_v2 and resnet50)')
    parser.add_argument('--transport', default='wired', help='transport of the link part (default: wired)')
    parser.add_argument(
        '--seconds', type=float, default=20.0, help='length of each step of the system part (default: 20)'
    )
    parser.add_argument('--splits', type=int, nargs='*', help='fixed splits of the system part (default: all)')
    given = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.pop('ROS_AUTOMATIC_DISCOVERY_RANGE', None)  # the network is the testbed's own
    parts = given.part or ['link', 'system', 'cpu']
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix='dynsplit-network-') as name:
        folder = Path(name)
        if 'link' in parts:
            measure_link(figures, folder, given.model or ['mobilenet_v2', 'resnet50'], given.transport)
        if 'cpu' in parts:
            measure_cpu(figures, folder, given.seconds)
        if 'system' in parts:
            measure_system(figures, folder, (given.model or ['mobilenet_v2'])[0], given.seconds, given.splits)
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
