# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How a name or a path becomes a module with its weights, input size, preprocessing, labels and task."""

from dynsplit_ros.model.load import load_model
from dynsplit_ros.model.loaded import LoadedModel, name_outputs
from dynsplit_ros.model.sources.torchvision import model_names

__all__ = ['LoadedModel', 'load_model', 'model_names', 'name_outputs']
