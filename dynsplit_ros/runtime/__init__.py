# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The cores of the nodes, without ROS."""
