# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Load a vision model by its torchvision name, a ``package.module:factory``, or the path of an exported program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass, field
import difflib
import importlib
import logging
import os
from pathlib import Path
import pickle
import threading
from typing import Any

import torch
from torch import nn
import torchvision.models as zoo

from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model.label_map import LabelMap
from dynsplit_ros.model.preprocess import Normalise, Resize
from dynsplit_ros.model.weights import load_state_dict, seed_weights, STATE_DICT_SUFFIXES

_logger = logging.getLogger(__name__)
_force_safe_load = threading.Lock()

_TASK_ROOMS = {'classification': zoo, 'segmentation': zoo.segmentation, 'detection': zoo.detection}
TASKS = (*_TASK_ROOMS, 'other')
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class LoadedModel:
    """
    A module in evaluation mode and what belongs to it.

    ``module`` takes float images [N, 3, H, W] (``normalise``'s output), or, where ``image_list`` is true, a
    list of N images [3, H, W]; a split finds out at its first run which of both a module of your own takes.
    ``input_size`` is (H, W); ``max_batch`` is the largest N, or ``None`` for any; ``torchvision`` tells the models
    whose traces this package's tests cover.
    ``labels`` and ``keypoint_names`` are empty where the model has none. ``label_map`` comes behind the module of a
    segmentation, as a part of the network.
    """

    name: str
    module: nn.Module
    task: str
    labels: list[str]
    input_size: tuple[int, int]
    resize: Resize
    normalise: Normalise
    image_list: bool = False
    max_batch: int | None = None
    torchvision: bool = False
    seed: int = 0
    keypoint_names: list[str] = field(default_factory=list)
    label_map: LabelMap | None = field(init=False)

    def __post_init__(self) -> None:
        self.label_map = LabelMap() if self.task == 'segmentation' else None

    def whole(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Return the named outputs of the unchanged module for ``image``, uint8 [N, 3, H, W].

        Of a segmentation that is its label map.
        """
        values = self.normalise(image)
        output = self.module(list(values.unbind(0)) if self.image_list else values)
        return name_outputs(output if self.label_map is None else self.label_map(output), self.output_name)

    @property
    def output_name(self) -> str:
        """What the output is called where the module gives a single tensor."""
        return {'classification': 'logits', 'segmentation': 'label_map'}.get(self.task, 'output')


def name_outputs(output: Any, name: str = 'output') -> dict[str, Any]:
    """
    Return the tensors in ``output`` by their path in it: dictionary keys and sequence positions joined by dots.

    A lone tensor is called ``name``. A list of dictionaries, which is what a detector returns for its images,
    gives ``'boxes.0'``, ``'labels.0'``, ``'boxes.1'`` …: the key first, then the image. Anything but tensors
    is left out.
    """
    found: dict[str, Any] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, torch.Tensor):
            found['.'.join(path) or name] = value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                visit(item, (*path, str(key)))
        elif isinstance(value, (list, tuple)):
            keys = getattr(value, '_fields', None)
            for position, item in enumerate(value):
                if isinstance(item, Mapping) and not path:
                    for key, part in item.items():
                        visit(part, (str(key), str(position)))
                else:
                    visit(item, (*path, keys[position] if keys else str(position)))

    visit(output, ())
    return found


def model_names(task: str | None = None) -> list[str]:
    """Return the torchvision names that :func:`load_model` knows, of one task or of all."""
    rooms = _TASK_ROOMS if task is None else {task: _TASK_ROOMS[task]}
    return [name for room in rooms.values() for name in zoo.list_models(module=room)]


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
    download: bool = True,
) -> LoadedModel:
    """
    Load a model.

    :param name: a torchvision name (see :func:`model_names`), ``package.module:factory`` for a module of your
        own, or the path of a program saved with ``torch.export`` (``.pt2``).
    :param weights: ``'none'`` (drawn from ``seed``; a factory's and a program's own stay as they come),
        ``'default'`` or the name of an entry of torchvision's enumeration (downloaded), or the path of a
        state dict.
    :param input_size: (height, width) at which the network runs; ``None`` for the model's own.
    :param seed: of the weights that are drawn.
    :param kwargs: keyword arguments of the torchvision builder or of the factory.
    :param task: ``'classification'``, ``'segmentation'``, ``'detection'`` or ``'other'``, for a module of
        your own.
    :param labels: the classes' names in the order of the outputs; ``None`` for the weights' own.
    :param mean: per channel, of the image scaled to [0, 1]; ``None`` for the model's own.
    :param std: per channel, as ``mean``.
    :param download: whether torchvision's weights may be downloaded; without, they must be on this machine.
    :raises DynsplitError: when any of them cannot be used.
    """
    size = None if input_size is None else _checked_size(input_size)
    if task is not None and task not in TASKS:
        raise DynsplitError(
            f'task {task!r} was given, but it is one of {", ".join(TASKS)}; give one of these'
        )
    if (mean is None) != (std is None):
        raise DynsplitError('mean and std belong together, and one alone was given; give both or none')
    options = dict(kwargs or {})
    if ':' in name:
        model = _from_factory(name, weights, size, seed, options, task or 'classification')
    elif name.endswith('.pt2'):
        model = _from_export(Path(name), weights, size, options, task or 'classification')
    else:
        model = _from_torchvision(name, weights, size, seed, options, download)
    if mean is not None:
        model.normalise = Normalise(mean, std)
    if labels is not None:
        model.labels = list(labels)
    model.module.eval()
    for parameter in model.module.parameters():  # a scripted module has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return model


def _checked_size(input_size: Sequence[int]) -> tuple[int, int]:
    size = tuple(int(value) for value in input_size)
    if len(size) != 2 or min(size) < 1:
        raise DynsplitError(
            f'input size {tuple(input_size)} was given, but it is (height, width), both positive'
        )
    return size[0], size[1]


def _from_torchvision(
    name: str, weights: str, size: tuple[int, int] | None, seed: int, options: dict[str, Any], download: bool
) -> LoadedModel:
    task = next((task for task in _TASK_ROOMS if name in model_names(task)), None)
    if task is None:
        close = ', '.join(difflib.get_close_matches(name, model_names(), n=4, cutoff=0.4))
        raise DynsplitError(
            f'model {name!r} is not known{"; the closest names are " if close else ""}{close}; give a name of'
            ' torchvision, package.module:factory, or the path of an exported program (.pt2)'
        )
    enumeration = zoo.get_model_weights(name)
    entry = _weights_entry(name, enumeration, weights)
    if entry is not None and not download:
        file = Path(torch.hub.get_dir()) / 'checkpoints' / entry.url.rpartition('/')[2]
        if not file.is_file():
            raise DynsplitError(
                f'the weights {entry} of {name} are not on this machine ({file}), and a running node downloads none;'
                f' download them with ./run profile {name} --weights {weights}, or start the node with this model'
            )
    described = entry or enumeration.DEFAULT
    preset = described.transforms()

    if task == 'classification':
        own = int(preset.crop_size[0])
        size = size or (own, own)
        ratio = preset.resize_size[0] / own
        resize = Resize(
            size,
            (round(size[0] * ratio), round(size[1] * ratio)),
            preset.interpolation,
            preset.antialias is not False,
        )
        if entry is None and name.startswith('vit_'):
            options.setdefault('image_size', size[0])
        if entry is None and name.startswith('maxvit_'):
            options.setdefault('input_size', size)
        if name in ('googlenet', 'inception_v3') and entry is None:
            options.setdefault(
                'init_weights', False
            )  # their own initialisation takes seconds, and is drawn over
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

    with torch.random.fork_rng(devices=[]), _only_safe_loading():
        torch.manual_seed(seed)
        try:
            module = zoo.get_model(name, weights=entry, **options)
        except OSError as error:  # urllib's URLError is one
            raise DynsplitError(
                f'the weights {described} of {name} could not be downloaded ({error}); set weights to none'
                ' (drawn from the seed) or to the path of a state dict'
            ) from error
        except pickle.UnpicklingError as error:
            raise DynsplitError(
                f'the downloaded weights {described} hold more than tensors, and reading them would execute'
                ' code that they bring, so they are not loaded; delete them from torch.hub.get_dir() and try'
                ' again'
            ) from error
        except (TypeError, ValueError) as error:
            raise DynsplitError(
                f'{name} cannot be built with {options} and weights {weights!r}: {in_short(error)}; change these'
                ' arguments'
            ) from error
    if entry is None:
        if weights == 'none':
            _logger.warning('%s has weights drawn from seed %d: its predictions mean nothing', name, seed)
            seed_weights(module, seed)
        else:
            load_state_dict(module, Path(weights))

    if task == 'detection':
        size = _detector_size(name, module, size)
        resize = Resize(size)
    labels = list(described.meta['categories'])
    if options.get('num_classes', len(labels)) != len(labels):
        labels = []
    assert size is not None
    return LoadedModel(
        name, module, task, labels, size, resize, normalise, task == 'detection', torchvision=True, seed=seed,
        keypoint_names=list(described.meta.get('keypoint_names', [])),
    )


def _detector_size(name: str, module: nn.Module, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size at which the detector's own transform leaves an image as it is: 4:3 where it is free."""
    transform: Any = module.transform
    fixed = transform.fixed_size
    if fixed is not None:
        if size not in (None, (fixed[1], fixed[0])):
            raise DynsplitError(
                f'{name} runs at {(fixed[1], fixed[0])} alone, and {size} was given; leave it out'
            )
        return int(fixed[1]), int(fixed[0])
    shorter = int(transform.min_size[-1])
    return size or (shorter, min(round(shorter * 4 / 3), int(transform.max_size)))


def _weights_entry(name: str, enumeration: Any, weights: str) -> Any:
    if weights == 'none' or Path(weights).suffix in STATE_DICT_SUFFIXES:
        return None
    if weights == 'default':
        return enumeration.DEFAULT
    entry = enumeration.__members__.get(weights.rsplit('.', 1)[-1])
    if entry is None:
        raise DynsplitError(
            f'weights {weights!r} were given for {name}; allowed are none, default,'
            f' {", ".join(enumeration.__members__)}, or the path of a state dict'
            f' ({", ".join(STATE_DICT_SUFFIXES)})'
        )
    return entry


@contextlib.contextmanager
def _only_safe_loading() -> Iterator[None]:
    """Make torch refuse to unpickle code for as long as this lasts: torchvision's downloads ask for no such thing."""
    key = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    with _force_safe_load:
        before = os.environ.get(key)
        os.environ[key] = '1'
        try:
            yield
        finally:
            if before is None:
                del os.environ[key]
            else:
                os.environ[key] = before


def _from_factory(
    name: str, weights: str, size: tuple[int, int] | None, seed: int, options: dict[str, Any], task: str
) -> LoadedModel:
    module_name, _, factory_name = name.partition(':')
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DynsplitError(
            f'model {name!r} was given, but {error}; give package.module:factory of something that can be'
            ' imported'
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = factory(**options)
        except TypeError as error:
            raise DynsplitError(
                f'{name} cannot be called with {options}: {in_short(error)}; change the arguments'
            ) from error
    if not isinstance(module, nn.Module):
        raise DynsplitError(f'{name} returned a {type(module).__name__}, but a torch.nn.Module is needed')
    while isinstance(module, nn.DataParallel) or hasattr(module, '_orig_mod'):  # torch.compile's is not exact
        module = module.module if isinstance(module, nn.DataParallel) else module._orig_mod
    if weights != 'none':
        load_state_dict(module, Path(weights))
    return _own_model(name, module, size or (224, 224), task)


def _from_export(
    path: Path, weights: str, size: tuple[int, int] | None, options: dict[str, Any], task: str
) -> LoadedModel:
    from dynsplit_ros.model.exported import load_exported  # imports torch.export, which few processes need

    if weights != 'none' or options:
        raise DynsplitError(
            f'{path} is an exported program, which has its own weights and takes no arguments; leave both out'
        )
    module, own_size, max_batch = load_exported(path)
    if size not in (None, own_size):
        raise DynsplitError(
            f'{path} was exported for images of {own_size}, and {size} was given; leave it out'
        )
    model = _own_model(str(path), module, own_size, task)
    model.max_batch = max_batch
    return model


def _own_model(name: str, module: nn.Module, size: tuple[int, int], task: str) -> LoadedModel:
    normalise = Normalise(_IMAGENET_MEAN, _IMAGENET_STD)
    return LoadedModel(name, module, task, [], size, Resize(size), normalise)
