# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Real nodes with another engine than eager: they convert their parts, use it as the bound allows, and name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conftest import expected_digest, Observer, PATIENT, ROBOT, System, wait
import psutil
import pytest

from dynsplit_ros.engines import ENGINES
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure

pytestmark = pytest.mark.timeout(300)
#: Longest wait for a conversion on a busy machine, in seconds.
CONVERTED_S = 240.0


def profiled(model_parameters: dict[str, object], folder: Path, engine: str, precision: str) -> dict[str, object]:
    """Return the parameters of nodes that find their conversions and a profile of them in ``folder``."""
    split = SplitModel(load_model('mobilenet_v2', weights='none', input_size=(64, 64)))
    assert split.add_engine(engine, precision, cache=folder / 'dynsplit_ros' / 'engines') == {}
    profile = measure(split, codecs=['raw'], repeats=1, warm_up=1)
    # Whatever else this machine does now, the engine counts as faster.
    faster = tuple(
        replace(
            cut,
            **{
                key: {name: {1: 0.1 * getattr(cut, part)[1]} for name in getattr(cut, key)}
                for part, key in (('head_s', 'engine_head_s'), ('tail_s', 'engine_tail_s'))
            },
        )
        for cut in profile.cuts
    )
    replace(profile, cuts=faster).save(folder / 'profile.yaml')
    return {**model_parameters, 'engine': engine, 'precision': precision, 'profile': str(folder / 'profile.yaml')}


@pytest.mark.parametrize(
    'engine, precision, name', [('openvino', 'float32', 'openvino'), ('eager', 'bfloat16', 'eager-bfloat16')]
)
def test_nodes_use_an_engine_where_the_bound_allows_it_and_name_it(
    processes,
    ros: Callable,
    model_parameters: dict[str, object],
    tmp_path: Path,
    monkeypatch,
    engine: str,
    precision: str,
    name: str,
) -> None:
    for package in ENGINES[engine].packages:
        pytest.importorskip(package, reason=f'engine {engine} is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    running = System(
        processes,
        ros,
        profiled(model_parameters, tmp_path, engine, precision),
        monitor={'min_agreement': 0.0, 'pinned_split': 2, **PATIENT},
    )
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
    processes, model_parameters: dict[str, object]
) -> None:
    processes.start('node', 'edge_node', 'edge', {**model_parameters, 'engine': 'onnxruntime', 'precision': 'bfloat16'})

    def said(text: str) -> bool:
        return processes.log('node').exists() and text in processes.log('node').read_text()

    wait(lambda: said('serving mobilenet_v2'), 'the node does not serve')
    assert said("engine 'onnxruntime'") and said('these parts run on eager, because engine_fallback is true')


@pytest.mark.timeout(600)
def test_nodes_work_on_eager_until_their_parts_are_converted_and_then_use_the_engine(
    processes, ros: Callable, split: SplitModel, model_parameters: dict[str, object], tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip('openvino', reason='engine openvino is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    whole = SplitModel(split.model, cut=False)  # one part for each side
    profile = measure(whole, codecs=['raw'], repeats=1, warm_up=1)
    fast = {'openvino': {1: 1e-4}}  # whatever else this machine does now, the engine counts as faster
    first, last = profile.cuts
    replace(profile, cuts=(replace(first, engine_tail_s=fast), replace(last, engine_head_s=fast))).save(
        tmp_path / 'profile.yaml'
    )
    running = System(
        processes,
        ros,
        {**model_parameters, 'engine': 'openvino', 'cut': False, 'profile': str(tmp_path / 'profile.yaml')},
        monitor={'min_agreement': 0.0, 'pinned_split': 0, **PATIENT},
    )
    running.wait_for_edge()
    for prediction in running.observer.predictions:
        if prediction.timing.tail_engine == 'eager':
            assert prediction.output_digest == expected_digest(split, prediction.header.stamp.sec)
    wait(
        lambda: running.observer.send_and_wait().timing.tail_engine == 'openvino',
        'the edge converted no tail',
        CONVERTED_S,
    )
    wait(lambda: running.observer.decisions[-1].local_engine == 'openvino', 'the robot converted no head', CONVERTED_S)
    edge = processes.log('edge').read_text()
    assert edge.index('serving mobilenet_v2') < edge.index('the tails on openvino are ready')


def test_a_node_that_ends_during_a_conversion_ends_the_conversion(
    processes, model_parameters: dict[str, object], tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip('openvino', reason='engine openvino is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    processes.start('node', 'edge_node', 'edge', {**model_parameters, 'engine': 'openvino'})
    wait(
        lambda: 'a separate process converts them' in processes.log('node').read_text(),
        'the node converts nothing',
        CONVERTED_S,
    )
    node = psutil.Process(processes.pid('node'))
    wait(node.children, 'the node has no process that converts')
    children = node.children()
    assert processes.stop('node', within_s=60.0) == 0
    assert not psutil.wait_procs(children, timeout=60.0)[1]


def test_a_conversion_that_fails_is_a_warning_and_the_node_stays_on_eager(
    processes, ros: Callable, split: SplitModel, model_parameters: dict[str, object], tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip('openvino', reason='engine openvino is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    processes.start('camera', 'camera_node', ROBOT, {**model_parameters, 'engine': 'openvino'})

    def said(text: str) -> bool:
        return text in processes.log('camera').read_text()

    wait(lambda: said('a separate process converts them'), 'the node converts nothing', CONVERTED_S)
    node = psutil.Process(processes.pid('camera'))
    wait(node.children, 'the node has no process that converts')
    for child in node.children():
        child.kill()
    wait(lambda: said('the heads were not converted to openvino'), 'the node does not warn', CONVERTED_S)
    observer = ros(Observer())
    wait(observer.images.get_subscription_count, 'the camera does not listen to the images')
    wait(lambda: observer.count_publishers('prediction'), 'the camera offers no predictions')
    observer.settle()
    prediction = observer.send_and_wait()
    assert prediction.timing.head_engine == 'eager'
    assert prediction.output_digest == expected_digest(split, prediction.header.stamp.sec)
