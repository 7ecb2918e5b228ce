# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Real nodes with another engine than eager: they convert their parts, use it as the bound allows, and name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conftest import PATIENT, System, wait
import pytest

from dynsplit_ros.engines import ENGINES
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure

pytestmark = pytest.mark.timeout(300)


def profiled(model_parameters: dict[str, object], folder: Path, engine: str, precision: str) -> dict[str, object]:
    """Return the parameters of nodes that find their conversions and a profile of them in ``folder``."""
    split = SplitModel(load_model('mobilenet_v2', weights='none', input_size=(64, 64)))
    assert split.add_engine(engine, precision, cache=folder / 'dynsplit_ros' / 'engines') == {}
    profile = measure(split, codecs=['raw'], repeats=1, warm_up=1)
    # Whatever else this machine does now, the engine counts as faster.
    faster = tuple(replace(cut, **{key: {name: {1: 0.1 * getattr(cut, part)[1]} for name in getattr(cut, key)}
                                   for part, key in (('head_s', 'engine_head_s'), ('tail_s', 'engine_tail_s'))})
                   for cut in profile.cuts)
    replace(profile, cuts=faster).save(folder / 'profile.yaml')
    return {**model_parameters, 'engine': engine, 'precision': precision, 'profile': str(folder / 'profile.yaml')}


@pytest.mark.parametrize('engine, precision, name', [
    ('openvino', 'float32', 'openvino'), ('eager', 'bfloat16', 'eager-bfloat16')])
def test_nodes_use_an_engine_where_the_bound_allows_it_and_name_it(
        processes, ros: Callable, model_parameters: dict[str, object], tmp_path: Path, monkeypatch, engine: str,
        precision: str, name: str) -> None:
    for package in ENGINES[engine].packages:
        pytest.importorskip(package, reason=f'engine {engine} is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    running = System(processes, ros, profiled(model_parameters, tmp_path, engine, precision),
                     monitor={'min_agreement': 0.0, 'pinned_split': 2, **PATIENT})
    running.wait_for_edge()
    timing, decision = running.observer.predictions[-1].timing, running.observer.decisions[-1]
    assert (timing.split_index, timing.head_engine, timing.tail_engine) == (2, name, name)
    assert (decision.head_engine, decision.tail_engine, decision.local_engine) == (name,) * 3
    assert {one.head_engine for one in decision.candidates if one.split_index > 0} == {name}
    # A bound that nothing shows takes the engine away, and the log says why.
    running.processes.stop('monitor')
    running.monitor_parameters = {'pinned_split': 2, **PATIENT}
    running.start_monitor()
    wait(lambda: running.observer.send_and_wait().timing.head_engine == 'eager', 'the engine is still used')
    assert f'engine {name} is ready, but not used' in processes.log('monitor').read_text()


def test_eager_takes_the_place_of_an_engine_that_cannot_be_used_with_a_warning(
        processes, model_parameters: dict[str, object]) -> None:
    processes.start('node', 'edge_node', 'edge', {
        **model_parameters, 'engine': 'onnxruntime', 'precision': 'bfloat16'})

    def said(text: str) -> bool:
        return processes.log('node').exists() and text in processes.log('node').read_text()

    wait(lambda: said('serving mobilenet_v2'), 'the node does not serve')
    assert said("engine 'onnxruntime'") and said('these parts run on eager, because engine_fallback is true')
