# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a network's raw outputs mean for each task."""

from dynsplit_ros.tasks.results import Result, interpret, output_digest

__all__ = ['Result', 'interpret', 'output_digest']
