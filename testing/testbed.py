# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Several machines out of one: a robot and edges in network namespaces, a shaped link to each edge, shares of a core.

The namespaces live as long as a process of theirs does, and every process of the testbed ends with the one that made
it, so nothing is left behind even when that one is killed. Needs root, and ``ip`` and ``tc`` (Debian: iproute2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import ctypes
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import TracebackType

from dynsplit_ros.errors import DynsplitError

#: The queue in front of the link: what a modem holds. A sender that puts more into it at once loses the rest.
QUEUE_S = 0.2
#: Two frames: more would pass a small payload at no time at all.
BURST_BYTES = 3_100
#: Short, so that a share of a core looks like a slower core and not like one that stops.
CPU_PERIOD_US = 10_000
_CLONE_NEWNET = 0x40000000
_PREFIX = 'dynsplit-testbed-'


def lacking() -> str:
    """Return what this machine lacks for a testbed, in words; empty for nothing."""
    if os.geteuid() != 0:
        return 'root (network namespaces and cgroups are made)'
    missing = [tool for tool in ('ip', 'tc', 'unshare', 'nsenter', 'setpriv') if shutil.which(tool) is None]
    if missing:
        return f'{", ".join(missing)} (install with: apt-get install iproute2 util-linux)'
    probe = subprocess.run(
        [
            'unshare',
            '--net',
            'tc',
            'qdisc',
            'add',
            'dev',
            'lo',
            'root',
            'tbf',
            'rate',
            '1mbit',
            'burst',
            '8kb',
            'latency',
            '200ms',
        ],
        capture_output=True,
        text=True,
    )
    return '' if probe.returncode == 0 else f'network namespaces with tc tbf ({probe.stderr.strip()})'


class Testbed:
    """
    A context with the robot's side and one for each of ``edges`` up; this process is on the robot's until it ends.

    ``rate_bps`` shapes both directions of each link, ``cores`` bounds the CPU of the processes that :meth:`on` starts,
    by side. Link N of the robot, from 0, is 10.93.N.1 (``linkN``) and 10.93.N.2 (``link0`` on the edge's side). Raises
    DynsplitError where root or a tool is missing.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(
        self, rate_bps: float, cores: dict[str, float] | None = None, edges: Sequence[str] = ('edge',)
    ) -> None:
        lack = lacking()
        if lack:
            raise DynsplitError(f'the testbed needs {lack}')
        self._rate_bps = rate_bps
        self._cores = cores or {}
        self._edges = tuple(edges)
        self._holders: dict[str, subprocess.Popen[str]] = {}
        self._groups: dict[str, CpuShare] = {}
        self._home = os.open('/proc/thread-self/ns/net', os.O_RDONLY)

    def __enter__(self) -> Testbed:
        # SIGTERM as Ctrl-C: the way out goes through __exit__.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _make(self) -> None:
        for side in ('robot', *self._edges):
            # Each edge has a /dev/shm of its own, or DDS would take the sides for one machine.
            script = (
                'mount -t tmpfs tmpfs /dev/shm && ' if side != 'robot' else ''
            ) + 'echo ready && exec sleep infinity'
            holder = self._holders[side] = subprocess.Popen(
                [
                    'setpriv',
                    '--pdeathsig',
                    'KILL',
                    'unshare',
                    '--net',
                    *(['--mount'] if side != 'robot' else []),
                    'sh',
                    '-c',
                    script,
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert holder.stdout is not None
            if holder.stdout.readline().strip() != 'ready':
                raise DynsplitError(
                    f'the namespace of the {side} could not be made; run as root, outside a container that forbids it'
                )
        pids = {side: str(holder.pid) for side, holder in self._holders.items()}
        for number, edge in enumerate(self._edges):
            self._in(
                'robot',
                'ip',
                'link',
                'add',
                f'link{number}',
                'type',
                'veth',
                'peer',
                'name',
                'link0',
                'netns',
                pids[edge],
            )
        for side, device, address in self._ends():
            self._in(side, 'ip', 'link', 'set', 'lo', 'up')
            self._in(side, 'ip', 'address', 'add', f'{address}/24', 'dev', device)
            # One packet is one frame on the wire, as the rate means it: nothing is merged on the way into the queue.
            if shutil.which('ethtool'):
                self._in(side, 'ethtool', '-K', device, 'tso', 'off', 'gso', 'off', 'gro', 'off')
            self._in(side, 'ip', 'link', 'set', device, 'up')
            if device == 'link0':
                self._in(side, 'ip', 'route', 'add', 'default', 'dev', device)
            self._shape(side, device, 'add')
        for side in self._cores:
            self._groups[side] = CpuShare(f'{_PREFIX}{os.getpid()}-{side}', self._cores[side])
        handle = os.open(f'/proc/{pids["robot"]}/ns/net', os.O_RDONLY)
        _enter_network(handle)
        os.close(handle)

    def set_rate(self, rate_bps: float) -> None:
        """Shape both directions to another rate, in bit/s; what is in the queue stays in it."""
        self._rate_bps = rate_bps
        for side, device, _ in self._ends():
            self._shape(side, device, 'change')

    def cut(self, edge: str) -> None:
        """
        Cut the link to an edge somewhere on the way: the robot's packets vanish, and the edge has no network.

        The robot's own interface stays up, as with a radio link. If it went down, the kernel would first ask for the
        edge's address, and the sockets would wait for that.
        """
        self._in(edge, 'ip', 'address', 'flush', 'dev', 'link0')

    def mend(self, edge: str) -> None:
        """Have a link that was cut carry packets again."""
        self._in(edge, 'ip', 'address', 'add', self._address(edge), 'dev', 'link0')
        self._in(edge, 'ip', 'route', 'add', 'default', 'dev', 'link0')  # it went with the address

    def _address(self, edge: str) -> str:
        return next(f'{address}/24' for side, _, address in self._ends() if side == edge)

    def _ends(self) -> Iterator[tuple[str, str, str]]:
        """Yield side, device and address of both ends of each link."""
        for number, edge in enumerate(self._edges):
            yield 'robot', f'link{number}', f'10.93.{number}.1'
            yield edge, 'link0', f'10.93.{number}.2'

    def _shape(self, side: str, device: str, verb: str) -> None:
        self._in(
            side,
            'tc',
            'qdisc',
            verb,
            'dev',
            device,
            'root',
            'tbf',
            'rate',
            f'{self._rate_bps:.0f}bit',
            'burst',
            str(BURST_BYTES),
            'limit',
            str(int(self._rate_bps / 8 * QUEUE_S) + BURST_BYTES),
        )

    def statistics(self, side: str) -> dict[str, int]:
        """Return what a side has put on its link 0: bytes (frames with headers), and packets that were dropped."""
        words = self._in(side, 'tc', '-s', 'qdisc', 'show', 'dev', 'link0').split()
        return {
            'bytes': int(words[words.index('Sent') + 1]),
            'dropped': int(words[words.index('(dropped') + 1].rstrip(',')),
        }

    def on(self, side: str, share: bool = True) -> list[str]:
        """Return what to put before a command to run it on a side, in its share of a core unless told otherwise."""
        command = [
            'setpriv',
            '--pdeathsig',
            'KILL',
            'nsenter',
            '--target',
            str(self._holders[side].pid),
            '--net',
            *(['--mount'] if side != 'robot' else []),
            f'--wdns={os.getcwd()}',
        ]
        if share and side in self._groups:
            command += ['taskset', '--cpu-list', str(self._core_of(side))] if self._cores[side] <= 1 else []
            command += ['sh', '-c', f'echo $$ > {self._groups[side].processes} && exec "$@"', 'sh']
        return command

    def _core_of(self, side: str) -> int:
        """
        Return the core that is a side's own, as far as there is one for each.

        The scheduler deals out a group's share in slices to the cores: spread over several, what one thread uses up
        keeps those on the other cores waiting for tens of milliseconds, as on no slow machine.
        """
        cores = sorted(os.sched_getaffinity(0))
        return cores[('robot', *self._edges).index(side) % len(cores)]

    def _in(self, side: str, *command: str) -> str:
        try:
            return subprocess.run(
                ['nsenter', '--target', str(self._holders[side].pid), '--net', *command],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        except subprocess.CalledProcessError as error:
            raise DynsplitError(f'the testbed could not run {" ".join(command)!r}: {error.stderr.strip()}') from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _enter_network(self._home)
        os.close(self._home)
        for group in self._groups.values():
            group.remove()
        for holder in self._holders.values():
            holder.kill()
            holder.wait()


def _enter_network(handle: int) -> None:
    """Move this thread, and those that it starts, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET) != 0:
        raise DynsplitError(f'this process cannot enter the network namespace ({os.strerror(ctypes.get_errno())})')


class CpuShare:
    """A control group whose processes share ``cores`` of the CPU; in the cgroup hierarchy of version 1 or 2."""

    def __init__(self, name: str, cores: float) -> None:
        quota_us = max(1000, round(cores * CPU_PERIOD_US))
        first = next(
            (Path(fields[1]) for fields in _mounts() if fields[2] == 'cgroup' and 'cpu' in fields[3].split(',')), None
        )
        second = next((Path(fields[1]) for fields in _mounts() if fields[2] == 'cgroup2'), None)
        parent = first or second
        if parent is None:
            raise DynsplitError('the testbed needs a mounted cgroup hierarchy with the cpu controller')
        _remove_stale(parent)
        self._folder = parent / name
        self.processes = self._folder / 'cgroup.procs'
        try:
            if first is None:
                (parent / 'cgroup.subtree_control').write_text('+cpu')
            self._folder.mkdir()
            if first is not None:
                (self._folder / 'cpu.cfs_period_us').write_text(str(CPU_PERIOD_US))
                (self._folder / 'cpu.cfs_quota_us').write_text(str(quota_us))
            else:
                (self._folder / 'cpu.max').write_text(f'{quota_us} {CPU_PERIOD_US}')
        except OSError as error:
            raise DynsplitError(f'the CPU share {self._folder} cannot be made ({error})') from error

    def remove(self) -> None:
        """End what still runs in the group and remove it."""
        deadline_s = time.monotonic() + 5
        while self._folder.is_dir() and time.monotonic() < deadline_s:
            for pid in self.processes.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                self._folder.rmdir()
            except OSError:  # a process takes a moment to leave
                time.sleep(0.02)


def _mounts() -> Sequence[list[str]]:
    return [line.split() for line in Path('/proc/mounts').read_text().splitlines()]


def _remove_stale(parent: Path) -> None:
    """Remove the groups of testbeds whose process was killed; their processes have ended with it."""
    for folder in parent.glob(f'{_PREFIX}*'):
        if not Path(f'/proc/{folder.name.removeprefix(_PREFIX).split("-")[0]}').exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
