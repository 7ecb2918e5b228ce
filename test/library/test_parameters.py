# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Which parameters a peer may set, and which models it may choose."""

from __future__ import annotations

import json

import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.parameters import (
    allowed_models,
    CAMERA,
    EDGE,
    LINK_EMULATOR,
    MODEL,
    MONITOR,
    MOST_ENTRIES,
    MOST_LENGTH,
    Parameter,
    SOURCE,
)

#: Texts that name neither code nor a file, a host or a port: torch's devices, topics, the registry's codecs, a frame,
#: labels, an edge.
HARMLESS = {'device', 'image_topics', 'codecs', 'frame_id', 'classes', 'edge_name'}
STARTED = {parameter.name: parameter.default for parameter in MODEL} | {
    'model': 'my_package:net',
    'weights': '/mine.pth',
    'profile': '/mine.yaml',
    'labels': ['cat', 'dog'],
    'model_arguments': '{"width": 3}',
    'input_size': [64, 64],
}


@pytest.mark.parametrize('parameters', [CAMERA, EDGE, MONITOR, SOURCE, LINK_EMULATOR])
def test_every_free_text_is_locked_or_known_to_be_harmless(parameters) -> None:
    for parameter in parameters:
        first = parameter.default[0] if isinstance(parameter.default, list) else parameter.default
        if isinstance(first, str) and not parameter.choices and not parameter.locked:
            assert parameter.name in HARMLESS, f'may a stranger set {parameter.name}? lock it, or list it here'
        assert not (parameter.locked and parameter.dynamic)


def test_without_a_list_only_the_model_of_the_start_is_allowed() -> None:
    assert list(allowed_models(STARTED)) == ['my_package:net']
    assert allowed_models({**STARTED, 'allowed_models': []}) == allowed_models(STARTED)


def test_each_model_brings_what_belongs_to_it() -> None:
    models = allowed_models(
        {
            **STARTED,
            'allowed_models': [
                'alexnet',
                'my_package:net',
                json.dumps(
                    {'model': 'resnet50', 'weights': 'none', 'model_arguments': {'num_classes': 7}, 'std': [1, 1, 1]}
                ),
            ],
        }
    )
    assert list(models) == ['my_package:net', 'alexnet', 'resnet50']
    own = models['my_package:net']
    assert own == {name: STARTED[name] for name in own}
    assert {'weights', 'profile', 'labels', 'leaves', 'std'} <= set(own)
    assert models['alexnet'] == own | {
        'model': 'alexnet',
        'weights': 'default',
        'profile': '',
        'labels': [''],
        'model_arguments': '',
    }
    assert models['resnet50'] == models['alexnet'] | {
        'model': 'resnet50',
        'weights': 'none',
        'model_arguments': '{"num_classes": 7}',
        'std': [1.0, 1.0, 1.0],
    }
    assert 'input_size' not in own, 'what no entry names stays as it is'


@pytest.mark.parametrize(
    ('entry', 'sentence'),
    [
        ('{"model": ', 'is not JSON'),
        ('{' * 10_000, 'is not JSON'),
        ('{}', 'names no model'),
        ('{"model": "alexnet", "weigths": "none"}', "'weigths' is not allowed"),
        ('{"model": "alexnet", "seed": "1"}', 'of type int'),
        ('{"model": null}', 'of type str'),
        ('{"model": ["alexnet"]}', 'of type str'),
        ('{"model": "alexnet", "autostart": true}', "'autostart' is not allowed"),
        ('{"model": "my_package:net", "weights": "none"}', 'once'),
        (f'{{"model": "alexnet", "std": [{10**400}, 1, 1]}}', 'of type list of float and int'),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_with_one_sentence(entry, sentence) -> None:
    with pytest.raises(DynsplitError, match=sentence) as error:
        allowed_models({**STARTED, 'allowed_models': [entry]})
    assert '\n' not in str(error.value) and len(str(error.value)) < 1000


FREE = {
    parameter.name: parameter
    for parameter in (*CAMERA, *EDGE, *MONITOR, *SOURCE, *LINK_EMULATOR)
    if not parameter.locked and not parameter.choices
}
FREE_LISTS = [parameter for parameter in FREE.values() if isinstance(parameter.default, list)]
FREE_TEXTS = [parameter for parameter in FREE.values() if isinstance(parameter.default, str)]


def _entries(parameter: Parameter, number: int) -> list[object]:
    """Return as many allowed entries of a list."""
    first = parameter.default[0]  # type: ignore[index]
    return [f'name{entry}' for entry in range(number)] if isinstance(first, str) else [first] * number


@pytest.mark.parametrize('parameter', FREE_LISTS, ids=lambda parameter: parameter.name)
def test_a_list_that_a_peer_may_set_is_bounded(parameter) -> None:
    most = _entries(parameter, MOST_ENTRIES)
    assert parameter.check(most) == most
    with pytest.raises(DynsplitError, match=f'{parameter.name!r} has 65 entries, but at most 64'):
        parameter.check(_entries(parameter, MOST_ENTRIES + 1))


@pytest.mark.parametrize('parameter', FREE_TEXTS, ids=lambda parameter: parameter.name)
def test_a_text_that_a_peer_may_set_is_bounded(parameter) -> None:
    assert parameter.check('x' * MOST_LENGTH)
    with pytest.raises(DynsplitError, match=f'{parameter.name!r} has a text of 257 characters, but at most 256'):
        parameter.check('x' * (MOST_LENGTH + 1))


@pytest.mark.parametrize('name', ['image_topics', 'codecs'])
def test_a_list_of_names_has_each_once_and_none_too_long(name) -> None:
    with pytest.raises(DynsplitError, match=f"{name!r} names 'raw' 2 times; name it once"):
        FREE[name].check(['raw', 'other', 'raw'])
    with pytest.raises(DynsplitError, match='257 characters'):
        FREE[name].check(['raw', 'x' * 257])


def test_a_person_may_start_a_node_with_more_than_a_peer_may_set() -> None:
    by_name = {parameter.name: parameter for parameter in MODEL}
    assert len(by_name['labels'].check(['N/A'] * 1000)) == 1000
    assert by_name['weights'].check('a' * 1000 + '.pth')


def test_an_error_shows_the_beginning_of_a_long_value() -> None:
    with pytest.raises(DynsplitError) as error:
        FREE['image_topics'].check('x' * 100_000)
    assert len(str(error.value)) < 1000 and "'xxx" in str(error.value)
