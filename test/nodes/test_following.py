# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The edge node follows the split that each robot announces."""

from __future__ import annotations

from conftest import appear, EDGE as NAME, Observer, ROBOT, to_edge, wait
import pytest

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.nodes import topics

pytestmark = pytest.mark.timeout(180)
EDGE = '/edge/edge_node'


def test_the_edge_prepares_an_announced_split_before_any_activation(processes, ros, model_parameters, split) -> None:
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    robot = ros(Observer())
    appear(robot)
    activations = to_edge(robot)
    decisions = topics.EDGE_SPLIT.publisher(robot, topics.EDGE_SPLIT.name_in(f'/{ROBOT}', NAME))
    told = robot._diagnosed
    wait(activations.get_subscription_count, 'the edge did not find the robot')
    wait(lambda: told.get((EDGE, 'robots')) == f'/{ROBOT}', 'the edge does not serve the robot')
    ends = robot.get_subscriptions_info_by_topic(decisions.topic_name)
    assert any(f'{end.node_namespace}/{end.node_name}' == EDGE for end in ends), 'ros2 node info would not show it'

    def announce(**changes: object) -> None:
        decisions.publish(
            to_message(
                msg.SplitDecision,
                **{'edge': NAME, 'fingerprint': split.fingerprint, 'split_index': 2, 'codec': 'blosc2', **changes},
            )
        )

    announce()
    wait(lambda: told.get((EDGE, 'prepared')) == '1', 'the edge prepared nothing')
    assert told[EDGE, f'split of /{ROBOT}'] == f'2 ({split.cuts[2].name}) blosc2'
    announce(split_index=split.local_index, codec='')
    wait(lambda: told[EDGE, f'split of /{ROBOT}'] == f'{split.local_index} (local inference)', 'it does not follow')
    announce(fingerprint='f' * 5000)
    wait(
        lambda: "announced: the decision is for the model 'ffffffffffff'" in processes.log('edge').read_text(),
        'the edge does not say that it ignores the announcement',
    )
    announce(split_index=3)
    wait(lambda: told[EDGE, f'split of /{ROBOT}'].startswith('3 '), 'it does not follow any more')
    wait(lambda: told[EDGE, 'prepared'] == '2', 'the edge prepared nothing')
    announce(edge='another')
    announce(split_index=4, edge='another')
    announce(split_index=1)
    wait(lambda: told[EDGE, f'split of /{ROBOT}'].startswith('1 '), 'it does not follow any more')
    assert told[EDGE, 'prepared'] in '23', 'the edge prepared what another edge shall run'
    assert told[EDGE, 'answered'] == '0'
    assert len(processes.log('edge').read_text()) < 5000
    processes.check()
