# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The command-line options that name a robot with an edge and what may be chosen, for the tools that only calculate."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import math
from pathlib import Path
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner import OBJECTIVES
from dynsplit_ros.profile.profile import merge, Profile, SystemProfile
from dynsplit_ros.tools.model_options import add_model_options

#: Largest number of processor threads, as for the nodes' parameter threads.
MOST_THREADS = 1024


def add_system_options(parser: argparse.ArgumentParser) -> None:
    """Add MODEL and the profiles that stand in for it, the offered rate, the round trip, and what may be chosen."""
    add_model_options(parser, required=False)
    profiles = parser.add_argument_group('profiles; a machine without one is assumed to be like this one')
    profiles.add_argument(
        '--robot-profile',
        type=Path,
        metavar='YAML',
        help="profile that 'profile' wrote on the robot (default: the edge's, --slowdown times as slow)",
    )
    profiles.add_argument(
        '--edge-profile',
        type=Path,
        metavar='YAML',
        help="profile that 'profile' wrote on the edge (default: measure MODEL on this machine)",
    )
    profiles.add_argument(
        '--slowdown',
        type=positive,
        default=8.0,
        metavar='TIMES',
        help='time of the robot divided by that of the edge, if the robot has no profile (default: 8)',
    )
    profiles.add_argument(
        '--threads', type=int, default=1, metavar='N', help='CPU threads of a measurement (default: 1)'
    )
    world = parser.add_argument_group('camera and link')
    world.add_argument(
        '--rate',
        type=positive,
        default=10.0,
        metavar='HZ',
        help='images per second that the camera offers (default: 10)',
    )
    world.add_argument(
        '--round-trip',
        type=positive,
        default=0.004,
        metavar='SECONDS',
        help='round-trip time of an empty message (default: 0.004)',
    )
    policy = parser.add_argument_group('constraints and objective')
    policy.add_argument(
        '--codec', nargs='+', metavar='NAME', help='allowed codecs (default: all that --min-agreement allows)'
    )
    policy.add_argument(
        '--min-agreement',
        type=float,
        default=1.0,
        metavar='SHARE',
        help='smallest agreement that a lossy codec or an engine must keep, measured by profile --image; 1 '
        'allows only exact results, 0 every codec and engine (default: 1)',
    )
    policy.add_argument(
        '--objective', choices=OBJECTIVES, default='latency', help='quantity to optimise (default: latency)'
    )
    policy.add_argument(
        '--deadline',
        type=positive,
        default=0.1,
        metavar='SECONDS',
        help='deadline of a frame, for --objective deadline (default: 0.1)',
    )
    policy.add_argument(
        '--shallowest-split',
        type=int,
        default=0,
        metavar='INDEX',
        help='smallest split index whose activation may leave the robot; 1 keeps the image on the robot (default: 0)',
    )
    policy.add_argument(
        '--bandwidth',
        type=float,
        default=0.0,
        metavar='MBIT/S',
        help='upper bound on the mean rate of the payloads (default: 0, no bound)',
    )


def system_profile(arguments: argparse.Namespace, measured: Callable[[], Profile]) -> tuple[SystemProfile, list[str]]:
    """
    Return robot and edge as the command line names them, and a sentence for each thing that is assumed of them.

    ``measured`` returns this machine's profile of MODEL, and is called only where no file says what the edge is. Raises
    DynsplitError for files that cannot be used, and where nothing says what to look at.
    """
    assumed = []
    if arguments.edge_profile is not None:
        edge = Profile.load(arguments.edge_profile)
    elif arguments.model is not None:
        edge = measured()
        assumed.append('the edge is as fast as this machine')
    elif arguments.robot_profile is not None:
        raise DynsplitError(
            "--robot-profile was given without --edge-profile or a MODEL: give one of them, or the edge's profile alone"
        )
    else:
        raise DynsplitError(
            'neither a MODEL nor a profile was given; give a MODEL, or --edge-profile and --robot-profile'
        )
    if arguments.robot_profile is not None:
        robot = Profile.load(arguments.robot_profile)
    else:
        robot = edge.scaled(arguments.slowdown)
        assumed.append(
            f'the robot takes {arguments.slowdown:g} times as long as the edge (--slowdown, or --robot-profile)'
        )
    model = arguments.model
    if model is not None and not model.endswith('.pt2') and model != edge.model:
        raise DynsplitError(
            f'the model is {model!r}, but the profiles are of {edge.model!r}: give profiles of the same '
            'model, or leave the model out'
        )
    return merge(robot, edge), assumed


def set_threads(arguments: argparse.Namespace) -> None:
    """Have torch use as many threads as the command line says."""
    import torch  # only who measures needs it

    if not 1 <= arguments.threads <= MOST_THREADS:  # with too many, torch ends the process or takes all memory
        raise DynsplitError(f'--threads {arguments.threads} was given, but must be from 1 to {MOST_THREADS}')
    torch.set_num_threads(arguments.threads)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line sets of the planner's rules, which are among the monitor's settings."""
    if not 0 <= arguments.bandwidth < math.inf:
        raise DynsplitError(f'--bandwidth {arguments.bandwidth:g} was given, but must be at least 0; 0 sets no bound')
    values: dict[str, Any] = {
        'objective': arguments.objective,
        'deadline_s': arguments.deadline,
        'min_agreement': arguments.min_agreement,
        'shallowest_split': arguments.shallowest_split,
        'bandwidth_bps': 1e6 * arguments.bandwidth,
    }
    if arguments.codec:
        values['codecs'] = tuple(arguments.codec)
    return values


def positive(text: str) -> float:
    """Return the positive, finite number that a text stands for; for argparse."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f'{text} is not a positive number')
    return value
