# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Networks of segmentation_models_pytorch by name: ``segmentation_models_pytorch:Unet``."""

from __future__ import annotations

import logging
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import Normalise, Resize
from dynsplit_ros.model.sources import as_module, IMAGENET_MEAN, IMAGENET_STD, optional, Request
from dynsplit_ros.model.sources.factory import own_model
from dynsplit_ros.model.weights import labels_of, weights_file

_logger = logging.getLogger(__name__)
#: What the library's own encoder is if none is named.
_ENCODER = 'resnet34'


def load(request: Request) -> LoadedModel:
    """Return the architecture with this name; ``weights: default`` gives the encoder's own weights only."""
    library: Any = optional('segmentation_models_pytorch', request.name)
    base = library.base.SegmentationModel
    architectures = {
        name: kind for name, kind in vars(library).items() if isinstance(kind, type) and issubclass(kind, base)
    }
    if request.rest not in architectures:
        raise DynsplitError(
            f'model {request.name!r} is not known to segmentation_models_pytorch; give one of '
            f'{", ".join(sorted(architectures))}'
        )
    file = weights_file(request.weights, request.name)
    options = dict(request.options)
    if request.weights != 'default':
        options.setdefault('encoder_weights', None)
    with request.building("the encoder's weights"):
        module = as_module(architectures[request.rest](**options), request.name)
    request.give_weights(module, file, drawn=request.weights == 'none')
    if request.weights == 'default':
        _logger.warning('only the encoder of %s has trained weights: its predictions mean nothing', request.name)
    model = own_model(
        request.name,
        module,
        request.size or (512, 512),
        request.own_task('segmentation'),
        int(options.get('in_channels', 3)),
    )
    if options.get('in_channels', 3) == 3:
        model.normalise = _normalise(library, str(options.get('encoder_name', _ENCODER)), options)
    model.resize = Resize(model.input_size, channels=model.resize.channels)
    model.labels, model.seed = labels_of(file), request.seed
    return model


def _normalise(library: Any, encoder: str, options: dict[str, Any]) -> Normalise:
    """Return the encoder's own preprocessing; ImageNet's for an encoder that has none."""
    try:
        own = library.encoders.get_preprocessing_params(encoder, options.get('encoder_weights') or 'imagenet')
    except Exception as error:  # an encoder without settings, or settings that are only on Hugging Face
        _logger.warning(
            "the preprocessing of the encoder %s is not on this machine (%s): ImageNet's mean and standard "
            'deviation apply; set mean and std if it has others',
            encoder,
            type(error).__name__,
        )
        return Normalise(IMAGENET_MEAN, IMAGENET_STD)
    mean, std = own.get('mean') or (0.0,) * 3, own.get('std') or (1.0,) * 3
    if (own.get('input_range') or [0, 1])[1] == 255:
        mean, std = [value / 255 for value in mean], [value / 255 for value in std]
    return Normalise(mean, std, bgr=own.get('input_space') == 'BGR')
