# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Build the part of a traced graph between two positions as a module that shares the model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass, field
import threading
from typing import Any

import torch
from torch import fx, nn

from dynsplit_ros.partition.analysis import Analysis, at_batch, Live, Value


class Interrupted(Exception):
    """A computation was ended before it was done, because its result is no longer wanted."""


_stopping = threading.local()


@contextlib.contextmanager
def interruptible(stop: Callable[[], bool] | None) -> Iterator[None]:
    """Let parts that this thread runs meanwhile raise :class:`Interrupted` as soon as ``stop`` returns True."""
    _stopping.wanted = stop
    try:
        yield
    finally:
        _stopping.wanted = None


def stop_point() -> None:
    """Raise :class:`Interrupted` if what this thread runs is no longer wanted."""
    stop = getattr(_stopping, 'wanted', None)
    if stop is not None and stop():
        raise Interrupted


def build_part(
    root: nn.Module,
    analysis: Analysis,
    device: torch.device,
    begin: int,
    live: Live,
    end: int,
    result: Live | None,
    stop_points: bool = True,
) -> fx.GraphModule:
    """
    Return a module for the nodes behind ``begin`` up to ``end``.

    Its arguments are the values of ``live.sent``; it returns those of ``result.sent`` as a tuple, or, when
    ``result`` is ``None``, the model's output. Arguments that the part would write into are copied first, so
    that whoever holds them keeps what they were. With ``stop_points`` it can be interrupted behind each node.
    """
    return _Builder(root, analysis, device, begin, live).build(end, result, stop_points)


@dataclass
class _Builder:
    root: nn.Module
    analysis: Analysis
    device: torch.device
    begin: int
    live: Live
    graph: fx.Graph = field(default_factory=fx.Graph)
    done: dict[fx.Node, Any] = field(default_factory=dict)
    batch: fx.Node | None = None
    batch_from: tuple[fx.Node, int, int, int] | None = None

    def build(self, end: int, result: Live | None, stop_points: bool) -> fx.GraphModule:
        analysis = self.analysis
        nodes = [node for node in analysis.runs if self.begin < analysis.index[node] <= end]
        written = {storage for node in nodes for storage in analysis.values[node].mutates}
        arguments = [(node, self.graph.placeholder(node.name)) for node in self.live.sent]
        for node, argument in arguments:
            value = analysis.values[node]
            two = value.shape_of_two or value.shape
            for dimension, (one, other) in enumerate(zip(value.shape, two)):
                if one != other and self.batch_from is None:
                    self.batch_from = argument, dimension, one, other
            copied = value.storage in written
            self.done[node] = self.graph.call_function(_own_copy, (argument,)) if copied else argument
        for node, base in self.live.rebuilt.items():
            self.done[node] = self._rebuild(node, base)
        for node in nodes:
            self.done[node] = self._copy(node)
            if stop_points:
                self.graph.call_function(stop_point)
        output: Any = analysis.output_structure if result is None else result.sent
        self.graph.output(fx.map_arg(output, self._copied))
        self.graph.lint()  # type: ignore[no-untyped-call]
        return fx.GraphModule(self.root, self.graph)

    def _copied(self, node: fx.Node) -> Any:
        """Return what stands for ``node`` in the new graph."""
        if node in self.done:
            return self.done[node]
        value = self.analysis.values[node]
        if value.kind == 'scalar':
            made = self._scalar(value.literal, value.literal_of_two)
        else:
            made = self._copy(node)  # a constant, made where it is first needed
        self.done[node] = made
        return made

    def _copy(self, node: fx.Node) -> fx.Node:
        """Copy a node; an exported program names the device that it was exported on, where this model's belongs."""
        made = self.graph.node_copy(node, self._copied)
        made.args = fx.node.map_aggregate(made.args, self._placed)
        made.kwargs = fx.node.map_aggregate(made.kwargs, self._placed)
        return made

    def _placed(self, argument: Any) -> Any:
        return self.device if isinstance(argument, torch.device) else argument

    def _scalar(self, one: Any, two: Any) -> Any:
        if isinstance(one, torch.device):
            return self.device
        if one == two:
            return tuple(one) if isinstance(one, (tuple, list)) else one
        if self.batch is None:
            assert self.batch_from is not None
            self.batch = self.graph.call_function(_batch_of, self.batch_from)
        return self.graph.call_function(at_batch, (self.batch, _plain(one), _plain(two)))

    def _rebuild(self, node: fx.Node, base: fx.Node) -> Any:
        """Take the view ``node`` of the sent tensor ``base`` once more."""
        if node in self.done:
            return self.done[node]
        if self.analysis.same(node, base):
            return self.done[base]
        value = self.analysis.values[node]
        parent = next(arg for arg in node.all_input_nodes if self.analysis.values[arg].kind in ('data', 'opaque'))
        source = self._rebuild(parent, base)
        if value.mutates:  # what it wrote is in the sent tensor already
            return source
        self.done.setdefault(parent, source)
        made = self.graph.node_copy(node, lambda arg: source if arg is parent else self._copied(arg))
        self.done[node] = made
        return made


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, (tuple, list)) else value


def _batch_of(tensor: torch.Tensor, dimension: int, one: int, two: int) -> int:
    """Return the batch of a tensor whose ``dimension`` is ``one`` for a batch of one and ``two`` for two."""
    return 1 + (tensor.shape[dimension] - one) // (two - one)


def _own_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with the same strides."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def arrange(tensor: torch.Tensor, value: Value, aligned: bool = True) -> torch.Tensor:
    """
    Return ``tensor`` with the strides and the alignment that ``value`` has inside the whole module.

    Kernels choose their order of summation by both, so a result that is the same to the bit needs the same of
    both. torch's own allocations are aligned to 64 bytes. Engines other than eager need no alignment, and so no copy.
    """
    stride = value.stride_at(tensor.shape)
    fits = stride is None or tensor.stride() == stride
    if fits and (not aligned or tensor.data_ptr() % 64 == 0):
        return tensor
    if stride is None:
        return tensor.clone()
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
