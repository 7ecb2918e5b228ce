# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The one family of errors that this package raises for what it was given."""


class DynsplitError(ValueError):
    """
    Something given to the package cannot be used.

    The message is one sentence for a person: what was given, what is allowed, and what to do.
    """
