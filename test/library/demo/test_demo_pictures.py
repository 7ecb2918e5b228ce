# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a demonstration: what the robot saw and said at each step, and an animation of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import pytest

from dynsplit_ros.demo.film import animate, computed, HEIGHT, labelled, middles, PICTURES, WIDTH
from dynsplit_ros.demo.plot import draw, split_names
from dynsplit_ros.sources import Panorama


@pytest.fixture
def report() -> dict[str, Any]:
    outcomes = ['answered'] * 20 + ['local'] * 10 + ['fell_back']
    frames = [
        {
            'time_s': number / 2,
            'stamp_ns': number * 10**9,
            'outcome': outcome,
            'split_index': number % 3,
            'latency_s': 0.1,
            'label': 'espresso' if number < 30 else '',
            'class_ids': [967],
            'scores': [0.9],
            'link_alive': True,
            'rate_estimated_bps': 1e7,
        }
        for number, outcome in enumerate(outcomes)
    ]
    return {
        'model': 'a net',
        'slowdown': 8.0,
        'seconds': 15.0,
        'frames': frames,
        'steps': [
            {'name': 'fast', 'start_s': 0.0, 'end_s': 9.0, 'rate_mbps': 100.0},
            {'name': 'dead', 'start_s': 9.0, 'end_s': 15.0, 'rate_mbps': 0.0},
        ],
        'rates': [{'time_s': 0.0, 'rate_bps': 1e8}, {'time_s': 9.0, 'rate_bps': 0.0}],
        'cuts': [{'index': index, 'name': f'cut {index}', 'bytes': 10} for index in range(4)],
        'summary': {'frames_accepted': 31, 'frames_lost': 0, 'mismatches': 0, 'images_dropped': 2},
    }


def test_the_animation_shows_the_image_of_each_instant(report, tmp_path: Path) -> None:
    asked: list[int] = []

    def image_at(stamp_ns: int) -> Any:
        asked.append(stamp_ns)
        return np.full((HEIGHT, WIDTH, 3), 200, np.uint8)

    animate(report, image_at, tmp_path / 'demo.gif')
    with Image.open(tmp_path / 'demo.gif') as film:
        assert film.n_frames == PICTURES and film.width > WIDTH
    assert asked == sorted(asked) and len(set(asked)) == 30  # of 31 frames, the last is at the very end


def test_the_label_is_written_below_the_image(report) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    named, unnamed = (labelled(image, report['frames'][number]) for number in (0, 30))
    assert not named[:HEIGHT].any() and (named[HEIGHT:] < 100).any()
    assert not np.array_equal(named, unnamed)


def test_the_plot_shows_a_frame_of_each_step(report, tmp_path: Path) -> None:
    assert [frame['time_s'] for frame in middles(report)] == [4.5, 12.0]
    draw(report, Panorama(64, 48).at, tmp_path / 'demo.png')
    with Image.open(tmp_path / 'demo.png') as plot:
        assert plot.width > 1000


def test_a_stranger_reads_who_computes_and_no_layer_names(report) -> None:
    answered = {'outcome': 'answered', 'latency_s': 0.1}
    assert computed({**answered, 'split_index': 0}) == 'on the edge, 100 ms'
    assert computed({**answered, 'split_index': 2}) == 'split 2, both, 100 ms'
    assert computed({'outcome': 'fell_back', 'split_index': 2, 'latency_s': 0.1}) == 'on the robot, 100 ms'
    sizes = [{'name': 'a.long.name', 'bytes': size} for size in (150528, 62720, 0)]
    assert split_names(sizes) == ['0  edge runs all, 147 KiB image', '1  both, 61.2 KiB', '2  robot runs all']
