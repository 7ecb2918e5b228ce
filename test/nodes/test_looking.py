# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The layouts for rqt, PlotJuggler and Foxglove plot numbers that the nodes publish."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
import pytest

from dynsplit_ros import msg
from dynsplit_ros.nodes import topics

CONFIG = Path(get_package_share_directory('dynsplit_ros')) / 'config'
ROBOT = 'robot1'  # the launch files' default
NUMBERS = ('boolean', 'double', 'float', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64')
#: What a person wants to see first.
WANTED = {
    'link_state/throughput_bps',
    'link_state/round_trip_s',
    'link_state/edge_utilisation',
    'split/split_index',
    'prediction/timing/latency_s',
}
TYPES = {topic.name: topic.type for topic in vars(topics).values() if isinstance(topic, topics.Topic)}


def of_perspective() -> list[str]:
    """Return the fields that the rqt perspective plots."""
    document = json.loads((CONFIG / 'rqt.perspective').read_text())
    manager = document['groups']['pluginmanager']
    running = ast.literal_eval(manager['keys']['running-plugins']['repr'])
    assert set(running) == {'rqt_plot/Plot'}
    found: list[str] = []
    for number in running['rqt_plot/Plot']:
        keys = manager['groups'][f'plugin__rqt_plot__Plot__{number}']['groups']['plugin']['keys']
        plotted = ast.literal_eval(keys['topics']['repr'])
        found += plotted if isinstance(plotted, list) else [plotted]
    return found


def of_layout() -> list[str]:
    """Return the fields that the PlotJuggler layout plots; every splitter has the parts that it says it has."""
    root = ElementTree.parse(CONFIG / 'plotjuggler.xml').getroot()
    for splitter in root.iter('DockSplitter'):
        shares = [float(share) for share in splitter.attrib['sizes'].split(';')]
        assert len(splitter) == int(splitter.attrib['count']) == len(shares) and sum(shares) == pytest.approx(1)
    return [curve.attrib['name'] for curve in root.iter('curve')]


def foxglove() -> dict[str, Any]:
    """Return the Foxglove layout."""
    document: dict[str, Any] = json.loads((CONFIG / 'foxglove.json').read_text())
    return document


def of_foxglove() -> list[str]:
    """Return the fields that the plots of the Foxglove layout show."""
    return [
        path['value'].replace('.', '/')
        for name, panel in foxglove()['configById'].items()
        if name.startswith('Plot!')
        for path in panel['paths']
    ]


def kind_of(field: str) -> str:
    """Return the type of what a path such as /robot1/prediction/timing/latency_s names."""
    namespace, topic, *names = field.lstrip('/').split('/')
    assert namespace == ROBOT, f'{field} is of another robot than {ROBOT}'
    message: Any = TYPES[topic]
    for name in names[:-1]:
        package, _, kind = message.get_fields_and_field_types()[name].partition('/')
        assert package == 'dynsplit_ros', f'{field}: only the fields of this package are followed'
        message = getattr(msg, kind)
    return str(message.get_fields_and_field_types()[names[-1]])


@pytest.mark.parametrize('fields', [of_perspective, of_layout, of_foxglove])
def test_what_is_plotted_is_a_number_that_is_published(fields: Any) -> None:
    plotted = fields()
    assert {f'/{ROBOT}/{field}' for field in WANTED} <= set(plotted)
    assert len(plotted) == len(set(plotted))
    for field in plotted:
        assert kind_of(field) in NUMBERS, field


@pytest.mark.parametrize(
    'field', ['/robot1/link_state/no_such_field', '/robot1/no_such_topic/x', '/robot2/split/split_index']
)
def test_a_field_that_is_not_there_would_be_noticed(field: str) -> None:
    with pytest.raises((KeyError, AssertionError)):
        kind_of(field)


def test_the_foxglove_layout_places_each_of_its_panels_once() -> None:
    def panels(place: Any) -> list[str]:
        return [place] if isinstance(place, str) else panels(place['first']) + panels(place['second'])

    document = foxglove()
    assert sorted(panels(document['layout'])) == sorted(document['configById'])


def test_the_other_panels_of_the_foxglove_layout_show_what_is_published() -> None:
    panels = foxglove()['configById']
    fields = [panel['topicPath'] for panel in panels.values() if 'topicPath' in panel]
    assert fields and [kind_of(field.replace('.', '/')) for field in fields] == ['string', 'sequence<string>']
    image = next(panel for name, panel in panels.items() if name.startswith('Image!'))['imageMode']['imageTopic']
    assert image.removeprefix(f'/{ROBOT}/') in TYPES
