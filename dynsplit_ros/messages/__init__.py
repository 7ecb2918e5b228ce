# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""ROS messages to and from the library's own types."""
