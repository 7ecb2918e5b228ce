# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How a name or a path becomes a module with its weights, input size, preprocessing, labels and task."""

from dynsplit_ros.model.load import load_model, LoadedModel, model_names, name_outputs

__all__ = ['LoadedModel', 'load_model', 'model_names', 'name_outputs']
