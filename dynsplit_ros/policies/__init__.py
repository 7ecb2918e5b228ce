# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""State machines without clock and threads: what each side does with each event; runtime and simulation drive them."""
