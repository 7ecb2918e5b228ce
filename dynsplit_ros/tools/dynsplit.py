# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The program ``dynsplit``: every tool of the package as a subcommand."""

from __future__ import annotations

import argparse
import importlib
import sys

from dynsplit_ros.errors import missing_package

#: What each tool shows. The tool is the module of the same name in this folder.
TOOLS = {
    'cuts': 'where a model can be split, and how many bytes each cut sends',
    'profile': 'how long each head and tail of a model take on this machine',
    'advise': 'before you deploy: the best split for each link rate and edge load, and its gain',
    'simulate': 'estimators and planner on a link trace, against every fixed split and the best choice in hindsight',
    'report': "one HTML page of a recorded run or of a demo's JSON file",
    'top': 'live state of every robot on the network; needs ROS 2',
    'demo': 'robot and edge on this machine over an emulated link, every frame checked; needs ROS 2',
}


def main(argv: list[str] | None = None) -> int:
    """Run the tool that ``argv`` names with the arguments that follow the name."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog='dynsplit',
        usage='%(prog)s [-h] TOOL [ARGUMENT ...]',
        description='Plan, measure and watch dynamic split computing.',
        epilog='tools:\n'
        + ''.join(f'  {name:9} {what}\n' for name, what in TOOLS.items())
        + '\nEach tool explains its own arguments: dynsplit TOOL --help',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('tool', choices=TOOLS, metavar='TOOL', help='one of the tools below')
    tool = parser.parse_args(arguments[:1]).tool
    sys.argv[0] = f'dynsplit {tool}'  # the tool's usage text shows this name
    try:
        code: int = importlib.import_module(f'dynsplit_ros.tools.{tool}').main(arguments[1:])
    except ModuleNotFoundError as error:
        sys.exit(f'dynsplit {tool}: {missing_package(error)}')
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == '__main__':
    raise SystemExit(main())
