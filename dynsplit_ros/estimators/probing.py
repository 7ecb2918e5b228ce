# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Which throughput probe to send next, and what a share of the link's rate pays for."""

from __future__ import annotations

from dataclasses import dataclass
import math

from dynsplit_ros.estimators.rate import RateFilter
from dynsplit_ros.estimators.round_trip import RoundTrip

#: What may be sent to learn the rate when nothing is known of it: one packet's worth.
_FIRST_BYTES = 600
_LARGEST_BYTES = 262144
#: The least otherwise.
_LEAST_BYTES = 128
#: A probe takes this many times what the round trip varies by: it then tells the rate to a twentieth.
_JITTERS = 20.0
#: What goes ahead of a probe that the edge times: two frames, which shapers and radios let through at once.
_LEAD_BYTES = 3000
#: Once round trips wavered by so many times what needs a lead, one goes ahead for so long, in seconds: they waver by
#: turns.
_MUCH = 2.0
_LEADS_S = 60.0
#: The least that follows it; how long that is to take, in seconds. Just enough to tell that the rate has changed: the
#: lead costs most of it, and the shorter it is, the sooner the next one can be paid.
_LED_BYTES = 800
_LED_S = 0.0013
#: So many longer ones confirm what one has told of a change; how long they are to take, in seconds. So many bytes are
#: kept in hand for them; while there are fewer, this share of what is earned is saved.
_CONFIRMATIONS = 2
_CONFIRMING_S = 0.0025
_IN_HAND_BYTES = 18_000
_SAVING = 0.1
#: A choice waits no longer than this for what they are to tell, in seconds.
_CONFIRMED_S = 0.15
#: So much later than its lead a probe may leave, in seconds, or by a quarter of the dispersion, or, on a machine that
#: is always slow to send, by so many times the least.
_GAP_S = 1e-3
_USUAL_GAPS = 3.0
#: Of its budget, a probe may spend this: the rate may have fallen before that is noticed. One with a lead may spend
#: more: it cannot be smaller, and what it would tell of is not to wait.
_EARNED = 0.85
_EARNED_LED = 0.95
#: The budget of so many seconds is kept, so that the largest probe and the heartbeats can be paid.
_SAVED_S = 2.0
#: Beyond this standard deviation of the rate's logarithm, more probes are worth their bytes at once.
_AMBIGUOUS = 0.5


@dataclass(frozen=True)
class LinkRules:
    """
    How a link is looked after.

    Seconds between heartbeats and between probes, the share (0..1) of the estimated rate that both may take, after how
    many seconds of silence the link counts as lost, and the answers' rate over the payloads' rate.
    """

    heartbeat_period_s: float
    probe_period_s: float
    probe_share: float
    silence_s: float
    downlink_ratio: float


@dataclass(frozen=True)
class ProbePlan:
    """A probe to send: all its bytes, those of them in its lead, whether it confirms what another told of a change."""

    size: int
    lead: int = 0
    confirms: bool = False


class Probing:
    """
    Decides on probes and keeps their budget, heartbeats included.

    The first one is on credit. Where the round trip varies so much that what a second earns does not tell the rate,
    probes have a lead, and the edge times them. One that tells of a change is followed at once by longer ones, which
    are paid from what was saved.
    """

    def __init__(self, rate: RateFilter, round_trip: RoundTrip) -> None:
        self._rate = rate
        self._round_trip = round_trip
        self._tokens = 0.0
        self._tokens_s: float | None = None
        self._earned = 0.0  # bytes per second
        self._largest = _LARGEST_BYTES
        self._credit = True  # for the first probe
        self._leads_until_s = -math.inf
        self._led = False  # one with a lead has been answered
        self._led_s = -math.inf  # when the last of them left
        self._least_gap_s = math.inf  # between a lead and its probe
        self._believed_bps = self._told_bps = 0.0  # from and to which rate one told of a change
        self._told_s = -math.inf  # and when
        self._confirmations = 0  # of that, still to be sent
        self._spoiled = False  # one has told nothing

    def begin(self) -> None:
        """Note that the link is there, again perhaps: the next probe is on credit."""
        self._credit, self._led = True, False

    # What came of them

    def on_through(self, size: float) -> None:
        """Note that a probe of ``size`` bytes got through."""
        self._largest = min(max(self._largest, 2 * int(size)), _LARGEST_BYTES)

    def on_lost(self, size: float) -> None:
        """Note that one did not; nothing sends it again, and perhaps it is too large for some buffer."""
        if size > _FIRST_BYTES:
            self._largest = max(int(size) // 2, _FIRST_BYTES)

    def on_gap(self, gap_s: float) -> None:
        """Note how long this machine took from a lead to its probe."""
        self._least_gap_s = min(self._least_gap_s, gap_s)

    def paused(self, gap_s: float, dispersion_s: float) -> bool:
        """Whether this machine paused after a lead, so that what follows it does not tell of the link alone."""
        usual_s = _USUAL_GAPS * self._least_gap_s if self._least_gap_s < math.inf else 0.0
        return gap_s > max(_GAP_S, dispersion_s / 4, usual_s)

    def on_spoiled(self, *, confirms: bool) -> None:
        """Note a probe that told nothing, for such a pause: the next may."""
        self._spoiled = not confirms
        self._confirmations += confirms

    def on_dispersion(self, told_bps: float, now_s: float, *, confirms: bool) -> None:
        """Note what a probe with a lead told, before it is believed: a change is to be confirmed, or was none."""
        believed_bps = self._believed_bps if confirms else self._rate.median_bps
        if abs(math.log(told_bps / believed_bps)) <= _AMBIGUOUS:
            self._confirmations = 0
        elif not confirms:
            self._believed_bps, self._told_bps, self._told_s = believed_bps, told_bps, now_s
            self._confirmations = _CONFIRMATIONS

    def confirms_rise(self, now_s: float, *, under_way: bool) -> bool:
        """Whether a faster link is still to be confirmed, by a probe yet to be sent or one that is ``under_way``."""
        rise = self._told_bps > self._believed_bps
        return rise and (self._confirmations > 0 or under_way) and now_s - self._told_s < _CONFIRMED_S

    def on_payload(self) -> None:
        """Note that a payload told the rate: more than what is still to be confirmed would."""
        self._confirmations, self._spoiled = 0, False

    def on_led(self) -> None:
        """Note that a probe with a lead told something."""
        self._led = True

    # What comes next

    def wanted(self, quiet_s: float, rules: LinkRules) -> bool:
        """Whether a probe is due, if nothing told of the rate for ``quiet_s`` seconds."""
        return (
            self._credit
            or self._confirmations > 0
            or self._spoiled
            or quiet_s >= rules.probe_period_s
            or self._rate.level_spread > _AMBIGUOUS
        )

    def airtime_s(self, rules: LinkRules) -> float:
        """How long a transfer must take to tell the rate to a twentieth, within what a second earns."""
        share = rules.probe_share
        return min(max(_JITTERS * self._round_trip.jitter_s, share * rules.probe_period_s), share)

    def _needs_lead(self, now_s: float, rules: LinkRules) -> bool:
        """Whether this machine lately timed messages so badly that what a second earns does not tell the rate."""
        told_in_s = _JITTERS * self._round_trip.jitter_s
        if told_in_s > _MUCH * rules.probe_share and not self._round_trip.young:
            self._leads_until_s = now_s + _LEADS_S
        return (told_in_s > rules.probe_share or now_s < self._leads_until_s) and not self._credit

    def earn(self, now_s: float, rules: LinkRules, *, alive: bool) -> None:
        """Add to the budget what the time since the last call has brought."""
        if self._tokens_s is not None and alive:
            # What is surely there, not what is hoped for: a quarter of the belief lies below. But a probe with a lead
            # is large, and the vaguer the belief, the later it would come to make it less so: half-way to the median.
            needs_lead = self._needs_lead(now_s, rules)
            if needs_lead:
                rate_bps = _EARNED_LED * math.sqrt(self._rate.low_bps * self._rate.median_bps)
            else:
                rate_bps = _EARNED * self._rate.low_bps
            self._earned = rules.probe_share * rate_bps / 8
            least = _LEAD_BYTES + _LED_BYTES + _IN_HAND_BYTES if needs_lead else _FIRST_BYTES
            self._tokens = min(
                self._tokens + self._earned * (now_s - self._tokens_s), max(_SAVED_S * self._earned, least)
            )
        self._tokens_s = now_s

    def pay(self, size: int) -> None:
        """Take from the budget what a heartbeat or probe costs, in bytes."""
        self._tokens -= size

    def choose(self, now_s: float, rules: LinkRules) -> ProbePlan | None:
        """Return the probe to send now, as far as it can be paid; it counts as sent, but is not paid yet."""
        lead = _LEAD_BYTES if self._needs_lead(now_s, rules) else 0
        confirms = lead > 0 and self._confirmations > 0
        rate_bps = self._told_bps if confirms else self._rate.low_bps
        airtime_s = _CONFIRMING_S if confirms else _LED_S if lead else self.airtime_s(rules)
        size = int(min(rate_bps * airtime_s / 8, self._largest))  # an edge may have told of any rate, even an infinite
        if confirms:
            size = min(size, int(self._tokens / self._confirmations) - lead)
        size = lead + max(size, _LED_BYTES if lead else _LEAST_BYTES, _FIRST_BYTES if self._credit else 0)
        # The first one is on credit, with a lead too: what that told without may be far too low.
        on_credit = self._credit or (lead > 0 and not self._led)
        affordable = self._tokens >= (-2 * size if on_credit else size)
        if lead and not (on_credit or confirms or self._spoiled or self._rate.level_spread > _AMBIGUOUS):
            saves = self._tokens < size + _IN_HAND_BYTES
            affordable &= not saves or (now_s - self._led_s) * self._earned >= (1 + _SAVING) * size
        if not affordable:
            return None
        self._credit = self._spoiled = False
        self._confirmations = self._confirmations - 1 if confirms else 0
        self._led_s = now_s if lead else self._led_s
        return ProbePlan(size, lead, confirms)
