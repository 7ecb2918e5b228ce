# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A recorded run as one page: reading the recording, counting, drawing."""
