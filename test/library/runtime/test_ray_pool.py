# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Replicas on a Ray cluster of this machine: their answers, their ends, and clusters that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
import math
import os
from pathlib import Path
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from worlds import outputs_of, wait_until

from dynsplit_ros.codec import encode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.edge import EdgeSettings, PrepareTail, RunTail
from dynsplit_ros.policies.records import EdgeFrame, Status
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime import ray_pool, replica
from dynsplit_ros.runtime.edge import Edge
from dynsplit_ros.runtime.ray_pool import parse_resources, RayPool
from dynsplit_ros.runtime.replica import ModelOnReplica

ROOT = str(Path(__file__).parents[3])
SIDE = 32
#: Longest wait, in seconds, for a replica: a process that imports PyTorch, on a machine with a load of 8.
READY_S = 240.0
pytestmark = pytest.mark.timeout(900)


class Answers:
    """What an edge does to the world: keeps its answers, faults and the latest number of servers."""

    def __init__(self) -> None:
        self.frames: list[EdgeFrame] = []
        self.faults: list[str] = []
        self.profiles: list[Profile] = []
        self.servers = -1

    def acknowledge(self, frame: EdgeFrame) -> None:
        pass

    def answer(self, frame: EdgeFrame) -> None:
        self.frames.append(frame)

    def report_load(self, report, queueing_s) -> None:
        self.servers = report.servers

    def keep_profile(self, profile: Profile) -> None:
        self.profiles.append(profile)

    def fault(self, reason: str) -> None:
        self.faults.append(reason)


@pytest.fixture(scope='module')
def split() -> SplitModel:
    return SplitModel(load_model('mobilenet_v2', weights='none', input_size=(SIDE, SIDE)))


@pytest.fixture(scope='module')
def tails():
    """Replicas whose tails sleep, for this process and for Ray's."""
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [before, ROOT]))
    sys.path.append(ROOT)
    from testing.tails import SleepingTails

    yield SleepingTails
    sys.path.remove(ROOT)
    os.environ.pop('PYTHONPATH')
    if before is not None:
        os.environ['PYTHONPATH'] = before


@pytest.fixture(scope='module')
def cluster(tails) -> Iterator:
    pytest.importorskip('ray')
    from ray.cluster_utils import Cluster

    os.environ |= {'RAY_USAGE_STATS_ENABLED': '0', 'RAY_worker_niceness': '0'}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_AUTH_MODE', 'disabled')
        made = Cluster(
            initialize_head=True,
            head_node_args={'num_cpus': 3, 'include_dashboard': False, 'object_store_memory': 2**27},
        )
        yield made
        made.shutdown()


@pytest.fixture
def opened(split) -> Iterator:
    """Open edges with pools, and close them in the end."""
    edges: list[Edge] = []

    def open_edge(make, **options) -> tuple[Edge, Answers]:
        answers = Answers()
        edge = Edge(
            split, answers, settings=EdgeSettings(load_period_s=0.05, max_waiting=8), servers=RayPool(make, **options)
        )
        edges.append(edge)
        return edge, answers

    yield open_edge
    for edge in edges:
        edge.close(20.0)


def frame(split: SplitModel, robot: str = 'a', **changes) -> EdgeFrame:
    image = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (1, 3, SIDE, SIDE), np.uint8))
    return EdgeFrame(
        **{
            'robot': robot,
            'source': None,
            'fingerprint': split.fingerprint,
            'split_index': 0,
            'codec': 'raw',
            'answer_timeout_s': 60.0,
            'payload': encode('raw', {split.cuts[0].tensors[0].name: image}),
            **changes,
        }
    )


def replicas() -> list[int]:
    """Return the processes of the replicas."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any('ray::Replica' in word for word in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            pass
    return found


def test_a_replica_answers_as_this_process_does_and_measures_its_machine(
    split, cluster, opened, tmp_path, monkeypatch
) -> None:
    edge, answers = opened(ModelOnReplica(split.model, {}, split.fingerprint, threads=1), address=cluster.address)
    wait_until(lambda: answers.servers == 1, f'no replica: {answers.faults}', READY_S)
    assert [profile.fingerprint for profile in answers.profiles] == [split.fingerprint]
    sent = frame(split)
    bad = frame(split, 'b', codec='pickle')
    edge.submit(sent)
    edge.submit(bad)
    wait_until(lambda: len(answers.frames) == 2)
    whole = split.whole(torch.from_numpy(np.random.default_rng(7).integers(0, 256, (1, 3, SIDE, SIDE), np.uint8)))
    outputs = outputs_of(sent)
    assert sent.status is Status.OK and all(torch.equal(outputs[name], whole[name]) for name in whole)
    assert 0 < sent.times.tail_s < sent.times.held_s
    assert bad.status is Status.REFUSED and 'pickle' in bad.reason
    assert not answers.faults


def test_frames_of_a_replica_that_is_killed_are_answered_by_another(split, cluster, opened, tails) -> None:
    edge, answers = opened(tails(service_s=1.0), address=cluster.address, minimum=2, maximum=2)
    wait_until(lambda: answers.servers == 2, f'no replicas: {answers.faults}', READY_S)
    frames = [frame(split, robot) for robot in 'abcd']
    for each in frames:
        edge.submit(each)
    os.kill(replicas()[0], signal.SIGKILL)
    wait_until(lambda: len(answers.frames) == 4)
    assert [each.status for each in frames] == [Status.OK] * 4
    wait_until(lambda: answers.servers == 2, 'the replica does not come back', READY_S)
    os.kill(replicas()[1], signal.SIGKILL)
    wait_until(lambda: answers.servers == 1, 'the end of an idle replica is not noticed')
    wait_until(lambda: answers.servers == 2, 'the replica does not come back', READY_S)


def test_without_any_replica_left_frames_are_answered_at_once(split, cluster, opened, tails) -> None:
    edge, answers = opened(tails(service_s=30.0), address=cluster.address)
    wait_until(lambda: answers.servers == 1, f'no replica: {answers.faults}', READY_S)
    running, waiting = frame(split), frame(split, 'b')
    edge.submit(running)
    edge.submit(waiting)
    os.kill(replicas()[0], signal.SIGKILL)
    wait_until(lambda: len(answers.frames) == 2)
    assert running.status is waiting.status is Status.REFUSED and 'no capacity' in running.reason


def test_replicas_follow_the_load(split, cluster, opened, tails) -> None:
    edge, answers = opened(tails(service_s=0.2), address=cluster.address, minimum=1, maximum=3)
    wait_until(lambda: answers.servers == 1, f'no replica: {answers.faults}', READY_S)
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.1):
            for robot in 'abc':
                edge.submit(frame(split, robot))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        wait_until(lambda: answers.servers == 3, 'the pool does not grow', READY_S)
    finally:
        done.set()
        sender.join()


def test_a_machine_that_joins_is_used_and_the_error_before_names_the_resources(
    cluster, opened, tails, monkeypatch
) -> None:
    monkeypatch.setattr(ray_pool, 'START_S', 0.1)
    _, answers = opened(tails(), address=cluster.address, resources={'CPU': 1.0, 'arm': 1.0})
    wait_until(lambda: answers.faults, within_s=READY_S)
    assert answers.faults == [
        'no machine of the cluster has the replica_resources CPU 1, arm 1; add a machine, or ask for less'
    ]
    wait_until(lambda: answers.servers == 0)
    node = cluster.add_node(num_cpus=1, resources={'arm': 1}, object_store_memory=2**27)
    try:
        wait_until(lambda: answers.servers == 1, 'the new machine is not used', READY_S)
    finally:
        cluster.remove_node(node)


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda tails: tails(fails='no such operator'), r'cannot load the model \(RuntimeError: no such operator\)'),
        (lambda tails: ModelOnReplica(None, {}, 'f00d'), r'cannot load the model \(AttributeError'),
    ],
)
def test_a_replica_that_cannot_load_the_model_leaves_an_edge_without_capacity(
    cluster, opened, tails, split, make, words
) -> None:
    edge, answers = opened(make(tails), address=cluster.address)
    wait_until(lambda: answers.faults, within_s=READY_S)
    assert len(answers.faults) == 1 and '\n' not in answers.faults[0]
    assert re.search(words, answers.faults[0]), answers.faults
    edge.submit(late := frame(split))
    wait_until(lambda: answers.frames)
    assert late.status is Status.REFUSED and 'cannot load the model' in late.reason and answers.servers == 0


def test_a_model_that_another_version_cuts_elsewhere_is_refused(split, cluster, opened) -> None:
    _, answers = opened(ModelOnReplica(split.model, {}, 'f00dfeed'), address=cluster.address)
    wait_until(lambda: answers.faults, within_s=READY_S)
    assert 'on the replica, but f00dfeed on the edge; install the same versions' in answers.faults[0]


def test_a_cluster_that_cannot_be_reached_leaves_an_edge_without_capacity(opened, tails, split, monkeypatch) -> None:
    pytest.importorskip('ray')
    edge, answers = opened(tails(), address='127.0.0.1:9')
    wait_until(lambda: answers.faults, within_s=READY_S)
    assert answers.faults[0].startswith('the Ray cluster at 127.0.0.1:9 cannot be used (')
    assert answers.faults[0].endswith('start it with ray start --head, or correct ray_address')
    edge.submit(late := frame(split))
    wait_until(lambda: answers.frames)
    assert late.status is Status.REFUSED and 'cannot be used' in late.reason


def test_without_ray_the_sentence_names_the_command(opened, split, tails, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'ray', None)
    edge, answers = opened(tails())
    wait_until(lambda: answers.faults, within_s=READY_S)
    assert answers.faults == ["engine_pool is 'ray', but Ray is not installed; " + ray_pool.PIP]
    edge.submit(late := frame(split))
    wait_until(lambda: answers.frames)
    assert late.status is Status.REFUSED and 'not installed' in late.reason


LOCAL_CLUSTER = """
import sys
sys.path[:1] = sys.argv[1:]
import psutil, torch
import test_ray_pool
from testing.tails import SleepingTails
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.runtime.edge import Edge
from dynsplit_ros.runtime.ray_pool import RayPool
from worlds import wait_until
split = SplitModel(load_model('mobilenet_v2', weights='none', input_size=(32, 32)))
answers = test_ray_pool.Answers()
edge = Edge(split, answers, settings=test_ray_pool.EdgeSettings(load_period_s=0.05), servers=RayPool(SleepingTails()))
wait_until(lambda: answers.servers == 1, 'no replica', 240.0)
processes = psutil.Process().children(recursive=True)
print('LISTENING', *sorted({connection.laddr.ip for process in processes for connection in process.net_connections()
                            if connection.status == psutil.CONN_LISTEN}))
edge.submit(sent := test_ray_pool.frame(split))
wait_until(lambda: answers.frames)
print('STATUS', sent.status.name)
edge.close(20.0)
print('ALIVE', len(psutil.wait_procs(processes, 60.0)[1]))
"""


def test_a_local_cluster_listens_on_localhost_only_and_ends_with_the_edge() -> None:
    """In a process of its own: Ray reads its settings at its first import."""
    pytest.importorskip('ray')
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parent), ROOT]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([*filter(None, [os.environ.get('PYTHONPATH')]), ROOT])}
    done = subprocess.run(
        [sys.executable, '-c', LOCAL_CLUSTER, *folders], capture_output=True, text=True, timeout=500, env=environment
    )
    said = dict(line.split(' ', 1) for line in done.stdout.splitlines() if line.split(' ', 1)[0].isupper())
    assert said.get('STATUS') == 'OK' and said.get('ALIVE') == '0', done.stdout + done.stderr
    assert set(said['LISTENING'].split()) <= {'127.0.0.1', '::1', '::ffff:127.0.0.1'}


@pytest.mark.parametrize('text', ['', '[]', '{"CPU": "many"}', '{"GPU": -1}', '{"GPU": true}', '{"GPU": NaN}', '{'])
def test_resources_that_are_no_amounts_are_refused(text) -> None:
    with pytest.raises(DynsplitError, match='must be a JSON object of amounts'):
        parse_resources(text)


def test_resources_are_amounts_by_name() -> None:
    assert parse_resources('{"GPU": 0.5, "CPU": 2, "none": 0}') == {'GPU': 0.5, 'CPU': 2.0}


# ---- without Ray: its calls are replaced -------------------------------------------------------------------------


class RayError(Exception):
    pass


class GetTimeoutError(RayError):
    pass


class UnavailableError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class FakeRay:
    """
    Stands in for Ray: ``starts`` and ``runs`` say when a replica is ready and when its run ends.

    ``starts`` holds one event for each replica, in the order of their creation; replicas after those never start.
    """

    def __init__(self, ready: int = 1) -> None:
        self.starts = [threading.Event() for _ in range(ready)]
        for event in self.starts:
            event.set()
        self.loads, self.run_ends = threading.Event(), threading.Event()
        self.loads.set()
        self.has_model = False  # the newest replica's
        self.load_error = ''
        self.waits = 0  # calls that were not answered in time
        self.created: list[SimpleNamespace] = []
        self.killed: list[SimpleNamespace] = []
        self.asked: list[dict] = []
        self.calls: list[str] = []
        self.exceptions = SimpleNamespace(
            RayError=RayError,
            GetTimeoutError=GetTimeoutError,
            ActorUnavailableError=UnavailableError,
            RayTaskError=RayTaskError,
        )
        self.cloudpickle = SimpleNamespace(dumps=lambda made: b'model')
        self.on_init = lambda: None
        self.on_shutdown = lambda: None
        self.has_head = True
        self.connections: list[OSError | None] = []  # how the next ones to the head fail, or None
        self.broken_contexts = 0
        self.broken_gets = 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **options) -> None:
        self.calls.append('init')
        self.on_init()

    def shutdown(self) -> None:
        self.calls.append('shutdown')
        self.on_shutdown()

    def get_runtime_context(self) -> SimpleNamespace:
        if self.broken_contexts:
            self.broken_contexts -= 1
            raise RuntimeError('no head')
        return SimpleNamespace(gcs_address='head:6379')

    def reach(self, address: str) -> None:
        if not self.has_head:
            raise ConnectionRefusedError('Connection refused')
        if self.connections and (error := self.connections.pop(0)):
            raise error

    def put(self, blob) -> str:
        return 'blob'

    def remote(self, cls) -> SimpleNamespace:
        def options(**asked) -> SimpleNamespace:
            self.asked.append(asked)
            return SimpleNamespace(remote=self._create)

        return SimpleNamespace(options=options)

    def _create(self, blob) -> SimpleNamespace:
        start = self.starts[len(self.created)] if len(self.created) < len(self.starts) else threading.Event()
        actor = SimpleNamespace(
            started=SimpleNamespace(remote=lambda: (start, None)),
            ready=SimpleNamespace(remote=lambda measures: (self.loads if start.is_set() else start, self._load())),
            has_loaded=SimpleNamespace(remote=lambda: (start, self.has_model)),
            run=SimpleNamespace(
                remote=lambda tail, payloads: (
                    (self.run_ends, ([], 0.1)) if self.has_model else (start, RayTaskError(replica.NotLoadedError()))
                )
            ),
            prepare=SimpleNamespace(remote=lambda tail, images: None),
        )
        self.created.append(actor)
        return actor

    def _load(self) -> tuple[str, None]:
        self.has_model = not self.load_error
        return self.load_error, None

    def get(self, answer, timeout=None):
        event, value = answer
        if not event.wait(None if timeout is None else min(timeout, 0.05)):
            self.waits += 1
            raise GetTimeoutError
        if self.broken_gets:
            self.broken_gets -= 1
            raise ValueError('not an error of Ray')
        if isinstance(value, Exception):
            raise value
        return value

    def nodes(self) -> list:
        return []

    def kill(self, actor) -> None:
        self.killed.append(actor)


class FakeEdge:
    """Keeps what a pool tells its edge."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.faults: list[str] = []
        self.lost: list[RunTail] = []
        self.failed: list[RunTail] = []

    def on_servers(self, count: int, reason: str = '') -> None:
        self.counts.append(count)

    def on_fault(self, reason: str) -> None:
        self.faults.append(reason)

    def on_server_lost(self, run: RunTail) -> None:
        self.lost.append(run)

    def on_run_failed(self, run: RunTail, error: Exception) -> None:
        self.failed.append(run)

    def on_results(self, run: RunTail, results, tail_s: float) -> None:
        pass

    def on_prepared(self, did: bool) -> None:
        pass


@pytest.fixture
def fake_ray(monkeypatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, 'ray', fake)
    monkeypatch.setattr(ray_pool, 'RETRY_S', 0.05)
    monkeypatch.setattr(ray_pool, 'IDLE_S', 0.05)
    monkeypatch.setattr(ray_pool, '_sendable', lambda run: [])
    monkeypatch.setattr(ray_pool, '_reach', fake.reach)
    return fake


@pytest.fixture
def pools() -> Iterator:
    """Open pools for fake edges, and close them in the end."""
    made: list[RayPool] = []

    def open_pool(edge, **options) -> RayPool:
        pool = RayPool(lambda: None, has_profile=True, **options)
        made.append(pool)
        pool.start(edge)
        return pool

    yield open_pool
    for pool in made:
        pool.close(time.monotonic() + 5.0)


def report(queue_length: int, servers: int, period_s: float = 100.0) -> LoadReport:
    return LoadReport(1, 1, 0.0, queue_length, 0.0, 1.0, period_s=period_s, servers=servers)


def a_run() -> RunTail:
    return RunTail((SimpleNamespace(tail=(0, 'eager')),), 0.0)


def test_the_edge_may_call_the_pool_from_any_thread_while_it_takes_the_number_of_servers(fake_ray) -> None:
    class BusyEdge(FakeEdge):
        def on_servers(self, count: int, reason: str = '') -> None:
            calls = [
                threading.Thread(target=call, daemon=True)
                for call in (lambda: pool.prepare(PrepareTail(0, 'eager', 1)), lambda: pool.on_load(report(0, count)))
            ]
            for call in calls:
                call.start()
            for call in calls:
                call.join(10.0)
            if not any(call.is_alive() for call in calls):
                super().on_servers(count, reason)

    pool = RayPool(lambda: None, has_profile=True)
    edge = BusyEdge()
    pool.start(edge)
    wait_until(lambda: edge.counts == [1], 'the pool and its edge wait for each other')
    pool.close(time.monotonic() + 5.0)
    assert edge.counts == [1, 0]


def test_why_a_replica_does_not_start_does_not_hide_one_that_became_ready_meanwhile(fake_ray, pools) -> None:
    class Slow(FakeEdge):
        def on_fault(self, reason: str) -> None:
            fake_ray.starts[0].set()  # between the reason and the number
            wait_until(lambda: 1 in self.counts)

    fake_ray.starts[0].clear()
    edge = Slow()
    pool = pools(edge)
    pool._explain('no machine has a GPU')
    assert edge.counts == [1]


def test_a_pool_that_closes_while_it_connects_leaves_the_cluster(fake_ray, pools) -> None:
    connecting, closed = threading.Event(), threading.Event()

    def connect() -> None:
        connecting.set()
        closed.wait(30.0)

    fake_ray.on_init = connect
    pool = pools(FakeEdge())
    assert connecting.wait(30.0)
    pool.close(time.monotonic())
    closed.set()
    wait_until(lambda: fake_ray.calls == ['init', 'shutdown', 'shutdown'], 'the cluster stays')
    assert not fake_ray.created and os.environ['RAY_ENABLE_AUTO_CONNECT'] == '0'


def test_fewer_replicas_end_one_that_cannot_start_before_one_that_is_ready(fake_ray, pools) -> None:
    edge = FakeEdge()
    pool = pools(edge, maximum=2)
    wait_until(lambda: edge.counts == [1])
    pool.on_load(report(1, 1))
    wait_until(lambda: len(fake_ray.created) == 2)
    pool.on_load(report(0, 1, 1e6))
    wait_until(lambda: fake_ray.killed == fake_ray.created[1:], 'the replica that cannot start stays')
    assert edge.counts == [1]


def test_runs_that_wait_when_the_last_replica_ends_are_given_back(fake_ray, pools) -> None:
    edge = FakeEdge()
    pool = pools(edge)
    wait_until(lambda: edge.counts == [1])
    runs = [a_run(), a_run()]
    fake_ray.starts[0].clear()  # it does not answer any more
    fake_ray.broken_gets = 1
    pool.run(runs[0])
    pool.run(runs[1])
    fake_ray.run_ends.set()
    wait_until(lambda: len(edge.lost) == 2, 'frames are never answered')
    assert {id(run) for run in edge.lost} == {id(run) for run in runs}


def test_runs_that_no_replica_has_taken_are_given_back_at_the_close(fake_ray, pools) -> None:
    edge = FakeEdge()
    pool = pools(edge)
    wait_until(lambda: edge.counts == [1])
    runs = [a_run(), a_run()]
    for run in runs:
        pool.run(run)  # the first one hangs
    pool.close(time.monotonic())
    wait_until(lambda: len(edge.lost) == 2, 'a replica that hangs holds its frames for ever')


def test_a_close_without_a_time_limit_gives_back_the_runs_that_wait(fake_ray, pools) -> None:
    edge = FakeEdge()
    pool = pools(edge)
    wait_until(lambda: edge.counts == [1])
    late = a_run()
    fake_ray.on_shutdown = lambda: pool.run(late)  # no replica is left to take it
    pool.close(math.inf)
    assert edge.lost == [late] and fake_ray.calls == ['init', 'shutdown']


def test_a_replica_comes_back_after_an_unexpected_error(fake_ray, pools) -> None:
    edge = FakeEdge()
    pools(edge)
    wait_until(lambda: edge.counts == [1])
    fake_ray.starts.append(fake_ray.starts[0])
    fake_ray.broken_gets = 1
    wait_until(lambda: 0 in edge.counts and edge.counts[-1] == 1, 'the replica is not replaced')
    assert edge.faults == ['a replica ended (not an error of Ray)'] and len(fake_ray.created) == 2


def test_a_model_that_cannot_be_pickled_is_named_as_the_cause(fake_ray, pools) -> None:
    def fail(made) -> None:
        raise TypeError('cannot pickle a lock')

    fake_ray.cloudpickle.dumps = fail
    edge = FakeEdge()
    pools(edge)
    wait_until(lambda: edge.counts == [0])
    assert edge.faults == [
        'the model cannot be sent to replicas (cannot pickle a lock); make it one that can be '
        "pickled, or use engine_pool 'none'"
    ]
    assert 'init' not in fake_ray.calls


def test_payloads_of_up_to_1_mb_travel_in_the_call(fake_ray, pools, monkeypatch) -> None:
    monkeypatch.delenv('RAY_max_direct_call_object_size', raising=False)
    edge = FakeEdge()
    pools(edge)
    wait_until(lambda: edge.counts == [1])
    assert os.environ['RAY_max_direct_call_object_size'] == '1000000'


@pytest.mark.parametrize(
    'address, sentence',
    [
        (
            'head:6379',
            'the Ray cluster at head:6379 cannot be used (Connection refused); start it with ray start --head, '
            'or correct ray_address',
        ),
        ('', 'the local Ray cluster cannot be used (Connection refused); the edge starts it again'),
    ],
)
def test_a_pool_serves_again_when_there_is_another_head(fake_ray, pools, address, sentence) -> None:
    edge = FakeEdge()
    fake_ray.starts *= 4
    pool = pools(edge, address=address, minimum=2)
    wait_until(lambda: edge.counts[-1:] == [2])
    run = a_run()
    pool.run(run)
    if not address:  # a local cluster has a head as soon as it starts
        fake_ray.on_init = lambda: setattr(fake_ray, 'has_head', True)
    fake_ray.has_head = False
    wait_until(lambda: 0 in edge.counts, 'the edge has replicas without a cluster')
    wait_until(lambda: edge.lost == [run], 'a frame is never answered')
    fake_ray.has_head = True
    wait_until(lambda: edge.counts[-1] == 2, 'the pool does not come back')
    assert edge.faults == [sentence] and fake_ray.calls[:2] == ['init', 'shutdown'] and 'init' in fake_ray.calls[2:]


def test_a_replica_that_ray_has_started_again_loads_the_model_before_it_runs_a_tail(
    fake_ray, pools, monkeypatch
) -> None:
    monkeypatch.setattr(ray_pool, 'IDLE_S', 10.0)  # the run comes before the question whether the replica lives
    edge = FakeEdge()
    pool = pools(edge)
    wait_until(lambda: edge.counts == [1])
    fake_ray.loads.clear()
    fake_ray.has_model = False
    run = a_run()
    pool.run(run)
    wait_until(lambda: edge.lost == [run], 'the frames wait for the model')
    assert edge.counts == [1, 0] and not edge.failed
    fake_ray.loads.set()
    wait_until(lambda: edge.counts == [1, 0, 1], 'the replica does not come back')
    assert len(fake_ray.created) == 1


def test_a_replica_that_cannot_load_the_model_again_has_no_capacity(fake_ray, pools) -> None:
    edge = FakeEdge()
    pools(edge)
    wait_until(lambda: edge.counts == [1])
    fake_ray.load_error, fake_ray.has_model = 'no such file', False
    wait_until(lambda: edge.faults, 'a replica without a model keeps its capacity')
    assert edge.counts[:2] == [1, 0]
    assert edge.faults == [
        'a replica cannot load the model (no such file); install what is missing on each machine of the cluster'
    ]
    wait_until(lambda: fake_ray.killed == fake_ray.created[:1])


def test_a_replica_runs_no_tail_before_it_has_loaded_the_model(tails) -> None:
    started = replica.Replica(np.frombuffer(pickle.dumps(tails()), np.uint8))
    assert not started.prepare((0, 'eager'), 1)
    with pytest.raises(replica.NotLoadedError):
        started.run((0, 'eager'), [])
    assert not started.has_loaded() and started.ready(False) == ('', None) and started.has_loaded()
    assert started.run((0, 'eager'), [])[0] == []


def test_two_slow_connections_to_the_head_do_not_end_the_replicas_but_three_do(fake_ray, pools) -> None:
    edge = FakeEdge()
    fake_ray.starts *= 2
    pools(edge)
    wait_until(lambda: edge.counts == [1])
    slow = TimeoutError('timed out')
    fake_ray.connections = [slow, slow, None, slow, slow, None]
    wait_until(lambda: not fake_ray.connections)
    assert edge.counts == [1] and not edge.faults
    fake_ray.connections = [slow] * 3
    wait_until(lambda: edge.counts == [1, 0, 1], 'the pool keeps replicas of a lost cluster')
    assert edge.faults == ['the local Ray cluster cannot be used (timed out); the edge starts it again']


def test_a_head_that_ends_just_after_the_connection_is_connected_to_again(fake_ray, pools) -> None:
    fake_ray.broken_contexts = 1
    edge = FakeEdge()
    pools(edge)
    wait_until(lambda: edge.counts[-1:] == [1], 'the pool does not connect again')
    assert edge.faults == ['the local Ray cluster cannot be used (no head); the edge starts it again']


def test_a_cluster_that_ray_cannot_leave_ends_neither_the_pool_nor_its_node(fake_ray, pools, monkeypatch) -> None:
    monkeypatch.setattr(ray_pool, 'LEAVE_S', 0.1)
    never = threading.Event()
    fake_ray.on_shutdown = never.wait
    edge = FakeEdge()
    pool = pools(edge)
    wait_until(lambda: edge.counts == [1])
    fake_ray.has_head = False
    wait_until(lambda: len(edge.faults) == 2)
    assert edge.faults[1] == 'the Ray cluster has ended, but this process cannot leave it; start the edge node again'
    assert edge.counts[-1] == 0 and pool.is_running
    closed = threading.Thread(target=lambda: pool.close(time.monotonic()), daemon=True)
    closed.start()
    closed.join(30.0)
    never.set()
    assert not closed.is_alive(), 'the node waits for Ray for ever'


def test_a_replica_that_loads_its_model_is_not_said_to_lack_resources(fake_ray, pools, monkeypatch) -> None:
    monkeypatch.setattr(ray_pool, 'START_S', 0.0)
    fake_ray.loads.clear()
    edge = FakeEdge()
    pools(edge)
    wait_until(lambda: fake_ray.waits > 3)
    fake_ray.loads.set()
    wait_until(lambda: edge.counts == [1])
    assert not edge.faults


@pytest.mark.parametrize('resources, cpus', [(None, 1.0), ({}, 0)])
def test_a_replica_reserves_one_cpu_unless_none_is_asked_for(fake_ray, pools, resources, cpus) -> None:
    edge = FakeEdge()
    pools(edge, resources=resources)
    wait_until(lambda: edge.counts == [1])
    assert [asked['num_cpus'] for asked in fake_ray.asked] == [cpus]
