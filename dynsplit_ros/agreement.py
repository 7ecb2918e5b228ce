# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Agreement: the share of images whose outputs stay the unquantised model's, with its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass
import math

#: Quantile of the normal distribution for a two-sided interval of 95 %.
_Z = 1.959964


@dataclass(frozen=True)
class Agreement:
    """
    ``agreeing`` of ``images`` images agree; an image may count as a part (of its boxes, of its pixels).

    ``low`` and ``high`` are the ends of Wilson's 95 % interval (Wilson, 1927, J. Am. Stat. Assoc. 22). Scores between 0
    and 1 vary less than scores of 0 and 1 with the same mean, so the interval is not too narrow for them.
    ``difference`` is the largest difference of an output from the unquantised model's, as a share of that output's
    largest value; infinity where it was not measured.
    """

    agreeing: float = 0.0
    images: int = 0
    difference: float = math.inf

    @property
    def share(self) -> float:
        """Agreeing part of the images; NaN without images."""
        return self.agreeing / self.images if self.images else math.nan

    @property
    def is_exact(self) -> bool:
        """Whether every output was equal to the bit."""
        return self.images > 0 and self.difference == 0

    @property
    def low(self) -> float:
        """Lower end of the interval; 0 without images."""
        return max(0.0, self._centre - self._half_width)

    @property
    def high(self) -> float:
        """Upper end of the interval; 1 without images."""
        return min(1.0, self._centre + self._half_width)

    @property
    def _centre(self) -> float:
        return (self.agreeing + _Z**2 / 2) / (self.images + _Z**2)

    @property
    def _half_width(self) -> float:
        if not self.images:
            return 0.5
        variance = self.share * (1 - self.share) * self.images + _Z**2 / 4
        return _Z * math.sqrt(max(0.0, variance)) / (self.images + _Z**2)

    def __str__(self) -> str:
        return f'{self.share:.3f} ({self.low:.3f} to {self.high:.3f}, {self.images} images)' if self.images else 'none'


def images_needed(bound: float) -> int:
    """Return the least number of images whose agreement can keep ``bound`` (0 to 1, less than 1) with its lower end."""
    return max(1, math.ceil(_Z**2 * bound / (1 - bound)))
