# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Head plus tail is the whole model, to the bit: every torchvision model, every candidate, batches of 1 and 2.

The largest models need gigabytes and minutes; ``DYNSPLIT_LARGE=1 pytest
test/library/partition/test_partition_exact.py`` runs them.
"""

import os

import numpy as np
import pytest
import torch

from dynsplit_ros.model import load_model, model_names
from dynsplit_ros.partition import SplitModel

LARGE = {
    'convnext_base', 'convnext_large', 'efficientnet_b5', 'efficientnet_b6', 'efficientnet_b7',
    'efficientnet_v2_l', 'efficientnet_v2_m', 'regnet_x_16gf', 'regnet_x_32gf', 'regnet_x_8gf',
    'regnet_y_128gf', 'regnet_y_16gf', 'regnet_y_32gf', 'regnet_y_8gf', 'resnext101_32x8d',
    'resnext101_64x4d', 'swin_b', 'swin_v2_b', 'vgg11', 'vgg13', 'vgg13_bn', 'vgg16', 'vgg19',
    'vgg19_bn', 'vit_b_16', 'vit_h_14', 'vit_l_16', 'vit_l_32', 'wide_resnet101_2', 'wide_resnet50_2',
}  # fmt: skip
SIZES = {'inception_v3': (80, 80), 'maxvit_t': (224, 224), 'vit_h_14': (56, 56), 'vit_l_16': (64, 64)}
# With these, a detector with random weights finds something.
FINDS_ALL = {'box_score_thresh': 0.0, 'box_nms_thresh': 0.9, 'box_detections_per_img': 8}


pytestmark = pytest.mark.usefixtures('one_thread')


def images(size, batch):
    noise = np.random.default_rng(batch).integers(0, 256, (batch, 3, *size), dtype=np.uint8)
    return torch.from_numpy(noise)


def over_the_wire(tensors):
    """Return the tensors as another process would have them: from their bytes alone, at an address of its own."""
    received = {}
    for name, tensor in tensors.items():
        buffer = bytearray(4) + tensor.numpy().tobytes()  # off by four: no alignment to rely on
        received[name] = torch.frombuffer(buffer, dtype=tensor.dtype, offset=4).view(tensor.shape)
    return received


def assert_same(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name in expected:
        assert torch.isfinite(expected[name].float()).all(), f'{name} would compare nothing'
        assert torch.equal(outputs[name], expected[name]), name


def assert_exact(split, cuts, batches=(1, 2)):
    for batch in batches:
        image = images(split.model.input_size, batch)
        expected = split.whole(image)
        for cut in cuts:
            kept = split.head(cut)(image)
            before = {name: tensor.clone() for name, tensor in kept.items()}
            assert_same(split.tail(cut)(over_the_wire(kept)), expected)
            if not isinstance(cut, int) and not cut.tensors:
                continue
            # What the robot kept serves it too, and survives: twice from the same tensors, and they are
            # unchanged.
            assert_same(split.tail(cut)(kept), expected)
            for name, tensor in kept.items():
                assert torch.equal(tensor, before[name]), f'{name} was overwritten'


@pytest.mark.parametrize('name', model_names('classification'))
def test_every_classifier_is_exact_at_every_candidate(name):
    if name in LARGE and not os.environ.get('DYNSPLIT_LARGE'):
        pytest.skip('a large model: set DYNSPLIT_LARGE=1')
    split = SplitModel(load_model(name, input_size=SIZES.get(name, (64, 64))))
    assert split.local_index >= 2
    assert_exact(split, split.cuts)


@pytest.mark.parametrize('name', model_names('segmentation'))
def test_every_segmentation_model_is_exact_at_every_candidate(name):
    model = load_model(name, input_size=(48, 64), kwargs={'aux_loss': True} if 'raspp' not in name else {})
    model.ending, ending = None, model.ending
    scores = SplitModel(model)
    assert_exact(scores, scores.cuts)
    image = images((48, 64), 2)
    best = scores.whole(image)['out'].argmax(1)

    model.ending = ending
    split = SplitModel(model)
    assert_exact(split, split.cuts, batches=(2,))
    classes = split.whole(image)['label_map']
    assert classes.dtype == torch.uint8 and len(classes.unique()) > 1
    assert torch.equal(classes, best.to(torch.uint8))
    assert split.fingerprint != scores.fingerprint
    # What computes the second output alone is no part of the network, and keeps nothing alive in it.
    assert not any(cut.name.startswith('aux') or len(cut.tensors) > 1 for cut in split.cuts)


@pytest.mark.parametrize('name', model_names('detection'))
def test_every_detector_is_exact(name):
    free = not name.startswith('ssd')
    model = load_model(
        name, input_size=(64, 96) if free else None, kwargs=FINDS_ALL if 'rcnn' in name else {}
    )
    if 'rcnn_resnet50' in name:  # activations grow with depth under random weights, until no box is left
        with torch.no_grad():
            for parameter in model.module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(0.7)
    split = SplitModel(model)
    expected = split.whole(images(model.input_size, 2))
    assert len(expected['boxes.0']) and len(expected['boxes.1']), 'nothing was found, so nothing is compared'
    smallest = min(split.positions, key=lambda cut: cut.nbytes)
    # No detector's bottlenecks are many, so the pyramid (the last position) and one amid the backbone are cut
    # too.
    places = {*split.cuts, smallest, split.positions[-1], split.positions[len(split.positions) // 2]}
    assert_exact(split, sorted(places, key=lambda cut: cut.position), (1, 2) if free else (1,))


@pytest.mark.parametrize(
    'name, step',
    [
        ('mobilenet_v2', 2),
        ('resnet18', 1),
        ('shufflenet_v2_x0_5', 2),
        ('swin_t', 8),
        ('googlenet', 8),
        ('vit_b_32', 12),
    ],
)
def test_positions_that_are_no_candidates_are_exact_too(name, step):
    split = SplitModel(load_model(name, input_size=(64, 64)), cache_size=2)
    assert len(split.positions) > 50
    assert_exact(split, split.positions[::step], batches=(2,))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('name', ['mobilenet_v2', 'resnet50', 'deeplabv3_mobilenet_v3_large'])
def test_a_tail_on_a_cuda_device_agrees_within_tolerance(name):
    robot = SplitModel(load_model(name, input_size=(64, 64)))
    edge = SplitModel(load_model(name, input_size=(64, 64)), 'cuda')
    assert robot.fingerprint == edge.fingerprint
    image = images((64, 64), 2)
    for cut in robot.cuts:
        expected = robot.whole(image)
        outputs = edge.tail(cut.index)(robot.head(cut.index)(image))
        for key, value in expected.items():
            scale = float(value.abs().max())
            assert torch.allclose(outputs[key], value, rtol=1e-2, atol=1e-2 * scale)
