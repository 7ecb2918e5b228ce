# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runtime and simulation drive the same edge policy: the same events cause the same actions, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from worlds import DEADLINE_S, system, wait_until

from dynsplit_ros.codec import EncodedTensor
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.edge import Action, Answer, EdgePolicy, RunTail
from dynsplit_ros.policies.records import EdgeFrame
from dynsplit_ros.runtime import edge as runtime, tails
from dynsplit_ros.simulation.trace import constant, steps, Trace
from dynsplit_ros.simulation.world import Scenario, World

PROFILE = system()
#: The link is fast, slow, and fast again. The edge becomes slow, so that other robots' frames pile up, and recovers.
SCENARIO = Scenario(
    Trace([0.0, 2.0, 3.5], [40e6, 3e6, 40e6], 'slow in between'),
    8.0,
    others_hz=constant(14.0, 8.0),
    slowdown=steps([(0.0, 1.0), (5.0, 12.0), (6.5, 1.0)], 8.0),
    seed=6,
)


@dataclass
class Event:
    """An event, its instant, and the actions that followed, with their values at that instant."""

    name: str
    now_s: float
    values: tuple[Any, ...]
    actions: list[str]


def without_contents(frame: EdgeFrame) -> EdgeFrame:
    return replace(frame, source=None, payload=(), outputs=None)


def described(action: Action) -> str:
    """Return an action's kind and the present values of its frames."""
    if isinstance(action, RunTail):
        return repr([repr(without_contents(frame)) for frame in action.frames])
    return f'{type(action).__name__} {without_contents(action.frame)!r}' if hasattr(action, 'frame') else repr(action)


def record(policy: EdgePolicy) -> list[Event]:
    """Record all events of a policy from now on, except calls of on_time without actions."""
    events: list[Event] = []

    def noting(name: str, event: Callable[..., list[Action]]) -> Callable[..., list[Action]]:
        def note(*values: Any, now_s: float) -> list[Action]:
            if name == 'on_activation':
                values[0].images, values[0].payload_bytes = 1, 0  # which the runtime reads from the payload
                before: tuple[Any, ...] = (without_contents(values[0]),)
            else:
                before = values
            actions = event(*values, now_s=now_s)
            if actions or name != 'on_time':
                events.append(Event(name, now_s, before, [described(action) for action in actions]))
            return actions

        return note

    for name in dir(policy):
        if name.startswith('on_'):
            setattr(policy, name, noting(name, getattr(policy, name)))
    return events


class Conductor:
    """An edge whose computations end at the recorded events, with their clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, simulated: EdgePolicy) -> None:
        self.now_s = 0.0
        self.tails = 0
        self.may_end = {name: threading.Semaphore(0) for name in ('decode', 'tail', 'prepare')}
        monkeypatch.setattr(tails, 'decode', lambda *_: self.part('decode') or {})
        model = simulated.model
        split = SimpleNamespace(
            local_index=model.local_index,
            cuts=[SimpleNamespace(tensors=())] * model.local_index,
            output_specs=(),
            tail=lambda index, engine: lambda tensors: self.begin_tail() or {},
            prepare_tail=lambda *_: not self.part('prepare'),
        )
        policy = EdgePolicy(model, simulated.settings, simulated.session, simulated.name)
        self.events = record(policy)
        self.edge = runtime.Edge(split, self, clock=lambda: self.now_s, policy=policy)  # type: ignore[arg-type]

    def part(self, name: str) -> None:
        assert self.may_end[name].acquire(timeout=DEADLINE_S)

    def begin_tail(self) -> None:
        self.tails += 1
        self.part('tail')

    def acknowledge(self, frame: EdgeFrame) -> None:
        pass

    def answer(self, frame: EdgeFrame) -> None:
        pass

    def report_load(self, report: LoadReport, queueing_s: object) -> None:
        pass

    def fault(self, reason: str) -> None:
        raise AssertionError(reason)

    def play(self, event: Event) -> None:
        """Cause an event, and wait until the policy has handled it."""
        count, self.now_s = len(self.events), event.now_s
        match event.name:
            case 'on_activation':
                (frame,) = event.values
                self.edge.submit(replace(frame, payload=[EncodedTensor('x', 'uint8', (), b'')]))
            case 'on_decision':
                self.edge.on_split(*event.values)
            case 'on_time':
                self.edge.on_time()
            case 'on_tail_done':
                *_, tail_s = event.values
                began_s = event.now_s - tail_s
                self.now_s = next(
                    at_s
                    for at_s in (began_s, math.nextafter(began_s, 0.0), math.nextafter(began_s, 1e9))
                    if event.now_s - at_s == tail_s
                )
                begun = self.tails
                self.may_end['decode'].release()
                wait_until(lambda: self.tails > begun, 'the tail does not begin')
                self.now_s = event.now_s
                self.may_end['tail'].release()
            case 'on_prepared':
                self.may_end['prepare'].release()
        wait_until(lambda: len(self.events) > count, f'{event.name} at {event.now_s} s does not happen in the runtime')


def test_the_same_events_have_the_same_actions_in_runtime_and_simulation(monkeypatch) -> None:
    world = World(PROFILE, SCENARIO, 'dynamic')
    simulated = record(world.edge.policy)
    world.run()
    statuses = {
        action.split('status=')[1].split(',')[0]
        for event in simulated
        for action in event.actions
        if action.startswith(Answer.__name__)
    }
    assert statuses == {'<Status.OK: 0>', '<Status.SUPERSEDED: 2>'}, statuses
    assert {event.name for event in simulated} == {
        'on_start',
        'on_activation',
        'on_decision',
        'on_tail_done',
        'on_prepared',
        'on_time',
    }
    conductor = Conductor(monkeypatch, world.edge.policy)
    first, *rest = simulated
    assert conductor.events[0] == first
    for event in rest:
        conductor.play(event)
        same = conductor.events[-1]
        assert (same.name, same.now_s, same.actions) == (event.name, event.now_s, event.actions)
    assert len(conductor.events) == len(simulated) > 400
    for semaphore in conductor.may_end.values():
        semaphore.release(3)
    conductor.edge.close()
