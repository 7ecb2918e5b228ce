# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Head plus tail is the whole model, to the bit: every torchvision classifier, every candidate, batches of 1 and 2.

The largest models need gigabytes and minutes; ``DYNSPLIT_LARGE=1 pytest
test/library/partition/test_partition_exact.py`` runs them. The other models of torchvision are in
test_partition_exact_dense.py, so that another worker can run them at the same time.
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
pytestmark = pytest.mark.timeout(1800)  # the longest file starts first, see test/conftest.py


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
