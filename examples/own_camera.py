# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A camera of your own for dynsplit_ros: any node that publishes ``sensor_msgs/Image``."""

import itertools

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

HEIGHT, WIDTH = 120, 160


class OwnCamera(Node):
    """Publishes red, green and blue images in turn; each one's frame_id says which it is."""

    def __init__(self) -> None:
        super().__init__('own_camera')
        self.images = self.create_publisher(Image, 'image_raw', qos_profile_sensor_data)
        self.colours = itertools.cycle(enumerate(('red', 'green', 'blue')))
        self.create_timer(0.1, self.shoot)

    def shoot(self) -> None:
        """Publish the next image."""
        channel, name = next(self.colours)
        pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
        pixels[:, :, channel] = 220
        message = Image(height=HEIGHT, width=WIDTH, encoding='rgb8', step=3 * WIDTH, data=pixels.tobytes())
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = name
        self.images.publish(message)


if __name__ == '__main__':
    rclpy.init()
    try:
        rclpy.spin(OwnCamera())
    except (KeyboardInterrupt, ExternalShutdownException):  # Ctrl-C, SIGTERM
        pass
