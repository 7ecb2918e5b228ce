# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as training scripts leave them are read, and nothing in them is executed."""

import argparse
import json

import numpy as np
import pytest
from safetensors.torch import save_file
import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.model.weights import labels_of, load_state_dict


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(self.body(image).mean((2, 3)))


NET = f'{__name__}:Net'
torch.manual_seed(3)
STATE = Net().state_dict()
EMA = {key: value + 1 for key, value in STATE.items()}


def prefixed(prefix):
    return {prefix + key: value for key, value in STATE.items()}


@pytest.mark.parametrize(
    ('content', 'suffix'),
    [
        (STATE, '.pth'),
        (STATE, '.ckpt'),
        (STATE, '.bin'),
        ({'epoch': 3, 'state_dict': STATE}, '.pth'),
        ({'epoch': 3, 'model_state_dict': STATE, 'optimizer_state_dict': {'lr': 0.1}}, '.pt'),
        ({'model': STATE, 'optimizer': {'state': {0: torch.zeros(1)}}, 'args': argparse.Namespace(lr=0.1)}, '.pth'),
        (prefixed('module.'), '.pth'),
        (prefixed('_orig_mod.'), '.pth'),
        (prefixed('module._orig_mod.'), '.pth'),
        ({key.replace('body.', 'body._orig_mod.'): value for key, value in STATE.items()}, '.pth'),
        ({'state_dict': {**prefixed('model.'), 'criterion.weight': torch.ones(2)}, 'version': '2.4'}, '.ckpt'),
        ({'state_dict': prefixed('net.'), 'best': np.float64(0.9), 'step': np.int64(3)}, '.pth'),
        ({key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}, '.pth'),
    ],
)
def test_the_state_dict_is_found_in_what_training_wraps_it_in(content, suffix, tmp_path) -> None:
    torch.save(content, tmp_path / f'file{suffix}')
    loaded = load_model(NET, weights=str(tmp_path / f'file{suffix}')).module.state_dict()
    for key, value in STATE.items():
        assert loaded[key].dtype == value.dtype and torch.allclose(loaded[key], value, atol=1e-3), key


@pytest.mark.parametrize(
    'content',
    [
        {'model': STATE, 'ema': EMA},
        {'state_dict': STATE, 'state_dict_ema': EMA},
        {
            'model': STATE,
            'model_ema': {**{f'module.{key}': value for key, value in EMA.items()}, 'n_averaged': torch.tensor(7)},
        },
    ],
)
def test_averaged_weights_come_first(content, tmp_path) -> None:
    torch.save(content, tmp_path / 'file.pth')
    loaded = load_model(NET, weights=str(tmp_path / 'file.pth')).module.state_dict()
    assert all(torch.equal(loaded[key], EMA[key]) for key in EMA)


def test_a_wrapped_module_takes_a_plain_state_dict(tmp_path) -> None:
    module = nn.DataParallel(Net())
    torch.save(STATE, tmp_path / 'plain.pth')
    load_state_dict(module, tmp_path / 'plain.pth')
    assert torch.equal(module.module.head.weight, STATE['head.weight'])


def test_a_prefix_before_weights_that_do_not_fit_is_named(tmp_path) -> None:
    torch.save({**prefixed('module.'), 'module.more': torch.ones(1)}, tmp_path / 'more.pth')
    with pytest.raises(DynsplitError, match=r"prefix 'module\.'.*'more' unexpected"):
        load_model(NET, weights=str(tmp_path / 'more.pth'))
    torch.save({f'module.{key}': value for key, value in nn.Linear(2, 2).state_dict().items()}, tmp_path / 'other.pth')
    with pytest.raises(DynsplitError, match="'module.weight'"):
        load_model(NET, weights=str(tmp_path / 'other.pth'))


def test_a_pickled_module_and_a_torchscript_program_are_refused_with_what_they_are(tmp_path) -> None:
    torch.save(Net(), tmp_path / 'whole.pt')
    torch.jit.script(Net()).save(str(tmp_path / 'script.pt'))
    with pytest.raises(DynsplitError, match=r'Net\).*would execute code.*save module.state_dict'):
        load_model(NET, weights=str(tmp_path / 'whole.pt'))
    with pytest.raises(DynsplitError, match='TorchScript'):
        load_model(NET, weights=str(tmp_path / 'script.pt'))
    torch.save([1, 2], tmp_path / 'list.pt')
    torch.save({'a': 1}, tmp_path / 'numbers.pt')
    for name in ('list', 'numbers'):
        with pytest.raises(DynsplitError, match='no state dict'):
            load_model(NET, weights=str(tmp_path / f'{name}.pt'))


def test_default_weights_of_a_factory_are_its_own_and_others_are_refused_with_one_sentence() -> None:
    first, second = load_model(NET, weights='default'), load_model(NET, weights='none')
    assert torch.equal(first.module.head.weight, second.module.head.weight)
    with pytest.raises(DynsplitError, match='IMAGENET1K_V1.*allowed are none, default'):
        load_model(NET, weights='IMAGENET1K_V1')


def test_labels_come_with_safetensors_and_a_damaged_list_is_none(tmp_path) -> None:
    for number, (labels, expected) in enumerate(
        [('["cat", "dog"]', ['cat', 'dog']), ('{"a": 1}', []), ('[', []), (json.dumps([1, 2]), ['1', '2'])]
    ):
        file = tmp_path / f'{number}.safetensors'
        save_file(STATE, file, {'labels': labels})
        assert labels_of(file) == expected
    model = load_model(NET, weights=str(tmp_path / '0.safetensors'))
    assert model.labels == ['cat', 'dog']
    (tmp_path / 'broken.safetensors').write_bytes(b'\xff' * 40)
    assert labels_of(tmp_path / 'broken.safetensors') == labels_of(tmp_path / 'absent.safetensors') == []
    assert labels_of(None) == []


@pytest.mark.parametrize('name', [NET, 'mobilenet_v3_small', 'timm:resnet10t'])
def test_a_model_of_any_source_has_the_labels_of_its_weights(name, tmp_path) -> None:
    if name.startswith('timm'):
        pytest.importorskip('timm')
    kwargs = {} if name == NET else {'num_classes': 2}
    untrained = load_model(name, kwargs=kwargs, input_size=(64, 64))
    assert untrained.labels == []
    save_file(untrained.module.state_dict(), tmp_path / 'file.safetensors', {'labels': json.dumps(['cup', 'pen'])})
    model = load_model(name, weights=str(tmp_path / 'file.safetensors'), kwargs=kwargs, input_size=(64, 64))
    assert model.labels == ['cup', 'pen']
