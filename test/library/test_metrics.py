# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads from a robot and an edge, and that the Grafana dashboard asks for nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path
import re
import socket
import sys
from urllib.request import urlopen

import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.metrics import EdgeMetrics, RobotMetrics
from dynsplit_ros.policies.records import FrameRecord, Outcome, SplitDecision

prometheus_client = pytest.importorskip('prometheus_client')

DASHBOARD = Path(__file__).parents[2] / 'config' / 'grafana_fleet.json'


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return int(server.getsockname()[1])


@pytest.fixture
def robot():
    metrics = RobotMetrics('/robot1', free_port(), '127.0.0.1')
    yield metrics
    metrics.close()


@pytest.fixture
def edge():
    metrics = EdgeMetrics('lab', free_port(), '127.0.0.1')
    yield metrics
    metrics.close()


def value(metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f'dynsplit_{name}', labels)


def report(**changes) -> LoadReport:
    return LoadReport(
        **{
            'edge_session': 1,
            'sequence': 1,
            'utilisation': 0.5,
            'queue_length': 3,
            'queueing_s': 0.1,
            'slowdown': 1.5,
            'servers': 4,
            **changes,
        }
    )


def fill(robot: RobotMetrics, edge: EdgeMetrics) -> None:
    """Have every metric of both appear."""
    robot.on_frame(FrameRecord(outcome=Outcome.SENT, payload_bytes=1000))
    robot.on_frame(FrameRecord(outcome=Outcome.ANSWERED, latency_s=0.04, head_s=0.01, tail_s=0.02))
    robot.on_decision(SplitDecision(2, 'raw', 1.0, predicted_latency_s=0.05))
    robot.on_link(True, 20e6, 0.004)
    robot.on_agreement(2, 'quant8-zstd', 0.99)
    edge.on_load(report(), {'/robot1': 0.2}, {'/robot1': (2, 'raw')}, {'answered': 7, 'failed': 1})


def test_a_robot_shows_its_frames_decisions_link_and_agreement(robot) -> None:
    robot.on_frame(FrameRecord(outcome=Outcome.SENT, payload_bytes=1000))
    for outcome, latency_s in ((Outcome.ANSWERED, 0.04), (Outcome.FELL_BACK, 0.3), (Outcome.LATE, 0.5)):
        robot.on_frame(FrameRecord(outcome=outcome, latency_s=latency_s, head_s=0.01))
    robot.on_decision(SplitDecision(2, 'raw', 1.0, predicted_latency_s=0.05, degraded=True))
    robot.on_link(False, 20e6, 0.004)
    robot.on_agreement(2, 'quant8-zstd', 0.99)
    own = {'robot': '/robot1'}
    outcomes = ('answered', 'fell_back', 'late', 'sent')
    assert [value(robot, 'frames_total', **own, outcome=outcome) for outcome in outcomes] == [1, 1, 1, None]
    assert value(robot, 'frame_latency_seconds_count', **own) == 2, 'a late answer is no second frame'
    assert value(robot, 'frame_latency_seconds_sum', **own) == pytest.approx(0.34)
    assert value(robot, 'frame_part_seconds_sum', **own, part='head') == pytest.approx(0.02)
    assert value(robot, 'payload_bytes_total', **own) == 1000
    assert (value(robot, 'split', **own), value(robot, 'degraded', **own)) == (2, 1)
    assert value(robot, 'link_rate_bits_per_second', **own) == 0.0, 'the link is lost'
    assert value(robot, 'agreement', **own, split='2', codec='quant8-zstd') == 0.99


@pytest.mark.parametrize('absurd', [math.nan, math.inf, -1.0])
def test_an_absurd_time_of_a_peer_is_not_counted(robot, absurd) -> None:
    robot.on_frame(FrameRecord(outcome=Outcome.ANSWERED, latency_s=absurd))
    robot.on_frame(FrameRecord(outcome=Outcome.ANSWERED, latency_s=0.1, head_s=absurd))
    assert value(robot, 'frame_latency_seconds_sum', robot='/robot1') == pytest.approx(0.1)
    assert value(robot, 'frame_part_seconds_sum', robot='/robot1', part='head') is None


def test_an_edge_shows_its_load_and_forgets_robots_that_left(edge) -> None:
    edge.on_load(report(), {'/a': 0.2, '/b': 0.1}, {'/a': (2, 'raw')}, {'answered': 7, 'failed': 1})
    edge.on_load(report(servers=0), {'/b': 0.1}, {}, {'answered': 9, 'failed': 1})
    assert (value(edge, 'edge_servers', edge='lab'), value(edge, 'edge_queue_length', edge='lab')) == (0, 3)
    assert value(edge, 'edge_answers_total', edge='lab', status='answered') == 9
    assert value(edge, 'edge_answers_total', edge='lab', status='failed') == 1
    assert value(edge, 'edge_queueing_seconds', edge='lab', robot='/a') is None
    assert value(edge, 'edge_robot_split', edge='lab', robot='/a') is None
    assert value(edge, 'edge_queueing_seconds', edge='lab', robot='/b') == 0.1


def test_prometheus_reads_the_metrics_on_localhost_only() -> None:
    port = free_port()
    edge = EdgeMetrics('lab', port, '127.0.0.1')
    try:
        edge.on_load(report(), {}, {}, {})
        with urlopen(f'http://127.0.0.1:{port}/metrics', timeout=30) as page:
            assert b'dynsplit_edge_servers{edge="lab"} 4.0' in page.read()
        assert edge._server.server_address[0] == '127.0.0.1'
    finally:
        edge.close()
    EdgeMetrics('lab', port, '127.0.0.1').close()  # the port is free again


def test_a_port_that_is_in_use_is_refused_in_one_sentence(edge) -> None:
    port = edge._server.server_address[1]
    with pytest.raises(DynsplitError, match=f'cannot be offered on 127.0.0.1:{port} .*choose another metrics_port'):
        EdgeMetrics('lab', port, '127.0.0.1')
    with pytest.raises(DynsplitError, match='cannot be offered on nowhere.invalid'):
        EdgeMetrics('lab', free_port(), 'nowhere.invalid')


def test_without_prometheus_client_the_error_names_the_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'prometheus_client', None)
    with pytest.raises(DynsplitError, match="pip install 'prometheus_client"):
        RobotMetrics('/robot1', 9100, '127.0.0.1')


def test_the_dashboard_asks_for_the_metrics_that_are_offered_and_for_all_of_them(robot, edge) -> None:
    fill(robot, edge)
    samples = {
        sample.name: set(sample.labels)
        for metrics in (robot, edge)
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith('_created')
    }
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target['expr'] for panel in dashboard['panels'] for target in panel['targets']]
    expressions += [each['query'] for each in dashboard['templating']['list']]
    asked = {name for expression in expressions for name in re.findall(r'dynsplit_\w+', expression)}
    assert asked <= samples.keys(), asked - samples.keys()
    families = {re.sub('_(total|bucket|sum|count)$', '', name) for name in samples}
    assert families == {re.sub('_(total|bucket|sum|count)$', '', name) for name in asked}
    for expression in expressions:
        for name, labels in re.findall(r'(dynsplit_\w+)\{([^}]*)\}', expression):
            assert set(re.findall(r'(\w+)[=!]', labels)) <= samples[name], expression


def test_the_dashboard_has_what_grafana_needs() -> None:
    """The fields that Grafana's schema (version 39) demands of a dashboard, a panel and a target."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard['schemaVersion'] == 39 and dashboard['title']
    assert re.fullmatch('[a-zA-Z0-9_-]{1,40}', dashboard['uid'])
    assert {'from', 'to'} <= dashboard['time'].keys()
    source = {'type': 'prometheus', 'uid': '${datasource}'}
    taken: set[tuple[int, int]] = set()
    for panel in dashboard['panels']:
        assert panel['type'] == 'timeseries' and panel['title'] and panel['datasource'] == source
        assert {'defaults', 'overrides'} <= panel['fieldConfig'].keys()
        place = panel['gridPos']
        cells = {
            (x, y)
            for x in range(place['x'], place['x'] + place['w'])
            for y in range(place['y'], place['y'] + place['h'])
        }
        assert max(x for x, _ in cells) < 24 and not cells & taken, 'panels overlap'
        taken |= cells
        assert len({target['refId'] for target in panel['targets']}) == len(panel['targets'])
        assert all(target['datasource'] == source and target['expr'] for target in panel['targets'])
    assert len({panel['id'] for panel in dashboard['panels']}) == len(dashboard['panels'])
    variables = {each['name']: each for each in dashboard['templating']['list']}
    used = set(re.findall(r'\$\{?(\w+)', DASHBOARD.read_text())) - {'__all'}
    assert used == variables.keys() and variables['datasource']['query'] == 'prometheus'
