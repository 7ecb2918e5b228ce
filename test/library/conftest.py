# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several library tests ask for by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope='module')
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: on a busy machine, threads that wait for each other make a test last minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
