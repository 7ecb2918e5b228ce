# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The paper's grid: the natural bottlenecks by its definition, and the latency, shares and gains of each condition."""

from pathlib import Path
import sys
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[3]))  # for bench

from bench.paper import block_outputs, natural  # noqa: E402
from bench.paper_results import BATCHES, extrapolation_errors, grid, LOADS, per_image_s, RATES_BYTES_S  # noqa: E402


def row(**others: Any) -> dict[str, Any]:
    """Return a network of two stages: the cut between them has half the elements of the image, and twice its bytes."""
    codecs = {
        'raw': {'bytes': 2000, 'encode_s': 0.0, 'decode_s': 0.0},
        'small': {'bytes': 100, 'encode_s': 0.001, 'decode_s': 0.002},
        'quant8-zstd': {'bytes': 10, 'encode_s': 0.0, 'decode_s': 0.0},
    }
    return {
        'model': 'net',
        'allowed': {'0.98': {'1': 'quant8-zstd'}},
        'stage_s': {'1': [0.01, 0.03], '2': [0.02, 0.05]},
        'cuts': [
            {
                'name': 'image',
                'elements': 1000,
                'bytes': 1000,
                'codecs': {'raw': {'bytes': 1000, 'encode_s': 0.0, 'decode_s': 0.0}},
            },
            {'name': 'cut', 'elements': 500, 'bytes': 2000, 'codecs': codecs},
        ],
        **others,
    }


def at(values: Any, load: float, batch: int, rate_bytes_s: float) -> Any:
    """Return the values of one condition."""
    return values[..., LOADS.index(load), list(BATCHES).index(batch), list(RATES_BYTES_S).index(rate_bytes_s)]


@pytest.mark.parametrize(
    ('name', 'side', 'blocks', 'below_image', 'below_all'),
    [
        ('efficientnet_b0', 384, 16, 15, 4),
        ('efficientnet_b0', 224, 16, 15, 4),
        ('vgg16', 224, 5, 2, 2),
        ('vit_b_16', 224, 12, 0, 0),
        ('vit_b_32', 224, 12, 12, 1),
    ],
)
def test_natural_bottlenecks_by_the_papers_definition(name, side, blocks, below_image, below_all) -> None:
    assert natural(block_outputs(name, side), 3 * side**2) == {
        'blocks': blocks,
        'below_image': below_image,
        'below_all_before': below_all,
    }


def test_the_latency_of_each_choice_is_the_sum_of_its_parts() -> None:
    latency_s = at(grid(row(), 'elements', 'slow').latency_s, 2.0, 1, 1e6)
    assert latency_s == pytest.approx([0.004 + 2 * 0.04, 8 * 0.01 + 0.002 + 2 * 0.03, 8 * 0.04])
    bytes_s = at(grid(row(), 'bytes', 'fast').latency_s, 4.0, 2, 2e6)
    assert bytes_s == pytest.approx([0.001 + 0.07 / 2, 0.02 + 0.002 + 0.05 / 2, 0.07])


def test_each_condition_takes_the_codec_that_is_fastest_there() -> None:
    found = grid(row(), 'lossless', 'slow').latency_s[1]
    head_and_tail_s = 8 * 0.01 + 0.03
    assert at(found, 1.0, 1, 1e6) == pytest.approx(head_and_tail_s + 0.002)  # raw: the codec takes longer
    slow_link = row()
    slow_link['cuts'][1]['codecs']['raw']['bytes'] = 2e6
    assert at(grid(slow_link, 'lossless', 'slow').latency_s[1], 1.0, 1, 1e6) == pytest.approx(
        head_and_tail_s + 1e-4 + 8 * 0.001 + 0.002
    )
    assert at(grid(row(), '0.98', 'slow').latency_s[1], 1.0, 1, 1e6) == pytest.approx(head_and_tail_s + 1e-5)


def test_shares_sum_to_one_and_gains_are_those_of_each_condition() -> None:
    found = grid(row(), 'elements', 'slow')
    assert sum(found.shares().values()) == pytest.approx(1)
    gains = found.gains()
    assert gains.min() == 0 and np.all(gains.min(axis=0) == 0), 'the best choice is one of the static ones'
    assert gains.max() > 2 * gains.mean(), 'nothing is clipped'
    assert at(gains, 1.0, 1, 1e6)[2] == pytest.approx(1 - at(found.latency_s.min(axis=0), 1.0, 1, 1e6) / 0.32)


def test_a_bottleneck_that_is_no_smaller_than_an_earlier_one_is_never_best_on_a_slower_robot() -> None:
    doubled = row(stage_s={'1': [0.01, 0.01, 0.02]})
    doubled['cuts'].append({**doubled['cuts'][1], 'name': 'loose'})
    for pair in ('slow', 'fast'):
        best = grid(doubled, 'elements', pair).best[: LOADS.index(8.0)]
        assert not (best == 2).any()


def test_batches_between_measured_ones_are_interpolated_and_larger_ones_keep_the_time_per_image() -> None:
    stages = {'1': [0.010], '2': [0.016], '8': [0.080]}
    assert per_image_s(row(stage_s=stages), np.array([1.0, 1.5, 2.0, 5.0, 62.0]))[0] == pytest.approx(
        [0.010, 0.009, 0.008, 0.009, 0.010]
    )
    assert extrapolation_errors([row(stage_s=stages)], 2) == {'net': pytest.approx(-0.2)}
    assert extrapolation_errors([row(stage_s=stages)], 8) == {}
