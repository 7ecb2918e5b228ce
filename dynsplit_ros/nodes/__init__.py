# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The ROS nodes: thin shells that read parameters, turn messages into the library's types, call it, and publish."""
