# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Estimates throughput and round-trip time from the instants of messages and answers on the robot."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
import math

from dynsplit_ros.estimators.probing import LinkRules, ProbePlan, Probing
from dynsplit_ros.estimators.rate import RateFilter
from dynsplit_ros.estimators.round_trip import RoundTrip

#: Bytes of a heartbeat; also the assumed bytes of an acknowledgement and of the answer to a probe.
HEARTBEAT_BYTES = 32
#: Share of the heartbeat period that applies until the round-trip estimate has enough heartbeats: for half a second at
#: the default period. With a larger share, the first decisions rest on a guessed round trip.
_FIRST_HEARTBEATS = 0.2
#: Number of small messages that a large answer on the downlink (a label image, for example) can delay. A heartbeat
#: among them does not measure the round trip. With fewer, the answer counts as a longer round trip; with more, usual
#: heartbeats are ignored.
_DELAYED_MESSAGES = 6
#: Longest time, in seconds, for which the first frame waits for a probe to measure the rate of a new edge. Without this
#: wait, one image at a guessed rate occupies a slow link for seconds.
_FIRST_RATE_S = 1.0
#: Number of kept acknowledgements for payloads that the camera has not reported yet. It bounds the memory.
_EARLY_ACKNOWLEDGEMENTS = 4
#: Standard deviation, in seconds, of a dispersion that the edge measures: the edge's scheduler delays both arrivals.
#: With a smaller one, delays look like changes of the rate; with a larger one, probes must be longer.
_DISPERSION_JITTER_S = 3e-4
#: Least bytes of a payload whose dispersion counts. Smaller ones fit into one burst of a shaper, which makes the link
#: look fast.
_MIN_DISPERSED_BYTES = 4500
#: Probability that the edge paused and saw lead and message at once. With 0, one such pause makes the link look fast; a
#: larger probability delays the detection of a faster link.
_EDGE_PAUSED = 0.03
#: The link is lost when no report has arrived for ``silence_s`` plus the longest pause between two reports times the
#: first factor. With a smaller factor, a late report looks like a lost link. With each report, the longest pause decays
#: by the second factor; without this, one frame on a slow link would delay the detection of every lost link.
_PAUSES = 2.0
_PAUSE_FADING = 0.95
#: Number of consecutive reports after which a missing one counts. With fewer, an edge with irregular reports looks
#: lost.
_REGULAR_REPORTS = 3


@dataclass(frozen=True)
class Probe:
    """
    A message of ``payload_bytes`` that the edge answers at once with an empty message with the same ``id``.

    If ``lead_bytes`` is not 0, this part leaves first as a separate message (the lead), which the edge does not answer.
    The answer then contains the dispersion: the time between the arrivals of lead and message. ``edge`` is the edge's
    name.
    """

    id: int
    payload_bytes: int
    lead_bytes: int = 0
    edge: str = ''


@dataclass(frozen=True)
class LinkEstimate:
    """
    The estimate of the link.

    ``throughput_bps`` is the rate from robot to edge (bit/s), ``relative_uncertainty`` the standard deviation of the
    rate's natural logarithm, ``rtt_s`` the round-trip time of an empty message and ``jitter_s`` its standard deviation.
    ``alive`` says whether the edge answers; ``silence_s`` is the time since its last message. The last three fields are
    the bytes sent since the start.
    """

    throughput_bps: float
    relative_uncertainty: float
    rtt_s: float
    jitter_s: float
    alive: bool
    silence_s: float
    payload_bytes: int
    heartbeat_bytes: int
    probe_bytes: int


@dataclass
class _Message:
    """
    A message without an answer.

    The message left at ``sent_s`` with ``size`` bytes. The edge is expected to hold it for ``service_s``. ``lead`` is
    the size of its lead, ``gap_s`` the time between lead and message on this machine. ``arrived`` says that the message
    has arrived, and ``arrived_s`` since when this is known. ``given_up`` says that the camera no longer waits for the
    answer.
    """

    sent_s: float
    size: float
    service_s: float
    is_payload: bool
    lead: int = 0
    gap_s: float = 0.0
    arrived: bool = False
    arrived_s: float = 0.0
    given_up: bool = False


class LinkEstimator:
    """
    Estimates a link that carries one message after the other from the times of its messages.

    A transfer starts when its message is sent or when the message before it has arrived, whichever is later. It ends
    half a round trip before the acknowledgement arrives, or before the answer minus the time that the edge held the
    message. All instants are of the robot's clock; the edge sends only durations. Probes and heartbeats together take
    at most ``probe_share`` of the rate. They leave only while no other message is under way. The exception is a
    heartbeat after a payload that was given up. The link counts as lost when the edge is silent for ``silence_s``
    longer than expected: after an unanswered message, or when regular load reports are missing.
    """

    def __init__(self, rules: LinkRules) -> None:
        #: Callers may replace the rules at any time; the estimates stay.
        self.rules = rules
        self._rate = RateFilter()
        self._rate_s: float | None = None
        self._now_s = -math.inf
        self._round_trip = RoundTrip()
        self._probing = Probing(self._rate, self._round_trip)
        self.alive = False
        self._heard_s = -math.inf
        self._first_heard_s = math.inf
        self._reported_s = -math.inf
        self._reports = 0  # in a row
        self._pause_s = 0.0  # the longest recent pause between two reports
        self._under_way: dict[Hashable, _Message] = {}
        self._early: dict[Hashable, tuple[float, float]] = {}
        self._free_s = -math.inf
        self._sent_s = -math.inf
        #: Instant at which the latest arrived message was sent.
        self.last_arrived_sent_s = -math.inf
        self._answered_s = -math.inf
        self._answer_size = 0.0
        self._heartbeat_s = self._payload_rtt_s = -math.inf
        self._rate_measured_s = -math.inf
        self._probes = 0
        self.payload_bytes = 0
        self.heartbeat_bytes = 0
        self.probe_bytes = 0

    @property
    def rtt_s(self) -> float:
        """Round trip of an empty message, in seconds."""
        return self._round_trip.rtt_s

    @property
    def _heartbeat_size(self) -> float:
        return HEARTBEAT_BYTES * (1 + 1 / self.rules.downlink_ratio)

    # ---- messages ------------------------------------------------------------------------------------------------

    def on_sent(self, key: Hashable, now_s: float, payload_bytes: int, service_s: float, gap_s: float = 0.0) -> bool:
        """
        Note a payload that left at ``now_s``; return whether its acknowledgement has already arrived.

        ``service_s`` is the time for which the edge is expected to hold it, ``gap_s`` the time between lead and payload
        on this machine.
        """
        self._clock(now_s)
        self.payload_bytes += payload_bytes
        self._sent_s = self._now_s
        gap_s = gap_s if 0 <= gap_s < math.inf else 0.0
        self._under_way[key] = _Message(now_s, payload_bytes, service_s, True, gap_s=gap_s)
        early = self._early.pop(key, None)
        return early is not None and self.on_acknowledgement(key, *early)

    def on_acknowledgement(self, key: Hashable, now_s: float, dispersion_s: float = math.nan) -> bool:
        """Take the acknowledgement of a payload; return whether that payload was under way."""
        message = self._under_way.get(key)
        if message is None:  # the acknowledgement can arrive before the camera's report of the payload
            self._early[key] = now_s, dispersion_s
            if len(self._early) > _EARLY_ACKNOWLEDGEMENTS:
                del self._early[next(iter(self._early))]
        if message is None or message.arrived:
            return False
        self._arrived(message, now_s, 0.0, HEARTBEAT_BYTES / self.rules.downlink_ratio, dispersion_s)
        return True

    def on_answer(
        self, key: Hashable, now_s: float, held_s: float, answer_bytes: int, dispersion_s: float = math.nan
    ) -> bool:
        """
        Take an answer that arrived at ``now_s``; return whether its message was under way.

        On the edge's clock, ``held_s`` is the time from the message's arrival to its answer's departure, and
        ``dispersion_s`` the time between the arrivals of lead and message.
        """
        message = self._under_way.pop(key, None)
        if message is None:
            return False
        answer_size = max(answer_bytes, HEARTBEAT_BYTES) / self.rules.downlink_ratio
        if not message.arrived:
            self._arrived(message, now_s, held_s, answer_size, dispersion_s)
        self._hear(now_s)
        if answer_bytes > 0 and now_s > self._answered_s:
            self._answered_s, self._answer_size = now_s, answer_size
        return True

    def on_gap(self, key: Hashable, gap_s: float) -> None:
        """Note the time between the lead of a probe and the probe on this machine."""
        message = self._under_way.get(key)
        if message is not None and message.lead > 0 and gap_s >= 0:
            message.gap_s = gap_s
            self._probing.on_gap(gap_s)

    def on_given_up(self, key: Hashable) -> None:
        """Note that the camera no longer waits for the answer to a message, which may still occupy the link."""
        if key in self._under_way:
            self._under_way[key].given_up = True

    @property
    def blocked_since_s(self) -> float:
        """Instant at which the latest payload was sent that was given up and still occupies the link; -inf for none."""
        waits_s = [message.sent_s for message in self._under_way.values() if message.given_up and not message.arrived]
        return max(waits_s, default=-math.inf)

    def on_report(self, now_s: float, period_s: float = math.inf) -> None:
        """
        Note a load report, which the edge sends every ``period_s`` seconds.

        A longer pause comes from the link, so it does not extend the wait for the next report.
        """
        before_s = self._reported_s
        self._reported_s = now_s = self._hear(now_s)
        if self._reports > 0:
            pause_s = min(now_s - before_s, max(self.rules.silence_s, period_s))
            self._pause_s = max(pause_s, _PAUSE_FADING * self._pause_s)
        self._reports += 1

    @property
    def _reports_are_missing(self) -> bool:
        longest_s = self.rules.silence_s + _PAUSES * self._pause_s
        return self._reports > _REGULAR_REPORTS and self._now_s - self._reported_s > longest_s

    def _arrived(
        self, message: _Message, back_s: float, held_s: float, answer_size: float, dispersion_s: float
    ) -> None:
        """Learn from a message whose acknowledgement or answer, of ``answer_size`` bytes, arrived at ``back_s``."""
        now_s = self._hear(back_s)
        overtaken = self._overtaken_by(message, now_s)
        message.arrived, message.arrived_s = True, now_s
        self.last_arrived_sent_s = message.sent_s  # no earlier message arrives after this one
        arrived_s = back_s - held_s
        possible = held_s >= 0 and arrived_s >= message.sent_s  # not after a jump of a clock or a wrong report
        if not possible or self._is_delayed_by_answer(back_s):
            return
        start_s = max(message.sent_s, self._free_s)
        alone = not overtaken and self._free_s <= message.sent_s
        self._free_s = arrived_s - self.rtt_s
        if message.size <= HEARTBEAT_BYTES:
            # Too short to measure the rate.
            if alone:
                self._on_heartbeat(arrived_s - message.sent_s)
        elif not overtaken:
            self._learn_rate(message, now_s, start_s, arrived_s, alone, answer_size, dispersion_s)

    def _overtaken_by(self, message: _Message, now_s: float) -> bool:
        """
        Note that all messages before this one have arrived or are lost; return whether there were any.

        The link keeps their order.
        """
        overtaken = [
            other
            for other in self._under_way.values()
            if other is not message and other.sent_s <= message.sent_s and not other.arrived
        ]
        for other in overtaken:
            other.arrived, other.arrived_s = True, now_s
        return bool(overtaken)

    def _learn_rate(
        self,
        message: _Message,
        now_s: float,
        start_s: float,
        arrived_s: float,
        alone: bool,
        answer_size: float,
        dispersion_s: float,
    ) -> None:
        """
        Learn the rate from a transfer: from its dispersion if the edge measured one, else from its duration.

        Packet-pair dispersion (Dovrolis et al., INFOCOM 2001) contains no pause of this machine. The rest of a
        payload's time measures the round trip.
        """
        if not message.is_payload:
            self._probing.on_arrived(message.size)
        self._advance(now_s)
        # A message that left with a pause of this machine behind its lead counts with a larger error.
        pause_s = message.gap_s if self._probing.has_paused(message.gap_s, dispersion_s) else 0.0
        measured = 1.0
        dispersed = message.lead > 0 or (message.is_payload and message.size >= _MIN_DISPERSED_BYTES)
        if dispersed and 0 < dispersion_s <= arrived_s - message.sent_s:
            dispersed_bytes = message.size - message.lead
            if message.lead > 0:
                self._probing.on_dispersion(8 * dispersed_bytes / dispersion_s)
            self._rate.observe(dispersion_s, dispersed_bytes, _DISPERSION_JITTER_S + pause_s, _EDGE_PAUSED)
            # At most once in each heartbeat period: payloads replace the heartbeats, which leave only between them.
            if message.is_payload and alone and now_s - self._payload_rtt_s >= self.rules.heartbeat_period_s:
                self._payload_rtt_s = now_s
                self._on_heartbeat(arrived_s - start_s - dispersion_s)
        else:
            size = message.size + answer_size
            if self._rate_measured_s == -math.inf:
                size -= self._heartbeat_size  # before a rate is known, the round trip contains a heartbeat's bytes
            self._rate.observe(arrived_s - start_s - self.rtt_s, size, self._round_trip.jitter_s + pause_s)
            # A short transfer measures less, so the next probe is due sooner.
            transfer_s, airtime_s = size * 8 / self._rate.median_bps, self._probing.airtime_s(self.rules)
            measured = transfer_s / airtime_s if transfer_s < airtime_s else 1.0
        self._rate_measured_s = max(self._rate_measured_s, now_s - (1 - measured) * self.rules.probe_period_s)

    def _is_delayed_by_answer(self, back_s: float) -> bool:
        behind_s = back_s - self._answered_s
        bit_s = 1 / self._rate.median_bps
        small_s = HEARTBEAT_BYTES * 8 / self.rules.downlink_ratio * bit_s
        between_s = _DELAYED_MESSAGES * small_s + 3 * self._round_trip.jitter_s
        return self._answer_size * 8 * bit_s > self._round_trip.jitter_s and 0 <= behind_s <= between_s

    def _hear(self, now_s: float) -> float:
        now_s = self._clock(now_s)
        if self._reports_are_missing:  # the edge answers but sends no reports: missing ones say nothing
            self._reports = 0
        if not self.alive:
            self._probing.on_reconnect()
        self.alive = True
        self._heard_s = now_s
        self._first_heard_s = min(self._first_heard_s, now_s)
        return now_s

    def _on_heartbeat(self, total_s: float) -> None:
        # Before a rate is known, the transmission time of the bytes is not known either.
        known = self._rate_measured_s > -math.inf
        self._round_trip.observe(total_s, self._heartbeat_transmission_s if known else math.nan)

    @property
    def _heartbeat_transmission_s(self) -> float:
        return self._heartbeat_size * 8 / self._rate.median_bps

    # ---- heartbeats and probes -----------------------------------------------------------------------------------

    def pending(self, now_s: float) -> list[_Message]:
        """Return the messages that may still be on the link."""
        return [
            message
            for message in self._under_way.values()
            if not message.arrived and now_s - message.sent_s < self._longest_wait_s(message)
        ]

    def add_budget(self, size: float) -> None:
        """Add this many bytes to the budget of the probes."""
        self._probing.spend(-size)

    def next_probe(
        self,
        now_s: float,
        on_other_links: Sequence[_Message] = (),
        budget_share: float = 1.0,
        period_factor: float = 1.0,
    ) -> Probe | None:
        """
        Return the probe to send now, None for none; it counts as sent.

        ``on_other_links`` are the messages that may still be on the links to other edges: all links can share a radio.
        This link has ``budget_share`` (0 to 1) of the robot's budget. The heartbeat period is ``period_factor`` times
        the one of the settings.
        """
        now_s = self._clock(now_s)
        shortening = _FIRST_HEARTBEATS if self._round_trip.is_converging else 1.0
        heartbeat = now_s - self._heartbeat_s >= shortening * period_factor * self.rules.heartbeat_period_s
        wanted = self._probing.is_due(now_s - self._rate_measured_s, now_s - self._sent_s, self.rules)
        if not (heartbeat or wanted):
            return None
        # Heartbeats to other edges do not count: they take almost no time, and a lost edge never answers them.
        before = self.pending(now_s) + [message for message in on_other_links if message.size > HEARTBEAT_BYTES]
        # A heartbeat behind a payload that was given up shows when that payload has arrived.
        if before and not (heartbeat and all(other.given_up for other in before)):
            return None
        self._probing.add_income(now_s, self.rules, alive=self.alive, share=budget_share)
        if heartbeat:
            self._heartbeat_s = now_s
            self.heartbeat_bytes += HEARTBEAT_BYTES
            return self._probe(now_s, ProbePlan(HEARTBEAT_BYTES))
        if not (self._round_trip.settled and self.alive):
            return None
        plan = self._probing.choose(now_s, self.rules)
        if plan is None:
            return None
        self.probe_bytes += plan.size
        return self._probe(now_s, plan)

    def _probe(self, now_s: float, plan: ProbePlan) -> Probe:
        self._probing.spend(plan.size)
        self._probes += 1
        probe = Probe(self._probes, plan.size, plan.lead)
        self._under_way['probe', probe.id] = _Message(now_s, plan.size, 0.0, False, plan.lead)
        return probe

    # ---- estimates -----------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Handle the passing of time: detect a lost link, and drop messages that will get no answer."""
        now_s = self._clock(now_s)
        if self._reports_are_missing:
            self.alive = False
        for key, message in list(self._under_way.items()):
            if now_s - message.sent_s > self._longest_wait_s(message):
                if self._heard_s <= message.sent_s:
                    self.alive = False
                if message.arrived or not message.is_payload:
                    del self._under_way[key]
                if not (message.arrived or message.is_payload):
                    self._probing.on_lost(message.size)

    def _longest_wait_s(self, message: _Message) -> float:
        return self.rules.silence_s + self.rtt_s + message.service_s + message.size * 8 / self._rate.median_bps

    @property
    def rate_spread(self) -> float:
        """Standard deviation of the natural logarithm of the rate, without the variation of single transfers."""
        return self._rate.level_spread

    @property
    def is_uncertain(self) -> bool:
        """Whether the rate is so uncertain that the next probe is due at once."""
        return self._probing.is_uncertain

    @property
    def awaits_rate(self) -> bool:
        """Whether a new edge has answered for the first time and no transfer has measured the rate yet."""
        return self.alive and self._rate_measured_s == -math.inf and self._now_s - self._first_heard_s < _FIRST_RATE_S

    def belief(self, now_s: float) -> RateFilter:
        """Return the rate estimate at ``now_s``; the time so far of the payload under way counts as a bound."""
        now_s = self._clock(now_s)
        self._advance(now_s)
        overdue = self.overdue(now_s)
        if overdue is None:
            return self._rate
        message, elapsed_s = overdue
        rate = self._rate.copy()
        rate.observe_unfinished(elapsed_s, message.size, self._round_trip.jitter_s)
        return rate

    def overdue(self, now_s: float) -> tuple[_Message, float] | None:
        """Return the result of :meth:`waiting` if that payload takes longer than expected, else None."""
        waiting = self.waiting(now_s)
        if waiting is None or waiting[1] <= waiting[0].size * 8 / self._rate.median_bps:
            return None
        return waiting

    def waiting(self, now_s: float) -> tuple[_Message, float] | None:
        """Return the payload on the link and the least time that it has been there, in seconds (may be negative)."""
        for message in self._under_way.values():
            if message.is_payload and not message.arrived:  # the first one; later transfers have not begun
                start_s = max(message.sent_s, self._free_s)
                return message, now_s - start_s - self.rtt_s - message.service_s
        return None

    def arrived_s(self, key: Hashable) -> float | None:
        """Return when an unanswered message arrived, by the robot's clock; None if its arrival is not known."""
        message = self._under_way.get(key)
        return message.arrived_s if message is not None and message.arrived else None

    def estimate(self, now_s: float) -> LinkEstimate:
        """Return the estimate at ``now_s`` (seconds of the robot's monotonic clock)."""
        now_s = self._clock(now_s)
        rate = self.belief(now_s)
        return LinkEstimate(
            throughput_bps=rate.median_bps,
            relative_uncertainty=rate.relative_uncertainty,
            rtt_s=self.rtt_s,
            jitter_s=self._round_trip.jitter_s,
            alive=self.alive,
            silence_s=now_s - self._heard_s,
            payload_bytes=self.payload_bytes,
            heartbeat_bytes=self.heartbeat_bytes,
            probe_bytes=self.probe_bytes,
        )

    def _advance(self, now_s: float) -> None:
        if self._rate_s is not None:
            self._rate.elapse(now_s - self._rate_s)
        self._rate_s = now_s

    def _clock(self, now_s: float) -> float:
        """Return the latest finite instant so far, which never decreases even if the clock does."""
        if self._now_s < now_s < math.inf:
            self._now_s = now_s
        return self._now_s if self._now_s > -math.inf else 0.0
