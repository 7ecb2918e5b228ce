# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One digest over all that two machines must have in common to share a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import json
import operator
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
        'graph': _graph(analysis.nodes),
        'output': _text(analysis.output_structure),
        'modules': describe_modules(root),
        'cuts': [[cut.index, cut.position, cut.name, [list(spec.shape) for spec in cut.tensors]] for cut in cuts],
        'positions': len(positions),
    }
    digest.update(json.dumps(head).encode())
    state = state_of(root)
    for node in analysis.nodes:
        if node.op == 'get_attr':
            state.setdefault(str(node.target), operator.attrgetter(str(node.target))(root))
    hash_tensors(digest, state)
    return digest.hexdigest()


def describe_modules(root: nn.Module) -> list[list[str]]:
    """Return the path, the type and the settings of each module in ``root``."""
    return [[name, _text(type(module)), module.extra_repr()] for name, module in root.named_modules()]


def state_of(root: nn.Module) -> dict[str, Any]:
    """Return all tensors of ``root`` by path: parameters, all buffers, and what else its state dict holds."""
    return {**root.state_dict(), **dict(root.named_parameters()), **dict(root.named_buffers())}


def hash_tensors(digest: Any, state: Mapping[str, Any]) -> None:
    """Add the names, types and values of a module's state to ``digest``."""
    for name, value in sorted(state.items()):
        for number, part in enumerate(_parts(value)):
            if not isinstance(part, torch.Tensor):
                digest.update(json.dumps([name, number, _text(part)]).encode())
                continue
            digest.update(json.dumps([name, str(part.dtype), list(part.shape)]).encode())
            plain = part.detach().cpu().contiguous().view(-1)
            if plain.numel():
                digest.update(plain.view(torch.uint8).numpy().data)


def _parts(value: Any) -> list[Any]:
    """Return plain tensors and literals that say all of ``value``: packed and sparse weights are made of several."""
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in _parts(item)]
    if isinstance(value, fx.GraphModule):
        return [str(_graph(value.graph.nodes)), *_parts(list(state_of(value).values()))]
    if not isinstance(value, torch.Tensor):
        return [value]
    if value.is_quantized:
        if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            return [value.int_repr(), value.q_scale(), value.q_zero_point()]
        return [value.int_repr(), value.q_per_channel_scales(), value.q_per_channel_zero_points()]
    return [value.to_dense() if value.layout != torch.strided else value]


def _graph(nodes: Any) -> list[list[str]]:
    return [[node.op, node.name, _text(node.target), _text(node.args), _text(node.kwargs)] for node in nodes]


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
