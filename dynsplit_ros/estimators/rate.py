# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is believed about the link's rate: a Bayesian filter over a grid of rates, fed with transfer times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]

LOWEST_BPS = 1e4
HIGHEST_BPS = 1e10
_SIZE = 256

#: How a link may behave, from a cable to a cell's edge: relative spread of what single transfers see, drift of the
#: level (natural logarithm, per square root of a second), and how often per second it becomes anything else at once.
#: Which of these holds is inferred from the transfers, so that neither averaging nor reacting is tuned to a link.
_SPREAD = np.array([0.05, 0.18, 0.45])
_DRIFT = np.array([0.02, 0.12, 0.70])
_JUMPS_PER_S = np.array([0.02, 0.03, 0.10])
#: How often per second a link changes between these behaviours.
_REGIME_CHANGES_PER_S = 0.05
#: Share of transfers that something other than the link held up: a pause of a process, a lost packet sent again.
_HELD_UP = 0.01
_TWO_THIRDS = np.array([0.1587, 0.8413])


class RateFilter:
    """
    The probability of each rate on a logarithmic grid, under each of three behaviours of the link.

    Between observations the probability diffuses and, with a small chance per second, jumps anywhere: a change of rate
    is then a hypothesis like any other, and wins as soon as it explains a transfer better than noise does. The idea of
    forecasting a cellular link this way is from Winstein, Sivaraman and Balakrishnan, "Stochastic Forecasts Achieve High
    Throughput and Low Delay over Cellular Networks" (NSDI 2013); the behaviours side by side are the interacting
    multiple models of Blom and Bar-Shalom (1988).
    """

    log_grid: Array = np.linspace(np.log(LOWEST_BPS), np.log(HIGHEST_BPS), _SIZE)
    grid_bps: Array = np.exp(log_grid)
    _step = float(log_grid[1] - log_grid[0])
    # Diffusion with reflecting ends is diagonal in the cosine basis: any elapsed time is one product there.
    _frequency_squared: Array = (2 - 2 * np.cos(np.pi * np.arange(_SIZE) / _SIZE)) / _step**2
    _decay: Array = np.outer(_DRIFT**2 / 2, _frequency_squared)
    _blur: Array = np.exp(-np.outer(_SPREAD**2 / 2, _frequency_squared))

    def __init__(self) -> None:
        self._p: Array = np.full((len(_SPREAD), _SIZE), 1 / (len(_SPREAD) * _SIZE))

    def copy(self) -> RateFilter:
        """Return a filter with the same belief, to ask 'what if' without changing this one."""
        other = RateFilter.__new__(RateFilter)
        other._p = self._p.copy()
        return other

    def elapse(self, elapsed_s: float) -> None:
        """Let ``elapsed_s`` (>= 0) go by without an observation."""
        if elapsed_s <= 0:
            return
        p = fft.idct(fft.dct(self._p, norm='ortho') * np.exp(-self._decay * elapsed_s), norm='ortho')
        np.maximum(p, 0.0, out=p)
        weight = p.sum(axis=1)
        jumped = weight * -np.expm1(-_JUMPS_PER_S * elapsed_s)
        p *= (1 - jumped / np.maximum(weight, 1e-300))[:, None]
        p += (jumped / _SIZE)[:, None]
        changed = -np.expm1(-_REGIME_CHANGES_PER_S * elapsed_s)
        p = (1 - changed) * p + changed * p.mean(axis=0)
        self._p = p / p.sum()

    def observe(self, transfer_s: float, size_bytes: float, jitter_s: float) -> None:
        """
        Take into account that ``size_bytes`` took ``transfer_s``, known to ``jitter_s`` (> 0).

        The spread is relative to the geometric mean of the expected and the measured time: for long transfers this is a
        normal distribution of the logarithm, for short ones of the time itself, so a transfer too short to tell says no
        more than that the link is not slow. Something may hold a transfer up, but nothing makes it faster than the link.
        """
        expected = size_bytes * 8 / self.grid_bps
        late = transfer_s - expected
        floor = max(transfer_s, jitter_s)
        variance = jitter_s**2 + (_SPREAD**2)[:, None] * (expected * floor)
        likelihood = np.exp(-0.5 * late**2 / variance) / np.sqrt(2 * np.pi * variance)
        # A delay of unknown size: its logarithm is spread evenly over four decades.
        delayed = np.where(late > 0, 1 / (9.2 * (np.abs(late) + jitter_s)), 0.0)
        self._p = self._p * ((1 - _HELD_UP) * likelihood + _HELD_UP * delayed)
        self._normalise()

    def observe_longer(self, elapsed_s: float, size_bytes: float, jitter_s: float) -> None:
        """Take into account that ``size_bytes`` have taken more than ``elapsed_s`` and are still not through."""
        expected = size_bytes * 8 / self.grid_bps
        deviation = np.sqrt(jitter_s**2 + (_SPREAD**2)[:, None] * (expected * max(elapsed_s, jitter_s)))
        # The logistic approximation of the normal distribution (Bowling et al. 2009), good to 0.01.
        survival = 1 / (1 + np.exp(np.clip(-1.702 * (expected - elapsed_s) / deviation, -60, 60)))
        held_up = np.minimum(1.0, np.log1p(1e4 * jitter_s / max(elapsed_s, jitter_s)) / 9.2)
        self._p = self._p * ((1 - _HELD_UP) * survival + _HELD_UP * held_up)
        self._normalise()

    def quantiles_bps(self, shares: Array) -> Array:
        """Levels of the rate below which the given shares (ascending, 0..1) of the probability lie."""
        return self.quantiles_of(self._p.sum(axis=0), shares)

    def next_transfer(self) -> Array:
        """Return the probability of each rate of the grid for the next transfer, its own spread included."""
        spectrum = (fft.dct(self._p, norm='ortho') * self._blur).sum(axis=0)
        result: Array = np.maximum(fft.idct(spectrum, norm='ortho'), 0.0)
        return result / result.sum()

    def quantiles_of(self, p: Array, shares: Array) -> Array:
        """Rates below which the given shares (ascending, 0..1) of the probability ``p`` over the grid lie."""
        cumulated = np.cumsum(p)
        edges = self.log_grid + self._step / 2
        result: Array = np.exp(np.interp(shares, cumulated / cumulated[-1], edges))
        return result

    @property
    def median_bps(self) -> float:
        """The rate that is as likely exceeded as not."""
        return float(self.quantiles_bps(np.array([0.5]))[0])

    @property
    def relative_uncertainty(self) -> float:
        """Standard deviation of the rate's natural logarithm."""
        p = self._p.sum(axis=0)
        mean = float(p @ self.log_grid)
        return float(np.sqrt(max(0.0, float(p @ (self.log_grid - mean) ** 2))))

    @property
    def level_spread(self) -> float:
        """Half the width, on the natural logarithm, of the middle two thirds: the spread apart from rare jumps."""
        low, high = self.quantiles_bps(_TWO_THIRDS)
        return float(np.log(high / low)) / 2

    @property
    def regimes(self) -> Array:
        """Probability of each behaviour, from steady to wild."""
        weights: Array = self._p.sum(axis=1)
        return weights

    def _normalise(self) -> None:
        total: Any = self._p.sum()
        if not total > 1e-280:  # nothing on the grid explains this: know nothing rather than something wrong
            self._p = np.full_like(self._p, 1 / self._p.size)
        else:
            self._p = self._p / total
