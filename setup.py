# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Name the package's executables, once.

CMake reads the entry points from here (``cmake/executables.py``), since a package that generates messages is built by
ament_cmake; ``pip install .`` on a machine without ROS installs the library half and the same commands. The version
stands in package.xml alone.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGE = ElementTree.parse(HERE / 'package.xml').getroot()

setup(
    name='dynsplit_ros',
    version=PACKAGE.findtext('version'),
    description=PACKAGE.findtext('description'),
    license='Apache-2.0',
    packages=find_packages(include=['dynsplit_ros', 'dynsplit_ros.*']),
    package_data={'dynsplit_ros': ['py.typed'], 'dynsplit_ros.report': ['style.css', 'charts.js']},
    python_requires='>=3.10',
    install_requires=['numpy', 'torch', 'torchvision', 'blosc2', 'safetensors', 'opencv-python-headless',
                      'pyyaml', 'matplotlib', 'rich'],
    extras_require={'demo': ['scikit-image']},
    entry_points={
        'console_scripts': [
            'camera_node = dynsplit_ros.nodes.camera_node:main',
            'edge_node = dynsplit_ros.nodes.edge_node:main',
            'monitor_node = dynsplit_ros.nodes.monitor_node:main',
            'image_source = dynsplit_ros.nodes.image_source:main',
            'link_emulator = dynsplit_ros.nodes.link_emulator:main',
            'cuts = dynsplit_ros.tools.cuts:main',
            'profile = dynsplit_ros.tools.profile:main',
            'simulate = dynsplit_ros.tools.simulate:main',
            'advise = dynsplit_ros.tools.advise:main',
            'report = dynsplit_ros.tools.report:main',
            'top = dynsplit_ros.tools.top:main',
            'demo = dynsplit_ros.tools.demo:main',
        ],
    },
)
