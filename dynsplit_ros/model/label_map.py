# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
End a segmentation network with the class of each pixel, which is all that its prediction needs.

The scores of 21 classes at 520 x 520 pixels are 22.7 MB, the classes 0.27 MB. As a part of the network, this step runs
wherever the network ends: an edge answers with the classes.
"""

from __future__ import annotations

from typing import Any

import torch

from dynsplit_ros.model.ending import Ending, first_output

#: With more classes than this, the label map is int16. 255 stands in label images for what the network did not see.
MOST_UINT8_CLASSES = 255


class LabelMap(Ending):
    """
    Turn a segmentation module's output into a label map: uint8, or int16, [N, H, W].

    If the module has several outputs, the first one counts. Scores [N, classes, H, W] become the number of the best
    class, the first of equals. Scores of a single class [N, 1, H, W] become 1 where they exceed ``threshold``, else 0.
    Whole numbers [N, H, W] or [N, 1, H, W] are a label map already. Anything else is returned as it is, for
    :func:`dynsplit_ros.tasks.check_outputs` to refuse.
    """

    select = staticmethod(first_output)

    def __init__(self, threshold: float = 0.0) -> None:
        """Set the ``threshold`` of a single class: 0 for logits, 0.5 for probabilities."""
        super().__init__()
        self.threshold = threshold

    def extra_repr(self) -> str:
        """Return what distinguishes this step from others of its type, for the fingerprint."""
        return f'threshold={self.threshold}'

    def forward(self, output: Any) -> Any:
        """Return the label map."""
        values = first_output(output)
        if not isinstance(values, torch.Tensor) or values.ndim not in (3, 4):
            return output
        if not values.is_floating_point():
            whole = values.squeeze(1) if values.ndim == 4 else values
            return whole.to(torch.uint8 if whole.dtype in (torch.uint8, torch.bool) else torch.int16)
        if values.ndim == 3:
            return output
        if values.shape[1] == 1:
            return (values.squeeze(1) > self.threshold).to(torch.uint8)
        classes = values.max(1).indices  # a quarter of the time of argmax
        return classes.to(torch.uint8 if values.shape[1] <= MOST_UINT8_CLASSES else torch.int16)
