# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Give a module its weights: drawn from a seed, or read from a state dict, never by executing what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import pickle
from typing import Any
import zlib

import numpy as np
from safetensors.torch import load_file
import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError

STATE_DICT_SUFFIXES = ('.pt', '.pth', '.safetensors')


def seed_weights(module: nn.Module, seed: int) -> None:
    """
    Draw each weight matrix and convolution kernel anew, uniform with He's variance, 2 / fan-in.

    torch's own initialisations go through ``normal_``, whose last bits differ between processors, so that a
    robot and an edge would get different weights from one seed. Here the draws are integers scaled by a power
    of two (PCG64), the same everywhere. Other parameters that their constructor made constant (normalisation
    scales, biases, layer scales) keep their value. The variance keeps activations finite at any depth (He et
    al., 2015, https://arxiv.org/abs/1502.01852).
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = parameter.view(-1)
            owner = module.get_submodule(name.rpartition('.')[0])
            layer = isinstance(owner, (nn.Linear, nn.modules.conv._ConvNd))
            if parameter.ndim < 2 or not (layer or bool((values[0] != values).any())):
                continue
            generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
            bound = (6.0 / parameter[0].numel()) ** 0.5
            draws = torch.from_numpy(generator.random(parameter.numel(), dtype=np.float32))
            values.copy_(draws.sub_(0.5).mul_(float(np.float32(2 * bound))))


def load_state_dict(module: nn.Module, path: Path) -> None:
    """
    Copy the state dict in ``path`` (``.pt``, ``.pth`` or ``.safetensors``) into ``module``.

    :raises DynsplitError: when the file is not there, holds anything that unpickling would have to execute,
        or does not fit; the first missing and unexpected keys are named.
    """
    state = _read_state_dict(path)
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        raise DynsplitError(
            f'the state dict {path} does not fit {type(module).__name__}: {_first(missing)} missing,'
            f' {_first(unexpected)} unexpected; give the weights of this architecture'
        )
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise DynsplitError(
                f'the state dict {path} has {key!r} of shape {tuple(value.shape)}, but'
                f' {type(module).__name__} takes {tuple(expected[key].shape)}; give the weights of this'
                ' architecture and its number of classes'
            )
    module.load_state_dict(state)


def _read_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise DynsplitError(
            f'weights {str(path)!r} were given, but there is no such file; give the path of one'
        )
    try:
        state: Any = (
            load_file(path)
            if path.suffix == '.safetensors'
            else torch.load(path, map_location='cpu', weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise DynsplitError(
            f'the file {path} holds more than tensors, and reading it would execute code that it brings, so'
            ' it is not loaded; save module.state_dict() alone, best as .safetensors'
        ) from error
    except Exception as error:
        raise DynsplitError(
            f'the file {path} cannot be read as a state dict ({type(error).__name__}); save'
            ' module.state_dict() with torch.save or safetensors'
        ) from error
    for wrapper in ('state_dict', 'model'):  # what training scripts (torchvision's too) wrap a state dict in
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DynsplitError(
            f'the file {path} holds a {type(state).__name__} that is no state dict; save module.state_dict()'
        )
    return state


def _first(keys: list[str]) -> str:
    if not keys:
        return 'none'
    return repr(keys[0]) + (f' (and {len(keys) - 1} more)' if len(keys) > 1 else '')
