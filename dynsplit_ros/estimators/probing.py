# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Decides which throughput probe to send next, within a budget that is a share of the link's rate."""

from __future__ import annotations

from dataclasses import dataclass
import math

from dynsplit_ros.estimators.rate import RateFilter
from dynsplit_ros.estimators.round_trip import RoundTrip

#: Bytes of the first probe, before the rate is known: one packet, which passes any link within a second. More would
#: occupy a slow link for longer; fewer would measure less.
_FIRST_BYTES = 600
#: Largest and smallest size of a probe without its lead, in bytes. A larger probe would delay the payload behind it; a
#: smaller one measures nothing on any link.
_LARGEST_BYTES, _MIN_BYTES = 262144, 128
#: Transfer time of a probe, in standard deviations of the round trip: one probe then measures the rate to 5 %. With
#: shorter probes, jitter looks like changes of the rate; longer ones exceed the budget.
_JITTERS = 20.0
#: Bytes of a lead: two packets, which use up the burst that shapers and radios let through at once. With less, the
#: probe behind it arrives in the same burst, and the link looks fast.
_LEAD_BYTES = 3000
#: If the jitter exceeds its limit by this factor, probes keep their lead for the next ``_LEADS_S`` seconds. A machine
#: that is stopped until its next time slice needs this: most of its round trips are equal, so its jitter seems small at
#: times.
_HIGH_JITTER = 2.0
_LEADS_S = 60.0
#: Least bytes after a lead, and their transfer time in seconds: long enough to detect a change of the rate above the
#: jitter of the edge's clock. Longer probes cost more of the budget, so the next one leaves later.
_DISPERSED_BYTES = 800
_DISPERSION_S = 0.0013
#: Largest rate, as a multiple of the estimate, for which the probe that confirms a faster link is sized. Without this
#: limit, each pause of the edge, which looks like a gigabit per second, costs 165 kB.
_LARGEST_RISE = 4.0
#: Gap between lead and probe, in seconds, above which this machine paused; a quarter of the dispersion is also allowed.
#: On a machine that is always slow to send, the limit is its least gap times the ratio. With a lower limit, such a
#: machine measures nothing; with a higher one, its pauses look like a slow link.
_GAP_S = 1e-3
_GAP_RATIO = 3.0
#: Share of the income that probes may spend, because the rate may have fallen unnoticed; the second value is for probes
#: with a lead, which cannot be smaller. With 1, probes exceed ``probe_share`` on a link that becomes slow.
_INCOME_SHARE = 0.85
_LEAD_INCOME_SHARE = 0.95
#: Largest budget, in seconds of income: enough for the largest probe and the heartbeats. With more, a burst of probes
#: exceeds ``probe_share`` after a silence.
_BUDGET_S = 2.0
#: Standard deviation of the rate's natural logarithm above which the next probe is due at once: the rate is then
#: uncertain by a factor of 1.6, which can change the planner's choice. A smaller one spends the budget on small doubts;
#: a larger one keeps a wrong choice until the next regular probe.
_UNCERTAIN = 0.5


@dataclass(frozen=True)
class LinkRules:
    """
    The user's settings for the link estimator.

    The fields are the seconds between heartbeats and between probes, the share (0 to 1) of the estimated rate that both
    may take, the silence in seconds after which the link counts as lost, and the rate of the downlink divided by that
    of the uplink.
    """

    heartbeat_period_s: float
    probe_period_s: float
    probe_share: float
    silence_s: float
    downlink_ratio: float


@dataclass(frozen=True)
class ProbePlan:
    """A probe to send: its bytes, and the bytes of its lead among them."""

    size: int
    lead: int = 0


class Probing:
    """
    Decides on probes and keeps their budget, heartbeats included.

    The first probe is on credit, also after a silence of the edge. If one second of income cannot measure the rate
    because of the jitter, probes have a lead, and the edge measures their dispersion.
    """

    def __init__(self, rate: RateFilter, round_trip: RoundTrip) -> None:
        self._rate = rate
        self._round_trip = round_trip
        self._tokens = 0.0
        self._tokens_s: float | None = None
        self._largest = _LARGEST_BYTES
        self._credit = True  # the next probe may be on credit
        self._leads_until_s = -math.inf
        self._has_dispersion = False  # a probe with a lead was answered
        self._faster_bps = 0.0  # rate that the latest dispersion measured if it is faster than the estimate, else 0
        self._least_gap_s = math.inf  # least time between a lead and its probe on this machine

    def on_reconnect(self) -> None:
        """
        Note that the edge answers after a silence: the next probes are on credit, as the first ones were.

        The link may have any rate then. At the low rate from before, the income would pay for a probe with a lead only
        after seconds.
        """
        self._credit, self._has_dispersion = True, False

    # ---- results of probes -----------------------------------------------------------------------------------------

    def on_arrived(self, size: float) -> None:
        """Note that a probe of ``size`` bytes arrived."""
        self._largest = min(max(self._largest, 2 * int(size)), _LARGEST_BYTES)

    def on_lost(self, size: float) -> None:
        """Note that a probe was lost. Probes are best effort, so it may have been too large for a buffer on the way."""
        if size > _FIRST_BYTES:
            self._largest = max(int(size) // 2, _FIRST_BYTES)

    def on_gap(self, gap_s: float) -> None:
        """Note the time between a lead and its probe on this machine."""
        self._least_gap_s = min(self._least_gap_s, gap_s)

    def has_paused(self, gap_s: float, dispersion_s: float) -> bool:
        """Whether this machine paused between lead and probe; the dispersion then contains this pause."""
        usual_s = _GAP_RATIO * self._least_gap_s if self._least_gap_s < math.inf else 0.0
        return gap_s > max(_GAP_S, dispersion_s / 4, usual_s)

    def on_dispersion(self, measured_bps: float) -> None:
        """Note the rate that a dispersion measured, before the estimate takes it; a faster rate needs another probe."""
        self._has_dispersion = True
        self._faster_bps = measured_bps if measured_bps > self._rate.median_bps * math.exp(_UNCERTAIN) else 0.0

    # ---- the next probe --------------------------------------------------------------------------------------------

    def is_due(self, quiet_s: float, unsent_s: float, rules: LinkRules) -> bool:
        """
        Whether a probe is due if no transfer has measured the rate for ``quiet_s`` seconds.

        The last payload left ``unsent_s`` seconds ago. While payloads follow one another, they measure an uncertain
        rate without additional bytes.
        """
        is_planned = self._credit or self._faster_bps > 0 or quiet_s >= rules.probe_period_s
        return is_planned or (self.is_uncertain and unsent_s >= rules.probe_period_s)

    @property
    def is_uncertain(self) -> bool:
        """Whether the rate is so uncertain that the planner's choice depends on it."""
        return self._rate.level_spread > _UNCERTAIN

    def airtime_s(self, rules: LinkRules) -> float:
        """Return the transfer time of a probe that measures the rate to 5 %, at most one second of income."""
        share = rules.probe_share
        return min(max(_JITTERS * self._round_trip.jitter_s, share * rules.probe_period_s), share)

    def _needs_lead(self, now_s: float, rules: LinkRules) -> bool:
        """
        Whether a lead is needed, because one second of income does not measure the rate, and saves bytes.

        The first holds if the jitter is, or recently was, too large. On a slow link, a probe that takes twenty jitters
        has fewer bytes than a lead.
        """
        probe_s = _JITTERS * self._round_trip.jitter_s
        if probe_s > _HIGH_JITTER * rules.probe_share and not self._round_trip.is_converging:
            self._leads_until_s = now_s + _LEADS_S
        if now_s < self._leads_until_s:
            probe_s = max(probe_s, _HIGH_JITTER * rules.probe_share)
        saves = probe_s * self._rate.median_bps / 8 > _LEAD_BYTES + _DISPERSED_BYTES
        return probe_s > rules.probe_share and saves and not self._credit

    def add_income(self, now_s: float, rules: LinkRules, *, alive: bool, share: float = 1.0) -> None:
        """Add this share (0 to 1) of the income since the last call to the budget."""
        if self._tokens_s is not None and alive:
            # The income follows the lower quartile of the rate, so that probes keep their share if the rate is lower
            # than the median. For a probe with a lead, which is large and would otherwise leave late, it follows the
            # geometric mean of lower quartile and median.
            plan = self._next(now_s, rules)
            if plan.lead > 0:
                rate_bps = _LEAD_INCOME_SHARE * math.sqrt(self._rate.low_bps * self._rate.median_bps)
            else:
                rate_bps = _INCOME_SHARE * self._rate.low_bps
            income = rules.probe_share * rate_bps / 8  # bytes per second
            # Budget that a link saved with a larger share is lost when its share falls; one probe stays affordable.
            most = max(_BUDGET_S * share * income, plan.size)
            self._tokens = min(self._tokens + share * income * (now_s - self._tokens_s), most)
        self._tokens_s = now_s

    def spend(self, size: float) -> None:
        """Take the bytes of a heartbeat or probe from the budget."""
        self._tokens -= size

    def choose(self, now_s: float, rules: LinkRules) -> ProbePlan | None:
        """Return the probe to send now if the budget allows one; it counts as sent, the caller spends its bytes."""
        plan = self._next(now_s, rules)
        # The first probe is on credit. So is the first probe with a lead, because the rate measured without a lead may
        # be far too low, and a probe that confirms a faster link: at the lower rate, the budget would pay for it only
        # after a second or more.
        on_credit = self._credit or self._faster_bps > 0 or (plan.lead > 0 and not self._has_dispersion)
        affordable = self._tokens >= (-2 * plan.size if on_credit else plan.size)
        if not affordable:
            return None
        self._credit, self._faster_bps = False, 0.0
        return plan

    def _next(self, now_s: float, rules: LinkRules) -> ProbePlan:
        """Return the next probe, regardless of the budget."""
        lead = _LEAD_BYTES if self._needs_lead(now_s, rules) else 0
        airtime_s = _DISPERSION_S if lead else self.airtime_s(rules)
        rate_bps = max(self._rate.low_bps, min(self._faster_bps, _LARGEST_RISE * self._rate.median_bps))
        size = int(min(rate_bps * airtime_s / 8, self._largest))  # an edge can claim any rate
        size = lead + max(size, _DISPERSED_BYTES if lead else _MIN_BYTES, _FIRST_BYTES if self._credit else 0)
        return ProbePlan(size, lead)
