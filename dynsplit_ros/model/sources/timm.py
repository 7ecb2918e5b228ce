# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Classifiers of timm: ``timm:NAME``, with the preprocessing of timm's own data configuration."""

from __future__ import annotations

import difflib
import logging
import math
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import channels_of, INTERPOLATIONS, Normalise, Resize
from dynsplit_ros.model.sources import optional, Request
from dynsplit_ros.model.sources.torchvision import imagenet_labels
from dynsplit_ros.model.weights import labels_of, weights_file

_logger = logging.getLogger(__name__)


def load(request: Request) -> LoadedModel:
    """Return the model with this name in timm; an architecture may be followed by the tag of its weights."""
    timm: Any = optional('timm', request.name)
    task = request.own_task('classification')
    architecture = request.rest.partition('.')[0]
    if not timm.is_model(architecture):
        close = ', '.join(difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.4))
        raise DynsplitError(
            f'model {request.name!r} is not known to timm {timm.__version__}; '
            + (f'the closest names are {close}' if close else 'timm.list_models() has the names')
        )
    file = weights_file(request.weights, request.name)
    pretrained = request.weights == 'default'
    options = dict(request.options)
    if request.size is not None and _takes_size(timm, architecture):
        options.setdefault('img_size', request.size)
    if pretrained and not request.download:
        raise DynsplitError(
            f'the weights of {request.name} may have to be downloaded, and a running node downloads '
            'none; give the path of a state dict, or start the node with this model'
        )
    with request.building('the weights'):
        module = timm.create_model(request.rest, pretrained=pretrained, **options)
    request.give_weights(module, file, drawn=not pretrained)
    data = timm.data.resolve_model_data_config(module)
    size = request.size or tuple(data['input_size'][1:])
    count = next((part.in_channels for part in module.modules() if hasattr(part, 'in_channels')), 3)
    labels = labels_of(file)
    if not labels and getattr(module, 'num_classes', 0) == 1000:
        labels = imagenet_labels()
    return LoadedModel(
        request.name,
        module,
        task,
        labels,
        size,
        _resize(data, size, channels_of(count)),
        Normalise(_per_channel(data['mean'], count), _per_channel(data['std'], count)),
        seed=request.seed,
    )


def _takes_size(timm: Any, architecture: str) -> bool:
    """Tell whether the architecture is built for one size, as vision transformers are."""
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)


def _per_channel(values: Any, count: int) -> tuple[float, ...]:
    """Return a value for each channel: for another number than three, the average."""
    values = tuple(map(float, values))
    return values if len(values) == count else (sum(values) / len(values),) * count


def _resize(data: dict[str, Any], size: tuple[int, int], channels: str) -> Resize:
    """Return the resize that timm's evaluation transform does."""
    interpolation = INTERPOLATIONS.get(data['interpolation'], INTERPOLATIONS['bicubic'])
    larger = math.floor(size[0] / data['crop_pct']), math.floor(size[1] / data['crop_pct'])
    if data['crop_mode'] == 'squash' and larger == size:
        return Resize(size, None, interpolation, channels=channels)
    if data['crop_mode'] == 'border' and larger == size:
        fill = tuple(round(255 * mean) for mean in data['mean'])
        return Resize(size, None, interpolation, pad='around', fill=fill, channels=channels)
    if data['crop_mode'] != 'center':
        _logger.warning(
            'the crop mode %r with crop_pct %g of timm is not known here: the centre is cut out',
            data['crop_mode'],
            data['crop_pct'],
        )
    return Resize(size, larger, interpolation, channels=channels)
