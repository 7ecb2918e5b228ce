# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Skips the tests of a codec whose optional package is not installed."""

import pytest

from dynsplit_ros.codec import CODECS


@pytest.fixture(autouse=True)
def codec_is_installed(request):
    """Skip a test whose parameter ``codec`` names a codec without its package."""
    callspec = getattr(request.node, 'callspec', None)
    info = CODECS.get(callspec.params.get('codec')) if callspec is not None else None
    if info is not None and not info.is_installed():
        pytest.skip(f'the package of {info.name} is not installed')
