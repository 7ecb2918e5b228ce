# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Simulated links, computations and other robots around the policies of camera, edge and monitor."""
