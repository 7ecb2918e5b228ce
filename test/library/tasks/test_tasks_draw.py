# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Results are drawn where they are, and nowhere else."""

import math

import numpy as np
import pytest

from dynsplit_ros.tasks import Mask, Result
from dynsplit_ros.tasks.draw import annotate, colour

GREY = np.full((240, 320, 3), 90, np.uint8)


def changed(drawn: np.ndarray) -> np.ndarray:
    """Return which pixels differ from the grey image, bool [height, width]."""
    return (drawn != GREY).any(2)


def test_nothing_to_draw_is_a_copy() -> None:
    drawn = annotate(GREY, 'detection', Result(), [])
    assert np.array_equal(drawn, GREY) and drawn is not GREY


def test_a_box_with_its_label_above_its_inside() -> None:
    drawn = annotate(GREY, 'detection', Result([3], [0.9], ['cow'], [100.0, 50.0, 200.4, 149.6]), [])
    assert (drawn[60:150, [100, 200]] == colour(3)).all() and (drawn[150, 100:201] == colour(3)).all()
    there = changed(drawn)
    assert there[50:53, 100:].any() and not there[90:150, 101:200].any()
    assert not there[:50].any() and not there[151:].any() and not there[:, :100].any() and not there[:, 202:].any()


def test_a_mask_tints_its_pixels() -> None:
    seen = np.eye(20, dtype=bool)
    mask = Mask(30, 200, np.arange(20), np.arange(20), seen)
    drawn = annotate(GREY, 'detection', Result([1], [1.0], [''], [0.0] * 4, [mask]), [])
    assert np.array_equal(changed(drawn)[200:220, 30:50], seen)
    assert drawn[210, 40].tolist() == [(90 + part) // 2 for part in colour(1)]


def test_classes_are_tinted_and_the_background_and_what_was_not_seen_are_not() -> None:
    labels = np.zeros((240, 320), np.uint8)
    labels[100:120, 200:230] = 2
    labels[150:160, 200:230] = 255
    drawn = annotate(GREY, 'segmentation', Result([0, 2], [0.9, 0.1], ['', 'dog'], label_image=labels), [])
    assert np.array_equal(changed(drawn)[:, 150:], (labels == 2)[:, 150:])
    assert changed(drawn)[:30, :60].any(), 'no legend'


def test_keypoints() -> None:
    person = np.random.default_rng(0).uniform(60, 200, (17, 2))
    result = Result(
        [1], [1.0], ['person'], [10.0, 200.0, 20.0, 210.0], [], person.flatten().tolist(), [5.0] * 16 + [-5.0]
    )
    there = changed(annotate(GREY, 'detection', result, []))
    assert all(there[round(y), round(x)] for x, y in person[:16])
    limb = (person[5] + person[6]) / 2
    assert there[round(limb[1]) - 1 : round(limb[1]) + 2, round(limb[0]) - 1 : round(limb[0]) + 2].any()
    alone = changed(annotate(GREY, 'detection', Result([1], [1.0], [''], [0.0] * 4, [], [160.0, 120.0], [-1.0]), []))
    assert not alone[110:130, 150:170].any(), 'a keypoint that is not there was drawn'


def test_text_in_the_corners() -> None:
    there = changed(annotate(GREY, 'classification', Result([1, 2], [0.6, 0.4], ['Bär', 'dog']), ['split 3', '41 ms']))
    assert there[:20, :40].any() and there[-40:, :40].any() and not there[60:180].any() and not there[:, 200:].any()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e30, -1e30, 1e9])
def test_coordinates_beyond_all_measure(value) -> None:
    boxes = [value] * 4 + [5.0, 5.0, value, value]
    for shape in ((240, 320, 3), (1, 1, 3)):
        image = np.zeros(shape, np.uint8)
        annotate(
            image,
            'detection',
            Result([1] * 2, [0.5] * 2, ['x' * 5000] * 2, boxes, [], [value] * 68, [1.0] * 34),
            ['caption'],
        )


def test_more_objects_than_anybody_can_tell_apart() -> None:
    many = 5000
    annotate(GREY, 'detection', Result([1] * many, [1.0] * many, [''] * many, [5.0, 5.0, 300.0, 200.0] * many), [])


def test_neighbouring_classes_have_colours_of_their_own() -> None:
    colours = np.array([colour(number) for number in range(22)]).astype(int)
    apart = np.abs(colours[:, None] - colours).max(2)
    assert apart[~np.eye(22, dtype=bool)].min() >= 30
