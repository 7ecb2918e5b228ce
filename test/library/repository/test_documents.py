# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The documents: their links lead somewhere, the commands that they name exist, and those without ROS 2 run."""

import ast
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from dynsplit_ros.tools.dynsplit import TOOLS

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('docker/*.md')])


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if not link.startswith(('http://', 'https://')):
            path, _, anchor = link.partition('#')
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    commands = {*re.findall(r"'(\w+) = ", (ROOT / 'setup.py').read_text()), *TOOLS}
    assert set(re.findall(r'\./run ([a-z]\w*)', text)) <= {'setup', 'test', 'bench', 'docs', 'exec', *TOOLS}
    assert set(re.findall(r'(?m)\bdynsplit ([a-z]\w*)', text)) <= {*TOOLS}
    assert set(re.findall(r'ros2 run dynsplit_ros ([a-z]\w*)', text)) <= commands
    benches = {path.stem for path in (ROOT / 'bench').glob('*.py')}
    assert set(re.findall(r'\./run bench ([a-z]\w*)', text)) <= benches
    for path in re.findall(r'\b((?:test|examples|scripts|config|docs|launch)/[\w/.]+\.\w+)', text):
        # docs/data/NAME.json is what a command writes; test_benchmarks_page.py says which of these files are there.
        assert path.startswith('docs/data/') or (ROOT / path).exists(), path


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_of_tools_exist(page: Path) -> None:
    reference = (ROOT / 'docs' / 'reference.md').read_text()  # made from the tools' own parsers
    for tool, rest in re.findall(
        rf'(?:\./run|dynsplit_ros|dynsplit) ({"|".join(TOOLS)})\b([^`#|;)]*)', page.read_text().replace('\\\n', ' ')
    ):
        section = re.search(rf'^### {tool}\n(.*?)^#', reference, re.DOTALL | re.MULTILINE)[1]
        for option in re.findall(r'(?<!\S)--[a-z][a-z-]*', rest.partition('\n')[0]):
            assert f'`{option}' in section, f'{tool} {option}'


def launch_arguments(launch_file: str) -> set[str]:
    """Return the names that a launch file declares, read without ROS 2."""
    tree = ast.parse((ROOT / 'launch' / launch_file).read_text())
    return {
        keyword.arg
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == 'arguments'
        for keyword in call.keywords
    }


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_launch_arguments_exist(page: Path) -> None:
    text = page.read_text().replace('\\\n', ' ')
    for launch_file, rest in re.findall(r'ros2 launch dynsplit_ros (\w+\.launch\.py)([^`#\n]*)', text):
        assert set(re.findall(r'(\w+):=', rest)) <= launch_arguments(launch_file), rest


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_parameters_that_commands_set_exist(page: Path) -> None:
    reference = (ROOT / 'docs' / 'reference.md').read_text()

    def parameters(node: str) -> set[str]:
        section = re.search(rf'^### {node}\n(.*?)^#', reference, re.DOTALL | re.MULTILINE)[1]
        return set(re.findall(r'^\| `(\w+)` ', section, re.MULTILINE))

    text = page.read_text().replace('\\\n', ' ')
    for node, name in re.findall(r'ros2 param (?:set|get|describe) /\w+/(\w+) (\w+)', text):
        assert name in parameters(node), f'{node} {name}'
    for node, rest in re.findall(r'(?:\./run exec|ros2 run dynsplit_ros) (\w+) (--ros-args[^`#\n]*)', text):
        assert set(re.findall(r'-p (\w+):=', rest)) <= parameters(node), rest


#: Tools that need no ROS 2, and what a test adds to make them quick.
QUICK = {
    'cuts': '',
    'advise': '',
    'report': '',
    'simulate': '',
    'profile': '--repeats 1 --warm-up 0 --codec raw blosc2 webp-lossless',
}


def commands_without_ros(page: str) -> list[str]:
    """Return the commands of a page's shell blocks that run a tool which needs no ROS 2."""
    blocks = re.findall(r'^```sh\n(.*?)^```', (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    return [line for line in lines if line.startswith(tuple(f'./run {tool} ' for tool in QUICK))]


@pytest.fixture(scope='module')
def ran() -> set[tuple[str, ...]]:
    """Return the beginnings of pages, as the commands so far, that have run: two pages begin with the same commands."""
    return set()


@pytest.mark.timeout(600)
@pytest.mark.parametrize('page', ['docs/tutorial.md', 'docs/is_it_for_me.md'])
def test_the_commands_of_a_newcomer_that_need_no_ros_run_in_their_order(
    page: str, tmp_path: Path, ran: set[tuple[str, ...]]
) -> None:
    commands = commands_without_ros(page)
    assert len(commands) > 1
    shutil.copytree(ROOT / 'examples', tmp_path / 'examples')
    paths = os.pathsep.join([str(ROOT), str(tmp_path / 'examples'), os.environ.get('PYTHONPATH', '')])
    so_far: tuple[str, ...] = ()
    for command in commands:
        tool, *arguments = shlex.split(command, comments=True)[1:]
        so_far += tool, *arguments
        if so_far in ran:
            continue
        small = ['--input-size', '64', '64'] if 'mobilenet_v2' in arguments else []
        arguments += [*small, *QUICK[tool].split()]
        done = subprocess.run(
            [sys.executable, '-m', f'dynsplit_ros.tools.{tool}', *arguments],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': paths, 'XDG_CACHE_HOME': str(tmp_path / 'cache')},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0 and done.stdout.strip(), f'{command}: {done.stdout}{done.stderr}'
        ran.add(so_far)


def test_the_recipes_of_contributing_name_what_is_there() -> None:
    """Files and names of the code in CONTRIBUTING exist; a recipe that names a function which was renamed misleads."""
    text = re.sub(r'^```.*?^```', '', (ROOT / 'CONTRIBUTING.md').read_text(), flags=re.DOTALL | re.MULTILINE)
    sources = {
        path: path.read_text()
        for folder in ('dynsplit_ros', 'scripts', 'bench', 'test')
        for path in (ROOT / folder).rglob('*.py')
    }
    code = '\n'.join(sources.values())
    missing = []
    for name in re.findall(r'`([\w./]+)`', text):
        if 'NAME' in name or name in ('_s', '_bps', '_bytes'):  # a place for the reader's own name; suffixes
            continue
        if name.endswith('.py'):
            found = (ROOT / name).exists() or any(path.as_posix().endswith(f'/{name}') for path in sources)
        elif '/' in name:
            found = (ROOT / name).exists() or (ROOT / 'dynsplit_ros' / name).exists()
        else:
            found = (ROOT / name).exists() or all(re.search(rf'\b{part}\b', code) for part in name.split('.'))
        if not found:
            missing.append(name)
    assert missing == []
