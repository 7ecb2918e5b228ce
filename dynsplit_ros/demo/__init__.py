# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: all nodes on this machine, an emulated link between them, every frame checked."""
