# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Write the reference tables from the code's own declarations: ``./run exec python scripts/reference.py``.

``docs/reference.md`` is made whole. With ``--check`` nothing is written, and the exit code is 1 when it is stale.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterator
import contextlib
import importlib
import inspect
from pathlib import Path
import sys
from unittest import mock

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

import dynsplit_ros
from dynsplit_ros import parameters
from dynsplit_ros.nodes import topics
from dynsplit_ros.tools.dynsplit import TOOLS

ROOT = Path(__file__).resolve().parent.parent

#: Who publishes and who subscribes; the topics themselves are declared in nodes/topics.py.
ENDS = {
    'activation': ('camera_node', 'edge_node'),
    'tail_result': ('edge_node', 'camera_node'),
    'acknowledgement': ('edge_node', 'camera_node, monitor_node'),
    'probe': ('monitor_node, camera_node', 'edge_node'),
    'edge_load': ('edge_node', 'monitor_node'),
    'edge_profile': ('edge_node', 'camera_node, monitor_node'),
    'robot_profile': ('camera_node', 'monitor_node'),
    'frame_timing': ('camera_node', 'monitor_node'),
    'audit': ('camera_node', 'monitor_node'),
    'agreement': ('monitor_node', 'you'),
    'split': ('monitor_node', 'camera_node'),
    'edge_split': ('monitor_node', 'edge_node'),
    'link_state': ('monitor_node', 'you'),
    **dict.fromkeys(
        (
            'prediction',
            'label_image',
            'dense_image',
            'annotated',
            'classification',
            'detections',
            'label_info',
            'vision_info',
        ),
        ('camera_node', 'you'),
    ),
}
NODES = {
    'camera_node': parameters.CAMERA,
    'edge_node': parameters.EDGE,
    'monitor_node': parameters.MONITOR,
    'image_source': parameters.SOURCE,
    'link_emulator': parameters.LINK_EMULATOR,
}


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
        name = f'{topic.name}/EDGE' if topic.per_edge else topic.name
        rows.append(
            f'| `{name}` | `{topic.type_name}` | {source} → {sink} | {qos}, depth {topic.qos.depth} | {topic.why} |'
        )
    return '\n'.join(rows)


def parameter_tables() -> str:
    """Return the parameters of each node as Markdown tables."""
    parts = []
    for node, declared in NODES.items():
        rows = [f'### {node}', '', '| parameter | default | allowed | meaning |', '| --- | --- | --- | --- |']
        for parameter in declared:
            allowed = parameter.allowed or type(parameter.default).__name__
            when = ' May change while the node runs.' if parameter.dynamic else ' Locked.' if parameter.locked else ''
            rows.append(f'| `{parameter.name}` | `{parameter.default!r}` | {allowed} | {parameter.description}{when} |')
        parts.append('\n'.join(rows))
    return '\n\n'.join(parts)


def message_tables() -> str:
    """Return the messages' definitions, comments included."""
    parts = []
    for path in sorted((ROOT / 'msg').glob('*.msg')):
        parts.append(f'### {path.stem}\n\n```\n{path.read_text().strip()}\n```')
    return '\n\n'.join(parts)


def tool_tables() -> str:
    """Return the command line of each tool."""
    parts = []
    for name in TOOLS:
        parser = command_line(importlib.import_module(f'dynsplit_ros.tools.{name}').main)
        description = ' '.join(str(parser.description).split())
        rows = [f'### {name}', '', description, '', '| argument | meaning |', '| --- | --- |']
        for action in parser._actions:
            if action.dest != 'help':
                rows.append(f'| `{written(action)}` | {action.help} |')
        parts.append('\n'.join(rows))
    return '\n\n'.join(parts)


def command_line(main: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """Return the parser that a tool reads its command line with."""
    seen = []

    def take(parser: argparse.ArgumentParser, *_: object) -> None:
        seen.append(parser)
        raise SystemExit

    with mock.patch.object(argparse.ArgumentParser, 'parse_args', take), contextlib.suppress(SystemExit):
        main([])
    return seen[0]


def written(action: argparse.Action) -> str:
    """Return an argument as it is typed."""
    what = action.metavar or ('|'.join(map(str, action.choices)) if action.choices else action.dest.upper())
    what = ' '.join(what) if isinstance(what, tuple) else what
    what += ' …' if action.nargs in ('+', '*') else ''
    if not action.option_strings:
        return what.replace('|', '\\|')
    return ', '.join(action.option_strings) + (f' {what}' if action.nargs != 0 else '').replace('|', '\\|')


def library_outline() -> str:
    """Return the public names as the code declares and explains them."""
    parts = []
    for module, names in dynsplit_ros.PUBLIC.items():
        blocks = '\n\n'.join(definition(name) for name in names)
        parts.append(f'### dynsplit_ros.{module}\n\n```python\n{blocks}\n```')
    return '\n\n'.join(parts)


def definition(name: str) -> str:
    """Return what the source says of a public name before it comes to how."""
    value = getattr(dynsplit_ros, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f'{name}: Mapping  # the table above' if value is dynsplit_ros.CODECS else f'{name} = {value!r}'
    source = inspect.getsource(value)
    return '\n'.join(outline(ast.parse(source).body[0], source.splitlines()))


def outline(node: ast.stmt, lines: list[str]) -> Iterator[str]:
    """Yield the lines of a definition without the code: signature and docstring, of a class each public part's."""
    if isinstance(node, ast.AnnAssign):
        default = node.value
        if isinstance(default, ast.Call) and isinstance(default.func, ast.Name) and default.func.id.startswith('_'):
            default = default.args[0]  # a field's default among what else is said of it
        value = f' = {ast.unparse(default)}' if default is not None else ''
        yield f'{" " * node.col_offset}{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{value}'
    elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        first = node.body[0]
        documented = ast.get_docstring(node) is not None
        begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        yield from lines[begin - 1 : first.end_lineno if documented else first.lineno - 1]
        for part in node.body if isinstance(node, ast.ClassDef) else []:
            name = getattr(part, 'name', getattr(getattr(part, 'target', None), 'id', '_'))
            if not name.startswith('_') or name == '__init__':
                yield from ([''] if isinstance(part, ast.FunctionDef) or documented else [])
                yield from outline(part, lines)
                documented = False


def codec_table() -> str:
    """Return the codecs as a Markdown table."""
    takes = {'image': '8-bit images (split 0)', 'activation': 'floating point', 'any': 'any tensor'}
    rows = ['| codec | every bit comes back | takes | how |', '| --- | --- | --- | --- |']
    for codec in dynsplit_ros.CODECS.values():
        rows.append(
            f'| `{codec.name}` | {"yes" if codec.lossless else "no"} | {takes[codec.takes]} | {codec.description} |'
        )
    return '\n'.join(rows)


def main() -> int:
    """Write or check."""
    made = {
        ROOT / 'docs' / 'reference.md': '# Reference\n\nMade by `scripts/reference.py` from the code; do not edit.\n\n'
        "## Topics\n\nIn the robot's namespace. EDGE is the name of an edge, as a topic name "
        f'allows.\n\n{topic_table()}\n\n'
        f'## Parameters\n\n{parameter_tables()}\n\n## Messages\n\n{message_tables()}\n\n'
        f'## Codecs\n\n{codec_table()}\n\n'
        '## Tools\n\nEach is `./run NAME`, `ros2 run dynsplit_ros NAME` or `dynsplit NAME`.\n\n'
        f'{tool_tables()}\n\n'
        '## Library\n\n`from dynsplit_ros import NAME` for each of these; ROS is not needed. Each '
        f'stands here as the code declares and explains it.\n\n{library_outline()}\n'
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
