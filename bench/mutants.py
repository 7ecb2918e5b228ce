# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Change one line of policies, estimators or planner at a time, and count the changes that the library tests catch.

The seed draws the changes: a comparison turned, an assignment in a method removed ("reset"), a cap removed (``min`` or
``max``), a number doubled. Each change is made in a copy of the package. A fixed, fast set of tests of the changed
module then runs until the first failure; none of these tests depends on time or threads. A change that makes them run
too long is counted apart, and not as caught.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
import random
import subprocess
import sys
import tempfile
import time

from bench.figures import argument_parser, Figures
from bench.variants import copy_package, environment, PACKAGE, ROOT

#: Folders of the package that are changed.
CHANGED = ('policies', 'estimators', 'planner')
#: Tests of each part, quick ones first; the part is the longest one that the changed file's path begins with.
TESTS = {
    'policies': ('policies',),
    'policies/monitor': (
        'policies/test_monitor.py',
        'policies/test_edges.py',
        'policies/test_monitor_audits.py',
        'policies/test_monitor_bad_input.py',
        'estimators',
        'planner',
    ),
    'policies/staleness.py': ('policies', 'planner/test_planner_latency.py'),
    'estimators': ('estimators', 'planner'),
    'planner': ('planner', 'estimators'),
}
#: A change times out when its tests take this many times as long as without it.
HANGS = 4.0
#: A comparison and its opposite.
TURNED = {
    ast.Lt: '>=',
    ast.LtE: '>',
    ast.Gt: '<=',
    ast.GtE: '<',
    ast.Eq: '!=',
    ast.NotEq: '==',
    ast.Is: 'is not',
    ast.IsNot: 'is',
}


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
        return source[: self.begin] + self.text + source[self.end :]

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
                kept = f'({source[offsets.begin(capped) : offsets.end(capped)]})'
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
                value = f'2 * ({source[offsets.begin(node.value) : offsets.end(node.value)]})'
                yield Change(
                    path,
                    node.lineno,
                    f'constant {name} doubled',
                    offsets.begin(node.value),
                    offsets.end(node.value),
                    value,
                )


def draw(count: int, seed: int) -> list[Change]:
    """Draw ``count`` changes, as many of each kind as there are, one from each line at most."""
    kinds: dict[str, list[Change]] = {}
    for name in CHANGED:
        path = ROOT / PACKAGE / name
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


def tests_of(path: Path) -> list[str]:
    """Return the paths of the tests that are to catch a change of a file."""
    inside = path.relative_to(PACKAGE).as_posix()
    part = max((part for part in TESTS if inside.startswith(part)), key=len)
    return [str(ROOT / 'test' / 'library' / name) for name in TESTS[part]]


def run_tests(package: Path, tests: list[str], within_s: float | None) -> str:
    """Run tests on a copy of the package; return 'survived' where they pass, 'caught' or 'timed out'."""
    program = 'import sys; sys.path[:1] = []; import pytest; sys.exit(pytest.main(sys.argv[1:]))'
    command = [sys.executable, '-c', program, '-x', '-q', '-p', 'no:cacheprovider', *tests]
    try:
        code = subprocess.run(
            command,
            env=environment(package),
            cwd=package,
            timeout=within_s,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return 'timed out'
    if code not in (0, 1, 2):  # passed, failed, not even imported
        raise RuntimeError(f'pytest ended with {code}: {" ".join(command)}')
    return 'caught' if code else 'survived'


def try_change(change: Change, within_s: float) -> str:
    """Return what becomes of a change: 'caught', 'timed out' or 'survived'."""
    with tempfile.TemporaryDirectory() as folder:
        copy_package(Path(folder))
        file = Path(folder) / change.path
        file.write_text(change.apply(file.read_text()))
        return run_tests(Path(folder), tests_of(change.path), within_s)


def main() -> int:
    """Draw changes, try each, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--count', type=int, default=60, metavar='N', help='changes to try (60)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (0)')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='changes tried at a time (1)')
    parser.add_argument('--list', action='store_true', help='print the changes and end')
    arguments = parser.parse_args()
    drawn = draw(arguments.count, arguments.seed)
    if arguments.list:
        print('\n'.join(map(str, drawn)))
        return 0
    figures = Figures()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy_package(Path(folder))
        everything = sorted({test for change in drawn for test in tests_of(change.path)})
        if run_tests(Path(folder), everything, None) != 'survived':
            print('the tests fail without a change: correct them first')
            return 1
    within_s = HANGS * arguments.workers * (time.monotonic() - started_s)
    fates: dict[str, list[str]] = {'caught': [], 'timed out': [], 'survived': []}
    with ThreadPoolExecutor(arguments.workers) as pool:
        tried = pool.map(lambda change: try_change(change, within_s), drawn)
        for number, (change, fate) in enumerate(zip(drawn, tried), 1):
            print(f'{number}/{len(drawn)} {change}: {fate}', flush=True)
            fates[fate].append(str(change))
    figures.extra.update({'survivors': fates['survived'], 'timed_out': fates['timed out']})
    figures.add('changes tried', len(drawn), '', '>= 60')
    figures.add('changes that made the tests time out (not counted as caught)', len(fates['timed out']), '')
    figures.add('share of changes that the library tests catch', len(fates['caught']) / len(drawn), '', '>= 0.9')
    figures.add('time that all of this took', time.monotonic() - started_s, 's')
    return figures.finish(arguments.json)


if __name__ == '__main__':
    raise SystemExit(main())
