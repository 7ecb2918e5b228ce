# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The planner on emulated links and servers, event by event."""
