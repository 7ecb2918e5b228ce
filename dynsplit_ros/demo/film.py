# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Show what the robot saw and said next to the split and the link: a strip of images, and an animation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dynsplit_ros.policies.records import Outcome

Picture = NDArray[np.uint8]

#: Size of the camera image in strip and animation, in pixels, and the pictures and the speed of the animation.
WIDTH, HEIGHT = 320, 240
PICTURES, SHOWN_MS = 60, 250
#: Colours of a frame that the edge answered, and of one that the robot computed; red, green, blue.
ANSWERED, ON_ROBOT = (31, 119, 180), (44, 160, 44)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK, _GREY, _WHITE = (0, 0, 0), (110, 110, 110), (255, 255, 255)


def labelled(image: Picture, frame: dict[str, Any]) -> Picture:
    """Return the camera image of a frame at the size of the strip, with what the robot said of it below."""
    picture = np.full((HEIGHT + 46, WIDTH, 3), 255, np.uint8)
    picture[:HEIGHT] = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    _write(picture, said(frame), (4, HEIGHT + 18), _BLACK, 0.55)
    _write(picture, computed(frame), (4, HEIGHT + 38), colour(frame), 0.45)
    return picture


def said(frame: dict[str, Any]) -> str:
    """Return the best label of a frame and its score."""
    return f'{frame["label"] or "class " + str(frame["class_ids"][0])} {100 * frame["scores"][0]:.0f} %'[:32]


def computed(frame: dict[str, Any]) -> str:
    """Return where a frame was computed, and how long it took."""
    if frame['outcome'] != Outcome.ANSWERED:
        where = 'on the robot'
    elif frame['split_index'] == 0:
        where = 'on the edge'
    else:
        where = f'split {frame["split_index"]}, both'
    return f'{where}, {1e3 * frame["latency_s"]:.0f} ms'


def colour(frame: dict[str, Any]) -> Sequence[int]:
    """Return the colour of a frame: red, green, blue."""
    return ANSWERED if frame['outcome'] == Outcome.ANSWERED else ON_ROBOT


def middles(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a frame of each step of the script: the one nearest to its middle."""
    frames = report['frames']
    return [
        min(frames, key=lambda frame: abs(frame['time_s'] - (step['start_s'] + step['end_s']) / 2))
        for step in report['steps']
    ]


def animate(report: dict[str, Any], image_at: Callable[[int], Picture], path: Path) -> None:
    """Write an animated GIF of a demonstration: camera image with label, split, and the link as it fades."""
    frames, seconds = report['frames'], report['seconds']
    times_s = np.array([frame['time_s'] for frame in frames])
    chart = _Chart(report)
    pictures = []
    for now_s in np.linspace(0, seconds, PICTURES, endpoint=False):
        frame = frames[max(0, int(np.searchsorted(times_s, now_s, side='right')) - 1)]
        picture = np.hstack((labelled(image_at(frame['stamp_ns']), frame), chart.at(now_s, frame)))
        pictures.append(Image.fromarray(picture).quantize(128, dither=Image.Dither.NONE))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=SHOWN_MS, loop=0, optimize=True)


class _Chart:
    """Rate of the link and split over time, and a mark that moves."""

    LEFT, RIGHT, TOP, MIDDLE, BOTTOM = 54, 470, 26, 150, 262
    #: Highest and lowest rate of the chart in Mbit/s; a dead link is at the lowest.
    FAST, SLOW = 200.0, 0.3

    def __init__(self, report: dict[str, Any]) -> None:
        self._seconds = report['seconds']
        self._local = max(cut['index'] for cut in report['cuts'])
        self._steps = report['steps']
        self._base = np.full((HEIGHT + 46, 480, 3), 255, np.uint8)
        rates = [(step['start_s'], step['end_s'], step['rate_mbps']) for step in report['steps']]
        for start_s, end_s, rate_mbps in rates:
            self._line(start_s, self._rate_y(rate_mbps), end_s, self._rate_y(rate_mbps), _BLACK)
        for (_, end_s, before), (_, _, after) in zip(rates, rates[1:]):
            self._line(end_s, self._rate_y(before), end_s, self._rate_y(after), _BLACK)
        for rate_mbps in (1, 10, 100):
            _write(self._base, f'{rate_mbps}', (22, self._rate_y(rate_mbps) + 4), _GREY, 0.4)
        for frame in report['frames']:
            cv2.circle(self._base, (self._x(frame['time_s']), self._split_y(frame)), 1, colour(frame), -1)
        _write(self._base, 'link, Mbit/s', (self.LEFT, 16), _GREY, 0.45)
        _write(self._base, 'where the network is split', (self.LEFT, self.MIDDLE - 8), _GREY, 0.45)
        _write(self._base, 'robot', (4, self.MIDDLE + 16), ON_ROBOT, 0.45)
        _write(self._base, 'edge', (4, self.BOTTOM), ANSWERED, 0.45)

    def at(self, now_s: float, frame: dict[str, Any]) -> Picture:
        """Return the chart with the mark at an instant, and what happens there in words."""
        picture = self._base.copy()
        cv2.line(picture, (self._x(now_s), self.TOP), (self._x(now_s), self.BOTTOM), (200, 200, 200), 1)
        cv2.circle(picture, (self._x(now_s), self._split_y(frame)), 4, colour(frame), -1)
        step = next((step for step in self._steps if step['start_s'] <= now_s < step['end_s']), self._steps[-1])
        rate = f'{step["rate_mbps"]:g} Mbit/s' if step['rate_mbps'] else 'no link'
        _write(picture, f'{now_s:3.0f} s: {step["name"]}, {rate}', (self.LEFT, HEIGHT + 42), _BLACK, 0.5)
        return picture

    def _x(self, time_s: float) -> int:
        return round(self.LEFT + (self.RIGHT - self.LEFT) * min(max(time_s / self._seconds, 0), 1))

    def _rate_y(self, rate_mbps: float) -> int:
        share = np.log(max(rate_mbps, self.SLOW) / self.SLOW) / np.log(self.FAST / self.SLOW)
        return round(self.MIDDLE - 26 - (self.MIDDLE - 26 - self.TOP) * share)

    def _split_y(self, frame: dict[str, Any]) -> int:
        split = frame['split_index'] if frame['outcome'] == Outcome.ANSWERED else self._local
        return round(self.BOTTOM - 4 - (self.BOTTOM - self.MIDDLE - 16) * split / self._local)

    def _line(self, start_s: float, start_y: int, end_s: float, end_y: int, colour: Sequence[int]) -> None:
        cv2.line(self._base, (self._x(start_s), start_y), (self._x(end_s), end_y), colour, 2)


def _write(picture: Picture, text: str, place: tuple[int, int], colour: Sequence[int], size: float) -> None:
    cv2.putText(picture, text, place, _FONT, size, colour, 1, cv2.LINE_AA)
