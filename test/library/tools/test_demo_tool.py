# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the demonstration keeps of a run."""

from __future__ import annotations

import json
from pathlib import Path
import sys

import pytest

from dynsplit_ros.tools.demo import conclude


def test_a_run_is_kept_although_a_package_of_the_pictures_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    monkeypatch.delitem(sys.modules, 'dynsplit_ros.demo.plot', raising=False)
    monkeypatch.delitem(sys.modules, 'dynsplit_ros.demo.film', raising=False)
    with pytest.raises(ImportError):
        conclude({'summary': {'frames': 3}}, tmp_path, tmp_path / 'demo.json')
    assert json.loads((tmp_path / 'demo.json').read_text()) == {'summary': {'frames': 3}}
