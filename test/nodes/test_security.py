# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Security that was asked for is there, or the node is not."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
from xml.etree import ElementTree

from conftest import DEADLINE_S, Observer, ROBOT, wait
import pytest

from dynsplit_ros.errors import CONFIGURATION_EXIT_CODE, DynsplitError
from dynsplit_ros.nodes import security, topics

pytestmark = pytest.mark.timeout(180)
POLICY = Path(__file__).parents[2] / 'config' / 'sros2' / 'policy.xml'


@pytest.fixture
def plugins(ros) -> bool | None:
    """Return whether this machine's middleware has the security plugins."""
    ros(Observer('probe'))
    return security._plugins()[1]


def test_the_middleware_is_known(plugins) -> None:
    assert plugins is not None, 'which library the middleware is could not be told; add its name to security._SIGNS'


@pytest.mark.parametrize('environment', [{}, {'ROS_SECURITY_ENABLE': ''}, {'ROS_SECURITY_ENABLE': 'false'}])
def test_without_a_wish_for_security_there_is_no_word(environment) -> None:
    assert security.check_security(environment) == ''


@pytest.mark.parametrize('value', ['True', '1', 'yes', 'Enforce'])
def test_a_wish_that_ros_would_not_hear_is_refused(value) -> None:
    with pytest.raises(DynsplitError, match='reads as no'):
        security.check_security({'ROS_SECURITY_ENABLE': value})


def test_with_plugins_only_another_strategy_is_warned_of(monkeypatch) -> None:
    monkeypatch.setattr(security, '_plugins', lambda: ('libfastrtps.so', True))
    wish = {'ROS_SECURITY_ENABLE': 'true'}
    assert security.check_security({**wish, 'ROS_SECURITY_STRATEGY': 'Enforce'}) == ''
    for strategy in ('Permissive', ''):
        assert 'Enforce' in security.check_security({**wish, 'ROS_SECURITY_STRATEGY': strategy})


@pytest.mark.parametrize('strategy', ['Enforce', 'Permissive'])
def test_a_node_that_cannot_be_secure_ends_with_one_sentence(processes, plugins, tmp_path, strategy) -> None:
    """For want of plugins, or for want of keys."""
    if plugins and strategy == 'Permissive':
        pytest.skip('with the security plugins, Permissive may run without security')
    processes.start(
        'monitor',
        'monitor_node',
        ROBOT,
        {'pinned_split': -1},
        env={
            'ROS_SECURITY_ENABLE': 'true',
            'ROS_SECURITY_STRATEGY': strategy,
            'ROS_SECURITY_KEYSTORE': str(tmp_path / 'none'),
        },
    )
    assert processes.wait('monitor', DEADLINE_S) == CONFIGURATION_EXIT_CODE
    log = processes.log('monitor').read_text()
    assert 'security' in log.lower()
    if not plugins and strategy == 'Permissive':
        assert 'has no security plugins' in log and 'Traceback' not in log


def test_the_policy_names_every_topic_of_every_node() -> None:
    enclaves = {enclave.get('path'): enclave for enclave in ElementTree.parse(POLICY).iter('enclave')}
    allowed = {
        (path, how): {
            topic.text for topics_ in enclave.iter('topics') if topics_.get(how) == 'ALLOW' for topic in topics_
        }
        for path, enclave in enclaves.items()
        for how in ('publish', 'subscribe')
    }
    to_edge = {topic.name for topic in (topics.ACTIVATION, topics.PROBE, topics.EDGE_SPLIT)}
    from_edge = {
        topic.name for topic in (topics.TAIL_RESULT, topics.ACKNOWLEDGEMENT, topics.EDGE_LOAD, topics.EDGE_PROFILE)
    }
    every = [value for value in vars(topics).values() if isinstance(value, topics.Topic)]
    for topic in every:
        name = f'{topic.name}/*' if topic.per_edge else topic.name
        assert (f'/*/{name}' in allowed['/edge', 'subscribe']) == (topic.name in to_edge)
        assert (f'/*/{name}' in allowed['/edge', 'publish']) == (topic.name in from_edge)
        assert (name in allowed['/robot1', 'publish']) == (topic.name not in from_edge)
    assert from_edge <= allowed['/robot1', 'subscribe']
    assert not [name for name in allowed['/robot1', 'subscribe'] if name.split('/')[0] in to_edge]


def test_without_keys_nothing_is_read_and_nothing_answered(processes, plugins, tmp_path, model_parameters) -> None:
    """Make keys; with them edge and camera work together, and a robot without them finds neither."""
    if not plugins:
        pytest.skip('this middleware has no security plugins')
    if shutil.which('ros2') is None or subprocess.run(['ros2', 'security', '-h'], capture_output=True).returncode:
        pytest.skip('ros2 security (sros2) is not installed')
    keys = tmp_path / 'keys'
    for command in (['create_keystore', str(keys)], ['generate_artifacts', '-k', str(keys), '-p', str(POLICY)]):
        subprocess.run(['ros2', 'security', *command], check=True, timeout=120)
    secure = {'ROS_SECURITY_KEYSTORE': str(keys), 'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'Enforce'}

    def with_keys(enclave: str) -> dict[str, str]:
        return {**secure, 'ROS_SECURITY_ENCLAVE_OVERRIDE': enclave}

    processes.start('edge', 'edge_node', 'edge', model_parameters, env=with_keys('/edge'))
    # The same robot twice: without keys it is not found, with them it is.
    processes.start('open', 'camera_node', ROBOT, model_parameters, env={'ROS_SECURITY_ENABLE': 'false'})
    wait(lambda: 'waiting for images' in processes.log('open').read_text(), 'the camera without keys did not start')
    wait(lambda: 'serving mobilenet' in processes.log('edge').read_text(), 'the edge did not start')
    listed = subprocess.run(
        ['ros2', 'topic', 'list', '--no-daemon', '--spin-time', '5'],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, 'ROS_SECURITY_ENABLE': 'false'},
    ).stdout
    assert f'/{ROBOT}/robot_profile' in listed, 'the camera in the open is not there at all'
    assert f'/{ROBOT}/tail_result' not in processes.log('edge').read_text()
    assert f'serving the robot in namespace /{ROBOT}' not in processes.log('edge').read_text()
    processes.stop('open')
    processes.start('camera', 'camera_node', ROBOT, model_parameters, env=with_keys(f'/{ROBOT}'))
    wait(
        lambda: f'serving the robot in namespace /{ROBOT}' in processes.log('edge').read_text(),
        'the edge did not find the robot with keys',
    )
