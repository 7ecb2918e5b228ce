# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Modules of one's own: ``package.module:factory``."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import channels_of, Normalise, Resize
from dynsplit_ros.model.sources import as_module, IMAGENET_MEAN, IMAGENET_STD, Request
from dynsplit_ros.model.sources.torchvision import detector_resize
from dynsplit_ros.model.weights import labels_of, load_state_dict, weights_file

#: Mean and standard deviation by the number of channels: ImageNet's, their average for grey, and an opaque alpha as 1.
_SCALES = {1: ((0.449,), (0.226,)), 3: (IMAGENET_MEAN, IMAGENET_STD), 4: ((*IMAGENET_MEAN, 0.0), (*IMAGENET_STD, 1.0))}


def load(request: Request) -> LoadedModel:
    """Return what the factory makes: a module, or a whole LoadedModel, whose fields then count."""
    name = request.name
    module_name, _, factory_name = name.partition(':')
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DynsplitError(
            f'model {name!r} was given, but {error}; give package.module:factory of something that can be imported'
        ) from error
    file = weights_file(request.weights, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        try:
            made = factory(**request.options)
        except TypeError as error:
            raise DynsplitError(
                f'{name} cannot be called with {request.options}: {in_short(error)}; change the arguments'
            ) from error
    if isinstance(made, LoadedModel):
        if file is not None:
            load_state_dict(made.module, file)
        made.name = name
        return made
    module = _unwrapped(as_module(made, name))
    if file is not None:
        load_state_dict(module, file)
    model = own_model(name, module, request.size or (224, 224), request.task or 'classification', _channels(module))
    if isinstance(getattr(module, 'transform', None), GeneralizedRCNNTransform):  # it normalises by itself
        model.normalise, model.resize = Normalise(None, None), detector_resize(name, module, request.size)
        model.input_size = model.resize.size
    model.labels = labels_of(file)
    return model


def own_model(name: str, module: nn.Module, size: tuple[int, int], task: str, channels: int = 3) -> LoadedModel:
    """Return a module of which nothing but its input is known, with ImageNet's mean and standard deviation."""
    return LoadedModel(
        name, module, task, [], size, Resize(size, channels=channels_of(channels)), Normalise(*_SCALES[channels])
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of torch.compile and data parallelism, which nothing can trace."""
    while True:
        inner: Any = getattr(module, '_orig_mod', None)
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _channels(module: nn.Module) -> int:
    """Return the number of channels that the first convolution takes: 1, 3 or 4; 3 for anything else."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in _SCALES else 3
