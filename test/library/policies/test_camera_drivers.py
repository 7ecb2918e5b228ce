# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runtime and simulation drive the same policy: the same events cause the same actions, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from worlds import DEADLINE_S, system, wait_until

from dynsplit_ros.codec import EncodedTensor
from dynsplit_ros.partition import Interrupted
from dynsplit_ros.policies.camera import Action, CameraPolicy
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.runtime import robot as runtime
from dynsplit_ros.simulation.trace import constant, steps, Trace
from dynsplit_ros.simulation.world import Scenario, World

PROFILE = system()
#: The link is fast, slow, lost for two seconds, and fast again; then the edge becomes slow.
LINK = Trace([0.0, 2.0, 3.5, 5.5], [40e6, 3e6, 0.0, 40e6], 'outage')
SCENARIO = Scenario(
    LINK, 10.0, resize_s=0.004, others_hz=constant(6.0, 10.0), slowdown=steps([(0.0, 1.0), (7.0, 6.0)], 10.0), seed=6
)


@dataclass
class Event:
    """An event, its instant, and the actions that followed, with their values at that instant."""

    name: str
    now_s: float
    values: tuple[Any, ...]
    options: dict[str, Any]
    actions: list[tuple[str, object]]


def described(action: Action) -> tuple[str, object]:
    """Return an action's kind and the present values of its frame."""
    name = type(action).__name__
    if isinstance(action, WakeAt):
        return name, action.at_s
    return name, repr(replace(action.frame, split_name=''))


def record(policy: CameraPolicy) -> list[Event]:
    """Record all events of a policy from now on, except calls of on_time without actions."""
    events: list[Event] = []

    def noting(name: str, event: Callable[..., list[Action]]) -> Callable[..., list[Action]]:
        def note(*values: Any, now_s: float, **options: Any) -> list[Action]:
            actions = event(*values, now_s=now_s, **options)
            if actions or name != 'on_time':
                events.append(Event(name, now_s, values, options, [described(action) for action in actions]))
            return actions

        return note

    for name in dir(policy):
        if name.startswith('on_') and name != 'on_delivery_failed':
            setattr(policy, name, noting(name, getattr(policy, name)))
    return events


class Conductor:
    """A robot whose computations end at the recorded events, with their clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.may_end = {name: threading.Semaphore(0) for name in ('prepare', 'head', 'encode', 'send', 'tail')}
        self.payload_bytes = 0
        monkeypatch.setattr(runtime, 'encode', self.encode)
        split = SimpleNamespace(
            local_index=PROFILE.local_index,
            cuts=PROFILE.cuts,
            has_head=lambda index, engine: True,
            head=lambda index, engine: lambda image, stop: self.part('head', stop),
            tail=lambda index, engine='eager': lambda activation, stop: self.part('tail', stop),
        )
        policy = CameraPolicy(PROFILE.local_index)
        self.events = record(policy)
        self.robot = runtime.Robot(split, self, clock=lambda: self.now_s, policy=policy)  # type: ignore[arg-type]

    def part(self, name: str, stop: Callable[[], bool]) -> None:
        while True:
            if self.may_end[name].acquire(timeout=0.001):
                if not stop():
                    return
                if name == 'tail':  # the end was meant for the next one
                    self.may_end[name].release()
                raise Interrupted
            if name == 'tail' and stop():
                raise Interrupted

    def prepare(self, image: object) -> list[object]:
        assert self.may_end['prepare'].acquire(timeout=DEADLINE_S)
        return [image]

    def encode(self, codec: str, activation: object) -> list[EncodedTensor]:
        assert self.may_end['encode'].acquire(timeout=DEADLINE_S)
        return [EncodedTensor('x', 'uint8', (self.payload_bytes,), bytes(self.payload_bytes))]

    def send(self, frame: FrameRecord, payload: object) -> None:
        assert self.may_end['send'].acquire(timeout=DEADLINE_S)

    deliver = report = refuse = lambda self, *_: None

    def fault(self, reason: str) -> None:
        raise AssertionError(reason)

    def play(self, event: Event) -> None:
        """Cause an event, and wait until the policy has handled it."""
        count, self.now_s, robot = len(self.events), event.now_s, self.robot
        match event.name:
            case 'on_image':
                robot.offer(*event.values, **event.options)
            case 'on_decision':
                robot.on_decision(*event.values)
            case 'on_acknowledgement':
                robot.on_acknowledgement(*event.values, **event.options)
            case 'on_answer':
                robot.on_answer(*event.values)
            case 'on_time':
                robot.on_time()
            case 'on_prepared':
                self.may_end['prepare'].release()
            case 'on_head_done' | 'on_head_interrupted':
                self.may_end['head'].release()
            case 'on_payload_ready':
                (self.payload_bytes,) = event.values
                self.may_end['encode'].release()
            case 'on_payload_sent':
                self.may_end['send'].release()
            case 'on_finished':
                self.may_end['tail'].release()
        wait_until(lambda: len(self.events) > count, f'{event.name} at {event.now_s} s does not happen in the runtime')


def test_the_same_events_have_the_same_actions_in_runtime_and_simulation(monkeypatch) -> None:
    world = World(PROFILE, SCENARIO, 'dynamic')
    simulated = record(world.camera)
    world.run()
    kinds = {kind for event in simulated for kind, _ in event.actions}
    assert kinds >= {
        'Prepare',
        'RunHead',
        'InterruptHead',
        'Encode',
        'Send',
        'Finish',
        'StopFinishing',
        'Deliver',
        'Report',
        'WakeAt',
    }, kinds
    conductor = Conductor(monkeypatch)
    for event in simulated:
        conductor.play(event)
        same = conductor.events[-1]
        assert (same.name, same.now_s) == (event.name, event.now_s)
        assert same.actions == event.actions
    assert len(conductor.events) == len(simulated) > 400
    conductor.robot.close()
