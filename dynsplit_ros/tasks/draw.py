# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Draw a result on its image, for people.

``torchvision.utils.draw_*`` was tried in the place of OpenCV: 100 boxes with their labels on 640x480 took it 119 ms
instead of 1 ms, 100 small masks 2.3 s instead of 0.1 s, and it raises ValueError for a box with exchanged corners.
"""

from __future__ import annotations

from collections.abc import Sequence
import colorsys
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.tasks.results import Result

Image = NDArray[np.uint8]

#: COCO's person: pairs of its 17 keypoints that a limb joins.
COCO_LIMBS = (
    (15, 13),
    (13, 11),
    (16, 14),
    (14, 12),
    (11, 12),
    (5, 11),
    (6, 12),
    (5, 6),
    (5, 7),
    (6, 8),
    (7, 9),
    (8, 10),
    (1, 2),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 6),
)
#: Keypoints that score less are not drawn; torchvision's scores are logits.
LEAST_KEYPOINT_SCORE = 0.0
#: Objects, and lines of text, beyond these are not drawn: nobody could tell them apart.
MOST_OBJECTS, MOST_LINES = 100, 10


def colour(number: int) -> tuple[int, int, int]:
    """Return a class's colour, R, G, B from 0 to 255: neighbours differ by the golden angle in hue; 0 is grey."""
    if number == 0:
        return 128, 128, 128
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.75 if number % 2 else 0.5, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def annotate(image: Image, task: str, result: Result, caption: Sequence[str]) -> Image:
    """
    Return a copy of ``image``, RGB uint8 [height, width, 3], with the result drawn on it.

    ``caption`` are lines for the lower left corner. What lies outside of the image is left out, wherever it is.
    """
    drawn = np.ascontiguousarray(image).copy()
    words = [
        f'{label or number} {score:.2f}' for number, label, score in zip(result.class_ids, result.labels, result.scores)
    ]
    colours = [colour(number) for number in result.class_ids]
    if task == 'detection':
        _draw_objects(drawn, result, words[:MOST_OBJECTS], colours)
    else:
        if result.label_image is not None:
            _draw_classes(drawn, result)
        if result.dense is not None:
            _draw_dense(drawn, result.dense[..., 0])
        _write(drawn, words[:MOST_LINES], colours if result.label_image is not None else [], top=True)
    _write(drawn, caption, [], top=False)
    return drawn


def _draw_objects(drawn: Image, result: Result, words: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> None:
    line = max(1, round(min(drawn.shape[:2]) / 300))
    for mask, shade in zip(result.masks, colours[: len(words)]):
        pixels = mask.pixels
        part = drawn[mask.y : mask.y + pixels.shape[0], mask.x : mask.x + pixels.shape[1]]
        part[pixels] = (part[pixels] + np.array(shade, np.uint16)) // 2
    boxes = _whole(np.reshape(result.boxes_px, (-1, 2, 2)))
    points = _whole(np.reshape(result.keypoints_px, (len(boxes), -1, 2))) if result.keypoints_px else None
    # The best last, so that it is not written over.
    for at in reversed(range(len(words))):
        (left, top), (right, bottom) = boxes[at].tolist()
        if result.box_angles and np.isfinite(result.box_angles[at]):
            turned = cv2.boxPoints(
                (
                    ((left + right) / 2, (top + bottom) / 2),
                    (right - left, bottom - top),
                    math.degrees(result.box_angles[at]),
                )
            )
            cv2.polylines(drawn, [_whole(turned.astype(np.float64)).astype(np.int32)], True, colours[at], line)
        else:
            cv2.rectangle(drawn, (left, top), (right, bottom), colours[at], line)
        _text(drawn, words[at], (max(left, 0), max(top, 0)), colours[at])
        if points is not None:
            scores = np.reshape(result.keypoint_scores, points.shape[:2])[at]
            _draw_points(drawn, points[at], scores >= LEAST_KEYPOINT_SCORE, line, colours[at])


def _draw_points(
    drawn: Image, points: NDArray[np.int64], there: NDArray[np.bool_], line: int, shade: tuple[int, int, int]
) -> None:
    for one, other in COCO_LIMBS if len(points) == 17 else ():
        if there[one] and there[other]:
            cv2.line(drawn, points[one].tolist(), points[other].tolist(), shade, line, cv2.LINE_AA)
    for point in points[there].tolist():
        cv2.circle(drawn, point, 2 * line, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(drawn, point, 2 * line, shade, line, cv2.LINE_AA)


def _draw_classes(drawn: Image, result: Result) -> None:
    """Tint each pixel with its class's colour; the background and what the network did not see stay as they are."""
    assert result.label_image is not None
    tints = np.zeros((int(np.iinfo(result.label_image.dtype).max) + 1, 3), np.uint8)
    shown = [number for number in result.class_ids if number > 0]
    tints[shown] = [colour(number) for number in shown]
    tinted = np.isin(result.label_image, shown)
    drawn[tinted] = (drawn[tinted] + tints[result.label_image[tinted]].astype(np.uint16)) // 2


def _draw_dense(drawn: Image, values: NDArray[np.float32]) -> None:
    """Tint the image from blue for the least value to red for the greatest; NaN stays as it is."""
    seen = np.isfinite(values)
    if seen.any():
        least, most = float(values[seen].min()), float(values[seen].max())
        shades = np.where(seen, 255 * (values - least) / max(most - least, 1e-12), 0).astype(np.uint8)
        tints = cv2.applyColorMap(shades, cv2.COLORMAP_JET)[..., ::-1]
        drawn[seen] = (drawn[seen] + tints[seen].astype(np.uint16)) // 2


def _whole(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return points as whole pixels that OpenCV can take: far off stays far off, NaN too."""
    return np.nan_to_num(points, nan=-30000.0).clip(-30000, 30000).round().astype(np.int64)


def _write(drawn: Image, lines: Sequence[str], colours: Sequence[tuple[int, int, int]], *, top: bool) -> None:
    """Write lines into the upper or the lower left corner, each on its colour or on black."""
    pitch = _letters(drawn, '')[3]
    first = 0 if top else drawn.shape[0] - pitch * len(lines)
    for at, text in enumerate(lines):
        _text(drawn, text, (0, first + at * pitch), colours[at] if colours else (0, 0, 0))


def _text(drawn: Image, text: str, upper_left: tuple[int, int], shade: tuple[int, int, int]) -> None:
    """Write a line, black or white on a colour; OpenCV's letters are ASCII's."""
    text = text.encode('ascii', 'replace').decode()
    scale, thick, width, height = _letters(drawn, text)
    x = min(upper_left[0], max(0, drawn.shape[1] - width))
    y = min(upper_left[1], max(0, drawn.shape[0] - height))
    cv2.rectangle(drawn, (x, y), (x + width - 1, y + height - 1), shade, -1)
    letters = (0, 0, 0) if sum(shade) > 300 else (255, 255, 255)
    cv2.putText(
        drawn, text, (x + 2, y + round(0.7 * height)), cv2.FONT_HERSHEY_SIMPLEX, scale, letters, thick, cv2.LINE_AA
    )


def _letters(drawn: Image, text: str) -> tuple[float, int, int, int]:
    """Return the letters' scale and thickness, and a line's width and height in pixels."""
    scale = min(max(min(drawn.shape[:2]) / 900, 0.4), 2.0)
    thick = max(1, round(1.5 * scale))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    return scale, thick, width + 4, round(1.3 * (height + below))
