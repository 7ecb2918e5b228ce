# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Play photographs, a folder, a video file or a webcam as a camera topic."""

from __future__ import annotations

import sys

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.bridge import announce, bridge
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.nodes.base_node import BaseNode, run
from dynsplit_ros.parameters import SOURCE
from dynsplit_ros.sources import open_source


class ImageSource(BaseNode):
    """Publishes ``image_raw`` at the rate asked for."""

    def __init__(self) -> None:
        super().__init__('image_source', SOURCE)
        values = self.values
        announce(self.get_logger())
        self._source = open_source(values.path, values.width, values.height)
        self._failure = ''  # why the latest image could not be had
        self._publisher = self.create_publisher(
            Image,
            'image_raw',
            qos_profile_sensor_data,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.create_timer(1 / values.rate_hz, self._publish)
        self.get_logger().info(f'playing {self._source.name} at {values.rate_hz:g} images/s')

    def _publish(self) -> None:
        stamp = self.get_clock().now()
        try:
            image = self._source.at(stamp.nanoseconds)
        except DynsplitError as error:
            self._failure = str(error)
            self.log_throttled('source', self._failure, error=True)
            return
        self._failure = ''
        message = from_rgb(image)
        message.header.stamp = stamp.to_msg()
        message.header.frame_id = self.values.frame_id
        self._publisher.publish(message)

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Tell what is played, or why nothing is, and what makes messages of it."""
        values: dict[str, object] = {'image_converter': bridge().words}
        if self._failure:
            return DiagnosticStatus.ERROR, self._failure, values
        return DiagnosticStatus.OK, f'playing {self._source.name}', values

    def close(self) -> None:
        """Give the webcam or the file back."""
        self._source.close()


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(ImageSource, args, shared_memory=True)


if __name__ == '__main__':
    sys.exit(main())
