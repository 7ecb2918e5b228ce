# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The edge node follows the split that each robot announces."""

from __future__ import annotations

from conftest import Observer, ROBOT, wait
import pytest

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.nodes import topics

pytestmark = pytest.mark.timeout(180)
EDGE = '/edge/edge_node'


def test_the_edge_prepares_an_announced_split_before_any_activation(processes, ros, model_parameters, split) -> None:
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    robot = ros(Observer())
    activations, decisions = topics.ACTIVATION.publisher(robot), topics.SPLIT.publisher(robot)
    told = robot._diagnosed
    wait(activations.get_subscription_count, 'the edge did not find the robot')
    wait(lambda: told.get((EDGE, 'robots')) == f'/{ROBOT}', 'the edge does not serve the robot')
    assert any(f'{end.node_namespace}/{end.node_name}' == EDGE
               for end in robot.get_subscriptions_info_by_topic(f'/{ROBOT}/split')), 'ros2 node info would not show it'

    def announce(**changes: object) -> None:
        decisions.publish(to_message(
            msg.SplitDecision, **{'fingerprint': split.fingerprint, 'split_index': 2, 'codec': 'blosc2', **changes}))

    announce()
    wait(lambda: told.get((EDGE, 'prepared')) == '1', 'the edge prepared nothing')
    assert told[EDGE, f'split of /{ROBOT}'] == f'2 ({split.cuts[2].name}) blosc2'
    announce(split_index=split.local_index, codec='')
    wait(lambda: told[EDGE, f'split of /{ROBOT}'] == f'{split.local_index} (local inference)', 'it does not follow')
    announce(fingerprint='f' * 5000)
    wait(lambda: "announced: the decision is for the model 'ffffffffffff'" in processes.log('edge').read_text(),
         'the edge does not say that it ignores the announcement')
    announce(split_index=3)
    wait(lambda: told[EDGE, f'split of /{ROBOT}'].startswith('3 '), 'it does not follow any more')
    wait(lambda: told[EDGE, 'prepared'] == '2', 'the edge prepared nothing')
    assert told[EDGE, 'answered'] == '0'
    assert len(processes.log('edge').read_text()) < 5000
    processes.check()
