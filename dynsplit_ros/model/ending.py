# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The last step of a network, which makes its outputs small and plain.

The scores of 8400 boxes in 80 classes are 2.8 MB, the boxes that remain after suppression some kB. As a part of the
network, this step runs wherever the network ends, so an edge answers with the small outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from torch import nn


class Ending(nn.Module):
    """
    Base of the steps behind a module; the partition keeps each one whole, so it may contain any code.

    ``forward`` takes what :meth:`select` returns, for a batch of any size, and must not depend on chance, on time or on
    the number of images.
    """

    @staticmethod
    def select(output: Any) -> Any:
        """Return the part of the module's output that the step reads; what computes only the rest is left out."""
        return output


def parts(output: Any) -> list[tuple[str, Any]]:
    """
    Return the names and values in a container: a mapping (ModelOutput is one), a sequence or a dataclass.

    Empty for anything else.
    """
    if isinstance(output, Mapping):
        return [(str(key), value) for key, value in output.items()]
    if isinstance(output, (tuple, list)):
        names = getattr(output, '_fields', None) or map(str, range(len(output)))
        return list(zip(names, output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    return []


def first_output(output: Any) -> Any:
    """Return the first part of a module's output that is not None, or the output itself if it has no parts."""
    while found := [value for _, value in parts(output) if value is not None]:
        output = found[0]
    return output
