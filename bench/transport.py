# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
How long activations take between two processes of one machine, beside plain TCP moving the same bytes.

And beside a plain message of ROS 2 with these bytes, published and heard by rclpy alone: what the middleware takes.
One way, from the tensor's bytes in one process to its bytes in the other, by the clock that both share; each message
arrives in memory of its own.
"""

from __future__ import annotations

import array
from collections.abc import Callable
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np

from bench.figures import argument_parser, Figures

SIZES = (150_000, 600_000)
MESSAGES = 300
WARM_UP = 20
PERIOD_S = 0.01
#: The receiver answers each message within this time; it starts within it, too.
DEADLINE_S = 60.0
HEADER = struct.Struct('<qqq')


def receive() -> None:
    """Receive by all ways, in a process of its own; print the delay of each message in nanoseconds."""
    import rclpy
    from sensor_msgs.msg import CompressedImage

    from dynsplit_ros.memory import keep_memory
    from dynsplit_ros.messages.tensors import from_tensors
    from dynsplit_ros.nodes import topics
    from dynsplit_ros.nodes.base_node import make_executor
    from dynsplit_ros.transport import defaults

    with defaults(shared_memory=False):  # as an edge
        rclpy.init()
        node = rclpy.create_node('bench_receiver')

    def on_activation(message: object) -> None:
        data = np.frombuffer(from_tensors(message.tensors)[0].data, np.uint8)
        print('dds', len(data), message.sequence, time.monotonic_ns() - message.session, flush=True)

    def on_bare(message: object) -> None:
        data = np.frombuffer(message.data, np.uint8)
        now_ns = time.monotonic_ns()
        sequence, sent_ns = map(int, message.format.split())
        print('bare', len(data), sequence, now_ns - sent_ns, flush=True)

    subscriptions = (
        topics.ACTIVATION.subscription(node, on_activation),
        node.create_subscription(CompressedImage, 'bare', on_bare, topics.ACTIVATION.qos),
    )
    server = socket.create_server(('127.0.0.1', 0))
    print('port', server.getsockname()[1], flush=True)
    keep_memory()
    threading.Thread(target=receive_tcp, args=[server], daemon=True).start()
    executor = make_executor()
    executor.add_node(node)
    while not all(subscription.get_publisher_count() for subscription in subscriptions):
        executor.spin_once(timeout_sec=0.01)
    print('matched', flush=True)  # the sender may be there earlier, and its first message would be lost
    while True:
        executor.spin_once(timeout_sec=0.2)


def receive_tcp(server: socket.socket) -> None:
    """Take messages from a connection until it ends."""
    connection, _ = server.accept()
    header = bytearray(HEADER.size)
    while connection.recv_into(header, HEADER.size, socket.MSG_WAITALL) == HEADER.size:
        sent_ns, size, sequence = HEADER.unpack(header)
        data = np.empty(size, np.uint8)
        connection.recv_into(data, size, socket.MSG_WAITALL)
        print('tcp', size, sequence, time.monotonic_ns() - sent_ns, flush=True)


def measure(messages: int) -> dict[tuple[str, int], list[float]]:
    """Return the delays in seconds by way and size."""
    import rclpy
    from sensor_msgs.msg import CompressedImage

    from dynsplit_ros import msg
    from dynsplit_ros.codec import EncodedTensor
    from dynsplit_ros.memory import keep_memory
    from dynsplit_ros.messages.tensors import to_tensors
    from dynsplit_ros.nodes import topics
    from dynsplit_ros.protocol import PROTOCOL_VERSION
    from dynsplit_ros.transport import defaults

    receiver = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import sys; sys.path[:] = sys.argv[1].split(":"); from bench.transport import receive; receive()',
            ':'.join(sys.path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert receiver.stdout is not None

        def next_line() -> list[str]:
            if not select.select([receiver.stdout], [], [], DEADLINE_S)[0]:
                raise RuntimeError(f'the receiver said nothing for {DEADLINE_S:g} s')
            return receiver.stdout.readline().split()  # type: ignore[union-attr]

        port = int(next_line()[1])
        with defaults(shared_memory=True):  # as a camera
            rclpy.init()
            node = rclpy.create_node('bench_sender')
        publisher = topics.ACTIVATION.publisher(node)
        bare_publisher = node.create_publisher(CompressedImage, 'bare', topics.ACTIVATION.qos)
        connection = socket.create_connection(('127.0.0.1', port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not (publisher.get_subscription_count() and bare_publisher.get_subscription_count()):
            time.sleep(0.01)
        next_line()  # matched
        delays: dict[tuple[str, int], list[float]] = {}
        keep_memory()

        def tcp(sequence: int, data: np.ndarray) -> None:
            connection.sendall(HEADER.pack(time.monotonic_ns(), len(data), sequence))
            connection.sendall(data)

        def dds(sequence: int, data: np.ndarray) -> None:
            sent_ns = time.monotonic_ns()
            encoded = [EncodedTensor('activation', 'uint8', (len(data),), data.data)]
            publisher.publish(
                msg.Activation(
                    protocol_version=PROTOCOL_VERSION, session=sent_ns, sequence=sequence, tensors=to_tensors(encoded)
                )
            )

        def bare(sequence: int, data: np.ndarray) -> None:
            sent_ns = time.monotonic_ns()
            content = array.array('B')
            content.frombytes(data.data)
            bare_publisher.publish(CompressedImage(format=f'{sequence} {sent_ns}', data=content))

        ways: tuple[Callable[[int, np.ndarray], None], ...] = (tcp, bare, dds)
        sequence = 0
        for size in SIZES:
            data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
            for number in range(WARM_UP + messages):
                for way in ways:  # in turn, so that what else the machine does meets all alike
                    sequence += 1
                    time.sleep(PERIOD_S)
                    way(sequence, data)
                    name, arrived, which, delay_ns = next_line()
                    if (name, int(arrived), int(which)) != (way.__name__, size, sequence):
                        raise RuntimeError(
                            f'message {sequence} by {way.__name__} did not arrive, but {name} {which} did'
                        )
                    if number >= WARM_UP:
                        delays.setdefault((name, size), []).append(int(delay_ns) / 1e9)
        rclpy.shutdown()
        return delays
    finally:
        receiver.kill()
        receiver.wait()


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        '--messages', type=int, default=MESSAGES, metavar='N', help=f'of each kind (default: {MESSAGES})'
    )
    given = parser.parse_args()
    from dynsplit_ros.transport import environment

    os.environ |= environment('one_machine')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    delays = measure(given.messages)
    figures = Figures()
    for size in SIZES:
        tcp_s, dds_s = float(np.median(delays['tcp', size])), float(np.median(delays['dds', size]))
        figures.add(f'{size} bytes by plain TCP, median', tcp_s * 1e3, 'ms')
        figures.add(
            f'{size} bytes by plain TCP, slowest of {given.messages} over its median',
            max(delays['tcp', size]) / tcp_s,
            'times',
        )
        figures.add(f'{size} bytes as a plain message, median', float(np.median(delays['bare', size])) * 1e3, 'ms')
        figures.add(f'{size} bytes as an activation, median', dds_s * 1e3, 'ms')
        figures.add(f'{size} bytes as an activation, median over plain TCP', dds_s / tcp_s, 'times', '<= 4')
        figures.add(
            f'{size} bytes as an activation, slowest of {given.messages} over TCP median',
            max(delays['dds', size]) / tcp_s,
            'times',
            '<= 10',
        )
    figures.extra['delays_s'] = {f'{way} {size}': values for (way, size), values in delays.items()}
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
