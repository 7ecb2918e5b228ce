# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The live table: it finds the robots of a running system, says how they are, and keeps to the terminal's width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import os
from pathlib import Path
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from types import SimpleNamespace
import unicodedata

from ament_index_python.packages import get_package_prefix
from conftest import DEADLINE_S, Observer, ROBOT, System, wait
import pytest
from rclpy.node import Node
from rich.console import Console

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.watch import facts, Watch
from dynsplit_ros.tools import top

pytestmark = pytest.mark.timeout(300)
TOP = str(Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / 'top')


@contextlib.contextmanager
def in_a_terminal(columns: int, rows: int) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """Start top in a terminal of that size, yielding it and what reads all that it has written so far."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ('COLUMNS', 'LINES')}
    process = subprocess.Popen([TOP], stdin=there, stdout=there, stderr=there, env={**environment, 'TERM': 'xterm'})
    os.close(there)
    written = bytearray()

    def read() -> str:
        while select.select([here], [], [], 0.05)[0]:
            try:
                written.extend(os.read(here, 65536))
            except OSError:  # the other end is closed
                break
        return written.decode(errors='replace')

    try:
        yield process, read
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(here)


def lines_of(screen: str) -> list[str]:
    """Return what stood in the terminal's lines, without what steered it."""
    # Where the cursor is moved, another line begins.
    pieces = re.split(r'[\r\n]+|\x1b\[[0-9;]*H', screen)
    return [re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', line).rstrip() for line in pieces]


def test_top_shows_a_running_system(system: Callable[..., System]) -> None:
    running = system(monitor={'pinned_split': 0})
    running.wait_for_edge()
    with in_a_terminal(40, 24) as (process, read):
        deadline_s = time.monotonic() + 90
        # It counts what it has seen itself, so frames go on while it looks.
        while not (re.search(r'[1-9]\d* answered', read()) and 'busy' in read()):
            assert time.monotonic() < deadline_s, read()
            running.observer.send_and_wait()
        process.send_signal(signal.SIGINT)
        wait(lambda: process.poll() is not None, 'top does not end')
        shown = read()
    assert process.returncode == 0 and 'Traceback' not in shown
    for name in (
        ROBOT,
        'split',
        '0 (image)',
        'Mbit/s',
        'round trip',
        'busy',
        'ms, median',
        'local',
        'fell',
        'back',
        'counted since',
    ):
        assert name in shown, name
    assert max(len(line) for line in lines_of(shown)) <= 40

    # Without a terminal: as a table once, and line by line.
    once = subprocess.Popen(
        [TOP, '--once', '--wait', '4'], stdout=subprocess.PIPE, text=True, env={**os.environ, 'COLUMNS': '160'}
    )
    lines = subprocess.Popen([TOP, '--period', '0.5', '--robot', f'/{ROBOT}'], stdout=subprocess.PIPE, text=True)
    try:
        assert lines.stdout is not None
        line = next(line for line in lines.stdout if re.search(r'split 0 \(image\)', line))
        assert f'robot {ROBOT}' in line and 'throughput' in line
        table, _ = once.communicate(timeout=60)
        assert once.returncode == 0
        row = next(line for line in table.splitlines() if line.startswith(ROBOT))
        assert '0 (image)' in row and 'Mbit/s' in row
        lines.send_signal(signal.SIGINT)
        assert lines.wait(DEADLINE_S) == 0
    finally:
        for process in (once, lines):
            process.kill()
            process.wait()


def test_top_says_that_there_is_no_robot() -> None:
    result = subprocess.run(
        [TOP, '--once', '--wait', '0.5', '--robot', 'nobody'], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1 and 'no robot found' in result.stdout and result.stderr == ''


def test_the_running_agreement_is_shown(ros: Callable[[Node], Node]) -> None:
    observer = ros(Observer('audited'))
    publisher = topics.AGREEMENT.publisher(observer)
    watch = Watch(observer, '/audited/')
    publisher.publish(
        to_message(
            msg.Agreement,
            split_index=2,
            codec='quant4-zstd',
            audits=120,
            agreement=0.99,
            low=0.95,
            high=0.998,
            removed=True,
        )
    )
    wait(lambda: watch.agreement is not None, 'the agreement did not arrive')
    assert facts(watch)['agreement'] == '0.990 (0.950 to 0.998), 120 audits of split 2 quant4-zstd, taken out'


def test_texts_from_the_network_cannot_steer_the_terminal(ros: Callable[[Node], Node]) -> None:
    """A reason with escape sequences and markup is shown as it is, without its control characters."""
    observer = ros(Observer('evil'))
    publisher = topics.SPLIT.publisher(observer)
    watch = Watch(observer, '/evil/')
    reason = '\x1b]0;owned\x07\x1b[2J[red]and [/bold] markup\r\n' + 'x' * 5000
    publisher.publish(
        to_message(msg.SplitDecision, split_name='\x1b[31m', codec='[link=file:///etc/passwd]', reason=reason)
    )
    wait(lambda: watch.split is not None, 'the decision did not arrive')
    said = facts(watch)
    assert all(character.isprintable() for text in said.values() for character in text) and len(said['reason']) == 300
    for width in (40, 160):
        console = Console(width=width, file=open(os.devnull, 'w'), record=True, force_terminal=True)
        console.print(top.show({'evil': watch}, time.monotonic(), width))
        text = console.export_text()
        assert not any(unicodedata.category(character) == 'Cc' for character in text.replace('\n', ''))
        assert '[red]and' in text and max(map(len, text.splitlines())) <= width
        if width == 160:
            assert any(line.startswith('evil') and '0 (' in line for line in text.splitlines()), 'a row is torn apart'


def test_a_robot_that_went_silent_is_said_to_be(ros: Callable[[Node], Node]) -> None:
    watch = Watch(ros(Observer('quiet')), 'quiet')
    now_s = watch.heard_s + 10
    assert 'quiet (silent for 10 s)' in top.lines({'quiet': watch}, now_s)[0]
    assert 'silent' not in top.lines({'quiet': watch}, now_s - 9)[0]


def test_what_goes_is_forgotten_and_only_deciders_are_robots() -> None:
    class Node:
        """What the search for robots asks of a node."""

        names = [
            ('/a/split', ['dynsplit_ros/msg/SplitDecision']),
            ('/b/split', ['other_msgs/msg/Split']),
            ('/c/prediction', ['dynsplit_ros/msg/Prediction']),
            ('/d/split', ['dynsplit_ros/msg/SplitDecision']),
        ]

        def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
            return self.names

        def count_publishers(self, topic: str) -> int:
            return topic == '/a/split'

        def __getattr__(self, name: str) -> Callable[..., object]:
            return lambda *arguments, **options: SimpleNamespace(topic_name='')

    robots = top.Robots(Node(), None)
    robots.look()
    assert list(robots.seen) == ['a']
    robots.seen['a'].heard_s -= 2 * top.GONE_S
    Node.names = []
    robots._looked_s = 0.0
    robots.look()
    assert robots.seen == {}
