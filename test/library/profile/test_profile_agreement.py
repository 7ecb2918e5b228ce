# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The profile measures the agreement of lossy codecs on the user's images, and carries it to the planner."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.codec import CODECS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.agreement import measure_agreement
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.profile.profile import AgreementRecord, merge, Profile
from dynsplit_ros.tools import profile as profile_tool

ENGINE = {'engine': 'eager'}


@pytest.fixture(scope='module')
def split():
    return SplitModel(load_model('squeezenet1_1', weights='none', input_size=(64, 64)))


def images(count):
    return [
        torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        for number in range(count)
    ]


@pytest.fixture(scope='module')
def profile(split):
    return measure(split, codecs=['raw', 'blosc2', 'quant8-zstd', 'jpeg90'], repeats=1, warm_up=0)


def test_every_lossy_codec_is_measured_at_every_cut_that_sends(split):
    (record,) = measure_agreement(split, images(3), 'three images')
    assert set(record.cuts) == set(range(split.local_index)) and record.images == 3 and record.task == 'classification'
    assert 'jpeg90' in record.cuts[0] and 'quant4-zstd' in record.cuts[1]
    for codecs in record.cuts.values():
        assert codecs and not any(CODECS[name].lossless for name in codecs)
        assert all(0 <= found.agreeing <= found.images == 3 for found in codecs.values())
    assert {'torch', 'processor', 'engine', 'version'} <= record.head.keys() and record.head == record.tail


@pytest.mark.parametrize(
    'name, task',
    [('lraspp_mobilenet_v3_large', 'segmentation'), ('fasterrcnn_mobilenet_v3_large_320_fpn', 'detection')],
)
def test_other_tasks_are_measured_too(name, task):
    other = SplitModel(load_model(name, weights='none', input_size=(64, 64)))
    (record,) = measure_agreement(other, images(1), 'an image', ['float16'])
    assert record.task == task and 0 <= record.cuts[1]['float16'].share <= 1


def test_a_codec_that_disagrees_is_given_up_early_and_counted_with_fewer_images(split, monkeypatch):
    asked = []

    def score(task, exact, outputs):
        asked.append(1)
        return 0.0

    monkeypatch.setattr('dynsplit_ros.profile.agreement.agreement_of_image', score)
    (record,) = measure_agreement(split, images(40), 'forty images', ['quant2-zstd'])
    assert all(found['quant2-zstd'].images == 20 for index, found in record.cuts.items() if index)


def test_without_images_nothing_agrees(split, profile):
    assert profile.agreements == () and merge(profile, profile).agreement_images == 0
    with pytest.raises(DynsplitError, match='image'):
        measure_agreement(split, [], 'nothing')


def test_the_record_survives_the_file_and_reaches_the_planner(profile, split, tmp_path):
    (record,) = measure_agreement(split, images(2), 'two images')
    replace(profile, agreements=(record,)).save(tmp_path / 'p.yaml')
    again = Profile.load(tmp_path / 'p.yaml')
    assert again.agreements == (record,)
    system = merge(again, profile)
    assert system.agreement_images == 2 and system.cuts[1].agreement == record.cuts[1]


def test_the_record_of_other_engines_does_not_count(profile):
    cuts = {1: {'quant8-zstd': Agreement(500, 500)}}
    other = AgreementRecord('classification', 'x', ENGINE, {**ENGINE, 'engine': 'openvino'}, cuts)
    fits = AgreementRecord('classification', 'x', ENGINE, ENGINE, cuts)
    assert merge(replace(profile, agreements=(other,)), profile).cuts[1].agreement == {}
    assert merge(replace(profile, agreements=(other, fits)), profile).cuts[1].agreement == cuts[1]


@pytest.mark.parametrize('cuts', [{99: {}}, {1: {'x': Agreement(3, 2)}}, {1: {'x': Agreement(float('nan'), 2)}}])
def test_a_record_that_cannot_be_is_refused(profile, cuts):
    with pytest.raises(DynsplitError):
        replace(profile, agreements=(AgreementRecord('classification', 'x', ENGINE, ENGINE, cuts),))


@pytest.mark.parametrize(
    'damage',
    [
        {'cuts': {'1': {'x': [1]}}},
        {'cuts': {'1': {'x': ['a', 2]}}},
        {'cuts': []},
        {'head': 3},
        {'task': 'x' * 100_000},
        {},
    ],
)
def test_a_damaged_record_in_a_document_is_refused_in_one_sentence(profile, damage):
    good = AgreementRecord('classification', 'x', ENGINE, ENGINE, {1: {'quant8-zstd': Agreement(1, 2)}})
    document = replace(profile, agreements=(good,)).to_document()
    entry = {**document['agreements'][0], **damage} if damage else {}
    with pytest.raises(DynsplitError) as refused:
        Profile.from_document({**document, 'agreements': [entry]}, 'the profile')
    assert '\n' not in str(refused.value)


def test_a_codec_without_a_word_about_loss_is_refused(profile):
    document = profile.to_document()
    del document['cuts'][1]['codecs']['quant8-zstd']['lossless']
    with pytest.raises(DynsplitError, match='lossless'):
        Profile.from_document(document, 'the profile')


def test_the_tool_takes_a_folder_and_says_how_many_images_a_bound_needs(tmp_path, capsys):
    folder = tmp_path / 'photographs'
    folder.mkdir()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (70, 90, 3), np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), picture)
    (folder / 'notes.txt').write_text('not an image')
    out = tmp_path / 'p.yaml'
    arguments = ['squeezenet1_1', '--input-size', '64', '64', '--repeats', '1', '--warm-up', '0', '--output', str(out)]
    assert profile_tool.main([*arguments, '--codec', 'raw', 'quant8-zstd', '--image', str(folder)]) == 0
    (record,) = Profile.load(out).agreements
    assert record.images == 3 and set(record.cuts[1]) == {'quant8-zstd'}
    assert '0.9 needs at least 35' in capsys.readouterr().out
    assert profile_tool.main([*arguments, '--image', str(tmp_path)]) == 2
    assert 'has no image' in capsys.readouterr().err
