# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How nodes end, and what a camera does that sees ten times as many images as it can work on."""

from __future__ import annotations

from pathlib import Path
import re
import signal
import subprocess
import sys
import time

from conftest import DEADLINE_S, destroy, Observer, picture, ROBOT, wait
import numpy as np
import psutil
import pytest

from dynsplit_ros import msg
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.nodes.processes import write_parameters
from dynsplit_ros.transport import LEAVE_S

pytestmark = pytest.mark.timeout(180)

#: Longest end of a node, in seconds, from the signal or the exception.
BAR_S = 2.0

BROKEN = """
import sys, time
from dynsplit_ros.nodes import {module} as module, base_node
class Broken(module.{name}):
    def diagnose(self):  # called in a timer's callback
        print('raised at', time.monotonic(), flush=True)
        raise RuntimeError('a fault of the program')
sys.exit(base_node.run(Broken, sys.argv[1:]))
"""
NODES = [
    ('camera_node', 'CameraNode'),
    ('edge_node', 'EdgeNode'),
    ('monitor_node', 'MonitorNode'),
    ('image_source', 'ImageSource'),
    ('link_emulator', 'LinkEmulator'),
]


@pytest.mark.parametrize('module, name', NODES)
def test_an_exception_in_a_callback_ends_a_node(tmp_path, model_parameters, module, name) -> None:
    model = model_parameters if module in ('camera_node', 'edge_node') else {'use_sim_time': False}
    write_parameters(tmp_path / 'parameters.yaml', model)
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys; sys.path[:1] = []\n' + BROKEN.format(module=module, name=name),
            '--ros-args',
            '--params-file',
            str(tmp_path / 'parameters.yaml'),
        ],
        capture_output=True,
        text=True,
        timeout=90,
    )
    ended_s = time.monotonic()
    assert done.returncode == 1, done.stderr
    assert 'RuntimeError: a fault of the program' in done.stderr
    assert ended_s - float(re.search(r'raised at (\S+)', done.stdout)[1]) < BAR_S


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('executable', ['image_source', 'link_emulator', 'camera_node'])
def test_a_signal_at_any_time_ends_a_node_without_a_traceback(processes, model_parameters, executable, number) -> None:
    """Also while it still loads what it needs, and twice in a row."""
    for delay_s in (0.3, 1.2, 2.5):
        name = f'{executable}_{delay_s:g}'
        processes.start(
            name, executable, ROBOT, model_parameters if executable == 'camera_node' else {'use_sim_time': False}
        )
        time.sleep(delay_s)
        processes.send(name, number)
        started_s = time.monotonic()
        code = processes.wait(name, DEADLINE_S)
        took_s = time.monotonic() - started_s
        log = processes.log(name).read_text()
        # Before Python has come to the node's own code, the signal ends the process as it ends any other.
        early = not log or code == -number
        assert early or (code == 0 and 'Traceback' not in log), (code, log)
        assert took_s < BAR_S


@pytest.mark.parametrize('executable', ['camera_node', 'image_source'])  # the others use none: test_transport.py
def test_an_ended_node_leaves_no_shared_memory_behind(processes, model_parameters, executable) -> None:
    """A process that sends to such a leftover can wait for ever, and each restart would take about 10 MB more."""
    loads = executable == 'camera_node'
    processes.start(executable, executable, ROBOT, model_parameters if loads else {'use_sim_time': False})
    if loads:
        wait(lambda: 'waiting for images' in processes.log(executable).read_text(), 'the node does not work')

    def taken() -> set[str]:
        """Return the files that the node has locked to say that a segment or a port is its own."""
        return {
            file.path
            for file in psutil.Process(processes.pid(executable)).open_files()
            if file.path.startswith('/dev/shm/fastrtps_') and file.path.endswith('_el')
        }

    wait(lambda: len(taken()) >= 2, 'the node has no shared memory')
    own = taken()
    assert processes.stop(executable) == 0
    # Nodes of a test that runs in parallel may hold a port of the same number until they end; a leftover stays.
    wait(lambda: not any(Path(path).exists() for path in own), f'one of {sorted(own)} is left behind')


def test_a_node_whose_end_hangs_is_ended() -> None:
    """What hangs in the middleware lets neither Python's threads run nor a signal be handled."""
    script = """
import ctypes, os, signal, sys
sys.path[:1] = []
from dynsplit_ros import transport
from dynsplit_ros.nodes import base_node, image_source
transport.LEAVE_S = 1.0
class Hanging(image_source.ImageSource):
    def start(self):
        os.kill(os.getpid(), signal.SIGINT)
    def destroy_node(self):
        ctypes.PyDLL(None).sleep(600)
base_node.run(Hanging)
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'in destroy_node' in done.stderr, 'it does not tell where it hung'


def test_what_an_interrupt_becomes_on_its_way_is_no_fault() -> None:
    """Raised while a condition waits, it comes out of it as 'release unlocked lock'."""
    script = """
import os, signal, sys
sys.path[:1] = []
from dynsplit_ros.nodes import base_node, image_source
class Locking(image_source.ImageSource):
    def start(self):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError('release unlocked lock')
base_node.run(Locking)
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_camera_that_ends_finishes_what_the_edge_owes_it(system, split, number) -> None:
    running = system(monitor={'pinned_split': 1, 'answer_timeout_s': 30.0})
    running.wait_for_edge()
    running.processes.send('edge', signal.SIGSTOP)
    owed = running.observer.send()
    wait(
        lambda: any(
            timing.outcome == msg.FrameTiming.SENT
            and timing.sequence > running.observer.predictions[-1].timing.sequence
            for timing in list(running.observer.timings)
        ),
        'no frame is under way',
    )
    running.processes.send('camera', number)
    running.observer.prediction(owed, BAR_S)
    # Beside a process that stands still, Fast DDS sometimes takes a second or two more to destroy a publisher.
    assert running.processes.wait('camera', LEAVE_S) == 0
    wait(lambda: not running.observer.count_publishers('prediction'), 'the others were not told that it left', 2.0)
    running.processes.send('edge', signal.SIGCONT)
    log = running.processes.log('camera').read_text()
    counts = {name: int(value) for name, value in re.findall(r'(\w+) (\d+)', log[log.rindex('accepted ') :])}
    assert counts['accepted'] == counts['delivered'] and counts['fell_back'] >= 1 and 'Traceback' not in log


def test_ten_times_too_many_images_cost_little_and_delay_nothing(processes, ros, model_parameters) -> None:
    # Ten images a second are what it can do: nearly all of the time it sleeps.
    processes.start('camera', 'camera_node', ROBOT, {**model_parameters, 'emulate_slowdown': 12.0})
    observer = ros(Observer())
    observer.settle()
    service_s = min(observer.send_and_wait().timing.latency_s for _ in range(5))  # the first ones are slow
    image = from_rgb(np.zeros((240, 320, 3), np.uint8) + picture(1)[:1, :1])
    camera = psutil.Process(processes.pid('camera'))
    timer = observer.create_timer(service_s / 10, lambda: observer.send(image))
    begun = len(observer.predictions)
    wait(lambda: len(observer.predictions) > begun + 2, 'no predictions')
    before, cpu_s, started_s = len(observer.predictions), sum(camera.cpu_times()[:2]), time.monotonic()
    wait(lambda: len(observer.predictions) >= before + 30, 'no predictions')
    took_s = time.monotonic() - started_s
    cpu = (sum(camera.cpu_times()[:2]) - cpu_s) / took_s
    destroy(observer, timer)
    loaded = observer.predictions[before:]
    assert processes.stop('camera') == 0
    log = processes.log('camera').read_text()
    counts = {name: int(value) for name, value in re.findall(r'(\w+) (\d+)', log[log.rindex('accepted ') :])}
    latencies_s = [prediction.timing.latency_s for prediction in loaded]
    print(
        f'service {service_s:.3f} s, latency {np.median(latencies_s):.3f} to {max(latencies_s):.3f} s, '
        f'CPU {cpu:.0%}, {counts}'
    )
    assert counts['dropped'] >= 4 * counts['accepted']
    # The newest image, which waits for one service at most, is worked on next; nothing queues.
    assert np.median(latencies_s) < 2.5 * service_s + 0.05
    assert cpu < 0.5, 'passing images over must leave the processor to the network'
