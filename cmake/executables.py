# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Write one executable for each entry point of setup.py.

Usage: ``executables.py FOLDER``, run in the folder of setup.py. The executables of each group of entry points go into
FOLDER/GROUP. They run with the Python that ran this script.
"""

import os
from pathlib import Path
import shutil
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
    from dynsplit_ros.errors import missing_package
    try:
        from {module} import {function}

        signal.signal(signal.SIGINT, before)
        code = {function}()
    except ModuleNotFoundError as error:
        code = f'{name}: {{missing_package(error)}}'
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = {interrupted}
    sys.exit(code)
"""


def main() -> None:
    """Write the scripts into the folder named on the command line."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier build, perhaps with other programs
    for group, entries in run_setup('setup.py', stop_after='init').entry_points.items():
        (folder / group).mkdir(parents=True)
        for entry in entries:
            name, target = (part.strip() for part in entry.split('='))
            module, function = target.split(':')
            path = folder / group / name
            # As in ROS 2: a node that is interrupted ends with code 0, a command does not.
            interrupted = 0 if module.startswith('dynsplit_ros.nodes.') else 130
            path.write_text(
                SCRIPT.format(
                    name=name, python=sys.executable, module=module, function=function, interrupted=interrupted
                )
            )
            os.chmod(path, 0o755)


if __name__ == '__main__':
    main()
