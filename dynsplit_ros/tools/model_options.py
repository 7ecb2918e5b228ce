# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The command-line options that name a model, the same for every tool."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, TYPE_CHECKING

from dynsplit_ros.errors import in_one_sentence, in_short
from dynsplit_ros.memory import keep_freed

if TYPE_CHECKING:
    from dynsplit_ros.partition import SplitModel


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add MODEL, which may be left out unless ``required``, and the options that go with it."""
    parser.add_argument(
        'model',
        nargs=None if required else '?',
        metavar='MODEL',
        help='name of a torchvision model, timm:NAME, transformers:NAME, ultralytics:NAME, '
        'segmentation_models_pytorch:NAME, efficientnet_lite:NAME, package.module:factory, or path of a .pt2 file from '
        'torch.export',
    )
    parser.add_argument(
        '--weights',
        default='none',
        help="'none': random seeded weights; 'default': the model's own; a name from torchvision's enumeration; or a "
        'path (default: none; the nodes use default)',
    )
    parser.add_argument(
        '--input-size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="height and width of the input (default: the model's own)",
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of random weights (default: 0)')
    parser.add_argument(
        '--model-arguments',
        dest='kwargs',
        type=json_object,
        default={},
        metavar='JSON',
        help="keyword arguments of the model's builder or factory, as a JSON object",
    )
    parser.add_argument(
        '--task', help='task of your own model: classification (default), segmentation, detection, dense or other'
    )
    for name in ('mean', 'std'):
        parser.add_argument(
            f'--{name}',
            type=float,
            nargs='+',
            metavar='X',
            help=f"{name} of each channel, for pixel values scaled to 0 to 1 (default: the model's own)",
        )
    parser.add_argument('--channels', help="channels of the input: rgb, bgr, grey or rgba (default: the model's own)")
    parser.add_argument(
        '--leaf',
        action='append',
        default=[],
        metavar='NAME',
        help='class or path of a submodule inside which there shall be no cut; can be repeated',
    )
    parser.add_argument(
        '--whole', action='store_true', help='search no cuts: only full offloading and local inference are possible'
    )


def split_model(arguments: argparse.Namespace, device: str = 'cpu', **options: Any) -> SplitModel:
    """Return the model that the command line names, split; this process then keeps freed memory, as nodes do."""
    from dynsplit_ros.model import load_model  # here, so that --help answers at once
    from dynsplit_ros.partition import SplitModel

    keep_freed()
    with in_one_sentence(f'model {arguments.model!r} cannot be used', 'correct its code or change the arguments'):
        model = load_model(
            arguments.model,
            arguments.weights,
            arguments.input_size,
            seed=arguments.seed,
            kwargs=arguments.kwargs,
            task=arguments.task,
            mean=arguments.mean,
            std=arguments.std,
            channels=arguments.channels,
        )
        return SplitModel(model, device, cut=not arguments.whole, leaves=arguments.leaf, **options)


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text stands for; for argparse."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object, such as {{"num_classes": 10}}')
    return value


def writable(text: str) -> Path:
    """Return the path of a file that can be written, its folder made, before what takes minutes; for argparse."""
    path = Path(text)
    try:
        target = Path(os.path.realpath(path))  # a link to a file that is not there yet stays
        there = target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        # Without O_NONBLOCK, a named pipe that nobody reads would be waited for.
        os.close(os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666))
        if not there:
            target.unlink()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f'{text!r} cannot be written ({in_short(error)}); give another file'
        ) from error
    return path


def picture(text: str) -> Path:
    """Return the path of a file that a plot can be drawn into; for argparse."""
    path = writable(text)
    if path.suffix.lower() not in ('.png', '.svg', '.pdf'):
        raise argparse.ArgumentTypeError(f'{text!r} does not end in .png, .svg or .pdf')
    return path
