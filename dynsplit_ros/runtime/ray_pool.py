# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
A pool of replicas on a Ray cluster, which run the tails of an edge.

Ray places the replicas, reserves their processors and GPUs, starts them again and asks its autoscaler for machines. The
edge calls each replica directly, from one thread for each, with one run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import math
import os
from queue import Empty, SimpleQueue
import socket
import threading
import time
from typing import Any

import numpy as np

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.edge import PrepareTail, RunTail
from dynsplit_ros.policies.pool_size import PoolSize
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime.edge import Edge, payloads_of
from dynsplit_ros.runtime.replica import NotLoadedError, Replica, Runner
from dynsplit_ros.runtime.tails import Payload

PIP = "pip install 'ray==2.60.*'"
#: Time after which the pool tries again to reach the cluster or to load the model, in seconds.
RETRY_S = 10.0
#: Time after which the pool reports why a replica does not start, in seconds. The pool continues to wait.
START_S = 10.0
#: Period, in seconds, with which the pool asks an idle replica whether it is alive. Without this, a frame would first
#: run into a lost replica.
IDLE_S = 1.0
#: Longest time in which a living replica answers that question, in seconds.
PING_S = 5.0
#: Longest time in which the head of a usable cluster accepts a connection, in seconds.
REACH_S = 5.0
#: Number of consecutive failed connections after which the head of the cluster counts as ended; one refused connection
#: is enough.
FAILURES = 3
#: Longest time in which the pool leaves a cluster, in seconds. Leaving a cluster without a head took 5.4 s.
LEAVE_S = 20.0
#: Payloads of up to this size, in bytes, travel in the call to a replica; Ray puts larger ones into its object store.
#: Ray's default is 100 kB. The store costs about 3 ms of processor time per call, which is more than further copies of
#: up to 1 MB cost.
INLINE_BYTES = 1_000_000
INLINE_VARIABLE = 'RAY_max_direct_call_object_size'
#: Memory of the local cluster's object store beside the model, in bytes, for payloads under way.
STORE_BYTES = 2**28


class _Retired(Exception):
    """A replica is not needed any more."""


class RayPool:
    """
    Servers of an :class:`~dynsplit_ros.runtime.edge.Edge` on the Ray cluster at ``address`` (empty: a local one).

    Each replica calls ``make``, which returns its runner. ``make`` and the profile of the runner must be picklable. The
    number of replicas follows the load from ``minimum`` to ``maximum``. Each replica reserves ``resources``: 'CPU',
    'GPU' and custom resources, by name. The first replica measures the profile unless ``has_profile``. The pool reports
    each error to the edge in one sentence, continues with fewer servers or none, and tries again. When the head of the
    cluster ends, the pool leaves the cluster and connects to the next one at the same address.
    """

    def __init__(
        self,
        make: Callable[[], Runner],
        *,
        address: str = '',
        minimum: int = 1,
        maximum: int = 1,
        resources: Mapping[str, float] | None = None,
        has_profile: bool = False,
    ) -> None:
        self.count = 0
        self._make = make
        self._address = address
        self._resources = {'CPU': 1.0} if resources is None else dict(resources)
        self._size = PoolSize(minimum, maximum)
        # The edge calls run, prepare and on_load while it holds its own lock or handles on_servers. So the pool never
        # holds this lock, which guards count, size, threads and actors, during a call of the edge.
        self._lock = threading.Lock()
        self._notifying = threading.Lock()  # orders the calls of on_servers; taken before the edge's lock and _lock
        self._closing, self._left = threading.Event(), threading.Event()
        self._lost = threading.Event()  # the head of the cluster has ended, so the threads of its replicas end
        self._deadline_s = math.inf  # for runs under way, once the pool closes
        self._runs: SimpleQueue[RunTail | None] = SimpleQueue()  # None ends or retires one thread
        self._threads: list[threading.Thread] = []
        self._surplus = 0  # threads that must end but have not taken their None yet
        self._profiled = threading.Lock()
        self._has_profile = has_profile
        self._actors: dict[int, Any] = {}  # those that are ready, by thread
        self._reason = ''
        self._class: Any = None  # of the actors; None without a cluster
        self._head = ''

    # ---- what the edge calls -------------------------------------------------------------------------------------

    def start(self, edge: Edge) -> None:
        """Connect to the cluster and start the replicas, in the background."""
        self._edge = edge
        threading.Thread(target=self._follow_cluster, name='cluster', daemon=True).start()

    def run(self, run: RunTail) -> None:
        """Pass a run to a free replica."""
        self._runs.put(run)

    def prepare(self, tail: PrepareTail) -> None:
        """Make all replicas prepare a tail after their present runs."""
        with self._lock:
            actors = list(self._actors.values())
        for actor in actors:
            actor.prepare.remote((tail.split_index, tail.engine), tail.images)
        threading.Thread(target=self._edge.on_prepared, args=(bool(actors),), daemon=True).start()

    def on_load(self, report: LoadReport) -> None:
        """Adapt the number of replicas to the load."""
        with self._lock:
            if self._class is None:
                return
            before = self._size.wanted
            wanted = self._size.on_load(report)
        for _ in range(before, wanted):
            self._add_thread(self._serve)
        for _ in range(wanted, before):
            with self._lock:
                self._surplus += 1
                is_starting = len(self._threads) - len(self._actors) >= self._surplus
            if not is_starting:  # a replica that starts ends by itself, before one that is ready
                self._runs.put(None)

    @property
    def is_running(self) -> bool:
        """Whether the pool is open."""
        return not self._closing.is_set()

    def close(self, deadline_s: float) -> None:
        """End the replicas; runs under way may continue until ``deadline_s`` of the monotonic clock."""
        self._deadline_s = deadline_s
        self._closing.set()
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._runs.put(None)
        for thread in threads:
            thread.join(min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX))
        try:
            _leave(LEAVE_S)
        finally:
            self._left.set()
            self._return_runs()

    # ---- the cluster ---------------------------------------------------------------------------------------------

    def _add_thread(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name='replica', daemon=True)
        with self._lock:
            thread.start()
            self._threads.append(thread)

    def _follow_cluster(self) -> None:
        """Connect, again if necessary, and keep replicas while the cluster has a head."""
        try:
            ray = _ray(not self._address)
        except ImportError:
            self._explain(f"engine_pool is 'ray', but Ray is not installed; {PIP}")
            return
        while not self._closing.is_set():
            try:
                blob = ray.cloudpickle.dumps(self._make)
            except Exception as error:
                self._explain(
                    f'the model cannot be sent to replicas ({_first_line(error)}); make it one that can be '
                    "pickled, or use engine_pool 'none'"
                )
                return
            try:
                _connect(ray, self._address, len(blob))
                self._blob = ray.put(np.frombuffer(blob, np.uint8))
            except Exception as error:
                self._explain_cluster(error)
                _leave(LEAVE_S)
                self._closing.wait(RETRY_S)
                continue
            del blob  # the cluster keeps the model
            if self._closing.is_set():  # close may have disconnected before this thread connected
                _leave(LEAVE_S)
            elif not self._has_lost_head(ray):
                # Linux ends the processes of a local cluster with the thread that started them.
                self._left.wait()
            elif not self._leave_cluster():
                self._explain('the Ray cluster has ended, but this process cannot leave it; start the edge node again')
                return

    def _has_lost_head(self, ray: Any) -> bool:
        """Keep replicas until the head of the cluster ends (then return True) or the pool closes."""
        failures = 0
        try:
            head = str(ray.get_runtime_context().gcs_address)
            with self._lock:
                self._class, self._head = ray.remote(Replica), head
                wanted = self._size.wanted
            for _ in range(wanted):
                self._add_thread(self._serve)
            while not self._closing.wait(IDLE_S):
                try:
                    _reach(head)
                    failures = 0
                except OSError as error:
                    failures += 1
                    if failures == FAILURES or isinstance(error, ConnectionRefusedError):
                        raise
        except Exception as error:
            self._lost.set()
            self._explain_cluster(error)
            return True
        return False

    def _leave_cluster(self) -> bool:
        """End the threads of all replicas, and leave a cluster without a head; return whether that was possible."""
        deadline_s = time.monotonic() + LEAVE_S
        with self._lock:
            self._class = None
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        if any(thread.is_alive() for thread in threads) or not _leave(LEAVE_S):
            return False
        with self._lock:
            self._surplus = 0
        self._lost.clear()
        return True

    def _explain_cluster(self, error: Exception) -> None:
        """Report why the cluster cannot be used."""
        if self._address:
            self._explain(
                f'the Ray cluster at {self._address} cannot be used ({_first_line(error)}); start it with '
                'ray start --head, or correct ray_address'
            )
        else:
            self._explain(f'the local Ray cluster cannot be used ({_first_line(error)}); the edge starts it again')

    def _explain(self, reason: str) -> None:
        """Report once why there is no replica, or one fewer."""
        with self._lock:
            previous, self._reason = self._reason, reason
        if previous != reason:
            self._edge.on_fault(reason)
            with self._notifying:
                with self._lock:
                    count = self.count
                if not count:
                    self._edge.on_servers(0, reason)

    def _change(self, by: int, actor: Any) -> None:
        """Count a replica that became ready or ended."""
        with self._notifying:
            with self._lock:
                self.count += by
                count = self.count
                key = threading.get_ident()
                if by > 0:
                    self._actors[key], self._reason = actor, ''
                else:
                    self._actors.pop(key, None)
                reason = '' if count else self._reason or 'no replica is ready'
            self._edge.on_servers(count, reason)
        if by < 0:
            self._return_runs()

    def _return_runs(self) -> None:
        """Return to the edge the runs that no replica can take; the edge answers their frames."""
        ends = 0
        while self._left.is_set() or not self.count:
            try:
                run = self._runs.get_nowait()
            except Empty:
                break
            if run is None:
                ends += 1
            else:
                self._edge.on_server_lost(run)
        for _ in range(ends):
            self._runs.put(None)

    # ---- a replica; each has a thread of these methods -----------------------------------------------------------

    def _serve(self) -> None:
        """Keep a replica ready and carry out runs with it, until it is retired."""
        ray = _ray()
        actor = None
        try:
            while not (self._closing.is_set() or self._lost.is_set()):
                try:
                    if actor is None:
                        actor = self._class.options(
                            num_cpus=self._resources.get('CPU', 0),
                            num_gpus=self._resources.get('GPU', 0),
                            resources={
                                name: amount for name, amount in self._resources.items() if name not in ('CPU', 'GPU')
                            },
                            max_restarts=-1,
                        ).remote(self._blob)
                    if self._is_ready(ray, actor):
                        self._change(1, actor)
                        self._work(ray, actor)
                    else:
                        ray.kill(actor)
                        actor = None
                        self._pause(RETRY_S)
                except _Retired:
                    raise
                except Exception as error:  # such as the end of the cluster
                    with self._lock:
                        was_ready = threading.get_ident() in self._actors
                    if was_ready:
                        self._change(-1, actor)
                    _kill(ray, actor)
                    actor = None
                    self._explain(f'a replica ended ({_first_line(error)})')
                    self._pause(RETRY_S)
        except _Retired:
            pass
        finally:
            with self._lock:
                self._threads.remove(threading.current_thread())
            if not (self._closing.is_set() or self._lost.is_set()):
                _kill(ray, actor)

    def _pause(self, seconds: float) -> None:
        """Wait; raise _Retired if this replica is no longer needed."""
        self._closing.wait(seconds)
        if self._is_retired():
            raise _Retired

    def _is_retired(self) -> bool:
        """Whether the replica of this thread is no longer needed; if so, the thread must end."""
        with self._lock:
            starting = len(self._threads) - len(self._actors)  # starting replicas end before a ready one
            if self._surplus > (starting if threading.get_ident() in self._actors else 0):
                self._surplus -= 1
                return True
        return self._closing.is_set() or self._lost.is_set()

    def _is_ready(self, ray: Any, actor: Any) -> bool:
        """Wait until a replica is ready; if it cannot be, report why and return False."""
        while not (measures := self._profiled.acquire(timeout=0.2)) and not self._has_profile:
            self._pause(0.0)  # another replica measures the profile, for which it needs the machine alone
        if measures and self._has_profile:
            self._profiled.release()
            measures = False
        try:
            error, profile = self._await_ready(ray, actor, measures)
            if error:
                self._explain(
                    f'a replica cannot load the model ({error}); install what is missing on each machine of the cluster'
                )
                return False
            if measures:
                self._has_profile = True
                if isinstance(profile, Profile):
                    self._edge.on_profile(profile)
            return True
        except ray.exceptions.RayError as error:
            self._explain(
                f'a replica ended while it started ({_first_line(error)}); install dynsplit_ros on each '
                'machine of the cluster, and see the log of Ray'
            )
            return False
        finally:
            if measures:
                self._profiled.release()

    def _await_ready(self, ray: Any, actor: Any, measures: bool) -> tuple[str, Any]:
        """Wait until a replica has started and loaded its model; return its answer."""
        began_s = time.monotonic()
        answer, has_started = actor.started.remote(), False
        while True:
            try:
                said = ray.get(answer, timeout=1.0)
                if has_started:
                    return said  # type: ignore[no-any-return]
                answer, has_started = actor.ready.remote(measures), True
            except ray.exceptions.GetTimeoutError:
                self._pause(0.0)
                if not has_started and time.monotonic() - began_s > START_S:
                    self._explain_waiting(ray)
            except ray.exceptions.ActorUnavailableError:  # it is being started again
                self._pause(0.1)
                answer, has_started = actor.started.remote(), False

    def _explain_waiting(self, ray: Any) -> None:
        """Report why no replica starts if resources are missing."""
        try:
            _reach(self._head)  # Without a head, the calls below would wait, and Ray would abort at the next head.
        except OSError:
            return
        machines = [node['Resources'] for node in ray.nodes() if node['Alive']]
        needed = ', '.join(f'{name} {amount:g}' for name, amount in self._resources.items())
        if not any(
            all(machine.get(name, 0.0) >= amount for name, amount in self._resources.items()) for machine in machines
        ):
            self._explain(
                f'no machine of the cluster has the replica_resources {needed}; add a machine, or ask for less'
            )
        elif not all(ray.available_resources().get(name, 0.0) >= amount for name, amount in self._resources.items()):
            self._explain(
                f'the machines of the cluster are full: a replica needs {needed}; add a machine, or lower '
                'the maximum of replicas'
            )

    def _work(self, ray: Any, actor: Any) -> None:
        """Carry out runs until the replica ends; raise _Retired when it is no longer needed."""
        while True:
            try:
                run, is_idle = self._runs.get(timeout=IDLE_S), False
            except Empty:
                run, is_idle = None, True
            if run is None:
                if self._is_retired():
                    self._change(-1, actor)
                    raise _Retired
                if is_idle and not _lives(ray, actor):
                    self._change(-1, actor)
                    return
                continue  # no run came, or another replica ends in place of this one
            try:
                results, tail_s = self._await_run(ray, actor.run.remote(run.frames[0].tail, _sendable(run)))
            except ray.exceptions.RayTaskError as error:
                self._edge.on_run_failed(run, error.cause if isinstance(error.cause, Exception) else error)
            except Exception:  # the replica ended or lost its model, or its machine ended, or the time after close
                self._change(-1, actor)
                self._edge.on_server_lost(run)
                return
            else:
                self._edge.on_results(run, results, tail_s)
            del run  # a thread that waits keeps no frame

    def _await_run(self, ray: Any, answer: Any) -> Any:
        """Return the results of a run; raise GetTimeoutError if the pool closes before, or NotLoadedError."""
        while True:
            try:
                return ray.get(answer, timeout=1.0)
            except ray.exceptions.GetTimeoutError:
                if time.monotonic() > self._deadline_s or self._lost.is_set():
                    raise
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, NotLoadedError):
                    raise error.cause from None
                raise


def _sendable(run: RunTail) -> list[Payload]:
    """Return the payloads of a run with their bytes as arrays, which Ray sends without another copy."""
    return [
        dataclasses.replace(
            payload,
            tensors=[
                dataclasses.replace(tensor, data=np.frombuffer(memoryview(tensor.data).cast('B'), np.uint8))
                for tensor in payload.tensors
            ],
        )
        for payload in payloads_of(run)
    ]


def _ray(is_local: bool = False) -> Any:
    """Return the module Ray; raise ImportError if it is not installed."""
    # Ray reads these variables at its first import.
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    os.environ.setdefault(INLINE_VARIABLE, str(INLINE_BYTES))
    # Otherwise Ray would end this process a minute after the head of its cluster has ended.
    os.environ.setdefault('RAY_gcs_rpc_server_reconnect_timeout_s', str(2**31 - 1))
    # Otherwise a call after shutdown would start or join a cluster, without the options of _connect.
    os.environ['RAY_ENABLE_AUTO_CONNECT'] = '0'
    if is_local:
        # All that a local cluster starts then listens on 127.0.0.1. The option _node_ip_address='127.0.0.1' would mean
        # the address of this machine in its network.
        os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'
        # Otherwise every other process of the machine would run before the replicas.
        os.environ.setdefault('RAY_worker_niceness', '0')
    import ray

    return ray


def _connect(ray: Any, address: str, model_bytes: int) -> None:
    """Connect to a cluster, or start a local one that listens on localhost only, without a dashboard."""
    if ray.is_initialized():
        return
    if ':' in address:  # Ray itself would try for minutes
        _reach(address)
    options: dict[str, Any] = (
        {'address': address}
        if address
        else {'address': 'local', 'include_dashboard': False, 'object_store_memory': 2 * model_bytes + STORE_BYTES}
    )
    ray.init(**options, configure_logging=False, log_to_driver=False)


def _reach(address: str) -> None:
    """Connect to an address HOST:PORT, and close the connection; raise OSError if that is not possible."""
    host, _, port = address.rpartition(':')
    socket.create_connection((host.strip('[]'), int(port)), REACH_S).close()


def _leave(within_s: float) -> bool:
    """Leave the cluster, and end a local one; return whether that ended within a time: Ray itself has no limit."""
    try:
        ray = _ray()
    except ImportError:
        return True
    thread = threading.Thread(target=ray.shutdown, name='leave', daemon=True)
    thread.start()
    thread.join(within_s)
    return not thread.is_alive()


def _lives(ray: Any, actor: Any) -> bool:
    """Whether a replica answers in time and has its model; after a restart by Ray, it has none."""
    try:
        return bool(ray.get(actor.has_loaded.remote(), timeout=PING_S))
    except ray.exceptions.RayError:
        return False


def _kill(ray: Any, actor: Any) -> None:
    """End a replica, if there is one and its cluster still answers."""
    if actor is not None:
        with contextlib.suppress(Exception):
            ray.kill(actor)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text, cut to 300 characters."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text[:300]


def parse_resources(text: str) -> dict[str, float]:
    """Return the resources from a JSON object; raise DynsplitError for other text."""
    import json

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(amount, (int, float)) and not isinstance(amount, bool) and 0 <= amount < math.inf
        for amount in found.values()
    ):
        raise DynsplitError(
            f"parameter 'replica_resources' is {text[:100]!r}, but must be a JSON object of amounts "
            'such as {"GPU": 1} or {"CPU": 2}'
        )
    return {str(name): float(amount) for name, amount in found.items() if amount}
