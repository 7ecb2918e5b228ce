# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Name the package's programs, once.

ament_cmake builds a package that generates messages, and its CMake file reads the entry points from here
(``cmake/executables.py``). On a machine without ROS, ``pip install .`` installs the library and the program
``dynsplit``. The version is in package.xml alone.
"""

from pathlib import Path
import sys
from xml.etree import ElementTree

from setuptools import find_packages, setup

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from dynsplit_ros.tools.dynsplit import TOOLS  # noqa: E402

PACKAGE = ElementTree.parse(HERE / 'package.xml').getroot()

setup(
    name='dynsplit_ros',
    version=PACKAGE.findtext('version'),
    description=PACKAGE.findtext('description'),
    license='Apache-2.0',
    packages=find_packages(include=['dynsplit_ros', 'dynsplit_ros.*']),
    data_files=[('share/dynsplit_ros/msg', [str(file.relative_to(HERE)) for file in (HERE / 'msg').glob('*.msg')])],
    package_data={'dynsplit_ros': ['py.typed'], 'dynsplit_ros.report': ['style.css', 'charts.js']},
    python_requires='>=3.10',
    install_requires=[
        'numpy',
        'torch',
        'torchvision',
        'blosc2',
        'safetensors',
        'opencv-python-headless',
        'pyyaml',
        'matplotlib',
        'rich',
    ],
    extras_require={'demo': ['scikit-image']},
    entry_points={
        # On the PATH, with pip as with colcon.
        'console_scripts': ['dynsplit = dynsplit_ros.tools.dynsplit:main'],
        # For `ros2 run dynsplit_ros NAME`; pip makes no programs of these.
        'dynsplit_ros.executables': [
            'camera_node = dynsplit_ros.nodes.camera_node:main',
            'edge_node = dynsplit_ros.nodes.edge_node:main',
            'monitor_node = dynsplit_ros.nodes.monitor_node:main',
            'image_source = dynsplit_ros.nodes.image_source:main',
            'link_emulator = dynsplit_ros.nodes.link_emulator:main',
            *(f'{tool} = dynsplit_ros.tools.{tool}:main' for tool in TOOLS),
        ],
    },
)
