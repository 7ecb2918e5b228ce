# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The documents: what they link to is there, and the commands that they name exist."""

from pathlib import Path
import re

import pytest

from dynsplit_ros.tools.dynsplit import TOOLS

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if not link.startswith(('http://', 'https://')):
            path, _, anchor = link.partition('#')
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    commands = {*re.findall(r"'(\w+) = ", (ROOT / 'setup.py').read_text()), *TOOLS}
    assert set(re.findall(r'\./run ([a-z]\w*)', text)) <= {'setup', 'test', 'bench', 'docs', 'exec', *TOOLS}
    assert set(re.findall(r'(?m)\bdynsplit ([a-z]\w*)', text)) <= {*TOOLS}
    assert set(re.findall(r'ros2 run dynsplit_ros ([a-z]\w*)', text)) <= commands
    benches = {path.stem for path in (ROOT / 'bench').glob('*.py')}
    assert set(re.findall(r'\./run bench ([a-z]\w*)', text)) <= benches
    for path in re.findall(r'\b((?:test|examples|scripts|config|docs|launch)/[\w/.]+\.\w+)', text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_options_of_tools_exist(page: Path) -> None:
    reference = (ROOT / 'docs' / 'reference.md').read_text()  # made from the tools' own parsers
    for tool, rest in re.findall(rf'(?:\./run|dynsplit_ros|dynsplit) ({"|".join(TOOLS)})\b([^`#|;)]*)',
                                 page.read_text().replace('\\\n', ' ')):
        section = re.search(rf'^### {tool}\n(.*?)^#', reference, re.DOTALL | re.MULTILINE)[1]
        for option in re.findall(r'(?<!\S)--[a-z][a-z-]*', rest.partition('\n')[0]):
            assert f'`{option}' in section, f'{tool} {option}'
