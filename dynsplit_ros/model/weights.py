# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Give a module its weights: drawn from a seed, or read from a state dict, never by executing what a file says."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import json
import logging
from pathlib import Path
import pickle
import re
from typing import Any
import zipfile
import zlib

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file
import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError

_logger = logging.getLogger(__name__)

STATE_DICT_SUFFIXES = ('.pt', '.pth', '.ckpt', '.bin', '.safetensors')
#: Where training scripts put the state dict in a checkpoint. The averaged weights come first: they are those that a
#: training script evaluates.
_WRAPPERS = ('model_ema', 'ema_state_dict', 'state_dict_ema', 'ema', 'state_dict', 'model_state_dict', 'model')
#: Parts of keys that torch.compile adds, at the front or in the middle.
_COMPILED = '_orig_mod.'
#: Plain data that training scripts store beside the weights, and that can execute nothing.
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.float64(0).__reduce__()[0],
    np.dtype,
    *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'bool')),
]
#: How to turn a checkpoint of Ultralytics into a state dict that brings the names of its classes.
ULTRALYTICS_COMMAND = (
    'python3 -c "import json; from safetensors.torch import save_file; from ultralytics import YOLO; '
    "m = YOLO('{file}').model.float(); "
    "save_file(m.state_dict(), '{target}', {{'labels': json.dumps(list(m.names.values()))}})\""
)


def seed_weights(module: nn.Module, seed: int) -> None:
    """
    Draw each weight matrix and convolution kernel anew, uniform with He's variance, 2 / fan-in.

    torch's own initialisations go through ``normal_``, whose last bits differ between processors, so that a
    robot and an edge would get different weights from one seed. Here the draws are integers scaled by a power
    of two (PCG64), the same everywhere. Parameters that their constructor made constant (normalisation scales,
    biases, layer scales) or that need no gradient (the bins of a YOLO's boxes) keep their value. The variance keeps
    activations finite at any depth (He et al., 2015, https://arxiv.org/abs/1502.01852).
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = parameter.view(-1)
            owner = module.get_submodule(name.rpartition('.')[0])
            layer = isinstance(owner, (nn.Linear, nn.modules.conv._ConvNd))
            if not parameter.requires_grad or parameter.ndim < 2 or not (layer or bool((values[0] != values).any())):
                continue
            generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
            bound = (6.0 / parameter[0].numel()) ** 0.5
            draws = torch.from_numpy(generator.random(parameter.numel(), dtype=np.float32))
            values.copy_(draws.sub_(0.5).mul_(float(np.float32(2 * bound))))


def weights_file(weights: str, name: str, allowed: str = '') -> Path | None:
    """
    Return the path of the state dict that the parameter ``weights`` names; ``None`` for ``none`` and ``default``.

    :raises DynsplitError: for any other text; ``allowed`` names what else the model called ``name`` takes.
    """
    if weights in ('none', 'default'):
        return None
    if Path(weights).suffix in STATE_DICT_SUFFIXES:
        return Path(weights)
    raise DynsplitError(
        f'weights {weights!r} were given for {name}; allowed are none, default,{allowed} or the path of a state dict'
        f' ({", ".join(STATE_DICT_SUFFIXES)})'
    )


def load_state_dict(module: nn.Module, path: Path) -> None:
    """
    Copy the state dict in ``path`` (one of :data:`STATE_DICT_SUFFIXES`) into ``module``.

    The state dict may be wrapped as training scripts do it (``state_dict``, ``model``, ``ema``, …), and its keys may
    have a prefix (``module.``, ``_orig_mod.``, ``model.``, …).

    :raises DynsplitError: when the file is not there, holds anything that unpickling would have to execute,
        or does not fit; the first missing and unexpected keys are named.
    """
    read = read_state_dict(path)
    expected = {key.replace(_COMPILED, ''): key for key in module.state_dict()}
    state, prefix = _fitted({key.replace(_COMPILED, ''): value for key, value in read.items()}, expected)
    if prefix:
        _logger.info('removed the prefix %r from the keys of %s', prefix, path)
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        under = f' (under the prefix {prefix!r})' if prefix else ''
        raise DynsplitError(
            f'the state dict {path}{under} does not fit {type(module).__name__}: {_first(missing)} missing,'
            f' {_first(unexpected)} unexpected; give the weights of this architecture'
        )
    own = module.state_dict()
    for key, value in state.items():
        if value.shape != own[expected[key]].shape:
            raise DynsplitError(
                f'the state dict {path} has {key!r} of shape {tuple(value.shape)}, but'
                f' {type(module).__name__} takes {tuple(own[expected[key]].shape)}; give the weights of this'
                ' architecture and its number of classes'
            )
    module.load_state_dict({expected[key]: value for key, value in state.items()})


def _fitted(state: Mapping[str, torch.Tensor], expected: Mapping[str, str]) -> tuple[dict[str, torch.Tensor], str]:
    """
    Return the state dict without the prefix that stands before all expected keys, and that prefix.

    Keys without the prefix belong to other parts of the training, such as a loss with weights. Where no prefix fits,
    the state dict comes back as it is, with the empty prefix.
    """
    if expected.keys() <= state.keys() or not expected:
        return dict(state), ''
    last = next(reversed(list(expected)))
    prefixes = sorted({key.removesuffix(last) for key in state if key.endswith(f'.{last}')}, key=len)
    for prefix in prefixes:
        if all(prefix + key in state for key in expected):
            return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, prefix
    bare = {key.removeprefix('module.'): full for key, full in expected.items()}
    if bare.keys() == state.keys():  # the module itself is wrapped, the state dict is not
        return {key if key in expected else f'module.{key}': value for key, value in state.items()}, ''
    return dict(state), ''


def labels_of(path: Path | None) -> list[str]:
    """Return the names of the classes in a ``.safetensors`` file's metadata (``labels``, a JSON list), else nothing."""
    if path is None or path.suffix != '.safetensors' or not path.is_file():
        return []
    try:
        with safe_open(path, 'pt') as file:
            labels = json.loads((file.metadata() or {}).get('labels', '[]'))
    except Exception:  # a damaged file: reading its weights says so
        return []
    return [str(label) for label in labels] if isinstance(labels, list) else []


def read_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors in a file, taken out of what training scripts wrap them in."""
    if not path.is_file():
        raise DynsplitError(f'weights {str(path)!r} were given, but there is no such file; give the path of one')
    try:
        with torch.serialization.safe_globals(_PLAIN):
            state: Any = (
                load_file(path)
                if path.suffix == '.safetensors'
                else torch.load(path, map_location='cpu', weights_only=True)
            )
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise DynsplitError(
            f'the file {path} holds more than tensors{f" ({found[1]})" if found else ""}, and reading it would execute'
            f' code in it, so it is not loaded; {_remedy(path)}'
        ) from error
    except Exception as error:
        raise DynsplitError(
            f'the file {path} cannot be read as a state dict ({type(error).__name__}); {_remedy(path)}'
        ) from error
    used = []
    while isinstance(state, dict):
        wrapper = next((name for name in _WRAPPERS if isinstance(state.get(name), dict) and state[name]), None)
        if wrapper is None:
            break
        used.append(wrapper)
        state = state[wrapper]
    if any('ema' in wrapper for wrapper in used):
        _logger.info('using the averaged weights %r of %s', '.'.join(used), path)
    if not isinstance(state, dict):
        raise DynsplitError(
            f'the file {path} holds a {type(state).__name__} that is no state dict; save module.state_dict()'
        )
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor) and isinstance(key, str)}
    if used and 'n_averaged' in tensors:  # a counter of torch.optim.swa_utils.AveragedModel
        del tensors['n_averaged']
    if not tensors or len(tensors) < len(state) and not used:
        raise DynsplitError(
            f'the file {path} holds a dictionary with {_first([str(key) for key in state])} that is no state dict; save'
            ' module.state_dict()'
        )
    return tensors


def kind_of_file(path: Path) -> str:
    """Say what a file of weights or of a program is, without unpickling it: the empty text where that is not known."""
    if path.suffix == '.safetensors':
        return 'a state dict'
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any('/code/' in name for name in names):
                return 'a TorchScript program'
            pickled = next((name for name in names if name.endswith('data.pkl')), '')
            with archive.open(pickled) as file:
                text = file.read(2**24)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return ''
    return 'a checkpoint of Ultralytics' if b'ultralytics.' in text else 'a checkpoint'


def _remedy(path: Path) -> str:
    kind = kind_of_file(path)
    if kind == 'a checkpoint of Ultralytics':
        command = ULTRALYTICS_COMMAND.format(file=path, target=path.with_suffix('.safetensors'))
        return f'it is {kind}: on a machine where you trust it, save its state dict with: {command}'
    if kind == 'a TorchScript program':
        return f'it is {kind}: save the state dict of the Python module that it was made from'
    return 'save module.state_dict() alone with torch.save, or best as .safetensors'


def _first(keys: list[str]) -> str:
    if not keys:
        return 'none'
    return repr(keys[0]) + (f' (and {len(keys) - 1} more)' if len(keys) > 1 else '')
