# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The alternatives side by side: local inference, JPEG and WebP images, full offloading, a fixed split, dynamic splits.

A network with pretrained weights runs on photographs over a shaped link between two network namespaces, while the
link's rate steps. All alternatives take turns, round by round. Half of the photographs are for the robot's profile,
whose agreement decides which codecs are allowed; the camera pans across the others. The image rows do what
image_transport's compressed does and run the whole model on the edge, one image at a time unless the name says that it
queues. The fixed split is the one that the planner chooses for the rate of the first step. If OpenVINO is installed,
local inference, the edge behind JPEG images, and a dynamic split run on it, too. Each dynamic split is compared with
the alternatives of at least its agreement that run on eager or on its engine. Needs root, ip and tc, and the
photographs of the benchmark 'agreement'. Rounds that OUT already has are kept, so a run can be continued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import importlib.util
import json
import math
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
from numpy.typing import NDArray
import psutil

from bench.alternatives_results import add_figures, DYNAMIC
from bench.figures import add_photographs, argument_parser, Figures
from dynsplit_ros.engine_names import EAGER
from testing.testbed import Testbed

ROBOT = 'robot1'
RATE_HZ = 10.0
STEPS_MBPS = (5.0, 20.0, 100.0, 1.0, 20.0)
#: How many times slower than the edge the robot computes: by sleeping after each computation, as in the demonstration.
SLOWDOWN = 8.0
WIDTH, HEIGHT = 640, 480
#: The camera pans across a photograph for so long; it shows this share of the photograph at a time.
PAN_S, SHOWN = 2.0, 0.8
#: Images of the profile's photographs, and the codecs whose agreement is measured on them.
PROFILE_IMAGES = 252
PROFILED = (
    'quant8-zstd',
    'quant6-zstd',
    'quant5-zstd',
    'quant4-zstd',
    'quant3-zstd',
    'jpeg98',
    'jpeg95',
    'jpeg90',
    'webp90',
)
#: The bound of a dynamic split, and the qualities among which the JPEG row of equal agreement is found.
BOUND, QUALITIES = 0.95, (50, 60, 70, 75, 80, 85, 90, 95, 98)
#: The default of compressed_image_transport.
JPEG_DEFAULT = 95
#: After a change of rate, this long does not count in the settled figures of a step, in seconds.
SETTLING_S = 3.0
#: The engine besides eager.
OPENVINO = 'openvino'
#: An edge with another engine answers within this time, or the engine's conversion failed.
START_S = 180.0

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Alternative:
    """
    What a robot can do.

    ``image`` is the file format in which it sends images, at ``quality``, ``paced`` one at a time. Otherwise it runs
    this package: ``pinned`` is the pinned split, -1 for the dynamic one, ``None`` for no edge at all. ``rank`` orders
    by agreement: a dynamic split is compared with the alternatives whose rank is not higher than its own. Whatever
    runs the network runs it on ``engine``.
    """

    name: str
    rank: int
    image: str = ''
    quality: int = 0
    paced: bool = True
    pinned: int | None = None
    min_agreement: float = 1.0
    engine: str = EAGER


class Photographs:
    """
    A camera that pans across one photograph after the other.

    The picture follows from the instant alone, so that each alternative sees the same pictures.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import cv2

        self._photographs = []
        for file in files:
            picture = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            scale = max(WIDTH / picture.shape[1], HEIGHT / picture.shape[0]) / SHOWN
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            self._photographs.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=way))

    def at(self, stamp_ns: int) -> Picture:
        """Return the picture at an instant, uint8 [HEIGHT, WIDTH, 3]."""
        number, phase = divmod(stamp_ns / 1e9, PAN_S)
        photograph = self._photographs[int(number) % len(self._photographs)]
        top = round((photograph.shape[0] - HEIGHT) * phase / PAN_S)
        left = round((photograph.shape[1] - WIDTH) * phase / PAN_S)
        return np.ascontiguousarray(photograph[top : top + HEIGHT, left : left + WIDTH])


def as_file(picture: Picture, image: str, quality: int) -> NDArray[np.uint8]:
    """Return a camera image as a file of the format that ``image`` names, '.jpg' or '.webp'."""
    import cv2

    parameter = cv2.IMWRITE_WEBP_QUALITY if image == '.webp' else cv2.IMWRITE_JPEG_QUALITY
    return np.asarray(cv2.imencode(image, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [parameter, quality])[1], np.uint8)


def republish(image_format: str, quality: int, paced: bool) -> None:
    """Be image_transport's republisher on the robot; ``paced`` waits for each answer, at most 2 s."""
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
        data = as_file(to_rgb(image), image_format, quality)
        time.sleep((SLOWDOWN - 1) * (time.monotonic() - began_s))
        publisher.publish(
            CompressedImage(
                header=image.header, format=f'rgb8; {image_format[1:]} compressed bgr8', data=data.tobytes()
            )
        )
        sent_s = time.monotonic()

    def on_image(image: Image) -> None:
        newest[:] = [image]
        send()

    def on_answer(_: msg.Prediction) -> None:
        nonlocal sent_s
        sent_s = -10.0
        send()

    as_file(np.zeros((HEIGHT, WIDTH, 3), np.uint8), image_format, quality)  # imports what the first image needs
    node.create_subscription(Image, 'image', on_image, qos_profile_sensor_data)
    if paced:
        node.create_subscription(msg.Prediction, 'prediction', on_answer, QoSProfile(depth=10))
    rclpy.spin(node)


class Camera:
    """Plays camera and consumer on the robot: shows the pictures and notes when each prediction comes."""

    def __init__(self, source: Photographs) -> None:
        import rclpy
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        from dynsplit_ros import msg
        from dynsplit_ros.messages.images import from_rgb
        from dynsplit_ros.nodes.base_node import make_executor
        from dynsplit_ros.nodes.spinning import Spinning

        self._from_rgb, self._source = from_rgb, source
        rclpy.init()
        self._node = node = rclpy.create_node('camera', namespace=f'/{ROBOT}')
        self._images = node.create_publisher(Image, 'image', QoSProfile(depth=5))
        node.create_subscription(msg.Prediction, 'prediction', self._on_prediction, QoSProfile(depth=100))
        self.shown_s: dict[int, float] = {}
        self.seen: dict[int, tuple[float, Any]] = {}  # by stamp in ns: when the first prediction came, and it
        self._spinning = Spinning(make_executor())
        self._spinning.add(node)

    def decide(self, split: Any, engine: str) -> None:
        """Have camera_node run the whole network on an engine, as a monitor without a better choice does."""
        from std_msgs.msg import Header

        from dynsplit_ros.messages.decisions import to_decision
        from dynsplit_ros.nodes import topics
        from dynsplit_ros.policies.records import SplitDecision

        decision = SplitDecision(
            split.local_index, '', math.inf, head_engine=engine, tail_engine='', local_engine=engine
        )
        topics.SPLIT.publisher(self._node).publish(to_decision(decision, Header(), split.fingerprint))

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


def steady(camera: Camera, chosen: Alternative) -> bool:
    """Whether predictions come as they are to come: on the engine, and from the edge where there is one."""
    recent = [message.timing for _, message in list(camera.seen.values())[-5:]]
    return len(recent) == 5 and any(
        chosen.engine in (timing.head_engine, timing.tail_engine)
        and (chosen.pinned is None or timing.outcome == timing.ANSWERED)
        for timing in recent
    )


class Reference:
    """The whole model's output for the picture of an instant; each picture is computed once."""

    def __init__(self, split: Any, source: Photographs) -> None:
        self._split = split
        self._source = source
        self._known: dict[int, tuple[int, int]] = {}

    def at(self, stamp_ns: int) -> tuple[int, int]:
        """Return the digest of the outputs and the best class."""
        from dynsplit_ros.tasks import output_digest

        if stamp_ns not in self._known:
            outputs = self._split.whole(self._split.model.resize(self._source.at(stamp_ns))[None])
            self._known[stamp_ns] = output_digest(outputs), best_class(outputs)
        return self._known[stamp_ns]

    def compare(self, predictions: Sequence[tuple[int, Any]]) -> tuple[float, float]:
        """Return the shares of predictions equal to the whole model's bit for bit, and in the best class."""
        pairs = [(self.at(stamp), prediction) for stamp, prediction in predictions]
        return (
            statistics.fmean(known[0] == prediction.output_digest for known, prediction in pairs),
            statistics.fmean([known[1]] == list(prediction.class_ids)[:1] for known, prediction in pairs),
        )


def best_class(outputs: Any) -> int:
    """Return the best class of a classifier's outputs for one image."""
    return int(next(iter(outputs.values())).argmax())


class Bench:
    """What all alternatives share: the model's parameters, the photographs, the profile, a folder for the logs."""

    def __init__(
        self,
        folder: Path,
        model: Mapping[str, object],
        split: Any,
        source: Photographs,
        profiles: Mapping[str, Path],
        reference: Reference,
        seconds: float,
    ) -> None:
        self._folder = folder
        self._model = dict(model)
        self._split = split
        self._source = source
        self._profiles = profiles  # by engine
        self._reference = reference
        self._seconds = seconds

    def run(self, chosen: Alternative) -> dict[str, Any]:
        """Run one alternative and return its row: latencies by step, bytes, processor time, and agreement."""
        from dynsplit_ros.nodes.processes import Processes

        logs = self._folder / 'logs' / re.sub(r'\W+', '_', chosen.name)
        with Testbed(STEPS_MBPS[0] * 1e6) as testbed, Processes(logs) as processes:
            republisher = self._start(testbed, processes, chosen)
            on_robot = (
                [republisher.pid]
                if republisher
                else [
                    processes.pid(name)
                    for name in ('camera', 'monitor')
                    if name == 'camera' or chosen.pinned is not None
                ]
            )
            camera = Camera(self._source)
            try:
                if chosen.pinned is None and chosen.engine != EAGER:
                    camera.decide(self._split, chosen.engine)
                self._settle(camera, processes, chosen)
                stamps, sent = [], [testbed.statistics('robot')['bytes']]
                computed_s = -processor_s(on_robot)
                for number, rate_mbps in enumerate(STEPS_MBPS):
                    testbed.set_rate(rate_mbps * 1e6)
                    stamps.append(camera.play(self._seconds, processes, int(number * self._seconds * 1e9)))
                    sent.append(testbed.statistics('robot')['bytes'])
                computed_s += processor_s(on_robot)
                time.sleep(3.0)  # what is late may still come
            finally:
                camera.close()
                if republisher is not None:
                    republisher.kill()
                    republisher.wait()
        return {
            **self._row(camera, stamps),
            'bytes_per_image': [
                (after - before) / len(of_step) for before, after, of_step in zip(sent, sent[1:], stamps)
            ],
            'robot_processor_s_per_image': computed_s / sum(map(len, stamps)),
        }

    def _start(self, testbed: Testbed, processes: Any, chosen: Alternative) -> subprocess.Popen[bytes] | None:
        """Start the nodes of an alternative; return the republisher of one that sends image files."""

        def start(
            side: str,
            process: str,
            executable: str,
            namespace: str,
            parameters: Mapping[str, object],
            remappings: tuple[tuple[str, str], ...] = (),
        ) -> None:
            processes.start(
                process,
                executable,
                namespace,
                parameters,
                remappings,
                prefix=testbed.on(side),
                env={'XDG_CACHE_HOME': str(self._folder / 'cache')},
            )

        model = {**self._model, 'engine': chosen.engine}
        if chosen.image:
            # Without a monitor, camera_node runs the whole model: here on the edge, on images that come to it.
            reliable = 'qos_overrides./robot1/image/compressed.subscription.reliability'
            start(
                'edge', 'edge', 'camera_node', ROBOT, {**model, reliable: 'reliable'}, (('image', 'image/compressed'),)
            )
            code = (
                f'import sys; sys.path[:1] = {sys.path!r}; from bench.alternatives import republish; '
                f'republish({chosen.image!r}, {chosen.quality}, {chosen.paced})'
            )
            with processes.log('republish').open('ab') as log:
                return subprocess.Popen(
                    [*testbed.on('robot'), sys.executable, '-c', code], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        start(
            'robot',
            'camera',
            'camera_node',
            ROBOT,
            {**model, 'profile': str(self._profiles[chosen.engine]), 'emulate_slowdown': SLOWDOWN},
        )
        if chosen.pinned is not None:
            start('edge', 'edge', 'edge_node', 'edge', model)
            start(
                'robot',
                'monitor',
                'monitor_node',
                ROBOT,
                {'pinned_split': chosen.pinned, 'min_agreement': chosen.min_agreement, 'frame_rate_hz': RATE_HZ},
            )
        return None

    @staticmethod
    def _settle(camera: Camera, processes: Any, chosen: Alternative) -> None:
        """Show pictures that do not count until predictions come, from the edge where there is one, and 4 s more."""
        deadline_s = time.monotonic() + START_S
        before_ns = 10**15
        while not steady(camera, chosen):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f'{chosen.name}: no such prediction in {START_S} s; logs: {processes.folder}')
            before_ns += len(camera.play(1.0, processes, before_ns)) * 10**9
        camera.play(4.0, processes, before_ns)

    def _row(self, camera: Camera, stamps: Sequence[Sequence[int]]) -> dict[str, Any]:
        seen = [[stamp for stamp in of_step if stamp in camera.seen] for of_step in stamps]
        latencies = [[camera.seen[stamp][0] - camera.shown_s[stamp] for stamp in of_step] for of_step in seen]
        settled = [
            [
                camera.seen[stamp][0] - camera.shown_s[stamp]
                for stamp in of_step
                if stamp >= all_of_step[0] + SETTLING_S * 1e9
            ]
            for of_step, all_of_step in zip(seen, stamps)
        ]
        same, best = self._reference.compare([(stamp, camera.seen[stamp][1]) for of_step in seen for stamp in of_step])
        timings = [[camera.seen[stamp][1].timing for stamp in of_step] for of_step in seen]
        return {
            'mean_s': [statistics.fmean(of_step) if of_step else None for of_step in latencies],
            'settled_s': [statistics.fmean(of_step) if of_step else None for of_step in settled],
            'p95_s': [float(np.percentile(of_step, 95)) if of_step else None for of_step in latencies],
            'answered': [len(of_step) / len(offered) for of_step, offered in zip(latencies, stamps)],
            'same': same,
            'agreement': best,
            'compared': sum(map(len, seen)),
            'splits': [sorted({timing.split_index for timing in of_step}) for of_step in timings],
            'codecs': [sorted({timing.codec for timing in of_step}) for of_step in timings],
            'engines': [
                sorted({f'{timing.head_engine} {timing.tail_engine}'.strip() for timing in of_step})
                for of_step in timings
            ],
        }


def processor_s(pids: Sequence[int]) -> float:
    """Return the processor time of the robot's processes so far; what they start counts too."""
    families = [
        process for pid in pids for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]
    return sum(sum(process.cpu_times()[:2]) for process in families)


class JpegQualities:
    """How far JPEG files of some pictures keep the best class of the whole model."""

    def __init__(self, split: Any, pictures: Sequence[Picture]) -> None:
        self._split = split
        self._pictures = pictures
        self._exact = [self._best(picture) for picture in pictures]

    def _best(self, picture: Picture) -> int:
        return best_class(self._split.whole(self._split.model.resize(np.ascontiguousarray(picture))[None]))

    def agreement(self, quality: int) -> float:
        """Return the share of the pictures whose best class a JPEG file keeps."""
        import cv2

        files = [as_file(picture, '.jpg', quality) for picture in self._pictures]
        kept = statistics.fmean(
            self._best(cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)) == best
            for file, best in zip(files, self._exact)
        )
        print(
            f'JPEG {quality} keeps the best class of {kept:.3f} of the pictures and has '
            f'{statistics.fmean(file.nbytes for file in files) / 1024:.1f} KiB',
            flush=True,
        )
        return kept

    def lowest(self, bound: float) -> int | None:
        """Return the lowest quality that keeps the share ``bound`` of the best classes, if one does."""
        return next((quality for quality in QUALITIES if self.agreement(quality) >= bound), None)


def make_profile(split: Any, pictures: Sequence[Picture], file: Path, codecs: Sequence[str] = PROFILED) -> None:
    """Measure the robot's profile with agreement on the pictures, and save it; a file that is there is kept."""
    from dataclasses import replace

    from dynsplit_ros.profile.agreement import measure_agreement
    from dynsplit_ros.profile.measure import measure

    if file.is_file():
        print(f'the profile {file} is used', flush=True)
        return
    images = [split.model.resize(picture) for picture in pictures]
    profile = measure(split, images=images[::8])
    agreements = measure_agreement(
        split,
        images,
        f'{len(images)} images of photographs',
        codecs,
        lambda done: print(f'  agreement: image {done} of {len(images)}', end='\r', flush=True),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(profile, agreements=agreements).save(file)
    print(flush=True)


def codecs_that_keep_the_bound(file: Path) -> list[str]:
    """Return the codecs whose agreement keeps BOUND at a cut; the others keep it on no engine."""
    from dynsplit_ros.profile.profile import Profile

    measured = [agreement for record in Profile.load(file).agreements for agreement in record.cuts.values()]
    return [name for name in PROFILED if any(name in of_cut and of_cut[name].low >= BOUND for of_cut in measured)]


def choose(split: Any, profile_file: Path, pictures: Sequence[Picture]) -> list[Alternative]:
    """Return the alternatives in the order of the table."""
    from dynsplit_ros.advice.conditions import Adviser
    from dynsplit_ros.planner import PlannerConstraints
    from dynsplit_ros.profile.profile import merge, Profile

    edge = Profile.load(profile_file)
    profile = merge(edge.scaled(SLOWDOWN), edge)
    advice = Adviser(profile, PlannerConstraints(frame_rate_hz=RATE_HZ), rtt_s=0.002).at(STEPS_MBPS[0] * 1e6, 1.0)
    fixed = advice.best.split_index
    jpeg = JpegQualities(split, pictures)
    like_default, equal = round(jpeg.agreement(JPEG_DEFAULT), 2), jpeg.lowest(BOUND)
    return [
        Alternative('local inference', 0),
        Alternative('full offloading, lossless', 0, pinned=0),
        Alternative(f'fixed split {fixed}', 0, pinned=fixed),
        Alternative(DYNAMIC, 0, pinned=-1),
        Alternative(f'JPEG {JPEG_DEFAULT}', 1, '.jpg', JPEG_DEFAULT),
        Alternative(f'JPEG {JPEG_DEFAULT}, queue of ten', 1, '.jpg', JPEG_DEFAULT, paced=False),
        Alternative(f'{DYNAMIC}, min_agreement {like_default:g}', 1, pinned=-1, min_agreement=like_default),
        *([Alternative(f'JPEG {equal}, keeps {100 * BOUND:g} %', 2, '.jpg', equal)] if equal is not None else []),
        Alternative(f'{DYNAMIC}, min_agreement {BOUND:g}', 2, pinned=-1, min_agreement=BOUND),
        *(Alternative(f'JPEG {quality}', 3, '.jpg', quality) for quality in (80, 50)),
        *(Alternative(f'WebP {quality}', 3, '.webp', quality) for quality in (80, 50)),
        *(
            [
                Alternative('local inference, OpenVINO', 0, engine=OPENVINO),
                Alternative(f'JPEG {JPEG_DEFAULT}, OpenVINO on the edge', 1, '.jpg', JPEG_DEFAULT, engine=OPENVINO),
                *(
                    [Alternative(f'JPEG {equal}, OpenVINO on the edge', 2, '.jpg', equal, engine=OPENVINO)]
                    if equal not in (None, JPEG_DEFAULT)
                    else []
                ),
                Alternative(
                    f'{DYNAMIC}, OpenVINO, min_agreement {BOUND:g}', 2, pinned=-1, min_agreement=BOUND, engine=OPENVINO
                ),
            ]
            if importlib.util.find_spec(OPENVINO)
            else []
        ),
    ]


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument('--model', default='efficientnet_lite:lite0', help='classifier (default: %(default)s)')
    parser.add_argument('--weights', default='default', help='its weights (default: default)')
    parser.add_argument('--seconds', type=float, default=20.0, help='length of each step (default: 20)')
    parser.add_argument('--rounds', type=int, default=3, help='rounds in which all take turns (default: 3)')
    parser.add_argument('--only', default='', metavar='REGEX', help='alternatives in whose name this is found')
    parser.add_argument(
        '--profile',
        type=Path,
        default=Path('out/bench/alternatives.profile.yaml'),
        metavar='YAML',
        help="the robot's profile; measured if it is not there (default: %(default)s)",
    )
    add_photographs(parser)
    parser.add_argument('--seed', type=int, default=0, help='seed of the division of the photographs (default: 0)')
    given = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.pop('ROS_AUTOMATIC_DISCOVERY_RANGE', None)  # the network is the testbed's own
    import torch

    from bench.agreement import photographs
    from dynsplit_ros.memory import keep_freed
    from dynsplit_ros.model import load_model
    from dynsplit_ros.partition import SplitModel
    from dynsplit_ros.transport import environment

    os.environ |= environment('wired')
    torch.set_num_threads(1)
    keep_freed()
    files = photographs(given.photographs)
    order = np.random.default_rng(given.seed).permutation(len(files))
    of_profile, of_test = ([files[number] for number in sorted(half)] for half in np.array_split(order, 2))
    split = SplitModel(load_model(given.model, weights=given.weights))
    source, of_robot = Photographs(of_test), Photographs(of_profile)
    step_ns = int(len(of_profile) * PAN_S * 1e9 / PROFILE_IMAGES)
    pictures = [of_robot.at(number * step_ns) for number in range(PROFILE_IMAGES)]
    profile = given.profile.resolve()
    make_profile(split, pictures, profile)
    document: dict[str, Any] = {'alternatives': {}}
    if given.json is not None and given.json.is_file():
        document['alternatives'] = json.loads(given.json.read_text())['alternatives']
    rows = document['alternatives']
    with tempfile.TemporaryDirectory(prefix='dynsplit-alternatives-') as folder:
        model = {'model': given.model, 'weights': given.weights, 'threads': 1, 'output_digest': True}
        alternatives = [one for one in choose(split, profile, pictures) if re.search(given.only, one.name)]
        profiles = {EAGER: profile}
        if OPENVINO in {one.engine for one in alternatives}:
            print(f'converting to {OPENVINO} …', flush=True)
            failed = split.add_engine(OPENVINO, cache=Path(folder) / 'cache' / 'dynsplit_ros' / 'engines')
            if failed:
                raise SystemExit(f'{OPENVINO} cannot run {next(iter(failed.items()))}')
            profiles[OPENVINO] = profile.with_stem(f'{profile.stem}-{OPENVINO}')
            make_profile(split, pictures, profiles[OPENVINO], codecs_that_keep_the_bound(profile))
        bench = Bench(Path(folder), model, split, source, profiles, Reference(split, source), given.seconds)
        for number in range(given.rounds):
            for one in alternatives:
                row = rows.setdefault(one.name, {**asdict(one), 'rounds': []})
                if len(row['rounds']) > number:
                    continue
                row['rounds'].append(bench.run(one))
                print(f'round {number + 1}: {one.name}: {row["rounds"][-1]}', flush=True)
                if given.json is not None:
                    given.json.parent.mkdir(parents=True, exist_ok=True)
                    given.json.write_text(json.dumps(document, indent=1) + '\n')
    figures = Figures()
    figures.extra['alternatives'] = rows
    figures.extra['setting'] = {
        'model': given.model,
        'steps_mbps': list(STEPS_MBPS),
        'slowdown': SLOWDOWN,
        'rate_hz': RATE_HZ,
        'seconds': given.seconds,
        'settling_s': SETTLING_S,
        'photographs': {'profile': [file.name for file in of_profile], 'test': [file.name for file in of_test]},
    }
    add_figures(figures, figures.extra)
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
