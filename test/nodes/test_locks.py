# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What any peer can do through the standard services: nothing that runs code or opens a file of its choice."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
import ctypes
import gc
import os
from pathlib import Path
import struct

from conftest import DEADLINE_S, Observer, ROBOT, wait
import pytest
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters, SetParametersAtomically
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file, parameter_value_to_python
from test_lifecycle import Manager
import yaml

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.nodes.base_node import BaseNode
from dynsplit_ros.nodes.camera_node import CameraNode
from dynsplit_ros.nodes.edge_node import EdgeNode
from dynsplit_ros.nodes.image_source import ImageSource
from dynsplit_ros.nodes.link_emulator import LinkEmulator
from dynsplit_ros.nodes.monitor_node import MonitorNode
from dynsplit_ros.nodes.processes import write_parameters
from dynsplit_ros.nodes.spinning import Spinning
from dynsplit_ros.parameters import CAMERA, EDGE, LINK_EMULATOR, MONITOR, SOURCE
from testing.setting import ask

pytestmark = pytest.mark.timeout(180)
DECLARED = {
    'camera_node': CAMERA,
    'edge_node': EDGE,
    'monitor_node': MONITOR,
    'image_source': SOURCE,
    'link_emulator': LINK_EMULATOR,
}
MANAGED = ('camera_node', 'edge_node', 'monitor_node')
NODES = {
    'camera_node': CameraNode,
    'edge_node': EdgeNode,
    'monitor_node': MonitorNode,
    'image_source': ImageSource,
    'link_emulator': LinkEmulator,
}
IN_OPEN, IN_CREATE, IN_ISDIR = 0x20, 0x100, 0x40000000


class Traps:
    """A folder with a file for each way in; the kernel tells which of them any process opens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.mark = folder / 'mark'
        (folder / 'trap.py').write_text(f'import pathlib\npathlib.Path({str(self.mark)!r}).touch()\nmake = print\n')
        for name in ('trap.pth', 'trap.safetensors', 'trap.pt2', 'trap.yaml', 'trap.txt', 'trap.png', 'trap.mp4'):
            (folder / name).write_bytes(b'trap')
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._inotify, bytes(folder), IN_OPEN | IN_CREATE) >= 0

    @property
    def sprung(self) -> list[str]:
        """The names of the files that were opened or created since the last look; folders may be listed."""
        names = []
        try:
            events = os.read(self._inotify, 65536)
        except BlockingIOError:
            return names
        while events:
            _, mask, _, length = struct.unpack_from('iIII', events)
            if not mask & IN_ISDIR:
                names.append(events[16 : 16 + length].rstrip(b'\0').decode())
            events = events[16 + length :]
        return names

    def baits(self, parameter: str) -> list[object]:
        """Return what a peer would set a parameter to."""
        files = [str(self.folder / f'trap.{suffix}') for suffix in ('pth', 'safetensors', 'pt2', 'yaml', 'png', 'mp4')]
        return {
            'model': ['os:system', 'trap:make', str(self.folder / 'trap.pt2'), 'resnet18'],
            'model_arguments': [f'{{"command": "touch {self.mark}"}}'],
            'allowed_models': [['os:system', 'trap:make']],
            'labels': [[files[0]], ['cat']],
            'leaves': [['Conv2d'], [files[0]]],
            'engine': ['inductor'],
            'metrics_port': [9100],
            'metrics_address': ['0.0.0.0'],
            'replicas': [[1, 1024]],
            'remote_control': [False],
        }.get(parameter, [*files, '0', '/dev/zero'])

    @property
    def attacks(self) -> list[dict[str, str]]:
        """Parameters that would run code or open a file at the next configure, if the node accepted them."""
        return [
            {'model': 'os:system', 'model_arguments': f'{{"command": "touch {self.mark}"}}'},
            {'model': 'trap:make'},
            *(
                {name: str(self.folder / f'trap.{suffix}')}
                for name, suffix in (
                    ('model', 'pt2'),
                    ('weights', 'pth'),
                    ('weights', 'safetensors'),
                    ('profile', 'yaml'),
                )
            ),
        ]


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traps:
    folder = tmp_path / 'traps'
    monkeypatch.setenv('PYTHONPATH', str(folder), prepend=os.pathsep)  # the node could import trap
    return Traps(folder)


@pytest.mark.parametrize('node', DECLARED)
def test_no_peer_can_have_a_node_run_code_or_open_a_file(processes, ros, model_parameters, traps, node) -> None:
    observer = ros(Observer())
    given = model_parameters if node in ('camera_node', 'edge_node') else {'use_sim_time': False}
    processes.start('node', node, ROBOT, given)
    set_each, set_all = (
        observer.create_client(kind, f'/{ROBOT}/{node}/{name}')
        for kind, name in ((SetParameters, 'set_parameters'), (SetParametersAtomically, 'set_parameters_atomically'))
    )
    assert set_each.wait_for_service(DEADLINE_S) and set_all.wait_for_service(DEADLINE_S)
    locked = [parameter.name for parameter in DECLARED[node] if parameter.locked]
    assert 'remote_control' in locked and (node != 'camera_node' or len(locked) > 6)

    def try_all() -> None:
        hostile = [Parameter(name, value=value).to_parameter_msg() for name in locked for value in traps.baits(name)]
        for message in hostile:
            results = [
                ask(set_each, SetParameters.Request(parameters=[message]), DEADLINE_S).results[0],
                ask(set_all, SetParametersAtomically.Request(parameters=[message]), DEADLINE_S).result,
            ]
            for result in results:
                assert not result.successful and repr(message.name) in result.reason, message
        together = ask(set_each, SetParameters.Request(parameters=hostile), DEADLINE_S)
        assert not any(result.successful for result in together.results)
        assert not ask(set_all, SetParametersAtomically.Request(parameters=hostile), DEADLINE_S).result.successful

    try_all()
    if node in MANAGED:
        manager = Manager(observer, f'{ROBOT}/{node}')
        wait(lambda: manager.state == 'active', 'it did not activate itself')
        assert manager.set('deactivate', 'cleanup')
        try_all()
        assert manager.set('configure', 'activate')
        try_all()
    assert traps.sprung == [] and not traps.mark.exists()
    processes.check()


@pytest.mark.parametrize('node', ['camera_node', 'edge_node'])
def test_the_kernel_sees_nothing_that_a_peer_asked_for(processes, ros, model_parameters, traps, node) -> None:
    # This test does not look at the answers of the services: without the locks, each attack leaves its file here.
    observer = ros(Observer())
    processes.start('node', node, ROBOT, model_parameters)
    manager = Manager(observer, f'{ROBOT}/{node}')
    wait(lambda: manager.state == 'active', 'it did not activate itself')
    assert manager.set('deactivate', 'cleanup')
    client = observer.create_client(SetParameters, f'/{ROBOT}/{node}/set_parameters')
    assert client.wait_for_service(DEADLINE_S)
    before = {parameter.name: parameter.default for parameter in DECLARED[node]} | model_parameters

    def change(values: dict[str, object]) -> None:
        ask(
            client,
            SetParameters.Request(
                parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
            ),
            DEADLINE_S,
        )

    seen = []
    for attack in traps.attacks:
        change(attack)
        if manager.set('configure'):
            assert manager.set('cleanup')
        seen.append(traps.sprung)
        change({name: before[name] for name in attack})
    assert not any(seen) and not traps.mark.exists(), list(zip(traps.attacks, seen))
    processes.check()


@pytest.mark.parametrize('node', ['monitor_node', 'link_emulator'])
def test_a_request_that_cannot_be_read_takes_no_node_down(processes, ros, node) -> None:
    observer = ros(Observer())
    processes.start('node', node, ROBOT, {'use_sim_time': False})
    set_each, set_all = (
        observer.create_client(kind, f'/{ROBOT}/{node}/{name}')
        for kind, name in ((SetParameters, 'set_parameters'), (SetParametersAtomically, 'set_parameters_atomically'))
    )
    assert set_each.wait_for_service(DEADLINE_S) and set_all.wait_for_service(DEADLINE_S)
    for name in ('use_sim_time', 'remote_control', 'none', '', 'x' * 100_000):
        for kind in (0, 5, 10, 255):
            message = Parameter(name).to_parameter_msg()
            message.value = ParameterValue(type=kind)
            assert not any(
                result.successful
                for result in ask(set_each, SetParameters.Request(parameters=[message]), DEADLINE_S).results
            )
            assert not ask(set_all, SetParametersAtomically.Request(parameters=[message]), DEADLINE_S).result.successful
    processes.check()
    log = processes.log('node').read_text()
    assert 'Traceback' not in log and len(log) < 20_000


def test_a_model_of_the_list_is_taken_with_what_belongs_to_it(
    processes, ros, model_parameters, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    observer = ros(Observer())
    processes.start(
        'camera',
        'camera_node',
        ROBOT,
        {
            **model_parameters,
            'allowed_models': ['{"model": "squeezenet1_1", "weights": "none", "seed": 3}', 'resnet18'],
        },
    )
    camera = Manager(observer, f'{ROBOT}/camera_node')
    wait(lambda: camera.state == 'active', 'it did not activate itself')
    assert 'ros2 lifecycle set' in camera.parameter('model', 'squeezenet1_1')
    assert camera.set('deactivate', 'cleanup')
    refused = camera.parameter('model', 'resnet50')
    assert "'resnet50' is not one of 'mobilenet_v2', 'squeezenet1_1', 'resnet18'" in refused

    names = ('model', 'weights', 'seed', 'profile', 'input_size')
    get = observer.create_client(GetParameters, f'/{ROBOT}/camera_node/get_parameters')

    def values() -> list[object]:
        answer = ask(get, GetParameters.Request(names=names), DEADLINE_S)
        return [
            list(value) if (value := parameter_value_to_python(each)).__class__.__name__ == 'array' else value
            for each in answer.values
        ]

    assert camera.parameter('model', 'squeezenet1_1') == ''
    assert values() == ['squeezenet1_1', 'none', 3, '', [64, 64]]
    assert camera.set('configure') and 'squeezenet1_1: ' in processes.log('camera').read_text()
    assert camera.set('cleanup')

    assert camera.parameter('model', 'resnet18') == ''  # its weights are not on this machine
    assert values() == ['resnet18', 'default', 0, '', [64, 64]]
    assert not camera.set('configure') and 'downloads none' in processes.log('camera').read_text()
    assert not (tmp_path / 'torch').exists()

    assert camera.parameter('model', 'mobilenet_v2') == ''
    assert values() == ['mobilenet_v2', 'none', 0, model_parameters['profile'], [64, 64]]
    assert camera.set('configure', 'activate')
    observer.settle()


@pytest.fixture
def made(tmp_path, model_parameters) -> Iterator[Callable[..., tuple[BaseNode, Node]]]:
    """Return a function that starts a node in this process, and returns it with a peer."""
    ending: list[Callable[[], None]] = []

    def make(name: str, **parameters: object) -> tuple[BaseNode, Node]:
        given = {**(model_parameters if name in ('camera_node', 'edge_node') else {}), **parameters}
        path = write_parameters(tmp_path / f'{name}.yaml', given)
        rclpy.init(args=['--ros-args', '--params-file', str(path), '-r', f'{name}:__ns:=/{ROBOT}'])
        node = NODES[name]()
        node.start()
        spinning = Spinning(executor := SingleThreadedExecutor())
        ending.extend((spinning.close, node.close, lambda: executor.remove_node(node)))
        return spinning.add(node), spinning.add(Node('peer', start_parameter_services=False))

    yield make
    for end in reversed(ending):
        end()
    ending.clear()
    gc.unfreeze()  # a node that something still refers to stays on the graph
    gc.collect()


@pytest.mark.parametrize('name', NODES)
def test_a_node_takes_back_the_parameters_that_it_dumps(made, tmp_path, name) -> None:
    node, peer = made(
        name,
        use_sim_time=True,
        **{
            'qos_overrides./robot1/image.subscription.reliability': 'best_effort',
            'qos_overrides./robot1/image_raw.publisher.depth': 3,
            **({'labels': ['1', 'no', '']} if name == 'camera_node' else {}),
        },
    )
    services = [
        peer.create_client(kind, f'/{ROBOT}/{name}/{service}')
        for kind, service in (
            (ListParameters, 'list_parameters'),
            (GetParameters, 'get_parameters'),
            (SetParameters, 'set_parameters'),
            (SetParametersAtomically, 'set_parameters_atomically'),
        )
    ]
    assert all(client.wait_for_service(DEADLINE_S) for client in services)
    names = sorted(ask(services[0], ListParameters.Request(), DEADLINE_S).result.names)
    assert {'use_sim_time', *(parameter.name for parameter in DECLARED[name])} <= set(names)
    if name in ('camera_node', 'image_source'):
        assert any(each.startswith('qos_overrides./robot1/image') for each in names)
    values = ask(services[1], GetParameters.Request(names=names), DEADLINE_S).values
    # As `ros2 param dump` writes them and `ros2 param load` reads them: rclpy has the reading half.
    dump = tmp_path / 'dump.yaml'
    plain = {
        each: list(value) if isinstance(value := parameter_value_to_python(found), array.array) else value
        for each, found in zip(names, values)
    }
    dump.write_text(yaml.dump({f'/{ROBOT}/{name}': {'ros__parameters': plain}}))
    loaded = list(parameter_dict_from_yaml_file(str(dump)).values())
    for parameters in (loaded, [Parameter(each, value=value).to_parameter_msg() for each, value in plain.items()]):
        results = [
            *ask(services[2], SetParameters.Request(parameters=parameters), DEADLINE_S).results,
            ask(services[3], SetParametersAtomically.Request(parameters=parameters), DEADLINE_S).result,
        ]
        assert len(results) == len(names) + 1
        assert [result.reason for result in results if not result.successful] == []
    before = dict(zip(names, values))
    after = dict(zip(names, ask(services[1], GetParameters.Request(names=names), DEADLINE_S).values))
    assert before == after


@pytest.mark.parametrize('name', NODES)
def test_a_node_without_remote_control_offers_no_service_to_change_it(made, name) -> None:
    node, peer = made(name, remote_control=False)

    def offered() -> set[str]:
        return {kind for _, kinds in peer.get_service_names_and_types_by_node(name, f'/{ROBOT}') for kind in kinds}

    wait(lambda: 'type_description_interfaces/srv/GetTypeDescription' in offered(), 'the node was not found')
    infer = {'std_srvs/srv/Trigger'} if name == 'camera_node' else set()  # it runs the network and changes nothing
    assert offered() == {'type_description_interfaces/srv/GetTypeDescription', *infer}
    assert name not in MANAGED or node.state == 'active'


def test_a_node_can_offer_no_service_at_all(made) -> None:
    _, peer = made('monitor_node', remote_control=False, start_type_description_service=False)
    wait(lambda: ('monitor_node', f'/{ROBOT}') in peer.get_node_names_and_namespaces(), 'the node was not found')
    wait(lambda: peer.count_publishers(f'/{ROBOT}/link_state'), 'its topics were not found')
    assert peer.get_service_names_and_types_by_node('monitor_node', f'/{ROBOT}') == []


def test_a_node_that_nothing_could_ever_activate_is_refused(made) -> None:
    with pytest.raises(DynsplitError, match="'autostart' and 'remote_control' are both false"):
        made('monitor_node', remote_control=False, autostart=False)
    rclpy.shutdown()
