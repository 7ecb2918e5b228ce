# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Write one self-contained HTML page with plots and key figures of a recorded run."""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.report.figures import count
from dynsplit_ros.report.page import make_page
from dynsplit_ros.report.run import read_run
from dynsplit_ros.tools.model_options import writable


def main(argv: list[str] | None = None) -> int:
    """Write the page of the run that ``argv`` names."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='To record a run: ros2 bag record --topics /robot1/prediction /robot1/link_state /robot1/edge_load '
        '/robot1/split (or --all, which also keeps the images and payloads)',
    )
    parser.add_argument(
        'run', type=Path, metavar='RUN', help='folder or file from ros2 bag record, or JSON file of demo'
    )
    parser.add_argument(
        '--output',
        type=writable,
        metavar='HTML',
        help='write the page to this file (default: RUN.html in the current folder)',
    )
    arguments = parser.parse_args(argv)
    try:
        run = read_run(arguments.run)
        output = arguments.output or Path(f'{arguments.run.resolve().stem}.html')
        output.write_text(make_page(run), encoding='utf-8')
    except (DynsplitError, OSError) as error:
        print(f'report: {error}', file=sys.stderr)
        return 2
    for note in run.notes:
        print(f'note: {note}', file=sys.stderr)
    for robot in run.robots:
        figures = count(robot, run.duration_s, run.accepted)
        print(
            f'{robot.name}: {figures.frames} frames in {run.duration_s:.0f} s, {figures.lost} lost, '
            f'{figures.doubled} duplicates, mean latency {1e3 * figures.mean_s:.1f} ms'
        )
    print(f'written to {output}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
