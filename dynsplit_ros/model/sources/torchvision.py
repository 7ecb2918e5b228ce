# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Models by their torchvision names."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn
import torchvision.models as zoo

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import COMMON_IMAGE, Normalise, Resize
from dynsplit_ros.model.sources import Request
from dynsplit_ros.model.weights import labels_of, weights_file

_ROOMS = {'classification': zoo, 'segmentation': zoo.segmentation, 'detection': zoo.detection}


def model_names(task: str | None = None) -> list[str]:
    """Return the torchvision names that :func:`load_model` knows, of one task or of all."""
    rooms = _ROOMS if task is None else {task: _ROOMS[task]}
    return [name for room in rooms.values() for name in zoo.list_models(module=room)]


def imagenet_labels() -> list[str]:
    """Return the names of ImageNet's 1000 classes, in the order in which nearly all of its classifiers have them."""
    return list(zoo.ResNet18_Weights.DEFAULT.meta['categories'])


def load(request: Request) -> LoadedModel:
    """Return the model with a torchvision name."""
    name, size, options = request.name, request.size, dict(request.options)
    task = next((task for task in _ROOMS if name in model_names(task)), None)
    if task is None:
        close = ', '.join(difflib.get_close_matches(name, model_names(), n=4, cutoff=0.4))
        raise DynsplitError(
            f'model {name!r} is not known{"; the closest names are " if close else ""}{close}; give a name of'
            ' torchvision, timm:NAME, transformers:NAME, ultralytics:NAME, package.module:factory, or the path of an'
            ' exported program (.pt2)'
        )
    enumeration = zoo.get_model_weights(name)
    file, entry = _weights(request, enumeration)
    if entry is not None and not request.download:
        cached = Path(torch.hub.get_dir()) / 'checkpoints' / entry.url.rpartition('/')[2]
        if not cached.is_file():
            raise DynsplitError(
                f'the weights {entry} of {name} are not on this machine ({cached}), and a running node downloads none;'
                f' download them with ./run profile {name} --weights {request.weights}, or start the node with this'
                ' model'
            )
    described = entry or enumeration.DEFAULT
    preset = described.transforms()

    if task == 'classification':
        own = int(preset.crop_size[0])
        size = size or (own, own)
        ratio = preset.resize_size[0] / own
        resize = Resize(
            size, (round(size[0] * ratio), round(size[1] * ratio)), preset.interpolation, preset.antialias is not False
        )
        if entry is None and name.startswith('vit_'):
            options.setdefault('image_size', size[0])
        if entry is None and name.startswith('maxvit_'):
            options.setdefault('input_size', size)
        if name in ('googlenet', 'inception_v3') and entry is None:
            options.setdefault('init_weights', False)  # their own initialisation takes seconds, and is drawn over
        normalise = Normalise(preset.mean, preset.std)
    elif task == 'segmentation':
        size = size or (int(preset.resize_size[0]),) * 2
        resize = Resize(size, None, preset.interpolation, preset.antialias is not False)
        normalise = Normalise(preset.mean, preset.std)
    else:
        if size is not None and not name.startswith('ssd'):
            options.setdefault('min_size', min(size))
            options.setdefault('max_size', max(size))
        normalise = Normalise(None, None)  # a detector's own transform does it
    if task != 'classification':
        options.setdefault('weights_backbone', None)

    with request.building(f'the weights {described}'):
        module: nn.Module = zoo.get_model(name, weights=entry, **options)
    request.give_weights(module, file, drawn=entry is None)
    if task == 'detection':
        resize = detector_resize(name, module, size)
    labels = list(described.meta['categories'])
    if options.get('num_classes', len(labels)) != len(labels):
        labels = []
    labels = labels_of(file) or labels
    return LoadedModel(
        name,
        module,
        task,
        labels,
        resize.size,
        resize,
        normalise,
        task == 'detection',
        torchvision=True,
        seed=request.seed,
        keypoint_names=list(described.meta.get('keypoint_names', [])),
    )


def detector_resize(name: str, module: nn.Module, size: tuple[int, int] | None) -> Resize:
    """
    Return the resize whose result the detector's own transform leaves as it is.

    The size is the one to which that transform scales images of 16:9, unless ``size`` is given.
    """
    transform: Any = module.transform
    fixed = transform.fixed_size
    if fixed is not None:  # these detectors stretch
        if size not in (None, (fixed[1], fixed[0])):
            raise DynsplitError(f'{name} runs at {(fixed[1], fixed[0])} only, and {size} was given; leave it out')
        return Resize((int(fixed[1]), int(fixed[0])))
    shorter, longer = int(transform.min_size[-1]), int(transform.max_size)
    fill = tuple(round(255 * mean) for mean in transform.image_mean)
    own = Resize((longer, longer), pad='end', shorter=shorter, antialias=False, fill=fill)
    return Resize(size or own.placement(*COMMON_IMAGE).scaled, pad='end', shorter=shorter, antialias=False, fill=fill)


def _weights(request: Request, enumeration: Any) -> tuple[Path | None, Any]:
    """Return the file of a state dict, or the entry of torchvision's enumeration, or neither."""
    if request.weights == 'default':
        return None, enumeration.DEFAULT
    entry = enumeration.__members__.get(request.weights.rsplit('.', 1)[-1])
    return (
        (None, entry)
        if entry is not None
        else (weights_file(request.weights, request.name, f' {", ".join(enumeration.__members__)},'), None)
    )
