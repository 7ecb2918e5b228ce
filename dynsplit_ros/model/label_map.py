# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
End a segmentation network with the class of each pixel, which is all that its prediction needs.

The scores of 21 classes at 520 x 520 pixels are 22.7 MB, the classes 0.27 MB. As a part of the network, this step runs
wherever the network ends: an edge answers with the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

#: With more classes than this, the label map is int16. 255 stands in label images for what the network did not see.
MOST_UINT8_CLASSES = 255


def first_output(output: Any) -> Any:
    """Return the first part of a module's output, or the output where it has no parts."""
    while isinstance(output, (Mapping, tuple, list)) and output:
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output


class LabelMap(nn.Module):
    """
    Turn a segmentation module's output into a label map: uint8, or int16, [N, H, W].

    Of a module with several outputs, the first one counts. Scores [N, classes, H, W] become the number of the best
    class, the first of equals; whole numbers [N, H, W] or [N, 1, H, W] are a label map already. Anything else is
    returned as it is, for :func:`dynsplit_ros.tasks.check_outputs` to refuse.
    """

    def forward(self, output: Any) -> Any:
        """Return the label map."""
        values = first_output(output)
        if not isinstance(values, torch.Tensor) or values.ndim not in (3, 4):
            return output
        if not values.is_floating_point():
            whole = values.squeeze(1) if values.ndim == 4 else values
            return whole if whole.dtype == torch.uint8 else whole.to(torch.int16)
        if values.ndim == 3:
            return output
        classes = values.max(1).indices  # a quarter of the time of argmax
        return classes.to(torch.uint8 if values.shape[1] <= MOST_UINT8_CLASSES else torch.int16)
