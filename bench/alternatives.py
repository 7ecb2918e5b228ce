# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The alternatives side by side: local inference, offloading of JPEG and WebP images, a fixed split, the dynamic split.

Each runs the same model on the same images over the same shaped link between two network namespaces, while the link's
rate steps; all take turns, round by round. The image rows do what image_transport's compressed does and run the whole
model on the edge; 'one at a time' sends the newest image when the answer to the last is in. The fixed split is the one
that the planner chooses for the rate of the first step. Latency is from the publishing of an image on the robot to its
prediction there. Needs root, ip and tc. Rows that OUT already has for a round are kept, so a run can be continued.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import psutil

from bench.alternatives_results import add_figures, DYNAMIC
from bench.figures import argument_parser, Figures
from testing.testbed import Testbed

ROBOT = 'robot1'
RATE_HZ = 10.0
STEPS_MBPS = (5.0, 20.0, 100.0, 1.0, 20.0)
#: How many times slower than the edge the robot computes: by sleeping after each computation, as in the demonstration.
SLOWDOWN = 8.0
WIDTH, HEIGHT = 640, 480
#: Predictions of each run that are compared with the whole model's.
COMPARED = 60
#: Qualities that are tried for the JPEG row with the agreement of the last bound; and the images it is measured with.
QUALITIES, AGREEMENT_IMAGES = (30, 50, 60, 70, 75, 80, 85, 90, 95), 120
BOUNDS = (0.95, 0.98)
#: An edge with another engine answers within this time, or the engine's conversion failed.
START_S = 180.0


@dataclass(frozen=True)
class Alternative:
    """
    What a robot can do.

    ``image`` is the file format in which it sends images, at ``quality``, ``paced`` one at a time. Otherwise it runs
    this package: ``pinned`` is the pinned split, -1 for the dynamic one, ``None`` for no edge at all.
    """

    name: str
    image: str = ''
    quality: int = 0
    paced: bool = True
    pinned: int | None = None
    min_agreement: float = 1.0


def republish(suffix: str, quality: int, paced: bool) -> None:
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
        parameter = cv2.IMWRITE_WEBP_QUALITY if suffix == '.webp' else cv2.IMWRITE_JPEG_QUALITY
        data = cv2.imencode(suffix, picture, [parameter, quality])[1]
        time.sleep((SLOWDOWN - 1) * (time.monotonic() - began_s))
        publisher.publish(
            CompressedImage(header=image.header, format=f'rgb8; {suffix[1:]} compressed bgr8', data=data.tobytes())
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


def run(alternative: Alternative, folder: Path, model: dict[str, object], seconds: float, split: Any) -> dict[str, Any]:
    """Run one alternative and return its row: means by step, bytes, processor time, and agreement."""
    from dynsplit_ros.nodes.processes import Processes
    from dynsplit_ros.transport import environment

    os.environ |= environment('wired')
    logs = folder / 'logs' / re.sub(r'\W+', '_', alternative.name)
    with Testbed(STEPS_MBPS[0] * 1e6) as testbed, Processes(logs) as processes:

        def start(side: str, process: str, executable: str, namespace: str, parameters: dict[str, object],
                  remappings: tuple[tuple[str, str], ...] = ()) -> None:
            processes.start(process, executable, namespace, parameters, remappings, prefix=testbed.on(side),
                            env={'XDG_CACHE_HOME': str(folder / 'cache')})

        republisher = None
        if alternative.image:
            # Without a monitor, camera_node runs the whole model: here on the edge, on images that come to it.
            reliable = 'qos_overrides./robot1/image/compressed.subscription.reliability'
            start('edge', 'edge', 'camera_node', ROBOT, {**model, reliable: 'reliable'},
                  (('image', 'image/compressed'),))
            code = (f'import sys; sys.path[:1] = {sys.path!r}; from bench.alternatives import republish; '
                    f'republish({alternative.image!r}, {alternative.quality}, {alternative.paced})')
            with processes.log('republish').open('ab') as log:
                republisher = subprocess.Popen([*testbed.on('robot'), sys.executable, '-c', code],
                                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        else:
            start('robot', 'camera', 'camera_node', ROBOT, {**model, 'emulate_slowdown': SLOWDOWN})
            if alternative.pinned is not None:
                start('edge', 'edge', 'edge_node', 'edge', model)
                start('robot', 'monitor', 'monitor_node', ROBOT, {
                    'pinned_split': alternative.pinned, 'frame_rate_hz': RATE_HZ,
                    'min_agreement': alternative.min_agreement})
        on_robot = [republisher.pid] if republisher else [
            processes.pid(name) for name in ('camera', 'monitor') if name == 'camera' or alternative.pinned is not None]
        camera = Camera()
        try:
            deadline_s = time.monotonic() + START_S
            before_ns = 10**15  # pictures that do not count, until the whole path works
            while not steady(camera, alternative.pinned):
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f'{alternative.name}: no prediction in {START_S} s; logs: {processes.folder}')
                before_ns += len(camera.play(1.0, processes, before_ns)) * 10**9
            camera.play(4.0, processes, before_ns)
            stamps, sent = [], [_sent_bytes()]
            computed_s = -_processor_s(on_robot)
            for number, rate_mbps in enumerate(STEPS_MBPS):
                testbed.set_rate(rate_mbps * 1e6)
                stamps.append(camera.play(seconds, processes, int(number * seconds * 1e9)))
                sent.append(_sent_bytes())
            computed_s += _processor_s(on_robot)
            time.sleep(3.0)  # what is late may still come
        finally:
            camera.close()
            if republisher is not None:
                republisher.kill()
                republisher.wait()
    latencies = [[camera.seen[stamp][0] - camera.shown_s[stamp] for stamp in of_step if stamp in camera.seen]
                 for of_step in stamps]
    answered = [stamp for of_step in stamps for stamp in of_step if stamp in camera.seen]
    sample = [(stamp, camera.seen[stamp][1].output_digest, list(camera.seen[stamp][1].class_ids))
              for stamp in answered[:: max(1, len(answered) // COMPARED)]]
    same, best = compare(split, sample)
    return {
        'mean_s': [statistics.fmean(of_step) if of_step else None for of_step in latencies],
        'p95_s': [float(np.percentile(of_step, 95)) if of_step else None for of_step in latencies],
        'answered': [len(of_step) / len(offered) for of_step, offered in zip(latencies, stamps)],
        'bytes_per_image': [(after - before) / len(of_step) for before, after, of_step in zip(sent, sent[1:], stamps)],
        'robot_processor_s_per_image': computed_s / sum(map(len, stamps)),
        'same': same, 'agreement': best, 'compared': len(sample),
        'splits': [sorted({camera.seen[stamp][1].timing.split_index for stamp in of_step if stamp in camera.seen})
                   for of_step in stamps],
    }


def _sent_bytes() -> int:
    """Return the bytes that this side of the link has sent, headers and probes included."""
    lines = Path('/proc/thread-self/net/dev').read_text().splitlines()[2:]
    return sum(int(line.split(':')[1].split()[8]) for line in lines if line.split(':')[0].strip() != 'lo')


def _processor_s(pids: list[int]) -> float:
    """Return the processor time of the robot's processes so far; what they start counts too."""
    families = [process for pid in pids for process in
                (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in families)


def steady(camera: Camera, pinned: int | None) -> bool:
    """Whether predictions come, and from the edge where one is to be used."""
    recent = [message.timing for _, message in list(camera.seen.values())[-5:]]
    return len(recent) == 5 and (pinned is None or any(timing.outcome == timing.ANSWERED for timing in recent))


def compare(split: Any, sample: list[tuple[int, int, list[int]]]) -> tuple[float, float]:
    """Return the shares of predictions that are the whole model's on that image: bit for bit, and in the best class."""
    from dynsplit_ros.sources import Panorama
    from dynsplit_ros.tasks import output_digest

    source = Panorama(WIDTH, HEIGHT)
    same = best = 0
    for stamp, digest, class_ids in sample:
        outputs = split.whole(split.model.resize(np.ascontiguousarray(source.at(stamp))).unsqueeze(0))
        same += output_digest(outputs) == digest
        best += _best(outputs) == class_ids[0]
    return same / max(len(sample), 1), best / max(len(sample), 1)


def _best(outputs: Any) -> int:
    return int(next(iter(outputs.values())).argmax())


def jpeg_quality(split: Any, bound: float) -> tuple[int, float]:
    """Return the lowest JPEG quality that keeps the class of this share of images, and what it keeps; else the best."""
    import cv2

    from dynsplit_ros.sources import Panorama

    source = Panorama(WIDTH, HEIGHT)
    instants = np.linspace(0, len(source.PHOTOGRAPHS) * source.SHOWN_S * 1e9, AGREEMENT_IMAGES, endpoint=False)
    images = [np.ascontiguousarray(source.at(int(instant))) for instant in instants]
    exact = [_best(split.whole(split.model.resize(image)[None])) for image in images]
    kept = 0.0
    for quality in QUALITIES:
        agreeing = 0
        for image, best in zip(images, exact):
            data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            received = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            agreeing += _best(split.whole(split.model.resize(received)[None])) == best
        kept = agreeing / len(images)
        if kept >= bound:
            break
    return quality, kept


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument('--model', default='efficientnet_lite:lite0', help='classifier (default: %(default)s)')
    parser.add_argument('--weights', default='default', help='its weights (default: default)')
    parser.add_argument('--seconds', type=float, default=5.0, help='length of each step (default: 5)')
    parser.add_argument('--rounds', type=int, default=3, help='rounds in which all take turns (default: 3)')
    parser.add_argument('--only', default='', metavar='PATTERN', help='alternatives in whose name this is found')
    given = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.pop('ROS_AUTOMATIC_DISCOVERY_RANGE', None)  # the network is the testbed's own
    from dataclasses import replace

    import torch

    from dynsplit_ros.advice.conditions import Adviser
    from dynsplit_ros.memory import keep_freed
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel
    from dynsplit_ros.planner import PlannerConstraints
    from dynsplit_ros.profile.kept import kept_profile
    from dynsplit_ros.profile.profile import merge
    from dynsplit_ros.tools.demo import agreement

    torch.set_num_threads(1)
    keep_freed()
    figures = Figures()
    split = SplitModel(load_model(given.model, weights=given.weights))
    edge = kept_profile(split, progress=lambda text: None)
    profile = merge(edge.scaled(SLOWDOWN), edge)
    advice = Adviser(profile, PlannerConstraints(frame_rate_hz=RATE_HZ), rtt_s=0.002).at(STEPS_MBPS[0] * 1e6, 1.0)
    fixed = advice.best.split_index
    equal, kept = jpeg_quality(split, BOUNDS[-1])
    alternatives = [
        Alternative('local inference'),
        Alternative('JPEG 95, not paced', '.jpg', 95, paced=False),
        *(Alternative(f'JPEG {quality}', '.jpg', quality) for quality in (95, 80, 50)),
        *(Alternative(f'WebP {quality}', '.webp', quality) for quality in (80, 50)),
        Alternative(f'JPEG {equal}, the least that keeps {100 * BOUNDS[-1]:g} %' if kept >= BOUNDS[-1] else
                    f'JPEG {equal}, which keeps only {100 * kept:.0f} %', '.jpg', equal),
        Alternative('full offloading, lossless', pinned=0),
        Alternative(f'fixed split {fixed}', pinned=fixed),
        Alternative(DYNAMIC, pinned=-1),
        *(Alternative(f'{DYNAMIC}, min_agreement {bound:g}', pinned=-1, min_agreement=bound) for bound in BOUNDS[::-1]),
    ]
    rows = {}
    if given.json is not None and given.json.is_file():
        rows = json.loads(given.json.read_text())['alternatives']
    with tempfile.TemporaryDirectory(prefix='dynsplit-alternatives-') as name:
        profile_path = Path(name) / 'profile.yaml'
        replace(edge, agreements=(agreement(split, BOUNDS[-1]),)).save(profile_path)
        model = {'model': given.model, 'weights': given.weights, 'threads': 1, 'output_digest': True,
                 'profile': str(profile_path)}
        for number in range(given.rounds):
            for alternative in alternatives:
                row = rows.setdefault(alternative.name, {**asdict(alternative), 'rounds': []})
                if len(row['rounds']) <= number and re.search(given.only, alternative.name):
                    row['rounds'].append(run(alternative, Path(name), model, given.seconds, split))
                    print(f'round {number + 1}: {alternative.name}: {row["rounds"][-1]}', flush=True)
                    if given.json is not None:
                        given.json.parent.mkdir(parents=True, exist_ok=True)
                        given.json.write_text(json.dumps({'alternatives': rows}, indent=1) + '\n')
    figures.extra['alternatives'] = {name: row for name, row in rows.items() if row['rounds']}
    figures.extra['setting'] = {'model': given.model, 'steps_mbps': list(STEPS_MBPS), 'slowdown': SLOWDOWN,
                                'rate_hz': RATE_HZ, 'seconds': given.seconds}
    add_figures(figures, figures.extra)
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
