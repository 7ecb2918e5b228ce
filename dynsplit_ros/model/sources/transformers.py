# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Models of Hugging Face transformers: ``transformers:ORGANISATION/NAME``, a local folder, or a type such as ``vit``.

Weights are read from safetensors only, and no code of a repository is executed (``trust_remote_code`` is never set).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model.ending import Ending
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import COMMON_IMAGE, INTERPOLATIONS, Normalise, Resize
from dynsplit_ros.model.sources import IMAGENET_MEAN, IMAGENET_STD, optional, Request
from dynsplit_ros.model.weights import labels_of, weights_file

#: How the class of an architecture ends, by the task of this package; also the end of transformers' Auto class.
_HEADS = {
    'ForImageClassification': 'classification',
    'ForSemanticSegmentation': 'segmentation',
    'ForObjectDetection': 'detection',
    'ForDepthEstimation': 'dense',
}
#: transformers counts the interpolations as Pillow does.
_RESAMPLES = {0: 'nearest', 2: 'bilinear', 3: 'bicubic'}


def load(request: Request) -> LoadedModel:
    """Return the model in a repository or a folder, or of a type with its default configuration."""
    library: Any = optional('transformers', request.name)
    file = weights_file(request.weights, request.name)
    local = Path(request.rest).expanduser()
    where = str(local) if local.is_dir() else request.rest
    # The name of a type is not that of a repository: it is not looked up on Hugging Face.
    local_only = local.is_dir() or where in library.CONFIG_MAPPING or not request.download
    safe = {'trust_remote_code': False, 'local_files_only': local_only}
    try:
        with request.building():
            config = _config(library, request, where, safe)
            task, head = _task(config, request)
            auto = getattr(library, f'AutoModel{head}')
            if request.weights == 'default' and where not in library.CONFIG_MAPPING:
                network = auto.from_pretrained(where, config=config, use_safetensors=True, **safe)
            else:
                network = auto.from_config(config, trust_remote_code=False)
            processor = _processor(library, config, where, safe)
    except (OSError, ImportError) as error:
        raise DynsplitError(
            f'{request.name} could not be loaded ({in_short(error)}); give the folder of a model with config.json and '
            'model.safetensors, or a name that Hugging Face has and this machine can download'
        ) from error
    request.give_weights(network, file, drawn=request.weights == 'none' or where in library.CONFIG_MAPPING)
    resize, normalise = _preprocessing(processor, config, request.size)
    names = getattr(config, 'id2label', None) or {}
    labels = (
        [str(names[number]) for number in range(len(names))]
        if task != 'dense' and set(names) == set(range(len(names)))
        else []
    )
    labels = labels_of(file) or labels
    ending: Ending | None = None
    if task == 'detection':
        if not hasattr(processor, 'post_process_object_detection'):
            raise DynsplitError(
                f'{request.name} has no processor with post_process_object_detection, which turns its '
                'outputs into boxes; set task to other'
            )
        ending = _Objects(processor, resize.size)
    return LoadedModel(
        request.name,
        _Adapter(network, request.task or task, resize.size),
        request.task or task,
        labels,
        resize.size,
        resize,
        normalise,
        seed=request.seed,
        ending=ending,
    )


def _config(library: Any, request: Request, where: str, safe: dict[str, Any]) -> Any:
    if where in library.CONFIG_MAPPING:
        return library.AutoConfig.for_model(where, **request.options)
    return library.AutoConfig.from_pretrained(where, **safe, **request.options)


def _task(config: Any, request: Request) -> tuple[str, str]:
    """Return the task, and how transformers calls a model for it."""
    architecture = next(iter(getattr(config, 'architectures', None) or []), '')
    found = next((head for head in _HEADS if architecture.endswith(head)), None)
    if found is None:
        found = next((head for head, task in _HEADS.items() if task == request.task), None)
        if found is None and architecture:
            raise DynsplitError(
                f'{request.name} is a {architecture}, but only models {", ".join(_HEADS)} are known '
                'here; set task to the one that this model can do'
            )
        found = found or 'ForImageClassification'
    elif request.task is not None:
        request.own_task(_HEADS[found])
    return _HEADS[found], found


def _processor(library: Any, config: Any, where: str, safe: dict[str, Any]) -> Any:
    """Return the image processor of the model, with its type's defaults if it brings none; None for an unknown type."""
    try:
        return library.AutoImageProcessor.from_pretrained(where, **safe)
    except (OSError, ValueError):
        module: Any = importlib.import_module('transformers.models.auto.image_processing_auto')
        kinds: Any = module.IMAGE_PROCESSOR_MAPPING.get(type(config), None) or ()
        kinds = kinds.values() if isinstance(kinds, dict) else kinds
        kind = next((kind for kind in reversed(list(kinds)) if kind is not None), None)
        return None if kind is None else kind()


def _preprocessing(processor: Any, config: Any, size: tuple[int, int] | None) -> tuple[Resize, Normalise]:
    """Return what the processor does to an image; ``size`` replaces its own size."""

    def own(name: str, default: Any = None) -> Any:
        value = getattr(processor, name, None)
        return default if value is None else value

    interpolation = INTERPOLATIONS[_RESAMPLES.get(int(own('resample', 2)), 'bilinear')]
    mean, std = own('image_mean', IMAGENET_MEAN), own('image_std', IMAGENET_STD)
    scale = float(own('rescale_factor', 1 / 255)) * 255 if own('do_rescale', True) else 255.0
    if not own('do_normalize', True):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    normalise = Normalise([value / scale for value in mean], [value / scale for value in std])

    target: dict[str, Any] = dict(own('size', {}))
    crop: dict[str, Any] = dict(own('crop_size', {}))
    shortest: Any = target.get('shortest_edge')
    longest: Any = target.get('longest_edge')
    side = getattr(config, 'image_size', None) or 224
    if own('do_center_crop', False) and crop:
        cut = size or (crop['height'], crop['width'])
        if shortest is None:
            shortest = min(target.get('height', cut[0]), target.get('width', cut[1]))
        cover = tuple(round(length * shortest / min(crop['height'], crop['width'])) for length in cut)
        return Resize(cut, (cover[0], cover[1]), interpolation), normalise
    if shortest and longest:
        fill = tuple(round(255 * value) for value in own('image_mean', (0.5,) * 3))
        free = Resize((longest, longest), None, interpolation, pad='end', shorter=shortest, fill=fill)
        return Resize(
            size or free.placement(*COMMON_IMAGE).scaled,
            None,
            interpolation,
            pad='end',
            shorter=min(size) if size else shortest,
            fill=fill,
        ), normalise
    if shortest and hasattr(processor, 'crop_pct') and shortest < 384:  # ConvNeXT: scaled by crop_pct, then cut
        cut = size or (shortest, shortest)
        larger = int(shortest / float(own('crop_pct', 224 / 256))) / shortest
        return Resize(cut, (int(cut[0] * larger), int(cut[1] * larger)), interpolation), normalise
    height, width = target.get('height', shortest or side), target.get('width', shortest or side)
    return Resize(size or (int(height), int(width)), None, interpolation), normalise


class _Adapter(nn.Module):
    """The network with an image as its only input and plain tensors as its outputs."""

    def __init__(self, network: nn.Module, task: str, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.size = size

    def forward(self, image: torch.Tensor) -> Any:
        output: Any = self.network(pixel_values=image)
        if self.task == 'classification':
            return output.logits
        if self.task == 'detection':
            return {'logits': output.logits, 'pred_boxes': output.pred_boxes}
        if self.task == 'dense':
            return output.predicted_depth
        if self.task == 'segmentation':  # at the size of the input, as its reference does before it takes the best
            return nn.functional.interpolate(output.logits, self.size, mode='bilinear', align_corners=False)
        return {key: value for key, value in output.items() if isinstance(value, torch.Tensor)}


class _Objects(Ending):
    """Boxes in pixels of the input, by the processor's own code: it knows whether the scores are softmax or sigmoid."""

    def __init__(self, processor: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.processor = processor
        self.size = size

    def extra_repr(self) -> str:
        """Return what distinguishes this step from others of its type, for the fingerprint."""
        return f'{type(self.processor).__name__}, size={self.size}'

    def forward(self, output: Any) -> Any:
        """Return a dictionary with boxes, labels and scores for each image, best first."""
        outputs = SimpleNamespace(logits=output['logits'].float(), pred_boxes=output['pred_boxes'].float())
        sizes = [self.size] * len(outputs.logits)
        images = self.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        found = []
        for image in images:
            order = image['scores'].argsort(descending=True, stable=True)
            found.append(
                {'boxes': image['boxes'][order], 'labels': image['labels'][order], 'scores': image['scores'][order]}
            )
        return found
