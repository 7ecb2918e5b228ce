# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The traced graph of a model, its cuts, and the head and tail of each."""

from dynsplit_ros.partition.build import Interrupted
from dynsplit_ros.partition.split import Cut, SplitModel
from dynsplit_ros.partition.trace import UntraceableError

__all__ = ['Cut', 'Interrupted', 'SplitModel', 'UntraceableError']
