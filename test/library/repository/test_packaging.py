# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""rosdep and one pip command install what the package needs; one program goes on the PATH; Bloom can release it."""

import ast
import os
from pathlib import Path
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import yaml

from dynsplit_ros.engines import ENGINES
from dynsplit_ros.tools.dynsplit import TOOLS

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()
ROSDEP = yaml.safe_load((ROOT / 'test' / 'data' / 'rosdep.yaml').read_text())
#: What the package of a rosdep key is called in an import statement, where that is not the key's own name.
IMPORTED_AS = {'python3-opencv': 'cv2', 'python3-pil': 'PIL'}


def keys(*kinds: str) -> set[str]:
    """Return the keys of package.xml, all of them or of these kinds."""
    return {tag.text for tag in PACKAGE if tag.tag.endswith('depend') and (not kinds or tag.tag in kinds)}


def pip_command() -> str:
    """Return what the tutorial has pip install on a machine with ROS 2."""
    tutorial = (ROOT / 'docs' / 'tutorial.md').read_text()
    return re.search(r'^~/dynsplit_venv/bin/pip install (.*)$', tutorial, re.MULTILINE)[1]


@pytest.mark.parametrize('platform', ROSDEP)
def test_rosdep_installs_each_key_with_apt(platform: str) -> None:
    unknown = keys() - set(ROSDEP[platform])
    assert not unknown, f'{unknown}: test/data/rosdep.yaml says how to add a key'
    # Not with pip, which refuses to change the Python of Ubuntu Noble (PEP 668) and is no dependency for Bloom.
    assert {key for key in keys() if not (ROSDEP[platform][key] or '').startswith('apt ')} == set()


def test_what_the_package_imports_is_installed_by_rosdep_or_by_the_pip_command() -> None:
    imported = set()
    for path in [*ROOT.glob('dynsplit_ros/**/*.py'), *ROOT.glob('launch/*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition('.')[0])
    by_rosdep = {IMPORTED_AS.get(key, key.removeprefix('python3-')) for key in keys('depend', 'exec_depend')}
    by_pip = set(re.findall(r'\w+', pip_command()))
    # Errors name the pip command of these.
    optional = {package for engine in ENGINES.values() for package in engine.packages} | {'ray', 'prometheus_client'}
    assert imported - sys.stdlib_module_names - {'dynsplit_ros'} - by_rosdep - by_pip - optional == set()
    assert by_pip <= imported


def test_bloom_accepts_package_xml() -> None:
    package = pytest.importorskip('catkin_pkg.package', reason='catkin_pkg is not installed')
    warnings: list[str] = []
    package.parse_package(str(ROOT / 'package.xml'), warnings=warnings).validate(warnings=warnings)
    assert warnings == []


def test_the_changelog_becomes_that_of_a_release(tmp_path: Path) -> None:
    version = pytest.importorskip('catkin_pkg.package_version', reason='catkin_pkg is not installed')
    pytest.importorskip('docutils', reason='docutils is not installed')
    from catkin_pkg.changelog import get_changelog_from_path

    text = (ROOT / 'CHANGELOG.rst').read_text()
    label = version.get_forthcoming_label(text)
    if label is not None:  # what catkin_prepare_release does
        text = re.sub(rf'^{label}\n-+$', '0.1.0 (2026-01-31)\n------------------', text, flags=re.MULTILINE)
    released = tmp_path / 'CHANGELOG.rst'
    released.write_text(text)
    changelog = get_changelog_from_path(released, 'dynsplit_ros')
    assert all(changelog.get_content_of_version(version) for version, *_ in changelog.foreach_version())
    assert PACKAGE.findtext('version') in {version for version, *_ in changelog.foreach_version()}


def test_one_program_goes_on_the_path() -> None:
    import setuptools  # noqa: F401  # brings distutils with it

    from distutils.core import run_setup  # isort: skip

    entries = run_setup(str(ROOT / 'setup.py'), stop_after='init').entry_points
    assert [entry.partition(' ')[0] for entry in entries['console_scripts']] == ['dynsplit']
    assert {entry.partition(' ')[0] for entry in entries['dynsplit_ros.executables']} >= {'camera_node', *TOOLS}


@pytest.fixture
def without(tmp_path: Path):
    """Return a function that runs a module of the package as a program where some packages cannot be imported."""

    def run(packages: list[str], module: str, *arguments: object) -> subprocess.CompletedProcess:
        for package in packages:
            (tmp_path / f'{package}.py').write_text(
                f'raise ModuleNotFoundError("No module named {package!r}", name={package!r})\n'
            )
        path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')])
        return subprocess.run(
            [sys.executable, '-m', f'dynsplit_ros.tools.{module}', *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, 'PYTHONPATH': path},
        )

    return run


@pytest.mark.parametrize('tool', TOOLS)
def test_help_needs_neither_torch_nor_ros(without, tool: str) -> None:
    done = without(['torch', 'torchvision', 'cv2', 'blosc2', 'rclpy'], 'dynsplit', tool, '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: dynsplit {tool} ')


def test_the_program_lists_its_tools(without) -> None:
    done = without(['torch'], 'dynsplit', '--help')
    assert done.returncode == 0 and all(f'\n  {tool} ' in done.stdout for tool in TOOLS)
    assert without([], 'dynsplit', 'dance').returncode == without([], 'dynsplit').returncode == 2


def test_a_tool_names_the_package_that_it_lacks(without) -> None:
    done = without(['rclpy'], 'dynsplit', 'top', '--once')
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert "dynsplit top: Python package 'rclpy' is not installed for" in done.stderr


def test_simulation_and_its_workers_do_without_torch(without, tmp_path: Path) -> None:
    profile = ROOT / 'test' / 'data' / 'resnet50.yaml'
    done = without(
        ['torch'], 'simulate', '--edge-profile', profile, '--seconds', 5, '--workers', 2, '--output', tmp_path
    )
    assert done.returncode == 0 and (tmp_path / 'policies.csv').is_file(), done.stderr
