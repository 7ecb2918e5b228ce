# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What lets a process's DDS suit the network between robot and edge, and large messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import faulthandler
import os
from pathlib import Path
import re
import tempfile
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
from rclpy.utilities import get_rmw_implementation_identifier

from dynsplit_ros.errors import DynsplitError

#: Each has a Fast DDS profile of its own in config/; 'default' leaves everything as the shell has it.
TRANSPORTS = ('default', 'one_machine', 'wired', 'wireless')
#: By version of Fast DDS: the variable that names the profile, and how the names of our files begin. Version 3 refuses
#: the files of version 2; the build makes those for version 3. On version 3, rmw_fastrtps reads both variables.
PROFILES = {2: ('FASTRTPS_DEFAULT_PROFILES_FILE', 'fastdds'), 3: ('FASTDDS_DEFAULT_PROFILES_FILE', 'fastdds3')}
#: Participants of one machine that are found without multicast, as rmw_fastrtps has it for the range LOCALHOST.
_LOCAL_PEERS = 32
#: Whether a participant of Fast DDS sends in the publishing thread or in one of its own; read when it is made.
_PUBLICATION_MODE = 'RMW_FASTRTPS_PUBLICATION_MODE'
#: A discovery server as Fast DDS reads it: perhaps a kind of transport, a name or an address, and a port.
_SERVER = re.compile(r'(?:(?:UDP|TCP)v[46]:)?(?:\[[\w.:%-]+\]|[\w.-]+)(?::(\d{1,5}))?')
#: Longest time in which a process leaves DDS, in seconds; it takes less than one.
LEAVE_S = 10.0


def environment(transport: str, discovery_server: str = '') -> dict[str, str]:
    """
    Return the variables to set, before a process starts, for one of :data:`TRANSPORTS`.

    ``discovery_server`` is 'HOST:PORT' of a Fast DDS discovery server, several separated by semicolons; empty:
    discovery by multicast. Raises DynsplitError for a transport that there is not, and for what is no HOST:PORT. A
    middleware other than Fast DDS ignores the profiles.
    """
    if transport not in TRANSPORTS:
        raise DynsplitError(f'transport is {transport!r}, but must be one of {", ".join(TRANSPORTS)}')
    variables = {}
    if transport != 'default':
        version = fast_dds_version()
        if version:
            variables[PROFILES[version][0]] = str(profile(transport, version))
    if transport in ('wired', 'wireless'):
        # rclpy publishes without letting other threads run: waiting for the link there would stop the whole node.
        variables[_PUBLICATION_MODE] = 'ASYNCHRONOUS'
    if discovery_server:
        check_discovery_server('discovery_server', discovery_server, port=True)
        # The edge finds robots by their topics, which only a super client is told of before it shares them.
        variables |= {'ROS_DISCOVERY_SERVER': discovery_server, 'ROS_SUPER_CLIENT': 'TRUE'}
    return variables


def check_discovery_server(name: str, value: str, *, port: bool = False) -> None:
    """Raise DynsplitError unless the value has servers that Fast DDS takes, with ``port`` only such as name theirs."""
    servers = [server.strip() for server in value.split(';')]  # an empty one leaves a number out
    for server in servers:
        found = _SERVER.fullmatch(server)
        number = found and found.group(1)
        if not any(servers) or server and (not found or port and not number or number and not 1 <= int(number) < 65536):
            raise DynsplitError(
                f'{name} is {value!r}, but must be HOST:PORT, such as 192.168.1.5:11811, with a port '
                'from 1 to 65535; separate several by semicolons'
            )


def fast_dds_version() -> int:
    """Return the major version of Fast DDS that this process uses; 0 where it uses another middleware."""
    if 'fastrtps' not in get_rmw_implementation_identifier():  # which loads the middleware
        return 0
    return 3 if '/libfastdds.so' in Path('/proc/self/maps').read_text() else 2


def profile(transport: str, version: int) -> Path:
    """Return our profile of a transport for this version of Fast DDS."""
    return Path(get_package_share_directory('dynsplit_ros')) / 'config' / f'{PROFILES[version][1]}_{transport}.xml'


@contextmanager
def defaults(*, shared_memory: bool) -> Iterator[None]:
    """
    Have a process of ours make its first participant meanwhile by our default profile where the shell names none.

    A profile that is not ours stays in force; ours is used with or without ``shared_memory`` (see :func:`adapted`).
    """
    version = fast_dds_version()
    shell = {variable: os.environ[variable] for variable, _ in PROFILES.values() if os.environ.get(variable)}
    named = {_transport_of(Path(path)) for path in shell.values()}
    if version == 0 or '' in named:
        yield
        return
    # For the range LOCALHOST, rmw_fastrtps adds transports to those of any profile: shared memory, and UDP a second
    # time, so that all is sent twice. Our copy looks for others where that range does, by the profile's own transports.
    peers: list[str] = []
    if os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST' or os.environ.get('ROS_LOCALHOST_ONLY') == '1':
        peers = ['127.0.0.1', *filter(None, os.environ.get('ROS_STATIC_PEERS', '').split(';'))]
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'SYSTEM_DEFAULT'
        os.environ.pop('ROS_LOCALHOST_ONLY', None)
    with tempfile.NamedTemporaryFile('w', prefix='dynsplit_ros_', suffix='.xml') as copy:
        copy.write(
            adapted(
                profile(named.pop() if named else 'default', version).read_text(),
                shared_memory=shared_memory,
                peers=peers,
            )
        )
        copy.flush()
        for variable in shell:
            del os.environ[variable]
        os.environ[PROFILES[version][0]] = copy.name
        try:
            yield
        finally:
            del os.environ[PROFILES[version][0]]
            os.environ.update(shell)


def _transport_of(path: Path) -> str:
    """Return the transport that a profile of ours is for; empty for one that is not ours."""
    ours = {profile(transport, version).resolve(): transport for transport in TRANSPORTS for version in PROFILES}
    return ours.get(path.resolve(), '')


def adapted(text: str, *, shared_memory: bool, peers: Sequence[str]) -> str:
    """
    Return the text of a profile of ours with or without ``shared_memory``; with ``peers``, it looks for these only.

    A process that is killed while it holds a lock in shared memory holds up those that exchange messages with it there:
    Fast DDS waits 1 s for the lock of a port and 2 s for the right to open it, several times in a row. We saw 7 s, in
    which a robot that publishes cannot do anything else. Over UDP nobody waits for the dead.
    """
    space = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
    ElementTree.register_namespace('', space.strip('{}'))
    root = ElementTree.fromstring(text)
    transports = root.find(f'.//{space}transport_descriptors')
    used = root.find(f'.//{space}userTransports')
    builtin = root.find(f'.//{space}builtin')
    assert transports is not None and used is not None and builtin is not None, 'a profile of ours has all three'
    for transport in list(transports):
        if transport.findtext(f'{space}type') == 'SHM':
            if shared_memory:
                continue
            transports.remove(transport)
            for name in [name for name in used if name.text == transport.findtext(f'{space}transport_id')]:
                used.remove(name)
        elif peers:
            ElementTree.SubElement(transport, f'{space}maxInitialPeersRange').text = str(_LOCAL_PEERS)
    if peers:
        # A locator of our own, though it says nothing, keeps Fast DDS from listening to multicast.
        ElementTree.SubElement(
            ElementTree.SubElement(builtin, f'{space}metatrafficUnicastLocatorList'), f'{space}locator'
        )
        initial = ElementTree.SubElement(builtin, f'{space}initialPeersList')
        for peer in peers:
            locator = ElementTree.SubElement(ElementTree.SubElement(initial, f'{space}locator'), f'{space}udpv4')
            ElementTree.SubElement(locator, f'{space}address').text = peer
    return ElementTree.tostring(root, encoding='unicode')


@contextmanager
def small_messages() -> Iterator[None]:
    """
    Have a participant that is made meanwhile send in the publishing thread, whatever is set for large messages.

    What is small waits for no link, but a sending thread has to wait for a core: beside a tail that keeps it busy,
    acknowledgements left 3 to 5 ms late.
    """
    mode = os.environ.pop(_PUBLICATION_MODE, None)
    try:
        yield
    finally:
        if mode is not None:
            os.environ[_PUBLICATION_MODE] = mode


@contextmanager
def leaving() -> Iterator[None]:
    """
    Have the process end, with its stacks on stderr and exit code 1, should leaving DDS here take more than LEAVE_S.

    Fast DDS can wait for ever for a process that was killed while it received through shared memory (its issue 6485),
    and rclpy then waits without letting any other thread of Python's run, or a signal be handled.
    """
    faulthandler.dump_traceback_later(LEAVE_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
