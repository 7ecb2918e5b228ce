# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Dynamic split computing for robots: head on the robot, tail on the edge, the split moved while it runs."""
