# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Write the reference tables from the code's own declarations: ``./run exec python scripts/reference.py``.

``docs/reference.md`` is made whole; in README.md the part between the two markers. With ``--check`` nothing is written,
and the exit code is 1 when either is stale.
"""

from __future__ import annotations

from pathlib import Path
import sys

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from dynsplit_ros import parameters
from dynsplit_ros.nodes import topics

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = '<!-- made by scripts/reference.py -->', '<!-- end -->'

#: Who publishes and who subscribes; the topics themselves are declared in nodes/topics.py.
ENDS = {
    'activation': ('camera_node', 'edge_node'), 'tail_result': ('edge_node', 'camera_node'),
    'receipt': ('edge_node', 'camera_node, monitor_node'), 'probe': ('monitor_node', 'edge_node'),
    'edge_load': ('edge_node', 'monitor_node'), 'edge_profile': ('edge_node', 'monitor_node'),
    'robot_profile': ('camera_node', 'monitor_node'), 'frame_timing': ('camera_node', 'monitor_node'),
    'split': ('monitor_node', 'camera_node'), 'link_state': ('monitor_node', 'you'),
    'prediction': ('camera_node', 'you'),
}
NODES = {'camera_node': parameters.CAMERA, 'edge_node': parameters.EDGE, 'monitor_node': parameters.MONITOR,
         'image_source': parameters.SOURCE, 'link_emulator': parameters.LINK_EMULATOR}


def declared_topics() -> list[topics.Topic]:
    """Return every topic that nodes/topics.py declares."""
    return [value for value in vars(topics).values() if isinstance(value, topics.Topic)]


def topic_table() -> str:
    """Return the topics as a Markdown table."""
    rows = ['| topic | type | from → to | QoS | why |', '| --- | --- | --- | --- | --- |']
    for topic in declared_topics():
        qos = 'reliable' if topic.qos.reliability == ReliabilityPolicy.RELIABLE else 'best effort'
        qos += ', transient local' if topic.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL else ''
        source, sink = ENDS[topic.name]
        rows.append(f'| `{topic.name}` | `dynsplit_ros/msg/{topic.type.__name__}` | {source} → {sink} | '
                    f'{qos}, depth {topic.qos.depth} | {topic.why} |')
    return '\n'.join(rows)


def parameter_tables() -> str:
    """Return the parameters of each node as Markdown tables."""
    parts = []
    for node, declared in NODES.items():
        rows = [f'### {node}', '', '| parameter | default | allowed | meaning |', '| --- | --- | --- | --- |']
        for parameter in declared:
            allowed = parameter.allowed or type(parameter.default).__name__
            when = ' May change while the node runs.' if parameter.dynamic else ''
            rows.append(f'| `{parameter.name}` | `{parameter.default!r}` | {allowed} | {parameter.description}{when} |')
        parts.append('\n'.join(rows))
    return '\n\n'.join(parts)


def message_tables() -> str:
    """Return the messages' definitions, comments included."""
    parts = []
    for path in sorted((ROOT / 'msg').glob('*.msg')):
        parts.append(f'### {path.stem}\n\n```\n{path.read_text().strip()}\n```')
    return '\n\n'.join(parts)


def main() -> int:
    """Write or check."""
    readme_path, reference_path = ROOT / 'README.md', ROOT / 'docs' / 'reference.md'
    readme = readme_path.read_text()
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    made = {
        readme_path: f'{before}{BEGIN}\n{topic_table()}\n{END}{after}',
        reference_path: '# Reference\n\nMade by `scripts/reference.py` from the code; do not edit.\n\n'
                        f'## Topics\n\nIn the robot\'s namespace.\n\n{topic_table()}\n\n'
                        f'## Parameters\n\n{parameter_tables()}\n\n## Messages\n\n{message_tables()}\n',
    }
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
    if '--check' in sys.argv:
        for path in stale:
            print(f'{path.relative_to(ROOT)} is stale; run: ./run exec python scripts/reference.py')
        return 1 if stale else 0
    for path, text in made.items():
        path.write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
