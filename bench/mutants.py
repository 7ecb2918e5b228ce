# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Change one line of policies, estimators or planner at a time, and count the changes that the library tests notice.

The seed draws the changes: a comparison turned, an assignment in a method removed ("reset"), a cap removed (``min`` or
``max``), a number doubled. Each change is made in a copy of the package; the tests run until the first failure.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import os
from pathlib import Path
import random
import shutil
import subprocess
import sys
import tempfile
import time

from bench.figures import argument_parser, Figures

ROOT = Path(__file__).resolve().parents[1]
#: Folders of the package that are changed.
CHANGED = ('policies', 'estimators', 'planner')
#: The tests that know these parts, as pytest's -k wants them; the quick ones come first in their folder's order.
TESTS = 'policies or estimators or planner or monitor or runtime or simulation_world'
#: A change that makes the tests run this many times as long as without it counts as noticed: it hangs.
HANGS = 4.0
#: A comparison and its opposite.
TURNED = {ast.Lt: '>=', ast.LtE: '>', ast.Gt: '<=', ast.GtE: '<', ast.Eq: '!=', ast.NotEq: '==', ast.Is: 'is not',
          ast.IsNot: 'is'}


@dataclass(frozen=True)
class Change:
    """One change: what stands between two offsets of a file is replaced."""

    path: Path
    line: int
    kind: str
    begin: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        """Return the source with the change."""
        return source[:self.begin] + self.text + source[self.end:]

    def __str__(self) -> str:
        return f'{self.path}:{self.line} {self.kind}'


class _Offsets:
    """Offsets of a tree's nodes in the text (``col_offset`` counts bytes of UTF-8)."""

    def __init__(self, source: str) -> None:
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def begin(self, node: ast.expr | ast.stmt) -> int:
        return self._at(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._at(node.end_lineno, node.end_col_offset)


def changes(path: Path, source: str) -> Iterator[Change]:
    """Yield every change that could be made to a file."""
    offsets = _Offsets(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in TURNED:
            begin, end = offsets.end(node.left), offsets.begin(node.comparators[0])
            if '(' not in source[begin:end] and ')' not in source[begin:end]:
                yield Change(path, node.lineno, 'comparison turned', begin, end, f' {TURNED[type(node.ops[0])]} ')
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ('min', 'max'):
            if len(node.args) == 2 and not node.keywords:
                capped = node.args[1] if isinstance(node.args[0], (ast.Constant, ast.UnaryOp)) else node.args[0]
                kept = f'({source[offsets.begin(capped):offsets.end(capped)]})'
                yield Change(path, node.lineno, 'cap removed', offsets.begin(node), offsets.end(node), kept)
        elif isinstance(node, (ast.FunctionDef, ast.Module)):
            yield from _statements(node, path, source, offsets)


def _statements(scope: ast.FunctionDef | ast.Module, path: Path, source: str, offsets: _Offsets) -> Iterator[Change]:
    """Yield the resets removed from a function, and the constants of a module doubled."""
    for node in ast.walk(scope):
        if isinstance(scope, ast.FunctionDef) and scope.name != '__init__' and isinstance(node, ast.Assign):
            if all(isinstance(target, ast.Attribute) for target in node.targets):
                yield Change(path, node.lineno, 'reset removed', offsets.begin(node), offsets.end(node), 'pass')
    for node in scope.body if isinstance(scope, ast.Module) else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            if type(node.value.value) in (int, float) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                value = f'2 * ({source[offsets.begin(node.value):offsets.end(node.value)]})'
                yield Change(path, node.lineno, f'constant {name} doubled', offsets.begin(node.value),
                             offsets.end(node.value), value)


def draw(count: int, seed: int) -> list[Change]:
    """Draw ``count`` changes, as many of each kind as there are, one from each line at most."""
    kinds: dict[str, list[Change]] = {}
    for name in CHANGED:
        path = ROOT / 'dynsplit_ros' / name
        for file in sorted(path.rglob('*.py')) if path.is_dir() else [path] if path.is_file() else []:
            for change in changes(file.relative_to(ROOT), file.read_text()):
                kinds.setdefault(change.kind.split()[0], []).append(change)
    rng = random.Random(seed)
    for of_kind in kinds.values():
        rng.shuffle(of_kind)
    drawn: dict[tuple[Path, int], Change] = {}
    while len(drawn) < count and any(kinds.values()):
        for of_kind in kinds.values():
            if of_kind and len(drawn) < count:
                change = of_kind.pop()
                drawn.setdefault((change.path, change.line), change)
    return list(drawn.values())


def run_tests(package: Path, within_s: float | None) -> bool:
    """Run the library tests on a copy of the package; return whether they passed in time."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(package), os.environ.get('PYTHONPATH', '')]),
               PYTHONDONTWRITEBYTECODE='1', OMP_NUM_THREADS='1')
    program = 'import sys; sys.path[:1] = []; import pytest; sys.exit(pytest.main(sys.argv[1:]))'
    command = [sys.executable, '-c', program, str(ROOT / 'test' / 'library'), '-x', '-q', '-p', 'no:cacheprovider',
               '-k', TESTS]
    try:
        return subprocess.run(command, env=env, cwd=package, timeout=within_s, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def survives(change: Change, within_s: float) -> bool:
    """Whether the tests pass with a change."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / 'dynsplit_ros', Path(folder) / 'dynsplit_ros',
                        ignore=shutil.ignore_patterns('__pycache__'))
        file = Path(folder) / change.path
        file.write_text(change.apply(file.read_text()))
        return run_tests(Path(folder), within_s)


def main() -> int:
    """Draw changes, try each, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--count', type=int, default=60, metavar='N', help='changes to try (60)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (0)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, metavar='N', help='changes tried at a time')
    parser.add_argument('--list', action='store_true', help='print the changes and end')
    arguments = parser.parse_args()
    drawn = draw(arguments.count, arguments.seed)
    if arguments.list:
        print('\n'.join(map(str, drawn)))
        return 0
    figures = Figures()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / 'dynsplit_ros', Path(folder) / 'dynsplit_ros')
        if not run_tests(Path(folder), None):
            print('the tests fail without a change: mend them first')
            return 1
    within_s = HANGS * arguments.workers * (time.monotonic() - started_s)
    survivors = []
    with ThreadPoolExecutor(arguments.workers) as pool:
        for number, (change, survived) in enumerate(
                zip(drawn, pool.map(lambda change: survives(change, within_s), drawn)), 1):
            print(f'{number}/{len(drawn)} {change}: {"SURVIVED" if survived else "noticed"}', flush=True)
            survivors += [str(change)] if survived else []
    figures.extra['survivors'] = survivors
    figures.add('changes tried', len(drawn), '', '>= 60')
    figures.add('share of changes that the library tests notice', 1 - len(survivors) / len(drawn), '', '>= 0.9')
    return figures.finish(arguments.json)


if __name__ == '__main__':
    raise SystemExit(main())
