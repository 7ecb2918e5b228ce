# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The module that is traced: everything between the 8-bit image and a model's outputs.

The control flow of a torchvision detector cannot be traced. Its backbone (with the feature pyramid) can: it stands
between two leaves that run the detector's own code before and after it.
"""

from __future__ import annotations

from collections import OrderedDict
import copy
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from dynsplit_ros.model import LoadedModel

#: Name of the model's own module in a pipeline.
MODULE = 'module'


def pipeline_for(model: LoadedModel, module: nn.Module | None = None, cut: bool = True) -> nn.Module:
    """
    Return the pipeline from the 8-bit image to the model's outputs.

    :param module: what stands in for the model's own module and takes a batch: its exported program.
    :param cut: whether a detector's backbone stands open in it.
    """
    if module is not None:
        return _Pipeline(model, module)
    if cut and isinstance(model.module, TORCHVISION_DETECTORS):
        return _DetectorPipeline(model)
    return _Pipeline(model, TakesBatch(model.module) if model.image_list else model.module)


TORCHVISION_DETECTORS = (GeneralizedRCNN, RetinaNet, FCOS, SSD)


class _Pipeline(nn.Module):
    """From the 8-bit image to the module's output."""

    def __init__(self, model: LoadedModel, module: nn.Module) -> None:
        super().__init__()
        self.normalise = model.normalise
        self.module = module
        self.ending = model.ending

    def forward(self, image: torch.Tensor) -> Any:
        output = self.module(self.normalise(image))
        # Without the other outputs, the graph is without what computes them alone.
        return output if self.ending is None else self.ending(self.ending.select(output))


class TakesBatch(nn.Module):
    """A module that takes a list of images, as one that takes a batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, values: torch.Tensor) -> Any:
        """Return what the module makes of the list."""
        return self.inner(list(values.unbind(0)))


class _DetectorPipeline(nn.Module):
    """From the 8-bit image to a torchvision detector's output, in three steps of which the second can be traced."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        detector: Any = model.module
        self.front = DetectorFront(model.normalise, detector.transform)
        self.module = nn.Module()
        self.module.backbone = detector.backbone
        self.rest = DetectorRest(detector, model.input_size)

    def forward(self, image: torch.Tensor) -> Any:
        backbone: Any = self.module.backbone
        return self.rest(backbone(self.front(image)))


class DetectorFront(nn.Module):
    """What a detector does before its backbone: scale, normalise, put the images into one tensor."""

    def __init__(self, normalise: nn.Module, transform: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.transform = transform

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the backbone's input."""
        images, _ = self.transform(list(self.normalise(image).unbind(0)))
        tensors: torch.Tensor = images.tensors
        return tensors


class DetectorRest(nn.Module):
    """
    What a detector does behind its backbone: its own ``forward``, with what was computed before in the place of it.

    The images themselves are no longer needed there, only their sizes, which the input size gives.
    """

    def __init__(self, detector: Any, input_size: tuple[int, int]) -> None:
        super().__init__()
        with torch.no_grad():
            images, _ = detector.transform([torch.zeros(3, *input_size)])
        shell = copy.copy(detector)
        shell._modules = dict(detector._modules, backbone=_Given(), transform=_Transformed(detector.transform))
        self.detector = shell
        self.input_size = input_size
        self.image_size = images.image_sizes[0]
        self.tensor_size = tuple(images.tensors.shape[1:])

    def forward(self, features: Any) -> list[dict[str, torch.Tensor]]:
        """Return what the detector makes of its backbone's output."""
        if isinstance(features, dict):
            features = OrderedDict(features)
            some = next(iter(features.values()))
        else:
            some = features
        batch = some.shape[0]
        blank = some.new_zeros(()).expand(batch, *self.tensor_size)  # a detector reads only its shape
        # A copy per call, so that two threads' features never meet.
        detector = copy.copy(self.detector)
        detector._modules = dict(self.detector._modules)
        detector._modules['backbone'] = _Given(features)
        transform = copy.copy(self.detector.transform)
        transform.given = ImageList(blank, [self.image_size] * batch)
        detector._modules['transform'] = transform
        output: list[dict[str, torch.Tensor]] = detector([blank.new_zeros(()).expand(3, *self.input_size)] * batch)
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
