# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The distribution of the link's rate: a Bayesian filter over a grid of rates, fed with transfer times."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Singles = NDArray[np.float32]

#: Lowest and highest rate of the grid in bit/s, and its number of rates, which are 8 % apart. A rate beyond the grid
#: counts as the nearest rate; a coarser grid is less exact on a steady link.
LOWEST_BPS = 2e4
HIGHEST_BPS = 5e9
_SIZE = 160

#: Parameters of three models of a link, from a cable to the edge of a radio cell: relative standard deviation of single
#: transfers, drift of the rate (natural logarithm, per square root of a second), and jumps to any other rate per
#: second. The filter infers the model from the transfers. With one model, the estimate is noisy on some links or slow
#: on others.
_SPREAD = np.array([0.05, 0.18, 0.45])
_DRIFT = np.array([0.02, 0.12, 0.70])
_JUMPS_PER_S = np.array([0.02, 0.03, 0.10])
#: Changes between these models per second: one in twenty seconds. Without changes, a link that becomes steady or wild
#: keeps the wrong model for minutes.
_MODEL_CHANGES_PER_S = 0.05
#: Share of transfers that are delayed by something other than the link: a pause of a process, a packet that is sent
#: again. With a smaller share, one such transfer looks like a slower link; with a larger one, the filter needs more
#: transfers to detect a slower link.
_DELAYED_SHARE = 0.01
#: Scale of all densities: it makes the maximum of the standard normal density 1.
_PER_DENSITY = math.sqrt(2 * math.pi)
#: Density of a delay of unknown size: its logarithm is uniform over four decades from one jitter on.
_DELAY_DENSITY = _PER_DENSITY / (4 * math.log(10))
#: Largest time, in seconds or in units of the jitter. Its square fits into single precision; after such a time, nothing
#: is left of an observation.
_LONGEST = 1e12
RATE_EDGES = np.array([0, 1, 4, 10, 20, 35, 50, 65, 80, 90, 96, 99, 100]) / 100
#: Quantile levels of the rate of the next transfer: the middles of the intervals, which are finer in the tails.
RATE_SHARES: Array = (RATE_EDGES[1:] + RATE_EDGES[:-1]) / 2
#: Quantiles of the standard normal distribution at these levels.
_NORMALS: Array = np.array([NormalDist().inv_cdf(share) for share in RATE_SHARES])
#: Quantile levels of the link's rate: lower end of the middle two thirds, lower quartile, median, upper end.
_LEVEL_SHARES = np.array([0.1587, 0.25, 0.5, 0.8413])
_SHARES = np.concatenate((_LEVEL_SHARES, RATE_SHARES))


_LOG_GRID: Array = np.linspace(math.log(LOWEST_BPS), math.log(HIGHEST_BPS), _SIZE, dtype=np.float64)
_STEP = float(_LOG_GRID[1] - _LOG_GRID[0])
#: Share of the difference between a transfer's rate and the estimate by which the grid shifts, and the least duration
#: of such a transfer, in jitters. The shift makes the estimate of a steady link more exact than one grid step. A larger
#: share follows noise; a smaller one needs more transfers. Shorter transfers would shift the grid by their jitter.
_SHIFT_SHARE = 0.1
_LONG_TRANSFER = 10.0
_EDGES: Array = _LOG_GRID + _STEP / 2
_CELLS = np.arange(_SIZE)
_S_PER_BYTE = (8 / np.exp(_LOG_GRID)).astype(np.float32)
_VARIANCE_PER_BYTE = np.outer(_SPREAD**2, _S_PER_BYTE).astype(np.float32)
_OWN_VARIANCE = np.repeat(_SPREAD**2, _SIZE).astype(np.float32)
_EVERY_MODEL = np.ones(len(_SPREAD), np.float32)
# Diffusion with reflecting ends is diagonal in the cosine basis, so any elapsed time is one multiplication there. For
# 160 rates, a matrix product with the basis is faster than a fast transform. Single precision is enough.
_COSINES = math.sqrt(2 / _SIZE) * np.cos(np.pi * np.outer(np.arange(_SIZE), np.arange(_SIZE) + 0.5) / _SIZE)
_COSINES[0] /= math.sqrt(2)
_BASIS = _COSINES.astype(np.float32)
_TO_SPECTRUM = np.ascontiguousarray(_BASIS.T)
_DIFFUSION = np.outer(_DRIFT**2 / 2, (2 - 2 * np.cos(np.pi * np.arange(_SIZE) / _SIZE)) / _STEP**2)


@functools.lru_cache(maxsize=1024)
def _transition(twentieths: int) -> tuple[Singles, Singles]:
    """
    Return the effect of exp(``twentieths`` / 20) seconds: decay of the models' spectra [3, 160], mixing [3, 3].

    Jumps make the distribution uniform. The first value of a spectrum is the uniform part, which does not decay.
    """
    elapsed_s = math.exp(twentieths / 20)
    decay = np.exp(-(_DIFFUSION + _JUMPS_PER_S[:, None]) * elapsed_s)
    decay[:, 0] = 1.0
    change = -math.expm1(-_MODEL_CHANGES_PER_S * elapsed_s)
    mix = change / len(_SPREAD) + (1 - change) * np.eye(len(_SPREAD))
    return decay.astype(np.float32), mix.astype(np.float32)


class RateFilter:
    """
    The probability of each rate on a logarithmic grid, under each of three models of the link.

    Between observations the distribution diffuses and, with a small probability per second, the rate jumps to any other
    rate. So a change of the rate is one of the hypotheses. It wins as soon as it explains a transfer better than noise
    does. The filter over rates follows Winstein, Sivaraman and Balakrishnan, "Stochastic Forecasts Achieve High
    Throughput and Low Delay over Cellular Networks" (NSDI 2013); the parallel models are the interacting multiple
    models of Blom and Bar-Shalom (1988).
    """

    def __init__(self) -> None:
        self._p: Singles = np.full((len(_SPREAD), _SIZE), 1 / (len(_SPREAD) * _SIZE), np.float32)
        self._cumulated: Singles | None = None
        self._quantiles_of: Singles | None = None
        self._offset = 0.0  # shift of the grid, in natural logarithms
        self._level_log: list[float] = []
        self._next_log: Array = _NORMALS

    def copy(self) -> RateFilter:
        """Return a filter with the same distribution, whose changes do not affect this one."""
        other = RateFilter.__new__(RateFilter)
        other.__dict__ = dict(self.__dict__)  # no array is changed in place
        return other

    def elapse(self, elapsed_s: float) -> None:
        """Let ``elapsed_s`` (>= 0) pass without an observation."""
        if elapsed_s <= 0:
            return
        # The logarithm of the time is rounded to a twentieth, so that few different steps exist and each is computed
        # once.
        decay, mix = _transition(round(math.log(min(elapsed_s, _LONGEST)) * 20))
        # For arrays this small, dot takes half the time of @.
        spectrum = self._p.dot(_TO_SPECTRUM)
        spectrum *= decay
        self._p, self._cumulated = mix.dot(spectrum).dot(_BASIS), None

    def observe(self, transfer_s: float, size_bytes: float, jitter_s: float, pause_probability: float = 0.0) -> None:
        """
        Take a transfer of ``size_bytes`` that took ``transfer_s`` with a standard deviation of ``jitter_s`` (> 0).

        The relative spread refers to the geometric mean of the expected and the measured time. So the logarithm of the
        time has a normal distribution for long transfers, and the time itself for short ones. A transfer that is too
        short to measure the rate only shows that the link is not slow. A transfer can be delayed. It looks faster than
        the link only if the receiver had paused and saw its beginning late, which has the probability
        ``pause_probability`` (0 to 1).
        """
        # Times are in units of the jitter, which keeps single precision away from its limits.
        transfer, size = min(transfer_s / jitter_s, _LONGEST), size_bytes * math.exp(-self._offset) / jitter_s
        late = _S_PER_BYTE * -size
        late += transfer
        variance = _VARIANCE_PER_BYTE * (size * max(transfer, 1.0))
        variance += 1.0
        squared = late * late
        likelihood = squared * -0.5 / variance
        np.exp(likelihood, out=likelihood)
        likelihood /= np.sqrt(variance, out=variance)
        squared += 1.0
        if pause_probability:
            np.abs(late, out=late)
        else:
            np.maximum(late, 0.0, out=late)
        late *= max(_DELAYED_SHARE, pause_probability) * _DELAY_DENSITY
        late /= squared
        likelihood += late
        if pause_probability:  # a receiver that paused for longer saw beginning and end at the same time
            likelihood += pause_probability * _PER_DENSITY * math.exp(-(transfer**2) / 2)
        likelihood *= self._p
        self._set(likelihood)
        if transfer > _LONG_TRANSFER:
            self._follow(math.log(size_bytes * 8 / transfer_s) - self._offset - self._level()[2])

    def observe_unfinished(self, elapsed_s: float, size_bytes: float, jitter_s: float) -> None:
        """Take a transfer of ``size_bytes`` that has not ended after ``elapsed_s`` seconds."""
        size = size_bytes * math.exp(-self._offset) / jitter_s
        transfer = min(elapsed_s / jitter_s, _LONGEST)
        deviation = np.sqrt(_VARIANCE_PER_BYTE * (size * transfer) + 1)
        # The logistic approximation of the normal distribution (Bowling et al. 2009), good to 0.01.
        steps = (_S_PER_BYTE * size - transfer) / deviation
        survival = 1 / (1 + np.exp(np.clip(steps * -1.702, -60, 60)))
        delayed = math.log1p(1e4 / transfer) / (4 * math.log(10))
        self._set(self._p * ((1 - _DELAYED_SHARE) * survival + _DELAYED_SHARE * delayed))

    @property
    def below(self) -> Singles:
        """Cumulative distribution of the rate on the grid, [160]."""
        if self._cumulated is None:
            self._cumulated = self._sums(self._p)
            self._cumulated /= self._cumulated[-1]
        return self._cumulated

    def next_transfer_bps(self) -> Array:
        """
        Return the quantiles of the rate of the next transfer at :data:`RATE_SHARES`, in bit/s.

        The spread of single transfers is added to that of the link's rate as if both were normal.
        """
        spread = self.level_spread
        own = float(_OWN_VARIANCE.dot(self._p.ravel()))
        wider = math.sqrt(spread**2 + own) - spread
        return np.asarray(np.exp(self._next_log + (self._offset + wider * _NORMALS)))

    @property
    def median_bps(self) -> float:
        """Median of the link's rate, in bit/s."""
        return math.exp(self._level()[2] + self._offset)

    @property
    def low_bps(self) -> float:
        """Lower quartile of the link's rate, in bit/s."""
        return math.exp(self._level()[1] + self._offset)

    @property
    def level_spread(self) -> float:
        """Standard deviation of the rate's natural logarithm without rare jumps, from the middle two thirds."""
        level = self._level()
        return (level[3] - level[0]) / 2

    @property
    def relative_uncertainty(self) -> float:
        """Standard deviation of the rate's natural logarithm."""
        p = _EVERY_MODEL.dot(self._p)
        total = float(p.sum())
        mean = float(p.dot(_LOG_GRID)) / total
        return math.sqrt(float(p.dot((_LOG_GRID - mean) ** 2)) / total)

    def _level(self) -> list[float]:
        """Return the logarithms of the quantiles at :data:`_LEVEL_SHARES`, without the offset of the grid."""
        if self._cumulated is None or self._cumulated is not self._quantiles_of:
            self._quantiles_of = self.below
            quantiles = np.interp(_SHARES, self._quantiles_of, _EDGES)
            self._level_log = quantiles[: len(_LEVEL_SHARES)].tolist()
            self._next_log = quantiles[len(_LEVEL_SHARES) :]
        return self._level_log

    def _follow(self, off: float) -> None:
        """Move the grid towards a transfer's rate, which differs by ``off`` (natural logarithm) from the estimate."""
        if abs(off) < _STEP and _LOG_GRID[1] < self._level()[2] < _LOG_GRID[-2]:
            self._offset += _SHIFT_SHARE * off
            steps = round(self._offset / _STEP)  # -1, 0 or 1
            if steps:
                self._offset -= steps * _STEP
                self._p, self._cumulated = self._p.take(_CELLS - steps, axis=1, mode='clip'), None

    @staticmethod
    def _sums(p: Singles) -> Singles:
        sums: Singles = _EVERY_MODEL.dot(p).cumsum()
        return sums

    def _set(self, p: Singles) -> None:
        sums = self._sums(p)
        total = float(sums[-1])
        if total > 1e-30:
            p *= 1 / total
            np.maximum(p, 1e-15, out=p)  # keep each rate possible and avoid denormal numbers, which are slow
            sums /= total
            self._p, self._cumulated = p, sums
        else:  # no rate on the grid explains the transfer: restart with a uniform distribution
            self._p, self._cumulated = np.full_like(p, 1 / p.size), None
