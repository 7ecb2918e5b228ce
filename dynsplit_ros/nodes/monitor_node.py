# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Robot side: estimates link and edge from what the robot sees, and publishes the split that both sides follow."""

from __future__ import annotations

import array
from dataclasses import asdict, fields, replace
import math
import secrets
import sys
import time
from types import SimpleNamespace

from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Header

from dynsplit_ros import msg
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.link import Probe
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.messages.decisions import to_decision
from dynsplit_ros.messages.fields import from_message, to_message
from dynsplit_ros.messages.timing import from_profile, from_timing, in_words
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import run
from dynsplit_ros.nodes.managed_node import ManagedNode
from dynsplit_ros.parameters import MONITOR
from dynsplit_ros.planner import ALL_CODECS
from dynsplit_ros.policies.monitor import Announce, MonitorPolicy, SendProbe, TICK_S, WakeAt
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Outcome, SplitDecision
from dynsplit_ros.profile.profile import merge, Profile, SystemProfile
from dynsplit_ros.protocol import inexactness, Side
from dynsplit_ros.text import printable

LINK_STATE_PERIOD_S = 0.1
#: What RTPS, UDP, IP and Ethernet add to a probe's padding: its size is what the link carries.
HEADER_BYTES = 128
SILENT = 'the edge is silent'
#: Most characters of a codec's name in a message; real ones have some ten.
MOST_CODEC_CHARACTERS = 60


class MonitorNode(ManagedNode):
    """Feeds the monitor with what robot and edge say, and publishes its decisions."""

    _monitor: MonitorPolicy | None = None
    _alone = ''  # why there is no monitor though both profiles are there

    def __init__(self) -> None:
        super().__init__('monitor_node', MONITOR)
        self._settings = settings_of(self.values)
        self._profiles: dict[str, Profile] = {}
        self._sides: dict[str, Side] = {}
        self._inexact = ''  # why predictions may differ from the whole model's in the last bits

    def activate(self) -> None:
        """Listen, and decide once both profiles are there; the latest of each is sent again."""
        self._session = secrets.randbits(63) | 1
        # A camera that restarts counts its frames from 1 again; the monitor's numbers go on from where they were.
        self._camera_session = 0
        self._frame_offset = 0
        self._last_frame = 0
        self._fallbacks = 0
        self._ignored = 0
        self._decisions = 0

        self._split = topics.SPLIT.publisher(self)
        self._link_state = topics.LINK_STATE.publisher(self)
        self._agreement = topics.AGREEMENT.publisher(self)
        self._probe = topics.PROBE.publisher(self)
        self._lead = topics.PROBE.publisher(self)  # DDS joins small messages of one publisher in one datagram
        topics.ROBOT_PROFILE.subscription(self, lambda message: self._on_profile('robot', message))
        topics.EDGE_PROFILE.subscription(self, lambda message: self._on_profile('edge', message))
        topics.FRAME_TIMING.subscription(self, self._on_frame_timing)
        topics.AUDIT.subscription(self, self._on_audit)
        topics.ACKNOWLEDGEMENT.subscription(self, self._on_acknowledgement)
        topics.EDGE_LOAD.subscription(self, self._on_edge_load)
        self._timer = self.every(TICK_S, self._act)
        self.every(LINK_STATE_PERIOD_S, self._publish_link_state)
        self.get_logger().info('waiting for the profiles of robot and edge')

    def deactivate(self, within_s: float) -> None:
        """Stop deciding: the camera keeps the last decision while the edge answers, then runs the whole network."""
        self._monitor = None
        self._profiles.clear()

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _on_profile(self, side: str, message: msg.Profile) -> None:
        try:
            profile, sender = from_profile(message, f"the {side}'s profile")
            known = self._profiles.get(side), self._sides.get(side)
            self._profiles[side], self._sides[side] = profile, sender
            if self._monitor is not None and known == (profile, replace(sender, edge_session=known[1].edge_session)):
                return  # it came again, as from an edge that was restarted: what is believed still holds
            self._start()
        except DynsplitError as error:
            self.log_throttled(f'{side} profile', str(error), error=True)

    def _start(self) -> None:
        """Make the monitor when both profiles are there, or again when one of them is another."""
        if len(self._profiles) < 2:
            return
        self._monitor, robot = None, self._profiles['robot']
        try:
            self._monitor = self._make(self._settings)
        except DynsplitError as error:
            # The robot runs the whole network from now on, and the edge refuses payloads that are still on the link.
            self._alone = str(error)
            self.log_throttled('profiles', f'degraded to local inference: {error}', error=True)
            self._publish_local(self._alone, robot)
            return
        self._inexact = inexactness(self._sides['robot'], self._sides['edge'])
        if self._inexact:
            self.get_logger().warning(self._inexact)
        self.get_logger().info(f'deciding for {robot.model} ({robot.fingerprint[:12]}), splits 0 to '
                               f'{robot.local_index}, with edge {self._monitor.edge!r}')

    def _make(self, settings: MonitorSettings) -> MonitorPolicy:
        robot, edge = self._profiles['robot'], self._profiles['edge']
        if robot.fingerprint != edge.fingerprint:
            raise DynsplitError(f'the robot runs {robot.model!r} ({robot.fingerprint[:12]}), but the edge runs '
                                f'{edge.model!r} ({edge.fingerprint[:12]}); run the same model, weights and input '
                                'size on both')
        images, most = self._sides['robot'].images, self._sides['edge'].images
        if images > most:
            raise DynsplitError(f'the frames have {images} images, but the edge takes {most}; start the edge with the '
                                f'parameter batch: {images}')
        profile = merge(robot, edge)
        return MonitorPolicy(profile, self._settle(settings, profile), self._sides['edge'].edge)

    def _settle(self, settings: MonitorSettings, profile: SystemProfile) -> MonitorSettings:
        known = sorted({codec for cut in profile.cuts for codec in cut.codecs})
        unknown = [codec for codec in settings.codecs if codec not in known and settings.codecs != ALL_CODECS]
        if unknown:
            raise DynsplitError(f"parameter 'codecs' names {', '.join(map(repr, unknown))}, but the profiles have "
                                f'{", ".join(known)}; name one of these, or profile both machines with it')
        return replace(settings, batch=self._sides['robot'].images)

    def _on_frame_timing(self, message: msg.FrameTiming) -> None:
        try:
            timing = from_timing(message)
        except DynsplitError as error:
            self.log_throttled('timing', str(error), error=True)
            return
        self.senders.on_camera(timing.session, time.monotonic())
        if timing.session != self._camera_session:
            self._camera_session = timing.session
            self._frame_offset, self._last_frame = self._frame_offset + self._last_frame, 0
        self._last_frame = max(self._last_frame, timing.sequence)
        if self._monitor is None:
            return
        number = self._frame_offset + timing.sequence
        if timing.outcome is Outcome.SENT:
            self._monitor.on_sent(number, timing.sent_s, timing.split_index, timing.codec, timing.payload_bytes,
                                  timing.send_s)
        else:
            self._fallbacks += timing.outcome is Outcome.FELL_BACK
            self._monitor.on_frame(replace(timing, sequence=number))
        self._act()

    def _on_audit(self, message: msg.Audit) -> None:
        if self._monitor is None or message.session != self._camera_session or not self._is_ours(message.fingerprint):
            return
        choice = message.split_index, printable(message.codec, MOST_CODEC_CHARACTERS)
        reason = self._monitor.on_audit(*choice, message.agreement)
        if reason:
            self.get_logger().warning(reason)
        found = self._monitor.audits.agreement(choice)
        if found.images:
            self._agreement.publish(to_message(
                msg.Agreement, header=self._header(), fingerprint=message.fingerprint, split_index=choice[0],
                codec=choice[1], audits=found.images, agreement=found.share, low=found.low, high=found.high,
                min_agreement=self._monitor.settings.min_agreement, removed=choice in self._monitor.audits.removed,
                reason=self._monitor.audits.removed.get(choice, ''), audited=message.audited, skipped=message.skipped))
        self._act()

    def _on_acknowledgement(self, message: msg.Acknowledgement) -> None:
        if message.kind == msg.Acknowledgement.PROBE:
            self.senders.on_monitor(message.session, time.monotonic())
        if self._monitor is None or not self._is_ours(message.fingerprint):
            return
        now_s = time.monotonic()
        if message.kind == msg.Acknowledgement.PROBE:
            if message.session == self._session:
                self._monitor.on_probe_answer(message.sequence, now_s, message.held_s, message.dispersion_s)
        elif message.session == self._camera_session:
            self._monitor.on_acknowledgement(self._frame_offset + message.sequence, now_s, message.dispersion_s)
        self._act()

    def _on_edge_load(self, message: msg.EdgeLoad) -> None:
        if self._monitor is None or not self._is_ours(message.fingerprint):
            return
        self._monitor.on_load(from_message(LoadReport, message), time.monotonic())
        self._act()

    def _is_ours(self, fingerprint: str) -> bool:
        """Whether the edge that speaks serves the robot's model; one that does not counts as silent."""
        ours = self._profiles['robot'].fingerprint == fingerprint
        self._ignored += not ours
        return ours

    # ---- what goes out -------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Carry out what the monitor wants to do now."""
        for action in self._monitor.on_time(time.monotonic()) if self._monitor is not None else ():
            match action:
                case SendProbe(probe):
                    self._send_probe(probe)
                case Announce(decision):
                    self._announce(decision)
                case WakeAt(at_s):
                    self._timer.timer_period_ns = max(1, math.ceil(1e9 * (at_s - time.monotonic())))
                    self._timer.reset()

    def _send_probe(self, probe: Probe) -> None:
        sizes = probe.lead_bytes, max(0, probe.payload_bytes - probe.lead_bytes - HEADER_BYTES)
        lead, message = (to_message(msg.Probe, session=self._session, sequence=probe.id,
                                    padding=array.array('B', bytes(size))) for size in sizes)
        lead.is_lead = True
        began_s = time.monotonic()
        if probe.lead_bytes:
            self._lead.publish(lead)
        self._probe.publish(message)
        self._monitor.on_probe_sent(probe.id, time.monotonic() - began_s)

    def _announce(self, decision: SplitDecision) -> None:
        if decision.changed:
            self.get_logger().info(decision.reason)
        known = decision.last_frame > self._frame_offset  # the message numbers frames as the camera does
        self._publish(replace(
            decision,
            last_frame_session=self._camera_session if known else 0,
            last_frame=decision.last_frame - self._frame_offset if known else 0,
        ), self._profiles['robot'].fingerprint)

    def _publish_local(self, reason: str, robot: Profile) -> None:
        local = robot.cuts[robot.local_index]
        self._publish(SplitDecision(
            local.index, '', 0.0, self._camera_session, self._last_frame, local_if_wait_s=0.0,
            predicted_latency_s=local.head_s[robot.batches[0]], degraded=True, split_name=local.name, reason=reason,
        ), robot.fingerprint)

    def _publish(self, decision: SplitDecision, fingerprint: str) -> None:
        """Publish a decision under the next number; numbers go on when another profile begins another monitor."""
        self._decisions += 1
        self._split.publish(to_decision(replace(decision, sequence=self._decisions), self._header(), fingerprint))

    def _publish_link_state(self) -> None:
        if self._monitor is None:
            return
        link, load = self._monitor.link, self._monitor.load
        spread = math.exp(min(link.relative_uncertainty, 20.0))
        self._link_state.publish(to_message(
            msg.LinkState, header=self._header(), edge=self._monitor.edge, alive=link.alive,
            throughput_bps=link.throughput_bps, throughput_low_bps=link.throughput_bps / spread,
            throughput_high_bps=link.throughput_bps * spread, round_trip_s=link.rtt_s,
            silence_s=link.silence_s, edge_queueing_s=load.queueing_s, edge_slowdown=load.slowdown,
            edge_utilisation=load.utilisation, probe_bytes_total=link.probe_bytes + link.heartbeat_bytes))

    def _header(self) -> Header:
        return Header(stamp=self.get_clock().now().to_msg())

    # ---- settings and diagnostics -----------------------------------------------------------------------------------

    def on_change(self, values: SimpleNamespace) -> None:
        """Decide by new settings from now on, with what is known of link and edge."""
        settings = settings_of(values)
        if self._monitor is not None:
            self._monitor.reconfigure(self._settle(settings, self._monitor.profile))
        self._settings = settings
        if self._monitor is None:
            self._start()

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Tell what is believed of link and edge, and whether the robot is on its own."""
        values: dict[str, object] = {'ignored_messages': self._ignored, 'fell_back': self._fallbacks}
        if self._monitor is None:
            missing = [side for side in ('robot', 'edge') if side not in self._profiles]
            if missing:
                return DiagnosticStatus.WARN, f'no profile of {" and ".join(missing)}', values
            return DiagnosticStatus.WARN, f'degraded to local inference: {self._alone}', values
        link, load, decision = self._monitor.link, self._monitor.load, self._monitor.decision
        values |= {'edge': self._monitor.edge, 'frame_rate_hz': self._monitor.frame_rate_hz, **asdict(link),
                   **{f'edge_{name}': value for name, value in asdict(load).items()}}
        for choice in self._monitor.audits.choices:
            values[f'agreement of split {choice[0]} with {choice[1]}'] = str(self._monitor.audits.agreement(choice))
        if removed := list(self._monitor.audits.removed.values()):
            values['taken_out'] = '; '.join(removed)
        if decision is not None:
            values |= {'split': decision.split_index, 'codec': decision.codec, 'decisions': self._decisions,
                       'predicted_latency_s': decision.predicted_latency_s,
                       'answer_timeout_s': decision.answer_timeout_s, 'reason': decision.reason}
        if not link.alive:
            return DiagnosticStatus.WARN, f'degraded to local inference: {SILENT}', values
        if decision is None:
            return DiagnosticStatus.OK, 'no decision yet', values
        if removed:
            return DiagnosticStatus.WARN, removed[-1], values
        if self._inexact:
            return DiagnosticStatus.WARN, self._inexact, values
        return DiagnosticStatus.OK, f'split {in_words(decision)}', values


def settings_of(values: SimpleNamespace) -> MonitorSettings:
    """Return the monitor's settings from the parameters' values."""
    return MonitorSettings(**{setting.name: tuple(value) if isinstance(value := getattr(values, setting.name), list)
                              else value for setting in fields(MonitorSettings) if hasattr(values, setting.name)})


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(MonitorNode, args)


if __name__ == '__main__':
    sys.exit(main())
