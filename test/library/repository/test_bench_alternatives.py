# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each dynamic split is compared with the alternatives of at least its agreement on eager and on its own engine."""

from pathlib import Path
import sys
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))  # for bench

from bench.alternatives_results import add_figures  # noqa: E402
from bench.figures import Figures  # noqa: E402


def row(latency_s: float, rank: int, **others: Any) -> dict[str, Any]:
    """Return an alternative with this latency in its only step; without ``engine``, as in files of earlier versions."""
    measured = {
        'mean_s': [latency_s],
        'settled_s': [latency_s],
        'answered': [1.0],
        'bytes_per_image': [1.0],
        'robot_processor_s_per_image': 0.0,
        'agreement': 1.0,
        'same': 1.0,
    }
    return {'rank': rank, 'rounds': [measured], **others}


def test_a_dynamic_split_is_compared_with_alternatives_on_eager_and_on_its_engine(monkeypatch) -> None:
    added: dict[str, tuple[float, str | None]] = {}
    monkeypatch.setattr(Figures, 'add', lambda self, name, value, unit, bar=None: added.update({name: (value, bar)}))
    add_figures(
        Figures(),
        {
            'setting': {'steps_mbps': [5.0]},
            'alternatives': {
                'local inference': row(0.4, 0),
                'JPEG 50': row(0.01, 3),
                'local inference, OpenVINO': row(0.1, 0, engine='openvino'),
                'dynamic split': row(0.2, 0),
                'dynamic split, OpenVINO': row(0.1, 2, engine='openvino'),
            },
        },
    )
    compared = {name: found for name, found in added.items() if ' / ' in name}
    assert compared == {
        'dynamic split, step 1, 5 Mbit/s, settled / local inference': (0.5, '<= 1.05'),
        'dynamic split, mean over all steps / local inference': (0.5, '<= 0.8'),
        'dynamic split, OpenVINO, step 1, 5 Mbit/s, settled / local inference, OpenVINO': (1.0, '<= 1.05'),
        'dynamic split, OpenVINO, mean over all steps / local inference, OpenVINO': (1.0, None),
    }
