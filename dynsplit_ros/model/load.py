# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Load a vision model by its name; the source of models that knows it does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.ending import first_output
from dynsplit_ros.model.label_map import LabelMap
from dynsplit_ros.model.loaded import are_probabilities, LoadedModel, SCORES
from dynsplit_ros.model.preprocess import CHANNELS, INTERPOLATIONS, Normalise, resize_of, RESIZES
from dynsplit_ros.model.sources import check_task, Request
from dynsplit_ros.model.weights import kind_of_file, STATE_DICT_SUFFIXES, ULTRALYTICS_COMMAND

_logger = logging.getLogger(__name__)

#: The sources whose names begin with a prefix and a colon; any other prefix is a Python module.
_SOURCES = {
    'timm': 'timm',
    'transformers': 'transformers',
    'ultralytics': 'ultralytics',
    'segmentation_models_pytorch': 'segmentation_models',
    'efficientnet_lite': 'efficientnet_lite',
}
_FOREIGN = {
    '.onnx': 'an ONNX model',
    '.engine': 'a TensorRT engine',
    '.tflite': 'a TensorFlow Lite model',
    '.pb': 'a TensorFlow model',
    '.h5': 'a Keras model',
    '.torchscript': 'a TorchScript program',
}


def load_model(
    name: str,
    weights: str = 'none',
    input_size: Sequence[int] | None = None,
    seed: int = 0,
    kwargs: Mapping[str, Any] | None = None,
    *,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str | None = None,
    crop_fraction: float = 0.875,
    interpolation: str | None = None,
    channels: str | None = None,
    scores: str | None = None,
    download: bool = True,
) -> LoadedModel:
    """
    Load a model.

    :param name: a torchvision name (see :func:`model_names`), ``timm:NAME``, ``transformers:NAME``,
        ``ultralytics:NAME``, ``segmentation_models_pytorch:NAME``, ``efficientnet_lite:NAME``,
        ``package.module:factory`` for a module of your own, or the path of a program saved with ``torch.export``
        (``.pt2``).
    :param weights: ``'none'`` (drawn from ``seed``; a factory and a program keep theirs), ``'default'`` (the model's
        own), the name of an entry of torchvision's enumeration (downloaded), or the path of a state dict.
    :param input_size: (height, width) at which the network runs; ``None`` for the model's own.
    :param seed: of the weights that are drawn.
    :param kwargs: keyword arguments of the builder or of the factory.
    :param task: one of TASKS, for a module of your own.
    :param labels: the classes' names in the order of the outputs; ``None`` for the weights' own.
    :param mean: per channel, of the image scaled to [0, 1]; ``None`` for the model's own.
    :param std: per channel, as ``mean``.
    :param resize: one of RESIZES; ``None`` for the model's own.
    :param crop_fraction: share of the scaled image's height and width that ``'crop'`` keeps.
    :param interpolation: one of INTERPOLATIONS; ``None`` for the model's own.
    :param channels: one of CHANNELS; ``None`` for the model's own.
    :param scores: one of SCORES, for a classifier; ``None`` finds out.
    :param download: whether weights may be downloaded; without, they must be on this machine.
    :raises DynsplitError: when any of them cannot be used.
    """
    check_task(task)
    for what, given, allowed in (
        ('resize', resize, RESIZES),
        ('interpolation', interpolation, INTERPOLATIONS),
        ('channels', channels, CHANNELS),
        ('scores', scores, SCORES),
    ):
        if given is not None and given not in allowed:
            raise DynsplitError(f'{what} {given!r} was given, but must be one of {", ".join(allowed)}')
    if not 0 < crop_fraction <= 1:
        raise DynsplitError(f'crop_fraction {crop_fraction} was given, but must be above 0 and at most 1')
    if (mean is None) != (std is None):
        raise DynsplitError('mean and std belong together, but only one was given; give both or none')
    request = Request(
        name,
        weights,
        None if input_size is None else _checked_size(input_size),
        seed,
        dict(kwargs or {}),
        task,
        download,
    )
    model = _source(name)(request)
    model.module.eval()
    for parameter in model.module.parameters():  # requires_grad_ is not for scripted modules and lazy parameters
        parameter.requires_grad = False
    _set_preprocessing(model, resize, crop_fraction, interpolation, channels, mean, std)
    if labels is not None:
        model.labels = list(labels)
    if model.task == 'classification':
        model.scores = scores or (model.scores if model.torchvision else _found_scores(model))
    if model.task == 'segmentation' and scores == 'probabilities' and isinstance(model.ending, LabelMap):
        model.ending = LabelMap(0.5)
    return model


def _source(name: str) -> Callable[[Request], LoadedModel]:
    """Return the function that loads models with names of this form."""
    prefix, colon, _ = name.partition(':')
    suffix = Path(name).suffix
    if colon:
        module = _SOURCES.get(prefix, 'factory')
    elif suffix == '.pt2':
        module = 'exported'
    elif suffix in STATE_DICT_SUFFIXES or suffix in _FOREIGN:
        raise DynsplitError(_what_it_is(Path(name)))
    else:
        module = 'torchvision'
    # Imported only now: torch.export and the optional packages take seconds.
    load: Callable[[Request], LoadedModel] = importlib.import_module(f'dynsplit_ros.model.sources.{module}').load
    return load


def _what_it_is(path: Path) -> str:
    """Say what a file is that was given as the model, and how to use it."""
    if path.suffix in _FOREIGN:
        return (
            f'model {str(path)!r} is {_FOREIGN[path.suffix]}, which cannot be cut; export the PyTorch module with '
            'torch.export and give the .pt2 file'
        )
    kind = kind_of_file(path)
    there = '' if path.is_file() else ', and there is no such file'
    if kind == 'a TorchScript program':
        return (
            f'model {str(path)!r} is {kind}, which cannot be cut; export the PyTorch module with torch.export and '
            'give the .pt2 file'
        )
    if kind == 'a checkpoint of Ultralytics':
        target = path.with_suffix('.safetensors')
        return (
            f'model {str(path)!r} is {kind}, and reading it would execute code in it; on a machine where '
            f'you trust it, save its state dict with: {ULTRALYTICS_COMMAND.format(file=path, target=target)}; then '
            f'set model to its architecture, such as ultralytics:yolo11n, and weights to {target}'
        )
    return (
        f'model {str(path)!r} is {kind or "a file of weights"} without the code of the network{there}; '
        'set model to the architecture (a torchvision name, timm:NAME, ultralytics:NAME, or '
        'package.module:factory) and weights to this file'
    )


def _checked_size(input_size: Sequence[int]) -> tuple[int, int]:
    size = tuple(int(value) for value in input_size)
    if len(size) != 2 or min(size) < 1:
        raise DynsplitError(f'input size {tuple(input_size)} was given, but must be (height, width), both positive')
    return size[0], size[1]


def _set_preprocessing(
    model: LoadedModel,
    resize: str | None,
    crop_fraction: float,
    interpolation: str | None,
    channels: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    """Replace what a person asked for, and let the module have the type of its weights."""
    own = model.resize
    if resize is not None:
        model.resize = resize_of(
            resize,
            own.size,
            crop_fraction,
            interpolation=own.interpolation,
            antialias=own.antialias,
            fill=own.fill,
            channels=own.channels,
        )
    if interpolation is not None:
        model.resize = replace(model.resize, interpolation=INTERPOLATIONS[interpolation])
    bgr = model.normalise.bgr
    if channels is not None:
        if CHANNELS[channels] != own.channel_count and model.normalise.shifts and mean is None:
            raise DynsplitError(
                f'channels {channels!r} was given for {model.name}, which has mean and std for '
                f'{own.channel_count} channels; give mean and std for {CHANNELS[channels]}'
            )
        model.resize = replace(model.resize, channels=channels)
        bgr = channels == 'bgr'
    count = model.resize.channel_count
    if mean is not None and std is not None:
        if len(mean) != count:
            raise DynsplitError(
                f'mean {list(mean)} was given for {model.name}, which takes {count} channels; give one number for each'
            )
    elif model.normalise.shifts:
        mean, std = model.normalise.mean.flatten().tolist(), model.normalise.std.flatten().tolist()
    dtype = next((value.dtype for value in model.module.parameters() if value.is_floating_point()), torch.float32)
    model.normalise = Normalise(mean, std, bgr=bgr, dtype=dtype)


def _found_scores(model: LoadedModel) -> str:
    """
    Return what the outputs of a classifier are, from its outputs for two images.

    Numbers from 0 to 1 with sum 1 are probabilities, because the module ends in a softmax. A second softmax would turn
    0.99 of 1000 classes into 0.0027.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    limit = model.max_batch or 2
    images = torch.from_numpy(generator.integers(0, 256, (2, *model.image_shape), dtype=np.uint8))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(model.seed)  # the first run of a lazy module draws its parameters
            outputs = [first_output(model.module(model.normalise(part))) for part in torch.split(images, min(limit, 2))]
        values = torch.cat(outputs).float()
    except Exception:  # SplitModel runs the module next, and says what is wrong with it
        return 'logits'
    ends = are_probabilities(values)
    if ends:
        _logger.warning(
            '%s ends in a softmax: its outputs count as probabilities; set the parameter scores to '
            'logits if they are not',
            model.name,
        )
    return 'probabilities' if ends else 'logits'
