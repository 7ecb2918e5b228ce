# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Show the live state of every robot on the network: split, link, edge, latency, and outcomes of its frames."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import math
import os
import signal
import sys
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

#: From this width on (columns), top shows a robot as a row of a table; below, as a block of lines.
WIDE = 160
#: top shows a robot as silent after the first time without a message, and removes it after the second.
SILENT_S, GONE_S = 3.0, 60.0
LOOK_S = 1.0
#: Most robots that are watched at a time; each costs six subscriptions.
MOST_ROBOTS = 100


def main(argv: list[str] | None = None) -> int:
    """Watch until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--robot', action='append', metavar='NAMESPACE', help='show only this robot; can be repeated')
    parser.add_argument(
        '--period', type=float, metavar='SECONDS', help='refresh period (default: 0.5; 5 if the output is no terminal)'
    )
    parser.add_argument(
        '--once', action='store_true', help='print the state of each robot and end; exit code 1 if no robot is found'
    )
    parser.add_argument(
        '--wait', type=float, default=5.0, metavar='SECONDS', help='time that --once listens (default: 5)'
    )
    given = parser.parse_args(argv)
    if given.period is not None and not given.period > 0:
        parser.error(f'--period {given.period:g} is not a positive number')
    if not 0 <= given.wait < math.inf:
        parser.error(f'--wait {given.wait:g} is not a number of seconds of at least 0')
    console = Console(highlight=False)
    try:
        return watch(given, console)
    except KeyboardInterrupt:
        return 0


def watch(given: argparse.Namespace, console: Console) -> int:
    """Find robots, listen to them and show them."""
    import rclpy  # here, so that --help answers at once
    from rclpy.signals import SignalHandlerOptions

    from dynsplit_ros.nodes.base_node import make_executor
    from dynsplit_ros.transport import leaving

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f'top_{os.getpid()}', start_parameter_services=False, enable_rosout=False)
    executor = make_executor()
    executor.add_node(node)
    robots = Robots(node, given.robot)
    live = console.is_terminal and not given.once
    period_s = given.period or (0.5 if live else 5.0)
    began_s = shown_s = time.monotonic()
    try:
        with Live(console=console, screen=True, auto_refresh=False) if live else console as screen:
            while True:
                executor.spin_once(timeout_sec=0.1)
                robots.look()
                now_s = time.monotonic()
                if given.once:
                    if now_s - began_s >= given.wait:
                        console.print(show(robots.seen, now_s, console.width))
                        return 0 if robots.seen else 1
                elif now_s - shown_s >= period_s:
                    shown_s = now_s
                    if isinstance(screen, Live):
                        screen.update(show(robots.seen, now_s, console.width), refresh=True)
                    else:
                        for line in lines(robots.seen, now_s):
                            print(line, flush=True)
    finally:
        with leaving():
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()


class Robots:
    """The robots that a node has found, by namespace; ``only`` names those that count, none for all."""

    def __init__(self, node: Any, only: list[str] | None) -> None:
        self.seen: dict[str, Any] = {}
        self._node = node
        self._only = {name.strip('/') for name in only} if only else None
        self._looked_s = 0.0

    def look(self) -> None:
        """Look, now and then, for robots that are new or gone: who decides about a split is one."""
        from dynsplit_ros.nodes import topics
        from dynsplit_ros.nodes.watch import Watch, WATCHED

        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for topic, types in self._node.get_topic_names_and_types():
            namespace, _, name = topic.rpartition('/')
            namespace = namespace.strip('/')
            if (
                name == topics.SPLIT.name
                and 'dynsplit_ros/msg/SplitDecision' in types
                and namespace not in self.seen
                and len(self.seen) < MOST_ROBOTS
                and topics.have_valid_names(WATCHED, f'/{namespace}')
                and self._node.count_publishers(topic)
                and (self._only is None or namespace in self._only)
            ):
                self.seen[namespace] = Watch(self._node, namespace)
        for namespace, robot in list(self.seen.items()):
            if now_s - robot.heard_s > GONE_S:
                robot.close(self._node)
                del self.seen[namespace]


def show(robots: Mapping[str, Any], now_s: float, width: int) -> RenderableType:
    """Return what a terminal of this width shows: a row for each robot, or a block where a row has no room."""
    head = Text(
        f'{time.strftime("%H:%M:%S")}  {len(robots)} robot{"s" * (len(robots) != 1)}, '
        f'domain {os.environ.get("ROS_DOMAIN_ID", "0")}'
        + (f', frames counted since {_since(robots, now_s)}' if robots else ''),
        style='dim',
    )
    if not robots:
        return Group(head, Text('no robot found; start a monitor_node in this ROS_DOMAIN_ID, and check discovery'))
    known = {name: _facts(robot, now_s) for name, robot in sorted(robots.items())}
    return Group(head, _wide(known, width) if width >= WIDE else _narrow(known, width))


def _since(robots: Mapping[str, Any], now_s: float) -> str:
    """Return the time of day at which the first of the robots was found."""
    began_s = min(robot.began_s for robot in robots.values())
    return time.strftime('%H:%M:%S', time.localtime(time.time() - now_s + began_s))


def lines(robots: Mapping[str, Any], now_s: float) -> list[str]:
    """Return a line for each robot, for a log; its frames are counted from the first line on."""
    if not robots:
        return ['no robot found']
    return [
        f'{time.strftime("%H:%M:%S")} '
        + ', '.join(f'{name} {text}' for name, text in _facts(robot, now_s).items() if name != 'reason')
        for _, robot in sorted(robots.items())
    ]


def _facts(robot: Any, now_s: float) -> dict[str, str]:
    from dynsplit_ros.nodes.watch import facts
    from dynsplit_ros.text import printable

    silent_s = now_s - robot.heard_s
    state = f' (silent for {silent_s:.0f} s)' if silent_s > SILENT_S else ''
    return {'robot': printable(robot.namespace or '/', 60) + state, **facts(robot)}


def _wide(robots: Mapping[str, Mapping[str, str]], width: int) -> Group:
    # In the order of the facts of a robot of which all is known.
    order = ('robot', 'split', 'throughput', 'round trip', 'edge', 'other edges', 'latency', 'agreement', 'frames')
    names = [name for name in order if any(name in known for known in robots.values())]
    table = Table(box=None, pad_edge=False, header_style='bold')
    for name in names:
        # Of the longest texts the ends may go, but no unit of a number.
        least = 12 if name in ('throughput', 'round trip') else None
        table.add_column(name, no_wrap=True, overflow='ellipsis', min_width=least)
    reasons = []
    for known in robots.values():
        table.add_row(*(Text(known.get(name, '')) for name in names))
        reasons.append(Text(f'{known["robot"]}: {known.get("reason", "")}', style='italic'))
        reasons[-1].truncate(width, overflow='ellipsis')
    return Group(table, Text(''), *reasons)


def _narrow(robots: Mapping[str, Mapping[str, str]], width: int) -> Group:
    blocks: list[RenderableType] = []
    for known in robots.values():
        table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(style='dim', no_wrap=True)
        table.add_column(overflow='fold')
        for name, text in known.items():
            if name not in ('robot', 'reason'):
                table.add_row(name, Text(text))
        reason = Text(known.get('reason', ''), style='italic')
        reason.truncate(2 * width, overflow='ellipsis')
        blocks += [Text(''), Text(known['robot'], style='bold'), table, reason]
    return Group(*blocks)


if __name__ == '__main__':
    raise SystemExit(main())
