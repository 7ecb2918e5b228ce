# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Run robot and edge as processes on this machine over an emulated link, and check every frame."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
import contextlib
from dataclasses import replace
import json
import math
import os
from pathlib import Path
import signal
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.table import Table
from rich.text import Text

from dynsplit_ros.demo.script import Step, STEPS
from dynsplit_ros.errors import DynsplitError, in_one_sentence
from dynsplit_ros.parameters import CAMERA, MONITOR, SOURCE
from dynsplit_ros.policies.records import Outcome
from dynsplit_ros.tools.model_options import writable

ROBOT = 'robot1'
OTHER_ROBOT = 'robot2'
#: A day; the frames of a longer run would fill the memory.
LONGEST_S = 86400
PERCENTILES = (50, 90, 95, 99)
DEFAULT_MODEL = 'efficientnet_lite:lite0'
WIDTH, HEIGHT = 640, 480
#: The codecs that --min-agreement measures; more would take longer and would rarely be chosen.
AGREEMENT_CODECS = ('quant8-zstd', 'quant6-zstd')
#: Images over the fewest that can show the bound, so that some may disagree; and images in any case.
AGREEMENT_SPARE, FEWEST_AGREEMENT_IMAGES = 1.3, 60
console = Console()


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument(
        '--seconds', type=float, default=60.0, help='length of the run in seconds, at least 10 (default: 60)'
    )
    result.add_argument(
        '--json', type=writable, metavar='OUT', help='write summary and frames to this file (default: in --out)'
    )
    result.add_argument(
        '--out', type=Path, default=Path('out/demo'), help='folder for plot, JSON file and logs (default: out/demo)'
    )
    result.add_argument(
        '--model',
        default=DEFAULT_MODEL,
        help='a classifier, by any name that the nodes take '
        f'(default: {DEFAULT_MODEL}, whose pretrained weights a package brings)',
    )
    result.add_argument(
        '--weights',
        help="'none' (random seeded weights, no download), 'default', or a file (default: "
        'default for the default model, none for others)',
    )
    result.add_argument(
        '--min-agreement',
        type=float,
        default=1.0,
        metavar='SHARE',
        help='also allow lossy codecs that keep the class of at least this share of images, 0 to 1; '
        'measuring them takes a minute or two (default: 1, only lossless codecs)',
    )
    result.add_argument(
        '--slowdown',
        type=float,
        default=8.0,
        help='computing time of the emulated robot divided by that of this machine (default: 8)',
    )
    result.add_argument('--rate', type=float, default=10.0, help='images per second (default: 10)')
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; 0 when no frame was lost, doubled or wrong."""
    given = parser().parse_args(argv)
    if not 10 <= given.seconds <= LONGEST_S:
        console.print(
            f'demo: --seconds is {given.seconds:g}, but must be from 10, which all steps of the script need, '
            f'to {LONGEST_S}'
        )
        return 2
    given.weights = given.weights or ('default' if given.model == DEFAULT_MODEL else 'none')
    try:
        for parameters, name, value in (
            (SOURCE, 'rate_hz', given.rate),
            (CAMERA, 'emulate_slowdown', given.slowdown),
            (MONITOR, 'min_agreement', given.min_agreement),
        ):
            next(parameter for parameter in parameters if parameter.name == name).check(value)
    except DynsplitError as error:
        console.print(f'demo: {error}', markup=False)
        return 2
    # Nothing leaves this machine, and no other ROS 2 system on it is disturbed.
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    from dynsplit_ros.transport import environment  # here, so that --help needs no ROS

    for name, value in environment('one_machine').items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return demonstrate(given)
    except (DynsplitError, OSError) as error:
        console.print(f'demo: {error}', style='red', markup=False)
        return 1
    except KeyboardInterrupt:
        console.print('demo: stopped')
        return 130


def demonstrate(given: argparse.Namespace) -> int:
    """Set the stage, play the script, check and report."""
    import torch  # here, so that --help answers at once

    from dynsplit_ros.memory import keep_freed
    from dynsplit_ros.model import load_model
    from dynsplit_ros.nodes.processes import Processes
    from dynsplit_ros.partition import SplitModel
    from dynsplit_ros.profile.kept import kept_profile

    torch.set_num_threads(1)
    keep_freed()
    console.print(
        f'[bold]dynsplit_ros demo[/bold]: {given.model}, robot {given.slowdown:g} times slower than this '
        f'machine (emulated), ROS_DOMAIN_ID={os.environ["ROS_DOMAIN_ID"]}'
    )
    with in_one_sentence(f'model {given.model!r} cannot be used', 'name another'):
        split = SplitModel(load_model(given.model, weights=given.weights))
    profile_path = given.out / 'profile.yaml'
    given.out.mkdir(parents=True, exist_ok=True)
    profile = kept_profile(split, progress=lambda text: console.print(text, markup=False))
    if given.min_agreement < 1:
        profile = replace(profile, agreements=agreement(split, given.min_agreement))
    profile.save(profile_path)

    with recording() as recorder:
        with Processes(given.out / 'logs') as processes:
            stage = Stage(given, processes, profile_path)
            stage.set_up()
            console.print('waiting for the nodes to find each other …')
            wait_for(
                lambda: all(watch.counters and watch.deciding for watch in (recorder.watch, recorder.other)),
                90.0,
                'cameras, edge and monitors did not find each other',
                processes,
            )
            asked_s = time.monotonic()
            stage.start_source()
            wait_for(
                lambda: any(frame['outcome'] == Outcome.ANSWERED for frame in list(recorder.frames)),
                30.0,
                'no frame was answered by the edge',
                processes,
            )
            started_s = recorder.frames[-1]['time_s']
            play(given, stage, recorder, started_s, lead_s=recorder.frames[0]['time_s'] - asked_s)
            processes.stop('source')
            wait_for(recorder.settled, 10.0, None, processes)
        frames = recorder.frames
        # The link's script began with the first activation, a moment before the first answer; its first change tells.
        started_s = recorder.rates[1]['time_s'] - STEPS[0].share * given.seconds
        for frame in frames:
            frame['time_s'] -= started_s
        for decision in recorder.decisions:
            decision['time_s'] -= started_s
        for change in recorder.rates:
            change['time_s'] -= started_s
        check(split, frames)
        report = {
            'summary': summarise(frames, recorder.watch.counters, recorder.other.outcomes.total()),
            'model': given.model,
            'min_agreement': given.min_agreement,
            'slowdown': given.slowdown,
            'seconds': given.seconds,
            'steps': [
                {
                    'name': step.name,
                    'start_s': start_s,
                    'end_s': end_s,
                    'rate_mbps': step.rate_mbps,
                    'other_robot': step.other_robot,
                }
                for step, start_s, end_s in timeline(given.seconds)
            ],
            'cuts': [{'index': cut.index, 'name': cut.name, 'bytes': cut.nbytes} for cut in split.cuts],
            'rates': recorder.rates,
            'decisions': recorder.decisions,
            'frames': frames,
        }
        return conclude(report, given.out, given.json or given.out / 'demo.json')


@contextlib.contextmanager
def recording() -> Iterator[Any]:
    """Listen to the robot with a thread of its own; leave DDS at the end."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from dynsplit_ros.demo.recorder import Recorder
    from dynsplit_ros.nodes.spinning import Spinning

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    spinning = Spinning(SingleThreadedExecutor())
    try:
        yield spinning.add(Recorder(ROBOT, OTHER_ROBOT))
    finally:
        spinning.close()


def timeline(seconds: float) -> Iterator[tuple[Step, float, float]]:
    """Yield each step of the script with its start and end in seconds."""
    start_s = 0.0
    for step in STEPS:
        yield step, start_s, start_s + step.share * seconds
        start_s += step.share * seconds


class Stage:
    """The processes of the demonstration."""

    def __init__(self, given: argparse.Namespace, processes: Any, profile_path: Path) -> None:
        self._given = given
        self._processes = processes
        self._model = {'model': given.model, 'weights': given.weights, 'threads': 1, 'profile': str(profile_path)}

    def set_up(self) -> None:
        """Start the edge, the link and the nodes of both robots; the other one has no images yet."""
        from dynsplit_ros.nodes.link_emulator import REMAPPINGS

        steps = list(timeline(self._given.seconds))
        self._processes.start('edge', 'edge_node', 'edge', self._model)
        self._processes.start(
            'link',
            'link_emulator',
            ROBOT,
            {
                'rates_mbps': [float(step.rate_mbps) for step, _, _ in steps],
                'durations_s': [float(end_s - start_s) for _, start_s, end_s in steps],
            },
        )
        self._processes.start(
            'monitor', 'monitor_node', ROBOT, {'min_agreement': float(self._given.min_agreement)}, REMAPPINGS
        )
        self._processes.start(
            'camera',
            'camera_node',
            ROBOT,
            {**self._model, 'emulate_slowdown': float(self._given.slowdown), 'output_digest': True},
            [*REMAPPINGS, ('image', 'image_raw')],
        )
        # As fast as this machine and next to the edge; it sends every image.
        self._processes.start('other monitor', 'monitor_node', OTHER_ROBOT, {'pinned_split': 0, 'probe_share': 0.0})
        self._processes.start('other camera', 'camera_node', OTHER_ROBOT, self._model, [('image', 'image_raw')])

    def start_source(self) -> None:
        """Start the robot's images."""
        self._processes.start(
            'source', 'image_source', ROBOT, {'rate_hz': float(self._given.rate), 'width': WIDTH, 'height': HEIGHT}
        )

    def other_robot(self, present: bool) -> None:
        """Let the other robot have images, or go."""
        if present:
            self._processes.start('other source', 'image_source', OTHER_ROBOT, {'rate_hz': 30.0})
        else:
            for name in ('other source', 'other camera', 'other monitor'):
                self._processes.stop(name)

    def check(self) -> None:
        """Raise DynsplitError when a process has ended by itself."""
        self._processes.check()


def wait_for(happened: Callable[[], Any], within_s: float, complaint: str | None, processes: Any) -> None:
    """Wait until something has happened; raise DynsplitError, or give up where there is no complaint."""
    deadline_s = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline_s:
            if complaint is None:
                return
            raise DynsplitError(f'{complaint} within {within_s:g} s; the logs are in {processes.folder}')
        processes.check()
        time.sleep(0.05)


def play(given: argparse.Namespace, stage: Stage, recorder: Any, started_s: float, lead_s: float) -> None:
    """Let the script run its time, with a table of what is happening; images take ``lead_s`` to come once started."""
    other_robot = False
    plain_s = -math.inf
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else contextlib.nullcontext()
    with live:
        while (now_s := time.monotonic() - started_s) < given.seconds:
            time.sleep(0.25)
            stage.check()
            step = next(
                (step for step, start_s, end_s in timeline(given.seconds) if start_s <= now_s < end_s), STEPS[-1]
            )
            wanted = any(
                step.other_robot and start_s - lead_s <= now_s < end_s
                for step, start_s, end_s in timeline(given.seconds)
            )
            if wanted != other_robot:
                stage.other_robot(wanted)
                other_robot = wanted
            if console.is_terminal:
                live.update(table(recorder, step, now_s, given.seconds))
            elif now_s - plain_s >= 5:
                plain_s = now_s
                console.print(line(recorder, step, now_s), markup=False, soft_wrap=True)


def facts(recorder: Any, step: Step) -> dict[str, str]:
    """Return what the live table shows."""
    from dynsplit_ros.nodes.watch import facts as facts_of

    dropped = recorder.watch.counters.get('dropped', 0)
    return {
        'step': f'{step.name}: link {step.rate_mbps:g} Mbit/s'
        + (', another robot at the edge' if step.other_robot else ''),
        **facts_of(recorder.watch),
        'dropped': f'{dropped} images',
    }


def table(recorder: Any, step: Step, now_s: float, seconds: float) -> Group:
    """Return the live table."""
    result = Table(show_header=False, box=None, pad_edge=False)
    result.add_column(style='bold', no_wrap=True)
    result.add_column(overflow='ellipsis', no_wrap=True)
    for name, text in facts(recorder, step).items():
        result.add_row(name, Text(text))
    return Group(Text(f'{now_s:4.0f} of {seconds:.0f} s', style='dim'), result)


def line(recorder: Any, step: Step, now_s: float) -> str:
    """Return the table's main facts in one line, for a log."""
    known = facts(recorder, step)
    return f'{now_s:4.0f} s  ' + '  '.join(
        f'{name}: {known[name]};' for name in ('step', 'split', 'throughput', 'latency', 'frames') if name in known
    )


def agreement(split: Any, bound: float) -> Any:
    """Measure how far lossy codecs keep the classes of the demonstration's own images; enough images for the bound."""
    from dynsplit_ros.agreement import images_needed
    from dynsplit_ros.profile.agreement import measure_agreement
    from dynsplit_ros.sources import Panorama

    source = Panorama(WIDTH, HEIGHT)
    count = max(FEWEST_AGREEMENT_IMAGES, math.ceil(AGREEMENT_SPARE * images_needed(bound)))
    instants = np.linspace(0, len(source.PHOTOGRAPHS) * source.SHOWN_S * 1e9, count, endpoint=False)
    console.print(
        f'measuring the agreement of {" and ".join(AGREEMENT_CODECS)} at each split with {count} images; it '
        'takes a minute or two …'
    )
    images = (
        split.model.resize(np.ascontiguousarray(source.at(int(instant))))
        for instant in track(instants, 'agreement', console=console, disable=not console.is_terminal)
    )
    return measure_agreement(split, images, f'{count} images of the demo', AGREEMENT_CODECS)


def check(split: Any, frames: list[dict[str, Any]]) -> None:
    """
    Run the whole model on every frame's image, and note in each frame how its prediction compares.

    The images are made again from their stamps. ``matches``: the raw outputs (by digest), the classes and the scores
    are those of the whole model, or, of a frame that was sent with a lossy codec, those of head, codec and tail here.
    ``agrees``: the best class is the whole model's. ``shown``: the photograph.
    """
    from dynsplit_ros.codec import CODECS, decode, encode
    from dynsplit_ros.parameters import MIN_SCORE
    from dynsplit_ros.sources import Panorama
    from dynsplit_ros.tasks import condensed, interpret, output_digest

    source = Panorama(WIDTH, HEIGHT)
    model = split.model
    what = f'comparing {len(frames)} predictions with the whole model'
    if not console.is_terminal:
        console.print(f'{what} …')
    for frame in track(frames, what, console=console, disable=not console.is_terminal):
        image = model.resize(np.ascontiguousarray(source.at(frame['stamp_ns']))).unsqueeze(0)
        whole = computed = split.whole(image)
        if frame['outcome'] == Outcome.ANSWERED and not CODECS[frame['codec']].lossless:
            cut = split.cuts[frame['split_index']]
            payload = encode(frame['codec'], split.head(cut)(image))
            computed = split.tail(cut)(decode(frame['codec'], payload, cut.tensors))
        outputs = condensed(model.task, computed, MIN_SCORE)
        expected, exact = (
            interpret(
                model.task,
                of,
                model.labels,
                top_k=len(frame['class_ids']),
                scores=model.scores,
                placement=model.resize.placement(HEIGHT, WIDTH),
            )
            for of in (outputs, condensed(model.task, whole, MIN_SCORE))
        )
        frame['matches'] = bool(
            output_digest(outputs) == frame['output_digest']
            and expected.class_ids == frame['class_ids']
            and np.array_equal(np.float32(expected.scores), np.float32(frame['scores']))
        )
        frame['agrees'] = exact.class_ids[:1] == frame['class_ids'][:1]
        frame['shown'] = source.shown(frame['stamp_ns'])


def summarise(frames: list[dict[str, Any]], counters: Mapping[str, int], other_robot_frames: int) -> dict[str, Any]:
    """Return the figures of the whole run; ``counters`` are the camera's."""
    accepted = counters.get('accepted', 0)
    sequences = [frame['sequence'] for frame in frames]
    latencies = np.array([frame['latency_s'] for frame in frames])
    splits = sorted({frame['split_index'] for frame in frames})
    return {
        'frames_accepted': accepted,
        'frames_lost': accepted - len(set(sequences)),
        'images_dropped': counters.get('dropped', 0),
        'duplicates': len(sequences) - len(set(sequences)),
        'out_of_order': int(np.sum(np.diff(sequences) < 0)),
        'mismatches': sum(not frame['matches'] for frame in frames),
        'agreement': sum(frame['agrees'] for frame in frames) / len(frames),
        'labels': {
            shown: dict(Counter(frame['label'] for frame in frames if frame['shown'] == shown).most_common(3))
            for shown in dict.fromkeys(frame['shown'] for frame in frames)
        },
        'other_robot_frames': other_robot_frames,
        'splits_used': splits,
        'frames_by_split': {str(split): sum(frame['split_index'] == split for frame in frames) for split in splits},
        'frames_by_outcome': {
            outcome.value: sum(frame['outcome'] == outcome for frame in frames)
            for outcome in (Outcome.ANSWERED, Outcome.LOCAL, Outcome.FELL_BACK)
        },
        'latency_mean_s': float(latencies.mean()),
        **{f'latency_p{percent}_s': float(np.percentile(latencies, percent)) for percent in PERCENTILES},
        'latency_max_s': float(latencies.max()),
    }


def conclude(report: dict[str, Any], folder: Path, json_path: Path) -> int:
    """Print the summary, draw the plot, write the JSON; return the exit code."""
    summary = report['summary']
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(_without_nan(report), indent=1, allow_nan=False) + '\n')
    # After that, so that a run is not lost where a package of the pictures is missing.
    from dynsplit_ros.demo.film import animate
    from dynsplit_ros.demo.plot import draw
    from dynsplit_ros.sources import Panorama

    plot_path, film_path = folder / 'demo.png', folder / 'demo.gif'
    image_at = Panorama(WIDTH, HEIGHT).at
    draw(report, image_at, plot_path)
    animate(report, image_at, film_path)
    result = Table(title='summary', show_header=False)
    for name, value in summary.items():
        for key, shown in _rows(name, value):
            result.add_row(key, shown)
    console.print(result)
    for what, place in (('plot', plot_path), ('animation', film_path), ('JSON', json_path), ('logs', folder / 'logs')):
        console.print(f'{what}: {place.resolve()}', markup=False)
    wrong = [name for name in ('frames_lost', 'duplicates', 'out_of_order', 'mismatches') if summary[name]]
    if wrong:
        console.print(f'demo: {", ".join(wrong)} should be 0; the logs are in {folder / "logs"}', style='red')
    if not summary['other_robot_frames']:
        console.print(
            "demo: the step 'edge busy' shows no other robot, because this machine was too busy to start "
            'it in time; give more --seconds',
            style='yellow',
        )
    return 1 if wrong else 0


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield what the table shows of a figure of the summary."""
    if name == 'labels':
        for photograph, labels in value.items():
            counts = (f'{label or "no name"} ({count})' for label, count in labels.items())
            yield f'seen in {photograph!r}', ', '.join(counts)
    elif name == 'agreement':
        yield "same class as the whole model's", f'{100 * value:.1f} %'
    elif isinstance(value, dict):
        yield name.replace('_', ' '), ', '.join(f'{key}: {count}' for key, count in value.items())
    else:
        yield (
            name.removesuffix('_s').replace('_', ' '),
            f'{value * 1e3:.0f} ms' if name.endswith('_s') else str(value),
        )


def _without_nan(value: Any) -> Any:
    """Return the value with what is not a finite number as None, as JSON needs it."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == '__main__':
    sys.exit(main())
