# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a network's raw outputs mean for each task."""

from dynsplit_ros.tasks.results import check_outputs, class_numbers, condensed, interpret, Mask, output_digest, Result

__all__ = ['Mask', 'Result', 'check_outputs', 'class_numbers', 'condensed', 'interpret', 'output_digest']
