# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The one family of errors that this package raises for what it was given, and a sentence for a missing package."""

import sys

#: Exit code of a node whose configuration cannot be used: to start it again would not help.
CONFIGURATION_EXIT_CODE = 2


class DynsplitError(ValueError):
    """
    Something given to the package cannot be used.

    The message is one sentence for a person: what was given, what is allowed, and what to do.
    """


def missing_package(error: ModuleNotFoundError) -> str:
    """Return one sentence for a person whose Python lacks a package, with the remedy."""
    return (
        f'Python package {str(error.name).partition(".")[0]!r} is not installed for {sys.executable}; '
        "README.md says under 'With ROS 2' what to install and what to source"
    )
