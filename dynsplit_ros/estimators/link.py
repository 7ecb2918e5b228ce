# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Throughput and round-trip time from what a robot sees: what it sent when, and when the answer came."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
import math

from dynsplit_ros.estimators.probing import LinkRules, ProbePlan, Probing
from dynsplit_ros.estimators.rate import RateFilter
from dynsplit_ros.estimators.round_trip import RoundTrip

#: Also what a receipt, or the answer to a probe, is taken to measure.
HEARTBEAT_BYTES = 32
#: While the round trip is hardly known, heartbeats come in this share of their period.
_HURRY = 0.2
#: So many heartbeats' worth of receipts and load reports may come between an answer and what waited behind it.
_BETWEEN = 6
#: So long, in seconds, after an edge is heard first its rate is waited for, if it takes that.
_FIRST_S = 1.0
#: Receipts that are kept for payloads of which nobody has told yet.
_EARLY_RECEIPTS = 4
#: How well the edge times what follows a lead, in seconds; of a shorter payload than so many bytes too much passes at
#: once for its own dispersion to tell the rate.
_LED_JITTER_S = 3e-4
_TIMED_BYTES = 4500
#: How likely it is that the edge paused meanwhile, and saw a message and its lead at once.
_HURRIED = 0.03
#: The belief is aged between transfers only when none was seen for this long, in seconds.
_IDLE_S = 0.2
#: The longest pause between the edge's reports fades by this factor with each of them; two such pauses may be missed,
#: once so many reports have come in a row.
_FADING = 0.95
_PAUSES = 2.0
_REGULAR = 3


@dataclass(frozen=True)
class Probe:
    """
    A message of ``payload_bytes`` for the edge to answer at once with an empty one that carries ``id``.

    ``lead_bytes`` of them, if any, go ahead as a message of their own, which is not answered: the edge tells its
    dispersion, the time between the arrivals of the two.
    """

    id: int
    payload_bytes: int
    lead_bytes: int = 0


@dataclass(frozen=True)
class LinkEstimate:
    """
    What is believed of the link.

    ``throughput_bps`` from the robot to the edge, the standard deviation of its natural logarithm, the round
    trip of an empty message and what it varies by, whether the edge answers at all, for how long nothing was
    heard of it, and the bytes spent on payloads, heartbeats and throughput probes since the start.
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
class _Sent:
    """
    A message on its way: when it left, its bytes in both directions, how long the edge should need for it.

    ``confirms`` is whether it is a probe that follows one which told of a change, ``gap_s`` how long this machine took
    from its lead to it.
    """

    sent_s: float
    size: float
    service_s: float
    is_payload: bool
    lead: int = 0
    confirms: bool = False
    gap_s: float = 0.0
    passed: bool = False
    given_up: bool = False
    passed_s: float = 0.0


class LinkEstimator:
    """
    Follows each message from sending to arrival on a link that carries one after the other.

    A message's transfer starts when it is sent or when the one before it is through, whichever is later, and
    ends half a round trip before its receipt comes back, or its answer, less the time that the edge held it.
    Only durations are subtracted from the robot's clock; the edge's clock is never looked at. Throughput
    probes keep to ``probe_share``, heartbeats included, and leave only while nothing else is under way, but for
    a heartbeat behind a payload that nobody waits for. The link counts as lost when nothing at all was heard for
    ``silence_s`` longer than expected: of a message that is unanswered, or of the edge's reports, where they came
    regularly.
    """

    def __init__(self, rules: LinkRules) -> None:
        #: May be replaced at any time; what is known of the link stays.
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
        self._pause_s = 0.0  # the longest between them, of late
        self._under_way: dict[Hashable, _Sent] = {}
        self._early: dict[Hashable, tuple[float, float]] = {}
        self._free_s = -math.inf
        self._receipts = False
        self._answered_s = -math.inf
        self._answer_size = 0.0
        self._heartbeat_s = self._rest_s = -math.inf
        self._informed_s = -math.inf
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

    # What was sent and what came back

    def on_sent(
        self, key: Hashable, now_s: float, payload_bytes: int, service_s: float, gap_s: float = 0.0
    ) -> bool:
        """
        Note a payload that left at ``now_s``; return whether its receipt had come already.

        ``service_s`` is how long the edge is expected to hold it, and ``gap_s`` how long this machine took to send it
        after its lead.
        """
        self._clock(now_s)
        self.payload_bytes += payload_bytes
        gap_s = gap_s if 0 <= gap_s < math.inf else 0.0
        self._under_way[key] = _Sent(now_s, payload_bytes, service_s, True, gap_s=gap_s)
        early = self._early.pop(key, None)
        return early is not None and self.on_receipt(key, *early)

    def on_receipt(self, key: Hashable, now_s: float, dispersion_s: float = math.nan) -> bool:
        """Take into account that the edge said at once that a payload arrived; False if it is not expected."""
        sent = self._under_way.get(key)
        if sent is None:  # a robot tells of what it sent when that has left; the receipt may have overtaken it
            self._early[key] = now_s, dispersion_s
            if len(self._early) > _EARLY_RECEIPTS:
                del self._early[next(iter(self._early))]
        if sent is None or sent.passed:
            return False
        self._receipts = True
        self._arrived(sent, now_s, 0.0, HEARTBEAT_BYTES / self.rules.downlink_ratio, dispersion_s)
        return True

    def on_answer(
        self, key: Hashable, now_s: float, held_s: float, answer_bytes: int, dispersion_s: float = math.nan
    ) -> bool:
        """
        Take an answer into account that came at ``now_s``; return False for one to something never sent.

        ``held_s`` is the time between the message's arrival at the edge and its answer's departure, and
        ``dispersion_s`` that between the arrivals of its lead and of itself, on the edge's clock.
        """
        sent = self._under_way.pop(key, None)
        if sent is None:
            return False
        answer_size = max(answer_bytes, HEARTBEAT_BYTES) / self.rules.downlink_ratio
        if not sent.passed:
            self._arrived(sent, now_s, held_s, answer_size, dispersion_s)
        self._hear(now_s)
        if answer_bytes > 0 and now_s > self._answered_s:
            self._answered_s, self._answer_size = now_s, answer_size
        return True

    def on_gap(self, key: Hashable, gap_s: float) -> None:
        """Note how long this machine took to send a probe after its lead."""
        sent = self._under_way.get(key)
        if sent is not None and sent.lead > 0 and gap_s >= 0:
            sent.gap_s = gap_s
            self._probing.on_gap(gap_s)

    def on_given_up(self, key: Hashable) -> None:
        """Note that nobody waits for a message any more; it is on the link all the same."""
        if key in self._under_way:
            self._under_way[key].given_up = True

    @property
    def blocked(self) -> bool:
        """Whether a payload that nobody waits for is, as far as is known, still on the link."""
        return any(sent.given_up and not sent.passed for sent in self._under_way.values())

    def on_report(self, now_s: float, period_s: float = math.inf) -> None:
        """
        Note that the edge reported of itself, as it does every ``period_s`` seconds.

        A longer pause than that was the link's, and is no reason to wait as long for the next report.
        """
        before_s = self._reported_s
        self._reported_s = now_s = self._hear(now_s)
        if self._reports > 0:
            pause_s = min(now_s - before_s, max(self.rules.silence_s, period_s))
            self._pause_s = max(pause_s, _FADING * self._pause_s)
        self._reports += 1

    @property
    def _reports_are_missing(self) -> bool:
        patience_s = self.rules.silence_s + _PAUSES * self._pause_s
        return self._reports > _REGULAR and self._now_s - self._reported_s > patience_s

    def _arrived(
        self, sent: _Sent, back_s: float, held_s: float, answer_size: float, dispersion_s: float
    ) -> None:
        """Learn from a message whose receipt or answer was back at ``back_s``."""
        now_s = self._hear(back_s)
        overtaken = [
            other
            for other in self._under_way.values()
            if other is not sent and other.sent_s <= sent.sent_s and not other.passed
        ]
        start_s = max(sent.sent_s, self._free_s)
        arrived_s = back_s - held_s
        for other in overtaken:
            # The link keeps the order, so these are through or lost; how long they took at least is known.
            if other.is_payload:
                self._advance(now_s)
                self._rate.observe_longer(
                    sent.sent_s - max(other.sent_s, self._free_s) - self.rtt_s,
                    other.size,
                    self._round_trip.jitter_s + 0.25 * other.service_s,
                )
            other.passed, other.passed_s = True, now_s
        sent.passed, sent.passed_s = True, now_s
        if not (held_s >= 0 and arrived_s >= sent.sent_s):
            return  # held for longer than it was away, or back before it left: clocks that jumped teach nothing
        if self._behind_an_answer(back_s):
            return  # on its way back it probably waited, nobody knows how long
        alone = not overtaken and self._free_s <= sent.sent_s
        self._free_s = max(self._free_s, arrived_s - self.rtt_s)
        if sent.size <= HEARTBEAT_BYTES:
            # Its own transfer cannot be told from the round trip, so it says nothing of the rate.
            if alone:
                self._on_heartbeat(arrived_s - sent.sent_s)
            return
        if overtaken:
            return
        if not sent.is_payload:
            self._probing.on_through(sent.size)
        self._advance(now_s)
        size = sent.size + answer_size
        known = self._informed_s > -math.inf
        if not known:  # the round trip still holds the heartbeats' own bytes
            size = max(size - self._heartbeat_size, 1.0)
        led = sent.lead > 0 or (sent.is_payload and sent.size >= _TIMED_BYTES)
        paused = self._probing.paused(sent.gap_s, dispersion_s)
        if paused and sent.lead > 0:
            self._probing.on_spoiled(confirms=sent.confirms)
            return
        vague_s = sent.gap_s if paused else 0.0  # a payload is no probe to be repeated: it tells what it can
        if led and 0 < dispersion_s <= arrived_s - sent.sent_s:
            # Packet-pair dispersion (Dovrolis et al., INFOCOM 2001): pauses of this machine are not in it. In the rest
            # of a payload's time they are: that is its round trip.
            if sent.is_payload:
                self._probing.on_payload()
            else:
                self._probing.on_dispersion(8 * (sent.size - sent.lead) / dispersion_s, now_s, confirms=sent.confirms)
            self._rate.observe(dispersion_s, sent.size - sent.lead, _LED_JITTER_S + vague_s, _HURRIED)
            rest_s = arrived_s - start_s - dispersion_s
            told = 1.0
            if sent.is_payload and alone and now_s - self._rest_s >= self.rules.heartbeat_period_s:
                self._rest_s = now_s  # as often as heartbeats, which leave only between payloads, would tell it
                self._on_heartbeat(rest_s)
        else:
            self._rate.observe(arrived_s - start_s - self.rtt_s, size, self._round_trip.jitter_s + vague_s)
            # A short transfer tells less, so the next probe is due sooner.
            transfer_s, airtime_s = size * 8 / self._rate.median_bps, self._probing.airtime_s(self.rules)
            told = transfer_s / airtime_s if transfer_s < airtime_s else 1.0
        if sent.lead > 0:
            self._probing.on_led()
        self._informed_s = max(self._informed_s, now_s - (1 - told) * self.rules.probe_period_s)
        if not known:
            self._round_trip.update(self._heartbeat_own_s)

    def _behind_an_answer(self, back_s: float) -> bool:
        behind_s = back_s - self._answered_s
        if behind_s < 0 or self._answer_size == 0:
            return False
        bit_s = 1 / self._rate.median_bps
        small_s = HEARTBEAT_BYTES * 8 / self.rules.downlink_ratio * bit_s
        between_s = _BETWEEN * small_s + 3 * self._round_trip.jitter_s
        return self._answer_size * 8 * bit_s > self._round_trip.jitter_s and behind_s <= between_s

    def _hear(self, now_s: float) -> float:
        now_s = self._clock(now_s)
        if not self.alive:
            self._probing.begin()
        if self._reports_are_missing:  # and something else comes: then they tell nothing
            self._reports = 0
        self.alive = True
        self._heard_s = now_s
        self._first_heard_s = min(self._first_heard_s, now_s)
        return now_s

    def _on_heartbeat(self, total_s: float) -> None:
        # While nothing is known of the rate, neither is the share that the bytes have in it.
        known = self._informed_s > -math.inf
        self._round_trip.observe(total_s, self._heartbeat_own_s if known else math.nan)

    @property
    def _heartbeat_own_s(self) -> float:
        return self._heartbeat_size * 8 / self._rate.median_bps

    # Heartbeats and probes

    def next_probe(self, now_s: float) -> Probe | None:
        """Return the probe to send now, if one is due; it counts as sent."""
        now_s = self._clock(now_s)
        hurry = _HURRY if self._round_trip.young else 1.0
        heartbeat = now_s - self._heartbeat_s >= hurry * self.rules.heartbeat_period_s
        wanted = self._probing.wanted(now_s - self._informed_s, self.rules)
        if not (heartbeat or wanted):
            return None
        before = [
            other
            for other in self._under_way.values()
            if not other.passed and now_s - other.sent_s < self._patience_s(other)
        ]
        # Behind what nobody waits for, a heartbeat tells when that is through.
        if before and not (heartbeat and all(other.given_up for other in before)):
            return None
        self._probing.earn(now_s, self.rules, alive=self.alive)
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
        self._probing.pay(plan.size)
        self._probes += 1
        probe = Probe(self._probes, plan.size, plan.lead)
        self._under_way['probe', probe.id] = _Sent(now_s, plan.size, 0.0, False, plan.lead, plan.confirms)
        return probe

    # What is believed

    def tick(self, now_s: float) -> None:
        """Let time pass: recognise a lost link, and let go of what will never be answered."""
        now_s = self._clock(now_s)
        if self._reports_are_missing:
            self.alive = False
        for key, sent in list(self._under_way.items()):
            if now_s - sent.sent_s > self._patience_s(sent):
                if self._heard_s <= sent.sent_s:
                    self.alive = False
                if sent.passed or not sent.is_payload:
                    del self._under_way[key]
                if not (sent.passed or sent.is_payload):
                    self._probing.on_lost(sent.size)

    def _patience_s(self, sent: _Sent) -> float:
        return self.rules.silence_s + self.rtt_s + sent.service_s + sent.size * 8 / self._rate.median_bps

    @property
    def rate_spread(self) -> float:
        """Standard deviation of the natural logarithm of the rate, without what single transfers vary by."""
        return self._rate.level_spread

    @property
    def rate_awaited(self) -> bool:
        """Whether an edge that answers was just heard for the first time, and nothing has told of the rate yet."""
        return self.alive and self._informed_s == -math.inf and self._now_s - self._first_heard_s < _FIRST_S

    @property
    def confirms_rise(self) -> bool:
        """Whether a probe told of a faster link just now and the next ones are about to tell by how much."""
        under_way = any(sent.confirms and not sent.passed for sent in self._under_way.values())
        return self._probing.confirms_rise(self._now_s, under_way=under_way)

    def belief(self, now_s: float) -> RateFilter:
        """Return the rate as believed at ``now_s``, with what the unanswered payload says of it."""
        now_s = self._clock(now_s)
        overdue = self.overdue(now_s)
        if overdue is None:
            if self._rate_s is None or (now_s - self._rate_s > _IDLE_S and self.waiting(now_s) is None):
                self._advance(now_s)
            return self._rate
        sent, elapsed_s = overdue
        rate = self._rate.copy()
        rate.elapse(max(0.0, now_s - (self._rate_s if self._rate_s is not None else now_s)))
        rate.observe_longer(elapsed_s, sent.size, self._round_trip.jitter_s)
        return rate

    def overdue(self, now_s: float) -> tuple[_Sent, float] | None:
        """Return what :meth:`waiting` does if it takes so long that this says something of the rate."""
        waiting = self.waiting(now_s)
        if waiting is None or waiting[1] <= waiting[0].size * 8 / self._rate.median_bps:
            return None
        return waiting

    def waiting(self, now_s: float) -> tuple[_Sent, float] | None:
        """Return the payload on the link and for how long its transfer must have been going on, in seconds."""
        for sent in self._under_way.values():
            if sent.is_payload and not sent.passed:  # the first one; those behind it have not begun
                start_s = max(sent.sent_s, self._free_s)
                held_s = 0.0 if self._receipts else sent.service_s
                return sent, max(0.0, now_s - start_s - self.rtt_s - held_s)
        return None

    def passed_s(self, key: Hashable) -> float | None:
        """When an unanswered message got through, by the robot's clock; None if it has not, as far as is known."""
        sent = self._under_way.get(key)
        return sent.passed_s if sent is not None and sent.passed else None

    def estimate(self, now_s: float) -> LinkEstimate:
        """Return what is believed at ``now_s`` (seconds of the robot's monotonic clock)."""
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
        """Time as this estimator lives through it: it never runs backwards, whatever the clock does."""
        if self._now_s < now_s < math.inf:
            self._now_s = now_s
        return self._now_s if self._now_s > -math.inf else 0.0
