# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The alternatives side by side: local inference, offloading of JPEG images, a fixed split, the dynamic split.

Each runs the same model on the same images over the same shaped link between two network namespaces, one after the
other, while the link's rate steps. 'JPEG' is what image_transport's compressed does, then the whole model on the
edge; 'JPEG, one at a time' sends the newest image when the answer to the last is in. The fixed split is the one that
the planner chooses for the first step's rate, as one that is chosen once. Latency is from the publishing of an image
on the robot to its prediction there. Needs root, ip and tc.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from bench.figures import argument_parser, Figures
from testing.testbed import Testbed

ROBOT = 'robot1'
RATE_HZ = 10.0
STEPS_MBPS = (5.0, 20.0, 100.0, 1.0, 20.0)
#: How many times slower than the edge the robot computes: by sleeping after each computation, as in the demonstration.
SLOWDOWN = 8.0
WIDTH, HEIGHT = 640, 480
#: The default of compressed_image_transport.
JPEG_QUALITY = 95
#: Predictions of each alternative that are compared with the whole model's.
COMPARED = 40
JPEG, JPEG_PACED = 'JPEG', 'JPEG, one at a time'


def republish(paced: bool) -> None:
    """Be image_transport's republisher on the robot; ``paced`` waits for each answer, at most 2 s."""
    import cv2
    import rclpy
    from rclpy.qos import qos_profile_sensor_data, QoSProfile
    from sensor_msgs.msg import CompressedImage, Image

    from dynsplit_ros import msg
    from dynsplit_ros.messages.images import to_rgb

    rclpy.init()
    node = rclpy.create_node('republish', namespace=f'/{ROBOT}')
    # The default of image_transport: reliable, the last ten are kept.
    publisher = node.create_publisher(CompressedImage, 'image/compressed', QoSProfile(depth=10))
    newest: list[Image] = []
    sent_s = -10.0

    def send() -> None:
        nonlocal sent_s
        if not newest or (paced and time.monotonic() - sent_s < 2.0):
            return
        image, began_s = newest.pop(), time.monotonic()
        picture = cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2BGR)
        data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        time.sleep((SLOWDOWN - 1) * (time.monotonic() - began_s))
        publisher.publish(
            CompressedImage(header=image.header, format='rgb8; jpeg compressed bgr8', data=data.tobytes())
        )
        sent_s = time.monotonic()

    def on_image(image: Image) -> None:
        newest[:] = [image]
        send()

    def on_answer(_: msg.Prediction) -> None:
        nonlocal sent_s
        sent_s = -10.0
        send()

    node.create_subscription(Image, 'image', on_image, qos_profile_sensor_data)
    if paced:
        node.create_subscription(msg.Prediction, 'prediction', on_answer, QoSProfile(depth=10))
    rclpy.spin(node)


class Camera:
    """Plays camera and consumer on the robot: shows the panorama's pictures and notes when each prediction comes."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        from dynsplit_ros import msg
        from dynsplit_ros.messages.images import from_rgb
        from dynsplit_ros.nodes.base_node import make_executor
        from dynsplit_ros.nodes.spinning import Spinning
        from dynsplit_ros.sources import Panorama

        self._from_rgb, self._source = from_rgb, Panorama(WIDTH, HEIGHT)
        rclpy.init()
        node = rclpy.create_node('camera', namespace=f'/{ROBOT}')
        self._images = node.create_publisher(Image, 'image', QoSProfile(depth=5))
        node.create_subscription(msg.Prediction, 'prediction', self._on_prediction, QoSProfile(depth=100))
        self.shown_s: dict[int, float] = {}
        self.seen: dict[int, tuple[float, Any]] = {}  # by stamp in ns: when the first prediction came, and it
        self._spinning = Spinning(make_executor())
        self._spinning.add(node)

    def _on_prediction(self, message: Any) -> None:
        stamp = message.header.stamp
        self.seen.setdefault(stamp.sec * 10**9 + stamp.nanosec, (time.monotonic(), message))

    def play(self, seconds: float, processes: Any, began_ns: int) -> list[int]:
        """Show pictures for some seconds; return their stamps, ns from ``began_ns`` on, the same for each run."""
        stamps = []
        first_s = next_s = time.monotonic()
        while next_s < first_s + seconds:
            processes.check()
            # The pictures follow from the time since the start, in whole periods.
            stamp_ns = began_ns + round((next_s - first_s) * RATE_HZ) * round(1e9 / RATE_HZ)
            image = self._from_rgb(self._source.at(stamp_ns))
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            time.sleep(max(0.0, next_s - time.monotonic()))
            self.shown_s[stamp_ns] = time.monotonic()
            self._images.publish(image)
            stamps.append(stamp_ns)
            next_s += 1 / RATE_HZ
        return stamps

    def close(self) -> None:
        """Leave."""
        self._spinning.close()


def run(name: str, pinned: int | None, folder: Path, model: dict[str, object], seconds: float) -> dict[str, Any]:
    """Run one alternative; return its latencies by step, the images of each step, and a sample of its predictions."""
    from dynsplit_ros.nodes.processes import Processes
    from dynsplit_ros.report.run import PARTS
    from dynsplit_ros.transport import environment

    jpeg = name in (JPEG, JPEG_PACED)
    os.environ |= environment('wired')
    with Testbed(STEPS_MBPS[0] * 1e6) as testbed, Processes(folder / 'logs' / name.replace(' ', '_')) as processes:

        def start(
            side: str,
            process: str,
            executable: str,
            namespace: str,
            parameters: dict[str, object],
            remappings: tuple[tuple[str, str], ...] = (),
        ) -> None:
            processes.start(
                process,
                executable,
                namespace,
                parameters,
                remappings,
                prefix=testbed.on(side),
                env={'XDG_CACHE_HOME': str(folder / 'cache')},
            )

        republisher = None
        if jpeg:
            # Without a monitor, camera_node runs the whole model: here on the edge, on images that come to it.
            reliable = 'qos_overrides./robot1/image/compressed.subscription.reliability'
            start(
                'edge',
                'edge',
                'camera_node',
                ROBOT,
                {**model, reliable: 'reliable'},
                (('image', 'image/compressed'),),
            )
            code = (
                f'import sys; sys.path[:1] = {sys.path!r}; from bench.alternatives import republish; '
                f'republish({name == JPEG_PACED})'
            )
            command = [*testbed.on('robot'), sys.executable, '-c', code]
            with processes.log('republish').open('ab') as log:
                republisher = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        else:
            start('robot', 'camera', 'camera_node', ROBOT, {**model, 'emulate_slowdown': SLOWDOWN})
            if pinned is not None:
                start('edge', 'edge', 'edge_node', 'edge', model)
                start('robot', 'monitor', 'monitor_node', ROBOT, {'pinned_split': pinned, 'frame_rate_hz': RATE_HZ})
        camera = Camera()
        try:
            deadline_s = time.monotonic() + 120
            before_ns = 10**15  # pictures that do not count, until the whole path works
            while not steady(camera, pinned):
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f'{name}: no prediction came within 120 s; logs: {processes.folder}')
                before_ns += len(camera.play(1.0, processes, before_ns)) * 10**9
            camera.play(4.0, processes, before_ns)
            stamps = []
            for number, rate_mbps in enumerate(STEPS_MBPS):
                testbed.set_rate(rate_mbps * 1e6)
                stamps.append(camera.play(seconds, processes, int(number * seconds * 1e9)))
            time.sleep(3.0)  # what is late may still come
        finally:
            camera.close()
            if republisher is not None:
                republisher.kill()
                republisher.wait()
        latencies = [
            [camera.seen[stamp][0] - camera.shown_s[stamp] for stamp in of_step if stamp in camera.seen]
            for of_step in stamps
        ]
        answered = [stamp for of_step in stamps for stamp in of_step if stamp in camera.seen]
        parts = (
            {}
            if jpeg
            else {
                part: [
                    mean(getattr(camera.seen[stamp][1].timing, part) for stamp in of_step if stamp in camera.seen)
                    for of_step in stamps
                ]
                for part in PARTS
            }
        )
        sample = answered[:: max(1, len(answered) // COMPARED)]
        return {
            'latencies_s': latencies,
            'offered': [len(of_step) for of_step in stamps],
            'sample': [
                (stamp, camera.seen[stamp][1].output_digest, list(camera.seen[stamp][1].class_ids)) for stamp in sample
            ],
            'parts_s': parts,
            'splits': [
                sorted({camera.seen[stamp][1].timing.split_index for stamp in of_step if stamp in camera.seen})
                for of_step in stamps
            ],
        }


def mean(values: Any) -> float | None:
    """Return the mean, None of nothing."""
    known = list(values)
    return sum(known) / len(known) if known else None


def steady(camera: Camera, pinned: int | None) -> bool:
    """Whether predictions come, and from the edge where one is to be used."""
    recent = [message.timing for _, message in list(camera.seen.values())[-5:]]
    return len(recent) == 5 and (pinned is None or any(timing.outcome == timing.ANSWERED for timing in recent))


def compare(split: Any, sample: list[tuple[int, int, list[int]]]) -> tuple[float, float]:
    """Return the shares of predictions that are the whole model's on that image: bit for bit, and in the best class."""
    from dynsplit_ros.sources import Panorama
    from dynsplit_ros.tasks import interpret, output_digest

    source = Panorama(WIDTH, HEIGHT)
    same = best = 0
    for stamp, digest, class_ids in sample:
        outputs = split.whole(split.model.resize(np.ascontiguousarray(source.at(stamp))).unsqueeze(0))
        same += output_digest(outputs) == digest
        placement = split.model.resize.placement(HEIGHT, WIDTH)
        result = interpret(split.model.task, outputs, split.model.labels, top_k=1, placement=placement)
        best += result.class_ids[0] == class_ids[0]
    return same / len(sample), best / len(sample)


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument('--model', default='alexnet', help='torchvision classifier (default: alexnet)')
    parser.add_argument('--seconds', type=float, default=6.0, help='length of each step (default: 6)')
    given = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.pop('ROS_AUTOMATIC_DISCOVERY_RANGE', None)  # the network is the testbed's own
    import torch

    from dynsplit_ros.advice.conditions import Adviser
    from dynsplit_ros.memory import keep_freed
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel
    from dynsplit_ros.planner import PlannerConstraints
    from dynsplit_ros.profile.kept import kept_profile
    from dynsplit_ros.profile.profile import merge

    torch.set_num_threads(1)
    keep_freed()
    figures = Figures()
    split = SplitModel(load_model(given.model, weights='none'))
    edge = kept_profile(split, progress=lambda text: None)
    profile = merge(edge.scaled(SLOWDOWN), edge)
    advice = Adviser(profile, PlannerConstraints(frame_rate_hz=RATE_HZ), rtt_s=0.002).at(STEPS_MBPS[0] * 1e6, 1.0)
    fixed = advice.best.split_index
    alternatives: dict[str, int | None] = {
        'local inference': None,
        JPEG: None,
        JPEG_PACED: None,
        'full offloading, lossless': 0,
        f'fixed split {fixed}': fixed,
        'dynamic split': -1,
    }
    model = {'model': given.model, 'weights': 'none', 'threads': 1, 'output_digest': True}
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix='dynsplit-alternatives-') as name:
        for alternative, pinned in alternatives.items():
            results[alternative] = run(alternative, pinned, Path(name), model, given.seconds)
            report(figures, alternative, results[alternative], split)
    best = min(overall(results[name]) for name in results if name != 'dynamic split')
    figures.add(
        'dynamic split: mean over all steps, over the best alternative',
        overall(results['dynamic split']) / best,
        'times',
    )
    figures.extra['alternatives'] = {
        name: {key: value for key, value in result.items() if key != 'sample'} for name, result in results.items()
    }
    figures.extra['steps_mbps'] = list(STEPS_MBPS)
    return figures.finish(given.json)


def overall(result: dict[str, Any]) -> float:
    """Return the mean over the steps of each step's mean latency, so that one with few answers gains nothing."""
    return float(np.mean([np.mean(of_step) if of_step else np.inf for of_step in result['latencies_s']]))


def report(figures: Figures, name: str, result: dict[str, Any], split: Any) -> None:
    """Add an alternative's figures."""
    for number, (rate_mbps, of_step, offered) in enumerate(
        zip(STEPS_MBPS, result['latencies_s'], result['offered']), 1
    ):
        where = f'{name}, step {number} ({rate_mbps:g} Mbit/s)'
        figures.add(f'{where}: mean latency', 1e3 * float(np.mean(of_step)) if of_step else float('inf'), 'ms')
        figures.add(
            f'{where}: 95th percentile', 1e3 * float(np.percentile(of_step, 95)) if of_step else float('inf'), 'ms'
        )
        figures.add(f'{where}: images with a prediction', 100 * len(of_step) / offered, '%')
    figures.add(f'{name}: mean over all steps', 1e3 * overall(result), 'ms')
    if result['sample']:
        same, best = compare(split, result['sample'])
        figures.add(f"{name}: outputs equal to the whole model's bit for bit", 100 * same, '%')
        figures.add(f"{name}: same best class as the whole model's", 100 * best, '%')


if __name__ == '__main__':
    sys.exit(main())
