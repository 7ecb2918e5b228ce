# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The interval of an agreement, and how many images a bound needs."""

import math

import numpy as np
import pytest

from dynsplit_ros.agreement import Agreement, images_needed


@pytest.mark.parametrize(
    'agreeing, images, low, high',
    [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (95, 100, 0.8882, 0.9785), (490, 500, 0.9636, 0.9891)],
)
def test_the_interval_is_wilsons(agreeing, images, low, high):
    found = Agreement(agreeing, images)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_without_images_nothing_is_known():
    assert (Agreement().low, Agreement().high) == (0.0, 1.0) and math.isnan(Agreement().share)


@pytest.mark.parametrize('bound', [0.5, 0.9, 0.95, 0.98, 0.99, 0.999])
def test_the_images_that_are_needed_are_just_enough(bound):
    images = images_needed(bound)
    assert Agreement(images, images).low >= bound > Agreement(images - 1, images - 1).low


def test_twenty_images_cannot_promise_0_99():
    assert Agreement(20, 20).low < 0.99 and images_needed(0.99) == 381


def test_the_interval_contains_the_true_share_of_scores_between_0_and_1():
    random = np.random.default_rng(0)
    runs = [Agreement(float(random.beta(18, 2, 200).sum()), 200) for _ in range(200)]
    assert sum(run.low <= 0.9 <= run.high for run in runs) >= 190
