# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A network whose run takes a set time, by sleeping; for nodes, as ``testing.sleeping_network:Sleep``."""

from __future__ import annotations

import time

import torch
from torch import nn


class Sleep(nn.Module):
    """Sleeps for ``service_s`` seconds, and returns the mean of each channel."""

    def __init__(self, service_s: float = 0.05) -> None:
        super().__init__()
        self.service_s = service_s

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the means [N, channels] of images [N, channels, height, width]."""
        time.sleep(self.service_s)
        return image.mean((2, 3))
