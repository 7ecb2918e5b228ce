# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Heads and tails run on other engines than eager once they are converted; what is not ready is said."""

from __future__ import annotations

from functools import partial
from pathlib import Path
import weakref

import pytest
import torch

from dynsplit_ros import engines
from dynsplit_ros.engine_names import EAGER, ENGINE_NAMES, PRECISIONS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import Interrupted, split as partition, SplitModel

SIZE = (32, 32)
pytestmark = pytest.mark.timeout(300)


def new_split(name: str = 'mobilenet_v2') -> SplitModel:
    return SplitModel(load_model(name, weights='none', input_size=SIZE))


def image(count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def needs(engine: str) -> None:
    for package in engines.ENGINES[engine].packages:
        pytest.importorskip(package, reason=f'engine {engine} is not installed')


@pytest.fixture(scope='module', params=['openvino', 'onnxruntime'])
def converted(request, tmp_path_factory) -> tuple[str, SplitModel, Path]:
    """Return an engine, a model with all its parts on that engine, and the folder that keeps the conversions."""
    needs(request.param)
    split, folder = new_split('squeezenet1_1'), tmp_path_factory.mktemp(request.param)
    assert split.add_engine(request.param, cache=folder) == {}
    return request.param, split, folder


@pytest.fixture(scope='module')
def rounded() -> SplitModel:
    """Return a model with its parts on PyTorch in bfloat16, which needs no further package."""
    split = new_split()
    assert split.add_engine('eager', 'bfloat16') == {}
    return split


def test_the_parameters_offer_the_engines_and_precisions_that_there_are() -> None:
    assert tuple(engines.ENGINES) == ENGINE_NAMES
    offered = {precision for engine in engines.ENGINES.values() for precision in engine.precisions}
    assert offered == {*PRECISIONS} - {'int8'}


def test_head_and_tail_of_every_cut_give_the_whole_model_for_any_number_of_images(converted) -> None:
    engine, split, _ = converted
    assert split.engines == (EAGER, engine)
    for images in (image(), image(3)):
        whole = split.whole(images)['logits']
        for cut in split.cuts:
            head = split.head(cut, engine if cut.index else EAGER)
            tail = split.tail(cut, engine if cut.index != split.local_index else EAGER)
            torch.testing.assert_close(tail(head(images))['logits'], whole, rtol=1e-4, atol=1e-4)


def test_parts_that_compute_nothing_are_left_to_eager(rounded) -> None:
    name, local = 'eager-bfloat16', rounded.local_index
    assert rounded.engines == (EAGER, name)
    assert [rounded.has_head(index, name) for index in range(local + 1)] == [False] + [True] * local
    assert [rounded.has_tail(index, name) for index in range(local + 1)] == [True] * local + [False]
    with pytest.raises(DynsplitError, match=f"engine '{name}' was given, but this part is ready on eager"):
        rounded.head(0, name)


def test_one_side_may_convert_only_its_own_parts() -> None:
    split = new_split('squeezenet1_1')
    split.add_engine('eager', 'bfloat16', tails=False)
    assert split.has_head(1, 'eager-bfloat16') and not split.has_tail(1, 'eager-bfloat16')
    with pytest.raises(DynsplitError, match='ready on'):
        split.tail(1, 'eager-bfloat16')


@pytest.mark.parametrize('hold', [True, False])
def test_parts_are_converted_for_runs_of_several_images_and_held_if_wanted(hold: bool, monkeypatch) -> None:
    split, several = new_split('squeezenet1_1'), []
    held = weakref.WeakSet()

    def watched(name, part, example, options):
        assert hold or not held, 'the memory of another part is not free'
        several.append(options.several)
        held.add(run := partial(part))
        return run

    monkeypatch.setattr(partition, 'convert', watched)
    assert split.add_engine('eager', 'bfloat16', tails=False, several=True, hold=hold) == {}
    assert set(several) == {True}
    assert split.has_head(1, 'eager-bfloat16') is hold and ('eager-bfloat16' in split.engines) is hold


def test_eager_stays_exact_beside_another_engine(rounded) -> None:
    whole = rounded.whole(image())['logits']
    for cut in rounded.cuts:
        assert torch.equal(rounded.tail(cut)(rounded.head(cut)(image()))['logits'], whole)


def test_a_part_that_an_engine_cannot_run_is_named_and_the_others_are_ready(monkeypatch) -> None:
    convert = partition.convert
    calls = []

    def fail_once(name, part, example, options):
        calls.append(name)
        if len(calls) == 2:
            raise DynsplitError('operation aten::odd is not supported')
        return convert(name, part, example, options)

    monkeypatch.setattr(partition, 'convert', fail_once)
    split = new_split('squeezenet1_1')
    failed = split.add_engine('eager', 'bfloat16', tails=False)
    assert failed == {f'head of {split.cuts[2].name}': 'operation aten::odd is not supported'}
    assert split.has_head(1, 'eager-bfloat16') and not split.has_head(2, 'eager-bfloat16')


def test_an_engine_that_fails_in_its_first_run_is_not_ready(monkeypatch) -> None:
    from dynsplit_ros.engines import eager

    def fails(*_):
        raise RuntimeError('no kernel image\nand forty more lines')

    monkeypatch.setattr(eager, 'convert', lambda *_: fails)
    split = new_split('squeezenet1_1')
    failed = split.add_engine('eager', 'bfloat16', heads=False)
    assert len(failed) == split.local_index and split.engines == (EAGER,)
    assert next(iter(failed.values())) == (
        "engine 'eager' cannot run this part of the network: no kernel image; use engine 'eager'"
    )


def test_a_second_process_reads_the_conversions_from_the_cache(converted, monkeypatch) -> None:
    engine, first, folder = converted
    monkeypatch.setattr(torch.export, 'export', None)  # whoever exports again fails
    second = new_split('squeezenet1_1')
    assert second.add_engine(engine, heads=False, cache=folder) == {}
    activation = second.head(1)(image())
    assert torch.equal(second.tail(1, engine)(activation)['logits'], first.tail(1, engine)(activation)['logits'])


def test_other_weights_have_other_conversions(tmp_path) -> None:
    needs('openvino')
    whole = []
    for seed in (0, 1):
        split = SplitModel(load_model('squeezenet1_1', weights='none', input_size=SIZE, seed=seed))
        split.add_engine('openvino', tails=False, cache=tmp_path)
        torch.testing.assert_close(
            split.head(split.local_index, 'openvino')(image())['logits'],
            split.whole(image())['logits'],
            rtol=1e-4,
            atol=1e-4,
        )
        whole.append(split.whole(image())['logits'])
    assert not torch.equal(*whole)


def test_a_head_that_is_not_wanted_any_more_does_not_start(rounded) -> None:
    with pytest.raises(Interrupted):
        rounded.head(2, 'eager-bfloat16')(image(), lambda: True)
    assert rounded.head(2, 'eager-bfloat16')(image(), lambda: False)


def test_a_detector_keeps_the_types_of_its_outputs_on_another_precision() -> None:
    split = SplitModel(load_model('fasterrcnn_mobilenet_v3_large_320_fpn', weights='none', input_size=(64, 64)))
    failed = split.add_engine('eager', 'bfloat16', heads=False)
    whole = split.whole(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    for cut in split.cuts[:-1]:
        if split.has_tail(cut, 'eager-bfloat16'):
            activation = split.head(cut)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
            outputs = split.tail(cut, 'eager-bfloat16')(activation)
            assert {name: value.dtype for name, value in outputs.items()} == {
                name: value.dtype for name, value in whole.items()
            }
        else:
            assert f'tail of {cut.name}' in failed
