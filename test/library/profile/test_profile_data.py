# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Profiles as data: kept, scaled, merged, and refused when they cannot be."""

from __future__ import annotations

import copy
import math

import pytest
from worlds import measured, MODELS, system
import yaml

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.profile.profile import merge, Profile


@pytest.mark.parametrize('name', MODELS)
def test_a_profile_survives_its_file(name, tmp_path) -> None:
    profile = measured(name)
    profile.save(tmp_path / 'again.yaml')
    assert Profile.load(tmp_path / 'again.yaml') == profile


def test_merging_takes_each_time_from_the_machine_that_spends_it() -> None:
    edge = measured()
    robot = edge.scaled(8)
    both = merge(robot, edge)
    assert both.local_index == edge.local_index
    for here, there, cut in zip(robot.cuts, edge.cuts, both.cuts):
        assert cut.head_s == here.head_s
        assert cut.finish_s == here.tail_s
        assert cut.tail_s == there.tail_s
        for name, codec in cut.codecs.items():
            assert codec.encode_s == here.codecs[name].encode_s
            assert codec.decode_s == there.codecs[name].decode_s


def test_merging_different_models_is_refused() -> None:
    with pytest.raises(DynsplitError, match='profile the same model'):
        merge(measured('resnet50'), measured('mobilenet_v2'))


def test_scaling_scales_times_and_not_sizes() -> None:
    profile, slower = measured(), measured().scaled(3)
    assert slower.cuts[1].head_s[1] == pytest.approx(3 * profile.cuts[1].head_s[1])
    assert slower.cuts[1].codecs['blosc2'].encode_s[1] == pytest.approx(
        3 * profile.cuts[1].codecs['blosc2'].encode_s[1]
    )
    assert slower.cuts[1].codecs['raw'].payload_bytes == profile.cuts[1].codecs['raw'].payload_bytes


@pytest.mark.parametrize('factor', [0.0, -1.0, math.nan, math.inf])
def test_impossible_scales_are_refused(factor) -> None:
    with pytest.raises(DynsplitError, match='positive'):
        measured().scaled(factor)


def _without_a_cut(document) -> None:
    del document['cuts'][2]


def _without_cuts(document) -> None:
    document['cuts'] = []


def _cuts_out_of_order(document) -> None:
    document['cuts'].reverse()


def _without_tail(document) -> None:
    del document['cuts'][1]['tail_s']


def _negative(document) -> None:
    document['cuts'][1]['head_s'][1] = -0.1


def _not_a_number(document) -> None:
    document['cuts'][1]['head_s'][1] = math.nan


def _endless(document) -> None:
    document['cuts'][1]['tail_s'][1] = math.inf


def _another_batch(document) -> None:
    document['cuts'][1]['tail_s'][3] = 0.1


def _without_codecs(document) -> None:
    document['cuts'][1]['codecs'] = {}


def _text(document) -> None:
    document['cuts'][1]['head_s'] = 'fast'


def _cuts_as_number(document) -> None:
    document['cuts'] = 7


def _format(document) -> None:
    document['dynsplit_profile'] = 99


def _payload(document) -> None:
    document['cuts'][0]['codecs']['raw']['payload_bytes'][1] = -5


@pytest.mark.parametrize(
    'spoil',
    [
        _without_a_cut,
        _without_cuts,
        _cuts_out_of_order,
        _without_tail,
        _negative,
        _not_a_number,
        _endless,
        _another_batch,
        _without_codecs,
        _text,
        _cuts_as_number,
        _format,
        _payload,
    ],
)
def test_spoilt_profiles_are_refused_by_name(spoil, tmp_path) -> None:
    document = copy.deepcopy(measured().to_document())
    spoil(document)
    path = tmp_path / 'spoilt.yaml'
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(DynsplitError, match='spoilt.yaml'):
        Profile.load(path)


@pytest.mark.parametrize('text', ['', 'a: [', '- 1', '\x00', '3'])
def test_files_that_are_no_profiles_are_refused(text, tmp_path) -> None:
    path = tmp_path / 'no.yaml'
    path.write_text(text)
    with pytest.raises(DynsplitError, match='no.yaml'):
        Profile.load(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(DynsplitError, match='none.yaml'):
        Profile.load(tmp_path / 'none.yaml')


def test_the_local_index_sends_nothing() -> None:
    profile = system('resnet50')
    assert not profile.cuts[profile.local_index].codecs
    assert all(cut.codecs for cut in profile.cuts[:-1])


def test_names_of_a_profile_cannot_steer_a_terminal_or_begin_a_line_of_a_log() -> None:
    document = measured().to_document()
    document['model'] = 'model\n[ERROR]\x1b[2J'
    document['cuts'][1]['name'] = 'cut\r'
    profile = Profile.from_document(document, 'a profile')
    assert profile.model.isprintable() and profile.cuts[1].name.isprintable()
