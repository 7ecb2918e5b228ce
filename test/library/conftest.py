# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What holds for all library tests."""

from __future__ import annotations

from collections.abc import Iterator
import sys

import pytest


@pytest.fixture(scope='module', autouse=True)
def one_thread() -> Iterator[None]:
    """
    Let PyTorch use one thread, here and in the processes that a test starts.

    Several files of tests run at once, and threads that wait for each other keep the processors busy.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        torch = sys.modules.get('torch')
        if torch is None:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)
