# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Robot side: estimates link and edge from what the robot sees, and publishes the split that both sides follow."""

from __future__ import annotations

import array
from dataclasses import asdict, dataclass, field, fields, replace
import math
import secrets
import sys
import time
from types import SimpleNamespace

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from dynsplit_ros import msg
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.link import Probe
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.messages.decisions import to_decision, to_edge_decision
from dynsplit_ros.messages.fields import from_message, to_message
from dynsplit_ros.messages.timing import describe_split, from_profile, from_timing
from dynsplit_ros.metrics import RobotMetrics
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import run
from dynsplit_ros.nodes.managed_node import ManagedNode
from dynsplit_ros.parameters import MONITOR
from dynsplit_ros.planner import ALL_CODECS, engines_below
from dynsplit_ros.policies.monitor import Announce, MonitorPolicy, SendProbe, TICK_S
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Outcome, SplitDecision
from dynsplit_ros.policies.senders import Sessions
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.profile.profile import merge, Profile, SystemProfile
from dynsplit_ros.protocol import inexactness, MOST_EDGES, Side
from dynsplit_ros.text import printable

LINK_STATE_PERIOD_S = 0.1
#: What RTPS, UDP, IP and Ethernet add to a probe's padding: its size is what the link carries.
HEADER_BYTES = 128
SILENT = 'the edge is silent'
#: Most characters of a codec's name in a message; real ones have some ten.
MOST_CODEC_CHARACTERS = 60


@dataclass
class ListedEdge:
    """What an edge has told of itself, and why the robot does not use it (empty: it does)."""

    profile: Profile
    side: Side
    why_not: str = ''
    sessions: Sessions = field(default_factory=Sessions)

    def is_same(self, profile: Profile, side: Side) -> bool:
        """Whether a profile tells nothing new but, perhaps, a restart."""
        return self.profile == profile and replace(self.side, edge_session=side.edge_session) == side


@dataclass(frozen=True)
class ToEdge:
    """The publishers of probes, of their leads, and of the split, to one edge."""

    probe: Publisher
    lead: Publisher
    split: Publisher


class MonitorNode(ManagedNode):
    """Feeds the monitor with what robot and edges say, and publishes its decisions."""

    _monitor: MonitorPolicy | None = None
    _alone = ''  # why there is no monitor though the profiles of robot and edge are there
    _metrics: RobotMetrics | None = None

    def __init__(self) -> None:
        super().__init__('monitor_node', MONITOR)
        self._settings = settings_of(self.values)
        self._robot: tuple[Profile, Side] | None = None
        self._edges: dict[str, ListedEdge] = {}
        self._to_edges: dict[str, ToEdge] = {}

    def activate(self) -> None:
        """Listen, and decide once the profiles of robot and edge are there; the latest of each is sent again."""
        self._session = secrets.randbits(63) | 1
        # A camera that restarts counts its frames from 1 again; the monitor's numbers go on from where they were.
        self._camera_session = 0
        self._frame_offset = 0
        self._last_frame = 0
        self._fallbacks = 0
        self._ignored = 0
        self._decisions = 0
        self._told = '', (0, '')  # edge and choice that the edges know of
        if self.values.metrics_port:
            self._metrics = RobotMetrics(self.get_namespace(), self.values.metrics_port, self.values.metrics_address)

        self._split = topics.SPLIT.publisher(self)
        self._link_state = topics.LINK_STATE.publisher(self)
        self._agreement = topics.AGREEMENT.publisher(self)
        topics.ROBOT_PROFILE.subscription(self, self._on_robot_profile)
        topics.EDGE_PROFILE.subscription(self, self._on_edge_profile)
        topics.FRAME_TIMING.subscription(self, self._on_frame_timing)
        topics.AUDIT.subscription(self, self._on_audit)
        topics.ACKNOWLEDGEMENT.subscription(self, self._on_acknowledgement)
        topics.EDGE_LOAD.subscription(self, self._on_edge_load)
        self._timer = self.every(TICK_S, self._act)
        self.every(LINK_STATE_PERIOD_S, self._publish_link_state)
        self.every(1.0, self._look_for_twins)
        self.get_logger().info('waiting for the profiles of robot and edge')

    def deactivate(self, within_s: float) -> None:
        """Stop deciding: the camera keeps the last decision while the edge answers, then runs the whole network."""
        self._monitor = self._robot = None
        self._edges.clear()
        self._to_edges.clear()
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = None

    # ---- profiles ------------------------------------------------------------------------------------------------

    def _on_robot_profile(self, message: msg.Profile) -> None:
        try:
            robot = from_profile(message, "the robot's profile")
        except DynsplitError as error:
            self.log_throttled('robot profile', str(error), error=True)
            return
        if robot == self._robot:
            return
        self._robot, self._monitor = robot, None
        for name in self._edges:
            self._admit(name)
        self._stay_local()

    def _on_edge_profile(self, message: msg.Profile) -> None:
        try:
            profile, side = from_profile(message, "the edge's profile")
        except DynsplitError as error:
            self.log_throttled('edge profile', str(error), error=True)
            return
        known = self._edges.get(side.edge)
        if known is not None and known.is_same(profile, side):
            known.side = side
            return  # it came again, as from an edge that was restarted: what is believed still holds
        if known is None and len(self._edges) >= MOST_EDGES and not self._forget_one():
            self.log_throttled(
                'edges',
                f'edge {side.edge[:100]!r} is not used: the robot knows {MOST_EDGES} others; '
                'run fewer edges in one domain',
            )
            return
        sessions = known.sessions if known is not None else Sessions()
        self._edges[side.edge] = ListedEdge(profile, side, sessions=sessions)
        self._admit(side.edge)
        self._stay_local()

    def _forget_one(self) -> bool:
        """Forget an edge that is not used or silent to make room; return whether there is one."""
        known = self._monitor.edges if self._monitor is not None else {}
        for name in self._edges:
            if name not in known or not known[name].link.alive and len(known) > 1:
                self._drop(name)
                del self._edges[name]
                return True
        return False

    def _admit(self, name: str) -> None:
        """Let the monitor use an edge, or note why it may not."""
        if self._robot is None:
            return
        edge, (robot, robot_side) = self._edges[name], self._robot
        try:
            profile = self._merged(edge)
            if name not in self._to_edges:
                self._to_edges[name] = ToEdge(
                    *(
                        topic.publisher(self, topic.name_to(name, self))
                        # DDS joins small messages of one publisher in one datagram: a lead has a publisher of its own.
                        for topic in (topics.PROBE, topics.PROBE, topics.EDGE_SPLIT)
                    )
                )
            if self._monitor is None:
                self._monitor = MonitorPolicy(profile, self._settle(self._settings, profile), name)
            else:
                self._monitor.set_edge(name, profile)
        except DynsplitError as error:
            edge.why_not = str(error)
            self._drop(name)
            self.log_throttled(f'edge {name}', f'edge {name[:100]!r} is not used: {error}', error=True)
            return
        edge.why_not = ''
        if differs := inexactness(robot_side, edge.side):
            self.get_logger().warning(differs)
        bound = self._settings.min_agreement
        if unused := engines_below(profile, bound):
            self.log_throttled(
                'engines',
                (
                    f'engine {" and ".join(engine[:100] for engine in unused[:5])} is ready, but not used: no '
                    f'measured agreement keeps min_agreement {bound:g}; profile with --engine and --image and set '
                    'min_agreement to, for example, 0.95; or set it to 0 to allow all results'
                ),
            )
        self.get_logger().info(
            f'deciding for {robot.model} ({robot.fingerprint[:12]}), splits 0 to '
            f'{robot.local_index}, with edge {name!r}'
        )

    def _drop(self, name: str) -> None:
        """Have the monitor use an edge no more."""
        if self._monitor is not None and name in self._monitor.edges:
            if len(self._monitor.edges) > 1:
                self._monitor.forget_edge(name)
            else:
                self._monitor = None
        for publisher in vars(self._to_edges.pop(name)).values() if name in self._to_edges else ():
            self.forget(publisher.topic_name)
            self.destroy_publisher(publisher)

    def _stay_local(self) -> None:
        """Have the robot run the whole network if its profile is there and it may use no edge that is known."""
        if self._monitor is not None or self._robot is None or not self._edges:
            return
        # The edge refuses payloads that are still on the link.
        self._alone = next(iter(self._edges.values())).why_not
        self.log_throttled('profiles', f'degraded to local inference: {self._alone}', error=True)
        self._publish_local(self._alone, self._robot[0])

    def _merged(self, edge: ListedEdge) -> SystemProfile:
        """Return the profile of the robot with an edge; raise DynsplitError where they cannot work together."""
        robot, side = self._robot
        if edge.sessions.has_duplicate(time.monotonic()):
            raise DynsplitError(
                f'two edges have the name {edge.side.edge!r}; start each with a name of its own (parameter edge_name)'
            )
        if robot.fingerprint != edge.profile.fingerprint:
            raise DynsplitError(
                f'the robot runs {robot.model!r} ({robot.fingerprint[:12]}), but the edge runs '
                f'{edge.profile.model!r} ({edge.profile.fingerprint[:12]}); run the same model, '
                'weights and input size on both'
            )
        if side.images > edge.side.images:
            raise DynsplitError(
                f'the frames have {side.images} images, but the edge takes {edge.side.images}; start '
                f'the edge with the parameter batch: {side.images}'
            )
        return merge(robot, edge.profile)

    def _look_for_twins(self) -> None:
        """Stop using an edge whose name another edge has, too; use it again when there is one."""
        now_s = time.monotonic()
        for name, edge in self._edges.items():
            if edge.sessions.has_duplicate(now_s) != edge.why_not.startswith('two edges'):
                self._admit(name)
        self._stay_local()

    def _settle(self, settings: MonitorSettings, profile: SystemProfile) -> MonitorSettings:
        known = sorted({codec for cut in profile.cuts for codec in cut.codecs})
        unknown = [codec for codec in settings.codecs if codec not in known and settings.codecs != ALL_CODECS]
        if unknown:
            raise DynsplitError(
                f"parameter 'codecs' names {', '.join(map(repr, unknown))}, but the profiles have "
                f'{", ".join(known)}; name one of these, or profile both machines with it'
            )
        return replace(settings, batch=self._robot[1].images)

    # ---- what comes in -------------------------------------------------------------------------------------------

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
        if self._metrics is not None:
            self._metrics.on_frame(timing)
        if self._monitor is None:
            return
        number = self._frame_offset + timing.sequence
        if timing.outcome is Outcome.SENT:
            self._monitor.on_sent(
                number,
                timing.sent_s,
                timing.split_index,
                timing.codec,
                timing.payload_bytes,
                timing.send_s,
                timing.edge,
                timing.tail_engine,
            )
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
            if self._metrics is not None:
                self._metrics.on_agreement(*choice, found.share)
            self._agreement.publish(
                to_message(
                    msg.Agreement,
                    header=self._header(),
                    fingerprint=message.fingerprint,
                    split_index=choice[0],
                    codec=choice[1],
                    audits=found.images,
                    agreement=found.share,
                    low=found.low,
                    high=found.high,
                    min_agreement=self._monitor.settings.min_agreement,
                    removed=choice in self._monitor.audits.removed,
                    reason=self._monitor.audits.removed.get(choice, ''),
                    audited=message.audited,
                    skipped=message.skipped,
                )
            )
        self._act()

    def _on_acknowledgement(self, message: msg.Acknowledgement) -> None:
        if message.kind == msg.Acknowledgement.PROBE:
            self.senders.on_monitor(message.session, time.monotonic())
        if self._monitor is None or not self._is_ours(message.fingerprint):
            return
        now_s, edge = time.monotonic(), printable(message.edge)
        if message.kind == msg.Acknowledgement.PROBE:
            if message.session == self._session:
                self._monitor.on_probe_answer(message.sequence, now_s, message.held_s, message.dispersion_s, edge)
        elif message.session == self._camera_session:
            self._monitor.on_acknowledgement(self._frame_offset + message.sequence, now_s, message.dispersion_s, edge)
        self._act()

    def _on_edge_load(self, message: msg.EdgeLoad) -> None:
        report, now_s = from_message(LoadReport, message), time.monotonic()
        if report.edge in self._edges:
            self._edges[report.edge].sessions.on_heard(report.edge_session, now_s)
        if self._monitor is None or not self._is_ours(message.fingerprint):
            return
        self._monitor.on_load(report, now_s)
        self._act()

    def _is_ours(self, fingerprint: str) -> bool:
        """Whether the edge that speaks serves the robot's model; one that does not counts as silent."""
        ours = self._robot[0].fingerprint == fingerprint
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
        lead, message = (
            to_message(msg.Probe, session=self._session, sequence=probe.id, padding=array.array('B', bytes(size)))
            for size in sizes
        )
        lead.is_lead = True
        to_edge = self._to_edges[probe.edge]
        began_s = time.monotonic()
        if probe.lead_bytes:
            to_edge.lead.publish(lead)
        to_edge.probe.publish(message)
        self._monitor.on_probe_sent(probe.id, time.monotonic() - began_s, probe.edge)

    def _announce(self, decision: SplitDecision) -> None:
        if decision.changed:
            self.get_logger().info(decision.reason)
        known = decision.last_frame > self._frame_offset  # the message numbers frames as the camera does
        self._publish(
            replace(
                decision,
                last_frame_session=self._camera_session if known else 0,
                last_frame=decision.last_frame - self._frame_offset if known else 0,
            ),
            self._robot[0].fingerprint,
        )

    def _publish_local(self, reason: str, robot: Profile) -> None:
        local = robot.cuts[robot.local_index]
        self._publish(
            SplitDecision(
                local.index,
                '',
                0.0,
                self._camera_session,
                self._last_frame,
                local_if_wait_s=0.0,
                predicted_latency_s=local.head_s[robot.batches[0]],
                degraded=True,
                split_name=local.name,
                reason=reason,
            ),
            robot.fingerprint,
        )

    def _publish(self, decision: SplitDecision, fingerprint: str) -> None:
        """Publish a decision under the next number; numbers go on when another profile begins another monitor."""
        self._decisions += 1
        decision = replace(decision, sequence=self._decisions)
        self._split.publish(to_decision(decision, self._header(), fingerprint))
        before, self._told = self._told, (decision.edge, decision.choice)
        for edge in {before[0], decision.edge} & set(self._to_edges) if before != self._told else ():
            self._to_edges[edge].split.publish(to_edge_decision(decision, self._header(), fingerprint))
        if self._metrics is not None:
            self._metrics.on_decision(decision)

    def _publish_link_state(self) -> None:
        if self._monitor is None:
            return
        link, load = self._monitor.link, self._monitor.load
        spread = math.exp(min(link.relative_uncertainty, 20.0))
        if self._metrics is not None:
            self._metrics.on_link(link.alive, link.throughput_bps, link.rtt_s)
        self._link_state.publish(
            to_message(
                msg.LinkState,
                header=self._header(),
                edge=self._monitor.used.name,
                alive=link.alive,
                throughput_bps=link.throughput_bps,
                throughput_low_bps=link.throughput_bps / spread,
                throughput_high_bps=link.throughput_bps * spread,
                round_trip_s=link.rtt_s,
                silence_s=link.silence_s,
                edge_queueing_s=load.queueing_s,
                edge_slowdown=load.slowdown,
                edge_utilisation=load.utilisation,
                probe_bytes_total=sum(
                    edge.link.probe_bytes + edge.link.heartbeat_bytes for edge in self._monitor.edges.values()
                ),
                edges=[self._state_of(name, edge) for name, edge in self._edges.items()],
            )
        )

    def _state_of(self, name: str, edge: ListedEdge) -> msg.EdgeState:
        """Return the state of an edge; one that the robot may not use has no estimates."""
        known = self._monitor.edges.get(name)
        if known is None:
            return to_message(msg.EdgeState, edge=name, reason=edge.why_not, slowdown=1.0, latency_s=math.inf)
        link, load = self._monitor.link_of(known), self._monitor.load_of(known)
        return to_message(
            msg.EdgeState,
            load,
            edge=name,
            usable=True,
            alive=link.alive,
            round_trip_s=link.rtt_s,
            throughput_bps=link.throughput_bps,
            latency_s=known.predicted_s,
        )

    def _header(self) -> Header:
        return Header(stamp=self.get_clock().now().to_msg())

    # ---- settings and diagnostics -----------------------------------------------------------------------------------

    def on_change(self, values: SimpleNamespace) -> None:
        """Decide by new settings from now on, with what is known of link and edge."""
        settings = settings_of(values)
        if self._monitor is not None:
            self._monitor.reconfigure(self._settle(settings, self._monitor.profile))
        self._settings = settings
        for name, edge in self._edges.items():
            if edge.why_not:
                self._admit(name)
        self._stay_local()

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Tell what is believed of link and edge, and whether the robot is on its own."""
        values: dict[str, object] = {'ignored_messages': self._ignored, 'fell_back': self._fallbacks}
        values |= {f'state of edge {name}': self._in_words(name, edge) for name, edge in self._edges.items()}
        if self._monitor is None:
            missing = [side for side, known in (('robot', self._robot), ('edge', self._edges)) if not known]
            if missing:
                return DiagnosticStatus.WARN, f'no profile of {" and ".join(missing)}', values
            return DiagnosticStatus.WARN, f'degraded to local inference: {self._alone}', values
        link, load, decision = self._monitor.link, self._monitor.load, self._monitor.decision
        values |= {
            'edge': self._monitor.used.name,
            'frame_rate_hz': self._monitor.frame_rate_hz,
            **asdict(link),
            **{f'edge_{name}': value for name, value in asdict(load).items()},
        }
        for choice in self._monitor.audits.choices:
            values[f'agreement of split {choice[0]} with {choice[1]}'] = str(self._monitor.audits.agreement(choice))
        if removed := list(self._monitor.audits.removed.values()):
            values['taken_out'] = '; '.join(removed)
        if decision is not None:
            values |= {
                'split': decision.split_index,
                'codec': decision.codec,
                'head_engine': decision.head_engine,
                'tail_engine': decision.tail_engine,
                'decisions': self._decisions,
                'predicted_latency_s': decision.predicted_latency_s,
                'answer_timeout_s': decision.answer_timeout_s,
                'reason': decision.reason,
            }
        if not link.alive:
            return DiagnosticStatus.WARN, f'degraded to local inference: {SILENT}', values
        if decision is None:
            return DiagnosticStatus.OK, 'no decision yet', values
        if removed:
            return DiagnosticStatus.WARN, removed[-1], values
        if differs := inexactness(self._robot[1], self._edges[self._monitor.used.name].side):
            return DiagnosticStatus.WARN, differs, values
        return DiagnosticStatus.OK, f'split {describe_split(decision)}', values

    def _in_words(self, name: str, edge: ListedEdge) -> str:
        """Return the state of an edge in a few words."""
        if self._monitor is None or name not in self._monitor.edges:
            return edge.why_not or 'waiting for the profile of the robot'
        known = self._monitor.edges[name]
        state = f'predicted {known.predicted_s * 1e3:.1f} ms' if known.link.alive else 'silent'
        return f'in use, {state}' if known is self._monitor.used else state


def settings_of(values: SimpleNamespace) -> MonitorSettings:
    """Return the monitor's settings from the parameters' values."""
    return MonitorSettings(
        **{
            setting.name: tuple(value) if isinstance(value := getattr(values, setting.name), list) else value
            for setting in fields(MonitorSettings)
            if hasattr(values, setting.name)
        }
    )


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(MonitorNode, args)


if __name__ == '__main__':
    sys.exit(main())
