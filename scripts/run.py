# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Set up what is missing and run one command of the package. Standard library only, since nothing else is there yet.

The set-up has two steps, each done once and repeated only when its inputs change: a virtual environment in ``.venv``
(with ROS 2 from the package index where none is sourced), and a colcon build in ``.build``. A step that
was interrupted left no stamp behind, so it is made again from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
#: ROS 2 distributions that the package index has, each with a requirements-ros-NAME.txt; the first is the default.
DISTRIBUTIONS = ('jazzy', 'kilted')
#: The distribution that the user asks for. Each has folders of its own, so that both can be there at once.
DISTRIBUTION = os.environ.get('DYNSPLIT_ROS') or DISTRIBUTIONS[0]
_SUFFIX = '' if DISTRIBUTION == DISTRIBUTIONS[0] else f'-{DISTRIBUTION}'
#: A virtual environment that the user names is used as it is: several checkouts can share one.
SHARED_VENV = os.environ.get('DYNSPLIT_VENV', '')
VENV = Path(SHARED_VENV).absolute() if SHARED_VENV else ROOT / f'.venv{_SUFFIX}'
BUILD = ROOT / f'.build{_SUFFIX}'
INSTALL = BUILD / 'install'
PYTHON = VENV / 'bin' / 'python'
REQUIREMENTS = ROOT / 'requirements.txt'
#: Seconds between two lines of progress where standard error is no terminal, such as a log.
PROGRESS_S = 10.0
#: Libraries that are optional for a user; with them, the tests of what needs them are not skipped.
REQUIREMENTS_OPTIONAL = (
    ROOT / 'requirements-models.txt',
    ROOT / 'requirements-engines.txt',
    ROOT / 'requirements-fleet.txt',
)
REQUIREMENTS_ROS = (ROOT / f'requirements-ros-{DISTRIBUTION}.txt', ROOT / 'requirements-ros.txt')

sys.path.insert(0, str(ROOT))
from dynsplit_ros.tools.dynsplit import TOOLS  # noqa: E402

#: What pdoc documents: the library, and not the nodes, their messages and the tools' command lines.
API = [
    '--docformat',
    'restructuredtext',
    'dynsplit_ros',
    *(
        f'dynsplit_ros.{package.parent.name}'
        for package in sorted(ROOT.glob('dynsplit_ros/*/__init__.py'))
        if package.parent.name not in ('nodes', 'messages', 'demo', 'tools')
    ),
]

TOOL_LINES = ''.join(f'  {name:17} {what}\n' for name, what in TOOLS.items())
USAGE = f"""\
usage: ./run COMMAND [ARGUMENT ...]

{TOOL_LINES}  test              all tests; arguments go to pytest
  bench NAME        a benchmark of bench/, for example: ./run bench policy --json OUT
  docs              the API reference from the docstrings, as HTML in out/api
  exec PROGRAM ...  any program in the set-up environment, for example: ./run exec python my_script.py
  setup             only the set-up

The first command sets up a virtual environment and builds the package; that takes some minutes and about 6 GB.
Where no ROS 2 is sourced, it installs Jazzy; with DYNSPLIT_ROS=kilted in the environment, Kilted.
Each tool explains its own arguments: ./run COMMAND --help
"""


def fail(sentence: str) -> NoReturn:
    """End with one sentence for a person."""
    sys.exit(f'run: {sentence}')


def say(text: str) -> None:
    """Report progress; standard output is left to the command."""
    print(f'[setup] {text}', file=sys.stderr, flush=True)


def ros_is_sourced() -> bool:
    """Whether this shell has a ROS 2 that brings rclpy (one that ./run itself has set up does not count)."""
    paths = [path for path in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if path]
    return any((Path(path) / 'share' / 'rclpy').is_dir() and Path(path) != VENV for path in paths)


def run_logged(step: str, command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a command of the set-up: its output goes to the log, what it is doing to the terminal, errors to both."""
    log = BUILD / 'setup.log'
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    doing, ended = '', threading.Event()

    def report() -> None:
        while not ended.wait(0.5 if terminal else PROGRESS_S):
            text = f'{step}: {time.monotonic() - started:3.0f} s  {doing}'
            if terminal:
                print(
                    f'\r\033[K[setup] {text[: shutil.get_terminal_size().columns - 10]}',
                    end='',
                    file=sys.stderr,
                    flush=True,
                )
            else:
                say(text[:120].rstrip())

    # A thread, because pip prints nothing for minutes while it installs what it has downloaded.
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    with log.open('a') as file:
        file.write(f'$ {" ".join(command)}\n')
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', env=env
        )
        tail: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            tail = [*tail[-30:], line]
            if re.match(r'\s*(Collecting|Downloading|Building|Installing|Starting|Finished)\b', line):
                doing = line.strip()
        code = process.wait()
    ended.set()
    reporter.join()
    if terminal:
        print('\r\033[K', end='', file=sys.stderr)
    if code != 0:
        sys.stderr.write(''.join(tail))
        fail(f'{step} ended with exit code {code}; its whole output is in {log}')
    say(f'{step}: done in {time.monotonic() - started:.0f} s')


def check_machine() -> None:
    """Name what the set-up needs from the system and cannot install itself."""
    missing = []
    if shutil.which('c++') is None and shutil.which('g++') is None:
        missing.append('g++')
    if shutil.which('make') is None:
        missing.append('make')
    if not (Path(sysconfig.get_path('include')) / 'Python.h').is_file():
        missing.append('python3-dev')
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append('python3-venv')
    if missing:
        fail(f'{", ".join(missing)} not found on this machine; install with: apt-get install {" ".join(missing)}')


def digest(*parts: str | bytes) -> str:
    """Digest of what a step depends on."""
    return hashlib.sha256(b'\0'.join(p.encode() if isinstance(p, str) else p for p in parts)).hexdigest()


def make_environment(with_ros: bool) -> None:
    """Make or remake the virtual environment unless a whole one is there that fits the requirements."""
    files = [REQUIREMENTS, *REQUIREMENTS_OPTIONAL, *(() if with_ros else REQUIREMENTS_ROS)]
    stamp = VENV / 'complete'
    # The folder is part of it: a virtual environment does not survive being moved or copied.
    wanted = digest(str(VENV), sys.version, *(file.read_bytes() for file in files))
    if stamp.is_file() and stamp.read_text() == wanted:
        if subprocess.run([PYTHON, '-c', 'pass'], capture_output=True).returncode == 0:
            return
        say('the virtual environment is broken; making it again')
    check_machine()
    shutil.rmtree(VENV, ignore_errors=True)
    options = ['--system-site-packages'] if with_ros else []
    run_logged('virtual environment', [sys.executable, '-m', 'venv', *options, str(VENV)])
    say('packages: about 6 GB with PyTorch; this happens once')
    requirements = [argument for file in files for argument in ('-r', str(file))]
    run_logged('packages', [str(PYTHON), '-m', 'pip', 'install', '--disable-pip-version-check', *requirements])
    if not with_ros:
        mend_cmake_files()
    check = 'import rclpy, torch, torchvision, blosc2, safetensors, cv2, matplotlib, rich, skimage'
    run_logged('check of the packages', [str(PYTHON), '-c', check])
    stamp.write_text(wanted)


def mend_cmake_files() -> None:
    """
    Point the ROS 2 wheels' CMake files at this environment's include folders.

    They name two folders of the machine they were built on, which CMake refuses because they do not exist here.
    """
    folders = subprocess.run(
        [
            str(PYTHON),
            '-c',
            'import sysconfig, numpy; print(sysconfig.get_path("include")); print(numpy.get_include())',
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split('\n')
    for file in VENV.glob('share/*/cmake/*.cmake'):
        text = file.read_text()
        mended = re.sub(r'/opt/python/[^";]*/numpy/_core/include', folders[1], text)
        mended = re.sub(r'/opt/python/[^";]*/include/python3\.\d+', folders[0], mended)
        if mended != text:
            file.write_text(mended)


def environment() -> dict[str, str]:
    """Return the environment in which the package's programs run: what sourcing the build's setup file would set."""
    env = dict(os.environ)

    def prepend(name: str, *paths: Path) -> None:
        old = [path for path in env.get(name, '').split(os.pathsep) if path]
        new = [str(path) for path in paths]
        env[name] = os.pathsep.join(new + [path for path in old if path not in new])

    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    prefixes = [INSTALL] if ros_is_sourced() else [INSTALL, VENV]
    prepend('AMENT_PREFIX_PATH', *prefixes)
    prepend('CMAKE_PREFIX_PATH', *prefixes)
    prepend('LD_LIBRARY_PATH', INSTALL / 'lib')
    prepend(
        'PYTHONPATH',
        INSTALL / 'lib' / version / 'site-packages',
        *([VENV / 'lib' / version / 'site-packages'] if ros_is_sourced() else []),
    )
    prepend('PATH', VENV / 'bin', INSTALL / 'bin')
    # The nodes by their names, behind the system's programs: one of the tools is called top.
    env['PATH'] += os.pathsep + str(INSTALL / 'lib' / 'dynsplit_ros')
    # The wheels' own start-up hook does this by executing Python twice; what is set here spares it where it can be.
    env.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    return env


def build_inputs() -> str:
    """
    Digest of what a build reads: the names of the files that it installs, and the contents that it copies or compiles.

    The installed modules, launch files and configurations are links to the sources, so their contents do not count.
    """
    linked = [
        path
        for folder in ('dynsplit_ros', 'launch', 'config')
        for path in (ROOT / folder).rglob('*')
        if path.suffix != '.pyc' and path.is_file()
    ]
    read = [
        ROOT / 'CMakeLists.txt',
        ROOT / 'package.xml',
        ROOT / 'setup.py',
        ROOT / 'dynsplit_ros/tools/dynsplit.py',
        *(ROOT / 'cmake').iterdir(),
        *(ROOT / 'msg').iterdir(),
        *(ROOT / 'config').glob('fastdds_*.xml'),
    ]
    return digest(
        os.environ.get('AMENT_PREFIX_PATH', ''),
        *sorted(str(path) for path in linked),
        *(part for path in sorted(read) for part in (str(path), path.read_bytes())),
    )


def build() -> None:
    """Build the package with colcon if anything that the build reads has changed."""
    env = environment()
    # A link, because CMake refuses include folders inside the source folder, where the virtual environment lies.
    source = BUILD / 'src' / 'dynsplit_ros'
    source.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_symlink():
        source.symlink_to(ROOT)
    stamp = BUILD / 'complete'
    wanted, inputs = digest(str(ROOT), sys.version, (VENV / 'complete').read_bytes()), build_inputs()
    built = stamp.read_text().split() if stamp.is_file() else []
    if built == [wanted, inputs]:
        return
    if built[:1] != [wanted]:
        for name in ('build', 'install', 'log', 'complete'):
            path = BUILD / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    else:
        stamp.write_text(wanted)  # an interrupted build has other files than those of the last inputs
    colcon = [str(PYTHON), '-m', 'colcon'] if not ros_is_sourced() else ['colcon']
    run_logged(
        'build',
        [
            *colcon,
            '--log-base',
            str(BUILD / 'log'),
            'build',
            '--symlink-install',
            '--merge-install',
            '--base-paths',
            str(BUILD / 'src'),
            '--build-base',
            str(BUILD / 'build'),
            '--install-base',
            str(INSTALL),
            '--event-handlers',
            'console_direct+',
            '--cmake-args',
            f'-DPython3_EXECUTABLE={PYTHON}',
            '-DBUILD_TESTING=OFF',
        ],
        env,
    )
    stamp.write_text(f'{wanted}\n{inputs}\n')


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let a second ./run wait while the first sets up."""
    BUILD.mkdir(exist_ok=True)
    (BUILD / 'COLCON_IGNORE').touch()
    with (BUILD / 'lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('another ./run is setting up; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_distribution() -> None:
    """End with a sentence where the ROS 2 that the user asks for cannot be had."""
    if platform.machine() != 'x86_64' and not ros_is_sourced():
        fail(
            f'this machine is {platform.machine()}, but the package index has ROS 2 for x86_64 only; install ROS 2 '
            'with apt and source it first, see docs/tutorial.md'
        )
    if DISTRIBUTION not in DISTRIBUTIONS:
        fail(
            f'DYNSPLIT_ROS is {DISTRIBUTION!r}, but the package index has {" and ".join(DISTRIBUTIONS)}; '
            'name one of them, or source another ROS 2 and unset the variable'
        )
    sourced = os.environ.get('ROS_DISTRO', '')
    if os.environ.get('DYNSPLIT_ROS') and ros_is_sourced() and sourced != DISTRIBUTION:
        fail(
            f'DYNSPLIT_ROS is {DISTRIBUTION!r}, but this shell has sourced ROS 2 {sourced}; '
            'unset the variable, or use a shell without ROS 2'
        )


def set_up() -> None:
    """Bring the environment and the build up to date."""
    check_distribution()
    with only_one():
        (BUILD / 'setup.log').unlink(missing_ok=True)
        if not SHARED_VENV:
            make_environment(with_ros=ros_is_sourced())
        elif not (VENV / 'complete').is_file():
            fail(
                f'DYNSPLIT_VENV names {SHARED_VENV}, which ./run setup has not made or not finished; '
                'name the .venv of a checkout where ./run setup has ended, or unset the variable'
            )
        build()


def python_without_cwd(code: str, *arguments: str) -> list[str]:
    """Return a command that runs code with the built package found before the source folder of the same name."""
    return [str(PYTHON), '-c', f'import sys; sys.path[:1] = []; {code}', *arguments]


def main() -> None:
    """Read the command, set up, and become the program that does it."""
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else None), sys.argv[2:]
    benches = sorted(path.stem for path in (ROOT / 'bench').glob('*.py') if "'__main__'" in path.read_text())
    if command in (None, 'help', '--help', '-h'):
        print(USAGE, end='')
        return
    if command not in ('setup', 'test', 'bench', 'docs', 'exec', *TOOLS):
        fail(f'unknown command {command!r}; ./run --help lists them')
    if command == 'bench' and (not arguments or arguments[0] not in benches):
        fail(f'bench needs the name of a benchmark: {", ".join(benches)}')
    if command == 'exec' and not arguments:
        fail('exec needs a program, for example: ./run exec python my_script.py')
    set_up()
    env = environment()
    if command == 'setup':
        return
    if command == 'test':
        # Whole folders run in parallel, file by file: the node tests wait for processes most of the time.
        files = any('.py' in argument for argument in arguments)
        workers = min((os.cpu_count() or 1) + 1, 4)
        parallel = [] if files else ['-n', str(workers), '--dist', 'loadfile', '--no-loadscope-reorder']
        program = python_without_cwd(
            'import pytest; sys.exit(pytest.main(sys.argv[1:]))', *parallel, *(arguments or [str(ROOT / 'test')])
        )
        os.chdir(ROOT)
    elif command == 'bench':
        program = python_without_cwd(
            f'sys.path.append({str(ROOT)!r}); import runpy; sys.argv[0] = "{arguments[0]}"; '
            f'runpy.run_module("bench.{arguments[0]}", run_name="__main__")',
            *arguments[1:],
        )
    elif command == 'docs':
        say(f'writing {ROOT / "out" / "api" / "index.html"}; this takes a minute or two')
        os.chdir(BUILD)  # pdoc warns of a folder dynsplit_ros in the current one
        program = python_without_cwd(
            'import runpy; runpy.run_module("pdoc", run_name="__main__")',
            *API,
            '-o',
            str(ROOT / 'out' / 'api'),
            *arguments,
        )
    elif command == 'exec':
        program = arguments
    else:
        program = [str(INSTALL / 'lib' / 'dynsplit_ros' / command), *arguments]
    sys.stdout.flush()
    try:
        os.execvpe(program[0], program, env)
    except FileNotFoundError:
        fail(f'program {program[0]!r} was not found in the environment')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the shell's code for Ctrl-C, without a traceback
