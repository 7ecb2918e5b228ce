# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Joins images of one or several cameras to batches."""

from __future__ import annotations

from collections import deque
import math
from typing import Generic, TypeVar

Image = TypeVar('Image')

#: The rate is the mean over this number of the latest batches, and over at most this time, in seconds. A longer mean
#: follows a change of the rate later; a shorter one is noisier.
RATE_BATCHES, RATE_S = 20, 3.0


class ImageBatcher(Generic[Image]):
    """
    Joins the newest image of each of several cameras, or ``batch`` consecutive images of one camera, to a batch.

    A batch is complete when it has an image of each camera that sent one in the last ``timeout_s`` seconds, or
    ``batch`` images of a single camera. An incomplete batch goes out ``timeout_s`` seconds after its first image. A
    newer image replaces the older one of its camera. All instants come from one clock, in seconds. The images of a
    batch are in the order of the cameras, those of a single camera in the order of arrival. Not thread-safe.

    ``rate_hz`` is the rate of the latest batches (NaN before the second one), ``replaced`` the number of images that
    were replaced.
    """

    def __init__(self, cameras: int, batch: int, timeout_s: float) -> None:
        self.replaced = 0
        self.rate_hz = math.nan
        self._went_s: deque[float] = deque(maxlen=RATE_BATCHES)
        self._cameras = cameras
        self._batch = batch
        self._timeout_s = timeout_s
        self._images: dict[int, Image] = {}
        self._begun_s = 0.0
        self._heard_s: dict[int, float] = {}

    def add(self, camera: int, image: Image, now_s: float) -> list[Image]:
        """Take an image of a camera (counted from 0); return the batch that goes out now, empty for none."""
        place = camera if self._cameras > 1 else len(self._images)
        if not self._heard_s:  # the first batch waits for each camera
            self._heard_s = dict.fromkeys(range(self._cameras), now_s)
        if not self._images:
            self._begun_s = now_s
        self.replaced += place in self._images
        self._images[place] = image
        self._heard_s[camera] = now_s
        return self.due(now_s)

    def due(self, now_s: float) -> list[Image]:
        """Return the batch whose timeout has passed, empty for none; the caller calls this periodically."""
        if self._cameras > 1:
            missing = any(
                camera not in self._images and now_s - heard_s <= self._timeout_s
                for camera, heard_s in self._heard_s.items()
            )
        else:
            missing = len(self._images) < self._batch
        if missing and now_s - self._begun_s < self._timeout_s:
            return []
        images, self._images = self._images, {}
        if images:
            self._measure(now_s)
        return [images[place] for place in sorted(images)]

    def _measure(self, now_s: float) -> None:
        self._went_s.append(now_s)
        while len(self._went_s) > 2 and now_s - self._went_s[0] > RATE_S:
            self._went_s.popleft()
        if now_s > self._went_s[0]:
            self.rate_hz = (len(self._went_s) - 1) / (now_s - self._went_s[0])
