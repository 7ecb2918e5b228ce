# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""PyTorch, operation by operation: exact to the bit in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dynsplit_ros.engines import Options


def convert(part: nn.Module, example: tuple[torch.Tensor, ...], options: Options) -> Callable[..., Any]:
    """Return ``part`` itself; with another precision than float32, in torch's autocast."""
    if options.precision == 'float32':
        return part
    dtype = getattr(torch, options.precision)

    def run(*values: torch.Tensor) -> Any:
        with torch.autocast(options.device.type, dtype):
            return part(*values)

    return run
