# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What tests share: their deadline, profiles measured once, and a link whose events a test gives a monitor by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import math
from pathlib import Path
import time

from torch import Tensor

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.codec import decode_answer
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.records import EdgeFrame, FrameRecord, SplitDecision
from dynsplit_ros.profile.profile import AgreementRecord, merge, Profile, SystemProfile

DATA = Path(__file__).parents[1] / 'data'
#: Longest wait, in seconds, for what is to happen; a machine with a load of 8 needs a part of it.
DEADLINE_S = 60.0
MODELS = ('mobilenet_v2', 'efficientnet_b0', 'resnet50')


def wait_until(
    happened: Callable[[], object], otherwise: str = 'it did not happen in time', within_s: float = DEADLINE_S
) -> None:
    """Wait for an event of another thread; fail with ``otherwise`` after ``within_s`` seconds."""
    deadline_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.0005)


def outputs_of(frame: EdgeFrame) -> dict[str, Tensor]:
    """Return the outputs in the edge's answer to a frame; empty without any."""
    return decode_answer(frame.outputs.codec, frame.outputs.tensors, None) if frame.outputs else {}


def measured(name: str = 'mobilenet_v2') -> Profile:
    """Return what was measured on one core of a server."""
    return Profile.load(DATA / f'{name}.yaml')


def system(name: str = 'mobilenet_v2', slower: float = 8.0) -> SystemProfile:
    """Return that machine as the edge of a robot which takes eight times as long, or as said."""
    edge = measured(name)
    return merge(edge.scaled(slower), edge)


def bounded() -> Profile:
    """Return a profile in which a codec of a quarter of raw's bytes kept 497 of 500 images at split 2."""
    one = measured('efficientnet_b0')
    cuts = []
    for cut in one.cuts:
        if (raw := cut.codecs.get('raw')) is not None:
            lossy = replace(
                raw, payload_bytes={batch: size // 4 for batch, size in raw.payload_bytes.items()}, lossless=False
            )
            cut = replace(cut, codecs={**cut.codecs, 'quant8-zstd': lossy})
        cuts.append(cut)
    record = AgreementRecord('classification', 'photographs', {}, {}, {2: {'quant8-zstd': Agreement(497, 500)}})
    return replace(one, cuts=tuple(cuts), agreements=(record,))


def bounded_profile(folder: Path) -> list[str]:
    """Write that profile, and return the arguments that name it."""
    bounded().save(folder / 'bounded.yaml')
    return ['--edge-profile', str(folder / 'bounded.yaml')]


class Wire:
    """A monitor whose messages all take the time that ``rate_bps`` and ``rtt_s`` say, one after the other."""

    def __init__(self, monitor: MonitorPolicy, rate_bps: float = 20e6, rtt_s: float = 0.004) -> None:
        self.monitor, self.rate_bps, self.rtt_s = monitor, rate_bps, rtt_s
        self.now_s = 0.0
        self.sequence = -1
        self.reports = 0
        self.lost = False
        self.decisions: list[SplitDecision] = []
        self.answers: list[tuple[float, int]] = []  # to probes, and when they will be there

    def idle(self, seconds: float) -> None:
        """Let time pass; heartbeats and probes are answered unless the link is lost."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.02
            self.answer()
            self.tick()
            probe = self.monitor.next_probe(self.now_s)
            if probe is not None and not self.lost:
                took_s = (probe.payload_bytes + 32) * 8 / self.rate_bps + self.rtt_s
                self.answers.append((self.now_s + took_s, probe.id))

    def answer(self) -> None:
        """Have the answers to probes come whose time has come."""
        while self.answers and self.answers[0][0] <= self.now_s:
            at_s, probe_id = self.answers.pop(0)
            self.monitor.on_probe_answer(probe_id, at_s)
            self.tick()

    def frame(
        self,
        split: int = 0,
        payload_bytes: int = 150_528,
        held_s: float = 0.022,
        offered_hz: float = math.nan,
        latency_s: float = math.nan,
    ) -> FrameRecord:
        """Send a frame, and have it answered."""
        self.sequence += 1
        self.monitor.on_sent(self.sequence, self.now_s, split, 'raw', payload_bytes)
        sent_s = self.now_s
        self.now_s = acknowledged_s = sent_s + (payload_bytes + 32) * 8 / self.rate_bps + self.rtt_s
        self.answer()
        self.monitor.on_acknowledgement(self.sequence, acknowledged_s)
        answered_s = acknowledged_s + held_s + 4000 * 8 / self.rate_bps
        frame = FrameRecord(
            sequence=self.sequence,
            outcome='answered',
            split_index=split,
            codec='raw',
            payload_bytes=payload_bytes,
            answer_bytes=4000,
            sent_s=sent_s,
            acknowledged_s=acknowledged_s,
            answered_s=answered_s,
            held_s=held_s,
            queueing_s=0.0,
            decode_s=0.0,
            tail_s=held_s,
            offered_hz=offered_hz,
            latency_s=latency_s,
        )
        self.now_s = answered_s
        self.answer()
        self.monitor.on_frame(frame)
        self.tick()
        return frame

    def report(self, **values: float) -> None:
        """Have the edge say something about itself."""
        self.reports += 1
        known = {
            'edge_session': 1,
            'sequence': self.reports,
            'utilisation': 0.2,
            'queue_length': 0,
            'queueing_s': 0.0,
            'slowdown': 1.0,
            **values,
        }
        self.monitor.on_load(LoadReport(**known), self.now_s)  # type: ignore[arg-type]
        self.tick()

    def tick(self) -> None:
        """Let the monitor decide."""
        decision = self.monitor.tick(self.now_s)
        if decision is not None:
            self.decisions.append(decision)
