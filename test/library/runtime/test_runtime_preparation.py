# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The edge follows the splits that its robots announce: the tail is ready before the first activation arrives."""

from __future__ import annotations

import threading

import pytest
from test_runtime import activation, Answers, SlowSplit
import torch
from worlds import DEADLINE_S, wait_until

from dynsplit_ros.codec import encode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import split as partition, SplitModel
from dynsplit_ros.policies.edge import EdgeSettings
from dynsplit_ros.policies.records import Status
from dynsplit_ros.runtime.edge import Edge


@pytest.fixture
def split() -> SplitModel:
    return SplitModel(load_model('mobilenet_v2', weights='none', input_size=(32, 32)))


@pytest.fixture
def built(monkeypatch) -> list[int]:
    """Return a list that gets an entry for each part that is built."""
    entries: list[int] = []
    build = partition.build_part

    def note(root, analysis, device, begin, *rest):
        entries.append(begin)
        return build(root, analysis, device, begin, *rest)

    monkeypatch.setattr(partition, 'build_part', note)
    return entries


class Gate:
    """Stands for a split model whose preparations wait until they are let through; notes which they were."""

    def __init__(self, split: SplitModel) -> None:
        self.open = threading.Event()
        self.begun: list[int] = []
        self.at_a_time = self.most_at_a_time = 0
        self.split = SlowSplit(split, prepare_tail=self.prepare_tail)

    def prepare_tail(self, index: int, images: int, stop, engine: str) -> bool:
        self.begun.append(index)
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        while not self.open.wait(0.01) and not stop():
            pass
        self.at_a_time -= 1
        return True


def test_the_tail_has_run_before_the_first_activation_arrives(split, built) -> None:
    payload = encode('raw', split.head(2)(torch.zeros((1, 3, 32, 32), dtype=torch.uint8)))
    first = activation(split, 'a', 1, split_index=2, payload=payload)
    del built[:]
    answers = Answers()
    edge = Edge(split, answers)
    edge.on_split('a', split.fingerprint, 2, 'raw')
    wait_until(lambda: edge.counts()['prepared'] == 1)
    assert len(built) == 1 and edge.splits() == {'a': (2, 'raw')}
    assert not split.prepare_tail(2), 'the tail has not run'
    edge.submit(first)
    answers.wait(1)
    edge.close()
    assert answers.all[0][1] is Status.OK
    assert len(built) == 1, 'the activation had the tail built'


def test_a_tail_is_prepared_for_as_many_images_as_the_robot_sends(split) -> None:
    seen, answers = [], Answers()
    noting = SlowSplit(split, prepare_tail=lambda index, images, stop, engine: not seen.append(images))
    edge = Edge(noting, answers, settings=EdgeSettings(max_images=4))
    images = torch.zeros((3, 3, 32, 32), dtype=torch.uint8)
    edge.submit(activation(split, 'a', 1, payload=encode('raw', split.head(0)(images))))
    answers.wait(1)
    edge.on_split('a', split.fingerprint, 1, 'raw')
    wait_until(lambda: seen)
    edge.close()
    assert seen == [3]
    assert split.prepare_tail(1, 3)


def test_before_a_robots_first_frame_the_tail_is_prepared_for_as_many_images_as_the_edge_takes(split) -> None:
    seen = []
    noting = SlowSplit(split, prepare_tail=lambda index, images, stop, engine: not seen.append(images))
    edge = Edge(noting, Answers(), settings=EdgeSettings(max_images=4))
    edge.on_split('a', split.fingerprint, 1, 'raw')
    wait_until(lambda: seen)
    edge.close()
    assert seen == [4]


def test_a_tail_that_has_run_for_one_number_of_images_is_prepared_for_another(split) -> None:
    assert split.prepare_tail(1) and split.prepare_tail(1, 4)
    split.tail(1)(split.head(1)(torch.zeros((2, 3, 32, 32), dtype=torch.uint8)))
    assert not any(split.prepare_tail(1, images) for images in (1, 2, 4))


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'fingerprint': 'feed'}, "the model 'feed', but this edge serves"),
        ({'split_index': 65535}, 'names split 65535'),
        ({'codec': 'pickle' * 100}, "codec 'picklepickle"),
    ],
)
def test_what_cannot_be_served_is_refused_and_costs_no_work(split, built, changes, words) -> None:
    edge = Edge(split, Answers())
    edge.on_split('a', split.fingerprint, split.local_index, 'any codec, for nothing is sent')
    with pytest.raises(DynsplitError, match=words) as refused:
        edge.on_split(**{'robot': 'a', 'fingerprint': split.fingerprint, 'split_index': 1, 'codec': 'raw', **changes})
    edge.on_split('b', split.fingerprint, 1, 'raw')
    wait_until(lambda: edge.counts()['prepared'])
    edge.close()
    assert len(str(refused.value)) < 500
    assert len(built) == 1 and edge.splits() == {'b': (1, 'raw')}


def test_announcements_without_end_cost_each_tail_one_run(split, built) -> None:
    edge = Edge(split, Answers())
    for number in range(2000):
        edge.on_split('a', split.fingerprint, number % 3, 'raw')
    for index in range(3):
        edge.on_split('a', split.fingerprint, index, 'raw')
        wait_until(lambda: not split.prepare_tail(index))
    edge.close()
    assert len(built) == 3


def test_a_robot_has_one_preparation_at_a_time_and_waits_with_its_newest_split(split) -> None:
    gate = Gate(split)
    edge = Edge(gate.split, Answers())
    edge.on_split('a', split.fingerprint, 0, 'raw')
    wait_until(lambda: gate.begun)
    for index in (1, 2, 3):
        edge.on_split('a', split.fingerprint, index, 'raw')
    edge.on_split('b', split.fingerprint, 1, 'raw')
    edge.on_split('left', split.fingerprint, 2, 'raw')
    edge.forget('left')
    gate.open.set()
    wait_until(lambda: edge.counts()['prepared'] == 3)
    edge.close()
    assert gate.begun == [0, 3, 1] and gate.most_at_a_time == 1
    assert edge.splits() == {'a': (3, 'raw'), 'b': (1, 'raw')}


def test_frames_are_served_while_a_tail_is_prepared(split) -> None:
    gate, answers = Gate(split), Answers()
    edge = Edge(gate.split, answers)
    edge.on_split('a', split.fingerprint, 3, 'raw')
    wait_until(lambda: gate.begun)
    edge.submit(activation(split, 'a', 1))
    edge.submit(activation(split, 'b', 2))
    answers.wait(2)
    edge.close()
    assert [status for _, status, *_ in answers.all] == [Status.OK] * 2
    assert not edge.is_running, 'a preparation held up the end'


def test_a_part_that_is_being_built_holds_up_no_other(split, monkeypatch) -> None:
    may_end, begun, build = threading.Event(), threading.Event(), partition.build_part

    def slow(*arguments):
        begun.set()
        assert may_end.wait(DEADLINE_S)
        return build(*arguments)

    ready = split.tail(1)
    monkeypatch.setattr(partition, 'build_part', slow)
    preparing = threading.Thread(target=split.prepare_tail, args=(2,))
    preparing.start()
    assert begun.wait(DEADLINE_S)
    other = threading.Thread(target=lambda: split.tail(1), daemon=True)
    other.start()
    other.join(DEADLINE_S / 3)
    held_up = other.is_alive()
    may_end.set()
    preparing.join(DEADLINE_S)
    assert not held_up and ready is not None
    assert not split.prepare_tail(2)


def test_a_tail_that_cannot_be_prepared_is_told_of_and_the_next_one_is(split) -> None:
    def prepare_tail(index, images, stop, engine):
        if index == 1:
            raise RuntimeError('no memory')
        return True

    answers = Answers()
    edge = Edge(SlowSplit(split, prepare_tail=prepare_tail), answers)
    edge.on_split('a', split.fingerprint, 1, 'raw')
    edge.on_split('b', split.fingerprint, 2, 'raw')
    wait_until(lambda: edge.counts()['prepared'] == 1)
    edge.close()
    assert answers.faults == ['tail of split 1 not prepared (RuntimeError: no memory)']
