# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Leave a module as it was: code that is traced may assign symbols or tensors without values to its attributes."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

from torch import nn


@contextlib.contextmanager
def unchanged(root: nn.Module) -> Iterator[None]:
    """Restore the attributes of ``root`` and its submodules at the end, and what lists, dicts and sets in them held."""
    before = [
        (module, [(name, value, _copy(value)) for name, value in vars(module).items()]) for module in root.modules()
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            for name, value, copied in attributes:
                _restore(value, copied)
                vars(module)[name] = value


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, (list, dict, set)) else None


def _restore(value: Any, copied: Any) -> None:
    if isinstance(value, list):
        value[:] = copied
    elif isinstance(value, (dict, set)):
        value.clear()
        value.update(copied)
