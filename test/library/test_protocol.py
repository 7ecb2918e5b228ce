# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a robot and an edge can work together, and what a person is told if their versions differ."""

from __future__ import annotations

import re

import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.protocol import check_version, edge_token, inexactness, PROTOCOL_VERSION, Side

ROBOT = Side(torch_version='2.11.0+cpu')


def test_a_message_of_this_version_passes() -> None:
    check_version(PROTOCOL_VERSION, 'the latest message on /robot1/split')


@pytest.mark.parametrize('version', [0, PROTOCOL_VERSION + 1, 65535])
def test_a_message_of_another_version_is_refused_in_one_sentence_with_both_versions(version) -> None:
    with pytest.raises(DynsplitError) as refused:
        check_version(version, 'the latest message on /robot1/edge_profile')
    sentence = str(refused.value)
    assert sentence.startswith('the latest message on /robot1/edge_profile has protocol version')
    assert str(version) in sentence and str(PROTOCOL_VERSION) in sentence and 'install the same version' in sentence
    assert '. ' not in sentence and '\n' not in sentence


@pytest.mark.parametrize('torch_version', ['2.11.0+cpu', '2.11.0+cu128', '2.11.0'])
def test_builds_of_one_torch_release_are_exact(torch_version) -> None:
    assert inexactness(ROBOT, Side('lab', torch_version=torch_version)) == ''


def test_another_torch_release_is_named_with_the_edge_and_both_versions() -> None:
    sentence = inexactness(ROBOT, Side('lab', torch_version='2.14.1+cpu'))
    assert all(word in sentence for word in ("'lab'", '2.11.0', '2.14.1', 'last bits')) and '\n' not in sentence


def test_what_a_peer_says_of_itself_cannot_steer_a_terminal() -> None:
    assert inexactness(ROBOT, Side('\x1b[2J\n', torch_version='\x1b]0;owned\x07')).isprintable()


@pytest.mark.parametrize('name, token', [('lab', 'lab'), ('edge_1', None), ('Edge2', 'Edge2')])
def test_a_name_that_is_valid_in_a_topic_stands_there_as_it_is(name, token) -> None:
    assert edge_token(name) == (token or name)


def test_every_name_of_an_edge_has_a_valid_token_of_its_own() -> None:
    names = [
        '',
        'edge/host',
        'edge_host',
        'edge-host',
        'edge host',
        '1st',
        '_lab',
        'lab_',
        'a__b',
        'a_b',
        'é',
        '日本',
        'x' * 40,
        'x' * 41,
        'x' * 1000,
        'lab_0123abcd',
        '\ud800',
        edge_token('edge/host'),
    ]
    tokens = [edge_token(name) for name in names]
    assert len(set(tokens)) == len(names)
    assert all(re.fullmatch('[A-Za-z](_?[A-Za-z0-9])*', token) and len(token) <= 60 for token in tokens)
