# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
YOLO networks of Ultralytics: ``ultralytics:yolo11n``, or the path of an architecture's ``.yaml`` file.

Ultralytics is under the AGPL-3.0. It is imported only if a person names such a model, and no code of it is in here.
Weights are read as a state dict. Ultralytics' own ``.pt`` files are pickled objects; this package never unpickles them.
"""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
import torchvision.models.detection as zoo

from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model.ending import Ending
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import Normalise, Resize
from dynsplit_ros.model.sources import optional, Request
from dynsplit_ros.model.sources.torchvision import imagenet_labels
from dynsplit_ros.model.weights import labels_of, ULTRALYTICS_COMMAND, weights_file

#: The classes of Ultralytics that build a network, by its own name of the task.
_BUILDERS = {
    'detect': 'DetectionModel',
    'segment': 'SegmentationModel',
    'pose': 'PoseModel',
    'obb': 'OBBModel',
    'classify': 'ClassificationModel',
}
#: Settings of the last step and their defaults: Ultralytics' own, but for the least score, which the camera node's
#: parameter min_score raises. A lower one here does not change the boxes above it, because suppression goes by score.
_SETTINGS = {'conf': 0.001, 'iou': 0.7, 'max_det': 300}
#: Least score of an object with a mask, Ultralytics' own: 300 masks at 640 x 640 would make an answer of 7.7 MB.
_MASKED_CONF = 0.25
#: Scores of keypoints are logits everywhere in this package; a score of 1 would be infinite.
_LEAST_DOUBT = 1e-6


def load(request: Request) -> LoadedModel:
    """Return the network of an architecture that Ultralytics knows."""
    os.environ.setdefault('YOLO_AUTOINSTALL', 'false')  # it would install packages by itself
    tasks: Any = optional('ultralytics.nn.tasks', request.name)
    tasks.LOGGER.setLevel(logging.WARNING)  # some networks print a summary
    name = Path(request.rest)
    if name.suffix in ('.pt', '.safetensors'):
        target = name.with_suffix('.safetensors')
        raise DynsplitError(
            f'model {request.name!r} names a file of weights, and reading a .pt would execute code in it; save'
            f' its state dict with: {ULTRALYTICS_COMMAND.format(file=name, target=target)}; then set model to the'
            f' architecture (such as ultralytics:yolo11n) and weights to {target}'
        )
    file = weights_file(request.weights, request.name)
    if request.weights == 'default':
        raise DynsplitError(
            f'{request.name} has its weights in a pickled file, which is not read; save its state dict with: '
            f'{ULTRALYTICS_COMMAND.format(file=f"{name.stem}.pt", target=f"{name.stem}.safetensors")}; then set weights'
            f' to {name.stem}.safetensors, or to none'
        )
    options = dict(request.options)
    settings = {key: options.pop(key) for key in _SETTINGS if key in options}
    labels = labels_of(file)
    if labels:
        options.setdefault('nc', len(labels))
    try:
        with request.building():
            config = tasks.yaml_model_load(str(name if name.suffix == '.yaml' else f'{name}.yaml'))
            kind = tasks.guess_model_task(config)
            if kind not in _BUILDERS:
                raise DynsplitError(
                    f'{request.name} does {kind!r}, but only {", ".join(_BUILDERS)} are known here; '
                    'export it with torch.export and set task to other'
                )
            network = getattr(tasks, _BUILDERS[kind])(config, verbose=False, **options)
    except FileNotFoundError as error:
        raise DynsplitError(
            f'model {request.name!r} is not known to Ultralytics ({in_short(error)}); give the name of '
            'an architecture, such as ultralytics:yolo11n, or the path of its .yaml file'
        ) from error
    request.give_weights(network, file)
    # Scores of weights from a seed are far below any real one.
    conf = 0.0 if file is None else _MASKED_CONF if kind == 'segment' else _SETTINGS['conf']
    settings = {**_SETTINGS, 'conf': conf, **settings}
    task = request.own_task('classification' if kind == 'classify' else 'detection')
    size = request.size or ((224, 224) if kind == 'classify' else (640, 640))
    network.eval()
    head = network.model[-1]
    if kind == 'classify':
        resize = Resize(size, size)
        ending = None
        labels = labels or (imagenet_labels() if len(network.names) == 1000 else [])
    else:
        stride = int(max(network.stride))
        if size[0] % stride or size[1] % stride:
            raise DynsplitError(
                f'input size {size} was given for {request.name}, but height and width must be multiples of {stride}'
            )
        resize = Resize(size, pad='around', antialias=False)
        ending = _Objects(head, kind, size, settings) if task == 'detection' else None
        labels = labels or _own_labels(kind, len(network.names))
    return LoadedModel(
        request.name,
        _Network(network),
        task,
        labels,
        size,
        resize,
        Normalise(None, None),
        seed=request.seed,
        ending=ending,
        keypoint_names=_keypoint_names(head) if kind == 'pose' else [],
    )


def _own_labels(kind: str, count: int) -> list[str]:
    """Return the names of the classes of the data set that the network's own weights are trained with."""
    utils: Any = importlib.import_module('ultralytics.utils')
    file = {'pose': 'coco-pose', 'obb': 'DOTAv1'}.get(kind, 'coco')
    names: dict[int, str] = utils.YAML.load(utils.ROOT / 'cfg' / 'datasets' / f'{file}.yaml').get('names', {})
    return [names[number] for number in range(count)] if len(names) == count else []


def _keypoint_names(head: Any) -> list[str]:
    names: list[str] = zoo.KeypointRCNN_ResNet50_FPN_Weights.DEFAULT.meta['keypoint_names']
    return list(names) if head.kpt_shape[0] == len(names) else [str(number) for number in range(head.kpt_shape[0])]


class _Network(nn.Module):
    """The network's layers up to the raw outputs of its last one; torch.fx can follow it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model = network.model
        self.kept = frozenset(network.save)
        for part in network.modules():
            if hasattr(part, 'forward_split'):  # the same arithmetic in a form that can be traced
                part.forward = part.forward_split

    def forward(self, image: torch.Tensor) -> Any:
        values: list[Any] = []
        value: Any = image
        for layer in self.model[:-1]:
            value = layer(_inputs(layer, value, values))
            values.append(value if layer.i in self.kept else None)
        head: Any = self.model[-1]
        features = _inputs(head, value, values)
        if not hasattr(head, 'forward_head'):  # a classifier, whose own forward adds a softmax
            features = torch.cat(features, 1) if isinstance(features, list) else features
            return head.linear(head.drop(head.pool(head.conv(features)).flatten(1)))
        raw = head.forward_head(features, **(head.one2one if head.end2end else head.one2many))
        if hasattr(head, 'proto'):
            proto = head.proto(features if type(head).__name__ == 'Segment26' else features[0])
            raw['proto'] = proto[0] if isinstance(proto, (tuple, list)) else proto
        return raw


def _inputs(layer: Any, last: Any, values: list[Any]) -> Any:
    """Return what a layer reads: the last value, or those of the layers that it names."""
    if layer.f == -1:
        return last
    if isinstance(layer.f, int):
        return values[layer.f]
    return [last if number == -1 else values[number] for number in layer.f]


class _Objects(Ending):
    """
    Boxes in pixels of the input, by Ultralytics' own decoding and non-maximum suppression.

    Masks are at the resolution of the network's prototypes, a quarter of the input's; 1 is the object.
    """

    def __init__(self, head: Any, kind: str, size: tuple[int, int], settings: dict[str, Any]) -> None:
        super().__init__()
        # Not a submodule: it belongs to the network, where its parameters are counted.
        self.__dict__['head'] = head
        self.kind = kind
        self.size = size
        self.settings = settings

    def extra_repr(self) -> str:
        """Return what distinguishes this step from others of its type, for the fingerprint."""
        return f'{self.kind}, size={self.size}, {self.settings}'

    def forward(self, raw: dict[str, torch.Tensor]) -> Any:
        """Return a dictionary for each image, best first: boxes, labels, scores; masks, keypoints or angles."""
        nms: Any = importlib.import_module('ultralytics.utils.nms')
        head: Any = self.__dict__['head']
        decoded = head._inference(raw)
        if head.end2end:
            decoded = head.postprocess(decoded.permute(0, 2, 1))
        images = nms.non_max_suppression(
            decoded,
            self.settings['conf'],
            self.settings['iou'],
            max_det=self.settings['max_det'],
            nc=head.nc,
            max_time_img=1e9,
            rotated=self.kind == 'obb',
            end2end=head.end2end,
        )
        return [
            self._objects(found, raw['proto'][number] if 'proto' in raw else None)
            for number, found in enumerate(images)
        ]

    def _objects(self, found: torch.Tensor, proto: torch.Tensor | None) -> dict[str, torch.Tensor]:
        ops: Any = importlib.import_module('ultralytics.utils.ops')
        boxes, more = found[:, :4], found[:, 6:]
        if self.kind == 'obb':
            boxes = ops.xywh2xyxy(boxes)
        else:
            boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor(self.size[::-1] * 2))
        objects = {'boxes': boxes.contiguous(), 'labels': found[:, 5].long(), 'scores': found[:, 4].contiguous()}
        if self.kind == 'segment':
            assert proto is not None
            objects['masks'] = ops.process_mask(proto, more, boxes, self.size)[:, None]
        elif self.kind == 'pose':
            points = more.view(len(found), *self.__dict__['head'].kpt_shape)
            scores = points[..., 2] if points.shape[2] > 2 else torch.ones_like(points[..., 0])
            objects['keypoints'] = torch.cat((points[..., :2], torch.ones_like(points[..., :1])), 2)
            objects['keypoints_scores'] = scores.logit(_LEAST_DOUBT)
        elif self.kind == 'obb':
            objects['angles'] = more[:, -1].contiguous()
        return objects
