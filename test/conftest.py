# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The order of the test files: those that take longest come first, so that no worker has one left alone at the end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by the longest time limit that one of their tests sets, then by the number of their tests."""
    files: dict[Path, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.path].append(item)

    def longest_s(file: list[pytest.Item]) -> float:
        return max((float(mark.args[0]) for item in file for mark in item.iter_markers('timeout')), default=0.0)

    items[:] = [
        item for file in sorted(files.values(), key=lambda file: (-longest_s(file), -len(file))) for item in file
    ]
