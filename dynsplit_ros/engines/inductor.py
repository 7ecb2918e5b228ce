# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""torch.compile: fused kernels, compiled when a part first runs and kept by PyTorch in its own cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dynsplit_ros.engines import eager, Options


def convert(part: nn.Module, example: tuple[torch.Tensor, ...], options: Options) -> Callable[..., Any]:
    """Return ``part`` compiled: its first run for a number of frames compiles it."""
    # Torch compiles a function a few times only; each part has one of its own, but all share the one of eager.
    compiled: Any = torch.compile(part, dynamic=None if options.batches else False)
    return eager.convert(compiled, example, options)
