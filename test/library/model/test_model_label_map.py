# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A segmentation ends with the class of each pixel, and its answer is as small."""

import argparse

import pytest
import torch
from torch import nn

from dynsplit_ros.codec import decode_answer, encode_answer, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.model.label_map import LabelMap
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.tasks import check_outputs
from dynsplit_ros.tensors import TensorSpec
from dynsplit_ros.tools.model_options import add_model_options, split_model


@pytest.mark.parametrize('classes, kind', [(2, torch.uint8), (255, torch.uint8), (256, torch.int16)])
def test_the_best_class_of_each_pixel_and_the_first_of_equals(classes, kind) -> None:
    scores = torch.rand(2, classes, 6, 10, generator=torch.Generator().manual_seed(classes))
    scores[:, :, 0, 0] = 0.5
    found = LabelMap()({'out': scores, 'aux': torch.zeros(2, classes, 6, 10)})
    assert found.dtype == kind and found.shape == (2, 6, 10)
    assert torch.equal(found.long(), scores.argmax(1)) and not found[:, 0, 0].any()


def test_what_is_a_label_map_already_stays_one() -> None:
    numbers = torch.randint(200, (2, 6, 10))
    for given in (numbers, numbers[:, None], [numbers], {'classes': numbers.to(torch.uint8)}):
        assert torch.equal(LabelMap()(given).long(), numbers)
    assert LabelMap()(numbers).dtype == torch.int16


@pytest.mark.parametrize('output', [torch.rand(1, 5), torch.rand(1, 6, 10), {}, {'out': None}])
def test_anything_else_is_left_to_the_check(output) -> None:
    assert LabelMap()(output) is output
    outputs = {'out': output} if isinstance(output, torch.Tensor) else {}
    with pytest.raises(DynsplitError, match='set task to what the model does'):
        check_outputs('segmentation', outputs)


class Two(nn.Module):
    """A segmentation of one's own with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 2, 3, 4), nn.Conv2d(2, 9, 1), nn.Conv2d(2, 9, 1)

    def forward(self, image):
        held = self.first(image)
        return nn.functional.interpolate(self.second(held), scale_factor=8.0), self.third(held).relu_()


@pytest.mark.parametrize('cut', [True, False])
def test_a_model_of_ones_own_is_ended_whether_or_not_it_is_cut(cut) -> None:
    model = load_model(f'{__name__}:Two', task='segmentation', input_size=(32, 32))
    split = SplitModel(model, cut=cut)
    assert split.output_specs == (TensorSpec('label_map', 'uint8', (1, 64, 64)),)
    image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = model.module(model.normalise(image))[0].argmax(1)
    for index in range(split.local_index + 1):
        assert torch.equal(split.tail(index)(split.head(index)(image))['label_map'].long(), expected)


def test_a_label_map_travels_compressed_and_scores_as_they_are() -> None:
    specs = [TensorSpec('label_map', 'uint8', (1, 100, 80))]
    smooth = torch.arange(8000, dtype=torch.int32).div(1000).to(torch.uint8).view(1, 100, 80)
    codec, encoded = encode_answer({'label_map': smooth})
    assert codec == 'blosc2' and len(encoded[0].data) < 1000
    assert torch.equal(decode_answer(codec, encoded, specs)['label_map'], smooth)
    for outputs in ({'logits': torch.rand(1, 5000)}, {'label_map': smooth[:, :10]}, {}):
        codec, encoded = encode_answer(outputs)
        assert codec == 'raw' and sum(part.data.nbytes for part in encoded) == sum(
            tensor.nbytes for tensor in outputs.values()
        )


@pytest.mark.parametrize(
    'codec, data',
    [
        ('jpeg90', b''),
        ('quant8-zstd', bytes(8000)),
        ('', b''),
        ('raw', bytes(7999)),
        ('blosc2', bytes(32)),
        ('blosc2', b''),
    ],
)
def test_an_answer_by_another_codec_or_of_other_bytes_is_refused(codec, data) -> None:
    specs = [TensorSpec('label_map', 'uint8', (1, 100, 80))]
    with pytest.raises(DynsplitError):
        decode_answer(codec, [EncodedTensor('label_map', 'uint8', (1, 100, 80), data)], specs)
    if codec != 'raw':
        with pytest.raises(DynsplitError):
            decode_answer(codec, [EncodedTensor('label_map', 'uint8', (1, 100, 80), data)], None)


def test_the_tools_take_a_model_of_ones_own_as_the_nodes_do() -> None:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    name, values = f'{__name__}:Two', {'task': 'segmentation', 'mean': [0.1, 0.2, 0.3], 'std': [0.5, 0.6, 0.7]}
    options = '--input-size 32 32 --task segmentation --mean .1 .2 .3 --std .5 .6 .7'
    arguments = parser.parse_args([name, *options.split()])
    expected = SplitModel(load_model(name, input_size=(32, 32), **values))
    assert split_model(arguments).fingerprint == expected.fingerprint
    assert SplitModel(load_model(name, input_size=(32, 32))).fingerprint != expected.fingerprint
