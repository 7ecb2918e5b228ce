# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Write down as one graph what happens between the 8-bit image and a model's outputs.

``torch.fx`` follows the module's Python code symbolically. A torchvision detector's own control flow cannot
be followed: of it, the backbone (with its feature pyramid) is, between two leaves that run the detector's own
code before and behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
import copy
import operator
import traceback
from typing import Any

import torch
from torch import fx, nn
from torchvision.models.detection.image_list import ImageList

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import LoadedModel
from dynsplit_ros.model.label_map import first_output, LabelMap

#: Prefix of the model's own modules in the traced graph.
_MODULE = 'module'


class UntraceableError(DynsplitError):
    """A module's code cannot be followed symbolically; the message names the place in it, and what to do."""


class _Pipeline(nn.Module):
    """From the 8-bit image to the module's output."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.normalise = model.normalise
        self.module = model.module
        self.label_map = model.label_map

    def forward(self, image: torch.Tensor) -> Any:
        output = self.module(self.normalise(image))
        # Without the other outputs, the graph is without what computes them alone.
        return output if self.label_map is None else self.label_map(first_output(output))


class _ListPipeline(nn.Module):
    """The same for a module that takes a list of images and cannot be cut."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.normalise = model.normalise
        self.module = _TakesBatch(model.module)

    def forward(self, image: torch.Tensor) -> Any:
        return self.module(self.normalise(image))


class _TakesBatch(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, values: torch.Tensor) -> Any:
        return self.inner(list(values.unbind(0)))


class _DetectorPipeline(nn.Module):
    """From the 8-bit image to a torchvision detector's output, in three steps of which the second can be traced."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        detector: Any = model.module
        self.front = _DetectorFront(model.normalise, detector.transform)
        self.module = nn.Module()
        self.module.backbone = detector.backbone
        self.rest = _DetectorRest(detector, model.input_size)

    def forward(self, image: torch.Tensor) -> Any:
        backbone: Any = self.module.backbone
        return self.rest(backbone(self.front(image)))


class _DetectorFront(nn.Module):
    """What a detector does before its backbone: scale, normalise, put the images into one tensor."""

    def __init__(self, normalise: nn.Module, transform: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.transform = transform

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        images, _ = self.transform(list(self.normalise(image).unbind(0)))
        tensors: torch.Tensor = images.tensors
        return tensors


class _DetectorRest(nn.Module):
    """
    What a detector does behind its backbone: its own ``forward``, with what was computed before in the place of it.

    The images themselves are no longer needed there, only their sizes, which the input size gives.
    """

    def __init__(self, detector: Any, input_size: tuple[int, int]) -> None:
        super().__init__()
        with torch.no_grad():
            images, _ = detector.transform([torch.zeros(3, *input_size)])
        shell = copy.copy(detector)
        shell._modules = dict(
            detector._modules, backbone=_Given(), transform=_Transformed(detector.transform)
        )
        self.detector = shell
        self.input_size = input_size
        self.image_size = images.image_sizes[0]
        self.tensor_size = tuple(images.tensors.shape[1:])

    def forward(self, features: Any) -> list[dict[str, torch.Tensor]]:
        if isinstance(features, dict):
            features = OrderedDict(features)
            some = next(iter(features.values()))
        else:
            some = features
        batch = some.shape[0]
        blank = some.new_zeros(()).expand(
            batch, *self.tensor_size
        )  # of this, a detector reads the shape alone
        # A copy per call, so that two threads' features never meet.
        detector = copy.copy(self.detector)
        detector._modules = dict(self.detector._modules)
        detector._modules['backbone'] = _Given(features)
        transform = copy.copy(self.detector.transform)
        transform.given = ImageList(blank, [self.image_size] * batch)
        detector._modules['transform'] = transform
        output: list[dict[str, torch.Tensor]] = detector(
            [blank.new_zeros(()).expand(3, *self.input_size)] * batch
        )
        return output


class _Given(nn.Module):
    def __init__(self, features: Any = None) -> None:
        super().__init__()
        self.features = features

    def forward(self, _: torch.Tensor) -> Any:
        return self.features


class _Transformed(nn.Module):
    """A detector's transform, of which the images' half has been done already."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.given: ImageList | None = None

    def forward(self, images: Any, targets: Any = None) -> Any:
        return self.given, targets

    def postprocess(self, *args: Any) -> Any:
        transform: Any = self.transform
        return transform.postprocess(*args)


def iadd(held: Any, other: Any) -> Any:
    """Return ``held += other``."""
    held += other
    return held


def isub(held: Any, other: Any) -> Any:
    """Return ``held -= other``."""
    held -= other
    return held


def imul(held: Any, other: Any) -> Any:
    """Return ``held *= other``."""
    held *= other
    return held


def itruediv(held: Any, other: Any) -> Any:
    """Return ``held /= other``."""
    held /= other
    return held


class _Proxy(fx.Proxy):
    """A symbol that also remembers what is written into it: torch.fx makes ``x += y`` an addition to a new tensor."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', itruediv, (self, other), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy('call_function', operator.setitem, (self, key, value), {})


class _Tracer(fx.Tracer):
    """A tracer that gives every node its name in the module hierarchy and remembers where it is."""

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.path = ''
        self.failed_in: str | None = None
        self.names: dict[fx.Node, str] = {}
        self._taken: set[str] = set()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = own_name(module_qualified_name)
        return (
            module_qualified_name in self.leaves
            or (bool(own) and (own in self.leaves or type(m).__name__ in self.leaves))
            or isinstance(m, (_DetectorFront, _DetectorRest, _TakesBatch, LabelMap))
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in if self.failed_in is not None else self.path
            raise
        finally:
            self.path = outer

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == 'call_module':
            name = own_name(self.path)
        elif kind == 'placeholder':
            name = str(target)
        else:
            operation = target if isinstance(target, str) else getattr(target, '__name__', str(target))
            name = '.'.join(part for part in (own_name(self.path), operation.strip('_')) if part)
        unique, count = name, 1
        while unique in self._taken:
            unique, count = f'{name}_{count}', count + 1
        self._taken.add(unique)
        self.names[node] = unique
        return node


def own_name(path: str) -> str:
    """Return the name that a module of the traced graph has in the model itself."""
    return path.removeprefix(_MODULE).removeprefix('.') if path.startswith(_MODULE) else path


def trace(
    model: LoadedModel, cut: bool = True, leaves: Sequence[str] = ()
) -> tuple[nn.Module, fx.Graph, Mapping[fx.Node, str]]:
    """
    Return the pipeline from the 8-bit image to the model's output, its graph, and each node's name.

    :param cut: follow the module's code; without, the module is a single node.
    :param leaves: class names, or paths in the module's hierarchy, of modules that are not followed but kept
        whole.
    :raises UntraceableError: when the module's code cannot be followed.
    """
    if model.task == 'detection' and model.torchvision and cut:
        pipeline: nn.Module = _DetectorPipeline(model)
    elif model.image_list:
        pipeline = _ListPipeline(model)
    else:
        pipeline = _Pipeline(model)
    tracer = _Tracer((*leaves, *(() if cut else (_MODULE,))))
    try:
        graph = tracer.trace(pipeline)
    except (
        Exception
    ) as error:  # whatever the module's code raises when it is given a symbol instead of a tensor
        own_code = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if '/torch/' not in frame.filename and frame.filename != __file__
        ]
        where = (
            f'{own_code[-1].line!r} ({own_code[-1].filename}, line {own_code[-1].lineno})'
            if own_code
            else 'its code'
        )
        place = own_name(tracer.failed_in or '')
        leaf = 'name the submodule or its type as a leaf (--leaf, parameter leaves), which keeps it whole, or '
        submodule = pipeline.get_submodule(tracer.failed_in) if tracer.failed_in else model.module
        raise UntraceableError(
            f'{model.name} cannot be cut: the operation {where} in submodule'
            f' {place or "(the model itself)"!r} of type {type(submodule).__name__} cannot be traced'
            f' ({" ".join(str(error).split())}); {leaf if place else ""}give a program saved with'
            ' torch.export, or ask for the whole-model split (--whole, parameter cut: false), which leaves'
            ' full offloading and local inference'
        ) from error
    return pipeline, graph, tracer.names
