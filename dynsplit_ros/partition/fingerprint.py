# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One digest over all that two machines must have in common to share a model."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import json
from typing import Any

import torch
from torch import fx, nn

from dynsplit_ros.model import LoadedModel
from dynsplit_ros.partition.analysis import Analysis


def fingerprint(
    model: LoadedModel, root: nn.Module, analysis: Analysis, positions: Sequence[Any], cuts: Sequence[Any]
) -> str:
    """
    Return the SHA-256 (hexadecimal) of architecture, weights, input size and cut list.

    Weights are read where they lie, one tensor at a time; only one whose memory is not contiguous, or that is
    on a device, is copied for it. Nothing in the digest depends on addresses, on hash seeds or on the
    machine.
    """
    digest = hashlib.sha256()
    head = {
        'version': 1,
        'input_size': model.input_size,
        'graph': [
            [node.op, node.name, _text(node.target), _text(node.args), _text(node.kwargs)]
            for node in analysis.nodes
        ],
        'output': _text(analysis.output_structure),
        'modules': [[name, _type_name(module), module.extra_repr()] for name, module in root.named_modules()],
        'cuts': [
            [cut.index, cut.position, cut.name, [list(spec.shape) for spec in cut.tensors]] for cut in cuts
        ],
        'positions': len(positions),
    }
    digest.update(json.dumps(head).encode())
    tensors = {**dict(root.named_parameters()), **dict(root.named_buffers())}
    for node in analysis.nodes:
        if node.op == 'get_attr':
            tensors.setdefault(str(node.target), _attribute(root, str(node.target)))
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        plain = tensor.detach().cpu().contiguous().view(-1)
        if plain.numel():
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _attribute(root: nn.Module, path: str) -> torch.Tensor:
    value: Any = root
    for part in path.split('.'):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value


def _type_name(value: Any) -> str:
    return f'{type(value).__module__}.{type(value).__qualname__}'


def _text(value: Any) -> str:
    """Return a description of a node's target or arguments in which no address occurs."""
    if isinstance(value, fx.Node):
        return f'%{value.name}'
    if isinstance(value, (tuple, list)):
        return f'({",".join(_text(item) for item in value)})'
    if isinstance(value, dict):
        return f'{{{",".join(f"{key}:{_text(item)}" for key, item in value.items())}}}'
    if isinstance(value, slice):
        return f'slice{_text((value.start, value.stop, value.step))}'
    if isinstance(value, torch.Tensor):
        return _text(value.tolist())
    if callable(value):
        return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", str(value))}'
    return str(value)
