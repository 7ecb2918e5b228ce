# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Measure on this machine the time of the head and tail of each cut, and the payload size with each codec."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dynsplit_ros.agreement import images_needed
from dynsplit_ros.cache import engines_folder
from dynsplit_ros.engine_names import EAGER, ENGINE_NAMES, PRECISIONS
from dynsplit_ros.errors import DynsplitError, in_one_sentence
from dynsplit_ros.profile.profile import LOSSLESS, Profile
from dynsplit_ros.tools.model_options import add_model_options, picture, split_model, writable
from dynsplit_ros.tools.system_options import set_threads

#: Images with which times and sizes are measured; the agreement takes all.
_TIMED_IMAGES = 16

if TYPE_CHECKING:
    import torch

    from dynsplit_ros.partition import SplitModel


def main(argv: list[str] | None = None) -> int:
    """Measure the profile that ``argv`` asks for, write it, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_options(parser)
    parser.add_argument(
        '--output', type=writable, metavar='YAML', help='write the profile to this file (default: MODEL.profile.yaml)'
    )
    parser.add_argument('--plot', type=picture, metavar='PNG', help='also draw the profile into this file')
    parser.add_argument(
        '--batch', type=int, nargs='+', default=[1], metavar='N', help='batch sizes to measure (default: 1)'
    )
    parser.add_argument('--codec', nargs='+', metavar='NAME', help='codecs to measure (default: all that fit)')
    parser.add_argument(
        '--image',
        type=Path,
        nargs='+',
        default=[],
        metavar='PATH',
        help='images, folders of images or recordings (MCAP, SQLite) with which to measure; without them, the tool '
        'draws images itself, and the profile has no agreement of lossy codecs and engines',
    )
    parser.add_argument(
        '--image-topic', default='', metavar='TOPIC', help='topic of the images in a recording (default: the only one)'
    )
    parser.add_argument('--threads', type=int, metavar='N', help="CPU threads (default: PyTorch's choice)")
    parser.add_argument('--device', default='cpu', help='device that runs head and tail (default: cpu)')
    parser.add_argument(
        '--repeats', type=int, default=15, metavar='N', help='timed runs; the profile holds their median (default: 15)'
    )
    parser.add_argument(
        '--warm-up', type=int, default=3, metavar='N', help='untimed runs before the timed ones (default: 3)'
    )
    parser.add_argument('--channels-last', action='store_true', help='use the channels-last memory layout; not exact')
    parser.add_argument(
        '--engine',
        nargs='+',
        choices=ENGINE_NAMES,
        default=[],
        metavar='NAME',
        help=f'also measure these engines: {", ".join(ENGINE_NAMES)} (default: eager only)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='float32',
        help='data type in which these engines compute (default: float32)',
    )
    arguments = parser.parse_args(argv)
    from dynsplit_ros.profile.agreement import measure_agreement  # here, so that --help answers at once
    from dynsplit_ros.profile.measure import measure

    console = Console(stderr=True)
    output = arguments.output or Path(f'{Path(arguments.model).stem.replace(":", ".")}.profile.yaml')
    try:
        if arguments.threads is not None:
            set_threads(arguments)
        split = split_model(arguments, arguments.device, channels_last=arguments.channels_last)
        for engine in arguments.engine:
            failed = split.add_engine(engine, arguments.precision, cache=engines_folder())
            for part, reason in failed.items():
                print(f'profile: {part}: {reason}', file=sys.stderr)
        read, count = _images(split, arguments.image, arguments.image_topic)
        images = list(islice(read(), 0, None, max(1, count // _TIMED_IMAGES)))[:_TIMED_IMAGES]
        with (
            Progress(
                TextColumn('{task.description:28}'), BarColumn(), TimeElapsedColumn(), console=console, transient=True
            ) as bar,
            in_one_sentence(f'model {arguments.model!r} cannot be measured', 'change the arguments'),
        ):
            task = bar.add_task('', total=1.0)
            profile = measure(
                split,
                arguments.batch,
                arguments.codec,
                arguments.repeats,
                arguments.warm_up,
                images,
                lambda what, share: bar.update(task, description=what, completed=share),
            )
            if count:
                profile = replace(
                    profile,
                    agreements=measure_agreement(
                        split,
                        read(),
                        f'{count} images of {arguments.image[0]}',
                        arguments.codec,
                        lambda done: bar.update(
                            task, description=f'agreement, image {done} of {count}', completed=done / count
                        ),
                    ),
                )
        profile.save(output)
        if arguments.plot is not None:
            from dynsplit_ros.profile.plot import plot_profile

            plot_profile(profile, arguments.plot)
    except (DynsplitError, OSError) as error:
        print(f'profile: {error}', file=sys.stderr)
        return 2
    _print_table(profile)
    _print_engines(profile)
    _print_agreement(profile)
    if profile.doubt:
        print(f'profile: {profile.doubt}; measure again while it is idle', file=sys.stderr)
    print(f'written to {output}' + (f' and {arguments.plot}' if arguments.plot else ''))
    return 0


def _read(split: SplitModel, path: Path) -> torch.Tensor:
    import cv2
    import numpy as np

    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None  # else OpenCV has a warning too
    if image is None:
        raise DynsplitError(f'image {str(path)!r} was given, but it cannot be read; give a PNG or JPEG file')
    return split.model.resize(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))


def _images(split: SplitModel, paths: Sequence[Path], topic: str) -> tuple[Callable[[], Iterator[torch.Tensor]], int]:
    """
    Return what reads the images that paths name, as the model takes them, and their number.

    A path is an image, a folder of images or a recording. Raises DynsplitError for one without images.
    """
    from dynsplit_ros.report.recorded_images import is_recording, recorded_images
    from dynsplit_ros.sources import IMAGE_SUFFIXES

    sources: list[Callable[[], Iterator[torch.Tensor]]] = []
    count = 0
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if path.exists() and is_recording(path):
            count += sum(1 for _ in recorded_images(path, topic))
            sources.append(lambda path=path: map(split.model.resize, recorded_images(path, topic)))  # type: ignore[misc]
        elif inside:
            count += len(inside)
            sources.append(lambda inside=inside: (_read(split, file) for file in inside))  # type: ignore[misc]
        else:
            raise DynsplitError(
                f'the folder {path} has no image; name a recording, or a folder with files ending in '
                + ', '.join(sorted(IMAGE_SUFFIXES))
            )
    return lambda: (image for source in sources for image in source()), count


def _agreement(profile: Profile, cut: int, codec: str) -> str:
    """Return the agreement of a lossy codec as the table shows it; empty where it was not measured."""
    found = [
        record.cuts[cut][codec]
        for record in profile.agreements
        if record.engines == (EAGER, EAGER) and codec in record.cuts.get(cut, {})
    ]
    return f'{found[0].share:.3f} ≥ {found[0].low:.3f}' if found else ''


def _print_agreement(profile: Profile) -> None:
    """Say what the measured agreement can promise, and how many images a higher bound needs."""
    from dynsplit_ros.tasks.agreement import MEASURES

    for record in profile.agreements[:1]:
        print(f'agreement ({MEASURES[record.task]}) on {record.images} images, ≥ the lower end of its 95 % interval')
        for bound in (0.9, 0.95, 0.98, 0.99):
            if images_needed(bound) > record.images:
                print(
                    f'min_agreement {bound:g} and more cannot be shown with {record.images} images; '
                    f'{bound:g} needs at least {images_needed(bound)}'
                )
                break


def _print_engines(profile: Profile) -> None:
    """Print the times of heads and tails on engines other than eager, and how far they agree with the whole model."""
    for engine in profile.engines[1:]:
        table = Table(title=f'{profile.model} on {engine}, batch 1, and the agreement without loss in the codec')
        for name in ('index', 'cut', 'head ms', 'tail ms', 'head and tail agree', 'head agrees', 'tail agrees'):
            table.add_column(name, justify='left' if name == 'cut' else 'right', overflow='fold')
        pairs = [(engine, engine), (engine, EAGER), (EAGER, engine)]
        for cut in profile.cuts:
            times = (of_part.get(engine, {}).get(1) for of_part in (cut.engine_head_s, cut.engine_tail_s))
            found = [
                next(
                    (
                        record.cuts[cut.index][LOSSLESS]
                        for record in profile.agreements
                        if record.engines == pair and LOSSLESS in record.cuts.get(cut.index, {})
                    ),
                    None,
                )
                for pair in pairs
            ]
            table.add_row(
                str(cut.index),
                cut.name,
                *('' if time_s is None else f'{1000 * time_s:.2f}' for time_s in times),
                *(
                    '' if one is None else f'{one.share:.3f} ≥ {one.low:.3f}, differs by {one.difference:.1e}'
                    for one in found
                ),
            )
        Console(width=None if sys.stdout.isatty() else 140).print(table)


def _print_table(profile: Profile) -> None:
    for batch in profile.batches:
        table = Table(
            title=f'{profile.model}, batch {batch}, {profile.device}, {profile.threads} threads:'
            ' median ± half the distance between the quartiles'
        )
        for name in ('index', 'cut', 'head ms', 'tail ms', 'codec', 'KiB', 'encode ms', 'decode ms', 'agree'):
            table.add_column(name, justify='left' if name in ('cut', 'codec') else 'right', overflow='fold')
        for cut in profile.cuts:
            start = (
                str(cut.index),
                cut.name,
                f'{1000 * cut.head_s[batch]:.2f} ± {1000 * cut.head_spread_s[batch]:.2f}',
                f'{1000 * cut.tail_s[batch]:.2f} ± {1000 * cut.tail_spread_s[batch]:.2f}',
            )
            if not cut.codecs:
                table.add_row(*start, 'nothing to send')
            for name, codec in cut.codecs.items():
                table.add_row(
                    *start,
                    name,
                    f'{codec.payload_bytes[batch] / 1024:.1f}',
                    f'{1000 * codec.encode_s[batch]:.2f}',
                    f'{1000 * codec.decode_s[batch]:.2f}',
                    'lossless' if codec.lossless else _agreement(profile, cut.index, name),
                )
                start = ('', '', '', '')
            table.add_section()
        Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == '__main__':
    raise SystemExit(main())
