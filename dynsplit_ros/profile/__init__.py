# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How long each cut takes on a machine: the data, and its measurement."""
