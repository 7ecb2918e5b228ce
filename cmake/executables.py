# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Write one executable for each console script of setup.py.

Usage: ``executables.py FOLDER``, run in the folder of setup.py. Prints the paths written, separated by semicolons, as
CMake reads a list. The scripts run with the Python that ran this one.
"""

import os
from pathlib import Path
import sys

# setuptools brings the standard library's distutils with it from Python 3.12 on.
import setuptools  # noqa: F401

from distutils.core import run_setup  # isort: skip

SCRIPT = """#!{python}
import os
import signal
import sys

if __name__ == '__main__':  # not where multiprocessing loads this file once more
    # Ctrl-C while modules are still being loaded: some take an exception that is raised there for a fault of theirs.
    before = signal.signal(signal.SIGINT, lambda *_: os._exit({interrupted}))
    from {module} import {function}

    signal.signal(signal.SIGINT, before)
    try:
        code = {function}()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = {interrupted}
    sys.exit(code)
"""


def main() -> None:
    """Write the scripts into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in run_setup('setup.py', stop_after='init').entry_points['console_scripts']:
        name, target = (part.strip() for part in entry.split('='))
        module, function = target.split(':')
        path = folder / name
        # As ROS 2 has it: a node that is interrupted ends well, a command does not.
        interrupted = 0 if module.startswith('dynsplit_ros.nodes.') else 130
        path.write_text(SCRIPT.format(python=sys.executable, module=module, function=function, interrupted=interrupted))
        os.chmod(path, 0o755)
        paths.append(str(path))
    print(';'.join(paths), end='')


if __name__ == '__main__':
    main()
