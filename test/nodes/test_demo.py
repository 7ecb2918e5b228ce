# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The demonstration, a short one with a small model: no frame lost, doubled or wrong, and all that it writes."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess

from ament_index_python.packages import get_package_prefix
import pytest

from dynsplit_ros.report.run import read_run


@pytest.mark.timeout(280)
def test_a_short_demonstration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    demo = Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / 'demo'
    result = subprocess.run(
        [demo, '--seconds', '10', '--model', 'squeezenet1_1', '--rate', '5', '--out', tmp_path],
        capture_output=True,
        text=True,
        timeout=270,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / 'demo.json').read_text())
    summary, frames = report['summary'], report['frames']
    assert [summary[name] for name in ('frames_lost', 'duplicates', 'out_of_order', 'mismatches')] == [0] * 4
    assert summary['frames_accepted'] == len(frames) == sum(summary['frames_by_outcome'].values()) > 0
    assert summary['frames_by_outcome']['answered'] > 0 and all(frame['matches'] for frame in frames)
    starts_s = [step['start_s'] for step in report['steps']]
    assert len(starts_s) > 3 and starts_s == sorted(starts_s) and all(step['name'] for step in report['steps'])
    assert report['steps'][-1]['end_s'] == pytest.approx(10)
    assert report['decisions'] and {decision['split_index'] for decision in report['decisions']} <= {
        cut['index'] for cut in report['cuts']
    }
    assert (tmp_path / 'demo.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'demo.gif').read_bytes().startswith(b'GIF89a')
    assert set(summary['labels']) <= {'coffee', 'chelsea', 'rocket'} and summary['agreement'] == 1
    assert {'camera.log', 'edge.log', 'link.log', 'monitor.log', 'other camera.log', 'source.log'} <= {
        path.name for path in (tmp_path / 'logs').iterdir()
    }
    assert 'mismatches' in result.stdout
    assert read_run(tmp_path / 'demo.json').robots, 'the report cannot read it'


@pytest.mark.timeout(280)
def test_lossy_frames_are_what_head_codec_and_tail_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    demo = Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / 'demo'
    result = subprocess.run(
        [
            demo,
            '--seconds',
            '10',
            '--model',
            'squeezenet1_1',
            '--rate',
            '5',
            '--out',
            tmp_path,
            '--min-agreement',
            '0.5',
        ],
        capture_output=True,
        text=True,
        timeout=270,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / 'demo.json').read_text())
    assert report['min_agreement'] == 0.5 and report['summary']['mismatches'] == 0
    assert any(frame['codec'].startswith('quant') for frame in report['frames'] if frame['outcome'] == 'answered')
