# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Learn from one run of a traced graph what each node's value is, and what is alive between any two nodes.

A cut sends what depends on the image alone. So every node is one of

- ``data``: a tensor computed from the image's values;
- ``constant``: computed from parameters and sizes alone; each side computes it by itself;
- ``scalar``: sizes and what follows from them; a literal for the given input size, or linear in the batch;
- ``opaque``: any other object, such as a tuple on its way to be unpacked; nothing is cut while one is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dynsplit_ros.partition.unchanged import unchanged
from dynsplit_ros.tensors import ITEM_SIZES, TensorSpec

_SHAPE_READERS = {
    'shape', 'dtype', 'device', 'ndim', 'layout', 'is_cuda', 'requires_grad', 'size', 'dim', 'ndimension',
    'numel', 'nelement', 'stride', 'element_size', 'is_floating_point', 'is_complex', 'is_contiguous',
    'get_device', 'type', 'len', 'sym_size', 'sym_numel', 'sym_stride',
}  # fmt: skip
_LITERALS = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.memory_format, torch.layout)


@dataclass
class Value:
    """What one node of the graph yields for a batch of one."""

    kind: str
    dtype: str = ''
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: int = -1
    literal: Any = None
    literal_of_two: Any = None
    shape_of_two: tuple[int, ...] = ()
    stride_of_two: tuple[int, ...] = ()
    mutates: frozenset[int] = frozenset()
    macs: int = 0

    @property
    def layout(self) -> tuple[Any, ...]:
        """Two tensors of one storage and one layout are the same tensor."""
        return self.dtype, self.shape, self.stride, self.offset

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return TensorSpec('', self.dtype, self.shape).nbytes

    def shape_at(self, batch: int) -> tuple[int, ...]:
        """Return the shape for a batch of ``batch``."""
        shape: tuple[int, ...] = at_batch(batch, self.shape, self.shape_of_two)
        return shape

    def stride_at(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the strides in the whole module when the shape is ``shape``; ``None`` when any will do."""
        if tuple(shape) == self.shape:
            stride = self.stride
        else:
            # The stride of a dimension of size 1 says nothing, so that of a larger batch is taken for it.
            batch = self._batch_of(shape)
            stride = tuple(
                two if size == 1 else at_batch(batch, one, two)
                for size, one, two in zip(self.shape, self.stride, self.stride_of_two)
            )
        expanded = any(step == 0 and size > 1 for step, size in zip(stride, shape))
        return None if expanded else stride

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Return whether ``shape`` is that of some batch."""
        batch = self._batch_of(shape)
        return batch > 0 and tuple(shape) == self.shape_at(batch)

    def _batch_of(self, shape: tuple[int, ...]) -> int:
        for size, one, two in zip(shape, self.shape, self.shape_of_two):
            if one != two:
                return 1 + (size - one) // (two - one)
        return 1


@dataclass(frozen=True)
class Live:
    """
    What has to be sent at a position.

    ``sent`` are the nodes whose values go over the wire; ``rebuilt`` maps each other node that is alive to
    the sent node in whose storage it lies.
    """

    sent: tuple[fx.Node, ...]
    rebuilt: Mapping[fx.Node, fx.Node]


class Analysis:
    """The nodes of a graph in order, their values, and what is alive after each."""

    def __init__(self, root: nn.Module, graph: fx.Graph, image: torch.Tensor, batched: bool) -> None:
        """
        Run ``graph`` once on ``image``, uint8 [1, 3, H, W], on the CPU.

        :param batched: whether the module takes larger batches; learnt from shapes alone, without computing.
        """
        self.graph = graph
        _unpack_at_once(graph)
        self.nodes = [node for node in graph.nodes if node.op != 'output']
        self.output_structure: Any = next(node for node in graph.nodes if node.op == 'output').args[0]
        self.index = {node: position for position, node in enumerate(self.nodes)}

        recorder = _Recorder(root, graph)
        with torch.no_grad():
            self.output = recorder.record(image)
        self.values = recorder.values
        self._learn_shapes(root, graph, image, batched)
        self._classify()
        self._drop_unused()
        self._follow_lifetimes()
        self._find_rectified(root)

    def _learn_shapes(self, root: nn.Module, graph: fx.Graph, image: torch.Tensor, batched: bool) -> None:
        """Learn the sizes for a batch of two from shapes alone; a tensor whose shape follows from values is opaque."""

        def run(batch: int) -> dict[fx.Node, Any]:
            with unchanged(root):  # its code may keep tensors without values
                return _Shapes(root, graph, self.values).run_with(image, batch)

        seen = run(2 if batched else 1)
        depend: list[fx.Node] = []
        for node, value in self.values.items():
            if value.kind == 'scalar':
                value.literal_of_two = seen.get(node) if batched else value.literal
                if value.literal != value.literal_of_two:
                    depend.append(node)
            elif value.dtype and node in seen:
                value.shape_of_two, value.stride_of_two = seen[node]
            elif value.dtype:
                value.kind = 'opaque'
        third = run(3) if depend else {}  # two points give a line; a third tells whether it is one
        for node in depend:
            value = self.values[node]
            try:
                linear = at_batch(3, value.literal, value.literal_of_two) == third.get(node, _UNKNOWN)
            except TypeError:
                linear = False
            if not linear:
                value.kind = 'opaque'

    def compare_shapes(self, root: nn.Module, image: torch.Tensor) -> Any:
        """
        Run the graph on another image and return its output.

        A tensor whose shape differs from the first image's becomes opaque: its shape follows from the image's values,
        so no cut may send it.
        """
        recorder = _Recorder(root, self.graph)
        with torch.no_grad():
            output = recorder.record(image)
        for node, other in recorder.values.items():
            if other.dtype and other.shape != self.values[node].shape:
                self.values[node].kind = 'opaque'
        return output

    def _classify(self) -> None:
        """Tell what depends on the image's values from what does not, until nothing changes any more."""
        values = self.values
        depends: set[fx.Node] = set()
        tainted: set[int] = set()
        changed = True
        while changed:
            changed = False
            for node in self.nodes:
                value = values[node]
                if node in depends:
                    continue
                inputs = () if value.kind == 'scalar' and _reads_sizes(node) else node.all_input_nodes
                if node.op == 'placeholder' or value.storage in tainted or any(arg in depends for arg in inputs):
                    depends.add(node)
                    changed = True
            for node in self.nodes:
                # What is written to once has to be sent: its history cannot be made again on the other side.
                fresh = values[node].mutates - tainted
                if fresh:
                    tainted |= fresh
                    changed = True
        for node in self.nodes:
            value = values[node]
            if value.kind == 'tensor':
                value.kind = 'data' if node in depends else 'constant'
            elif value.kind == 'scalar':
                value.kind = 'opaque' if node in depends else 'scalar'
            elif node not in depends and all(
                values[arg].kind in ('constant', 'scalar') for arg in node.all_input_nodes
            ):
                value.kind = 'constant'  # a tuple of constants, say

    def _drop_unused(self) -> None:
        """Forget the nodes that compute something which nobody reads, unless they write into what somebody reads."""
        needed: set[fx.Node] = set()
        read: set[int] = set()  # storages; -1 where an object holds several

        def need(node: fx.Node) -> None:
            needed.add(node)
            if self.values[node].kind != 'scalar':
                read.add(self.values[node].storage)

        fx.map_arg(self.output_structure, need)
        for node in reversed(self.nodes):
            value = self.values[node]
            writes = bool(value.mutates and (-1 in read or value.mutates & read))
            if node in needed or writes or node.op == 'placeholder':
                need(node)
                if value.kind != 'scalar':
                    for arg in node.all_input_nodes:
                        need(arg)
        self.used = needed

    def _follow_lifetimes(self) -> None:
        self.runs = [node for node in self.nodes if node in self.used and self.values[node].kind in ('data', 'opaque')]
        self.last_use: dict[fx.Node, int] = {}
        for node in self.runs:
            for arg in node.all_input_nodes:
                self.last_use[arg] = self.index[node]
        for node in tree_leaves(self._output_nodes()):
            self.last_use[node] = len(self.nodes)
        self.last_write: dict[int, int] = {}
        self.origin: dict[int, fx.Node] = {}
        for node in self.runs:
            value = self.values[node]
            for storage in value.mutates:
                self.last_write[storage] = self.index[node]
            if value.kind == 'data':
                self.origin.setdefault(value.storage, node)

    def _find_rectified(self, root: nn.Module) -> None:
        """Note, for each storage, where it is written, and whether a rectifier writes it there."""
        self._writes: dict[int, list[tuple[int, bool]]] = {}
        for node in self.nodes:
            value = self.values[node]
            written = value.mutates if value.storage in self._writes else value.mutates | {value.storage}
            for storage in written:
                self._writes.setdefault(storage, []).append((self.index[node], _rectifies(node, root)))

    def rectified_bytes(self, node: fx.Node, position: int) -> int:
        """Return the bytes of the node's tensor if a rectifier was the last to write it up to ``position``, else 0."""
        value = self.values[node]
        last = [rectified for at, rectified in self._writes[value.storage] if at <= position][-1]
        return value.nbytes if last else 0

    def _output_nodes(self) -> list[fx.Node]:
        nodes: list[fx.Node] = []
        fx.map_arg(self.output_structure, lambda node: nodes.append(node))
        return nodes

    def positions(self) -> Iterable[tuple[fx.Node, Live]]:
        """Yield each node after which the graph can be cut, with what is alive there."""
        alive: dict[fx.Node, None] = {}
        for node in self.runs:
            position = self.index[node]
            alive = {held: None for held in alive if self.last_use[held] > position}
            if self.last_use.get(node, -1) > position:
                alive[node] = None
            live = self._to_send(list(alive), position)
            if live is not None and live.sent:
                yield node, live

    def _to_send(self, alive: list[fx.Node], position: int) -> Live | None:
        """Choose what to send so that every node in ``alive`` can be had on the other side, aliases included."""
        groups: dict[int, list[fx.Node]] = {}
        for node in alive:
            value = self.values[node]
            if value.kind != 'data' or value.dtype not in ITEM_SIZES:
                return None
            groups.setdefault(value.storage, []).append(node)
        sent: list[fx.Node] = []
        rebuilt: dict[fx.Node, fx.Node] = {}
        for storage, members in groups.items():
            distinct: dict[Any, fx.Node] = {}
            for node in members:
                distinct.setdefault(self.values[node].layout, node)
            origin = self.origin[storage]
            written = self.last_write.get(storage, -1) > position
            apart = sum(self.values[node].nbytes for node in distinct.values())
            if len(distinct) > 1 and (written or self.values[origin].nbytes <= apart):
                # Views into one storage: send that, and take the views again on the other side.
                if not all(self.can_rebuild(node, origin) for node in members):
                    if written:
                        return None
                else:
                    sent.append(origin)
                    rebuilt.update((node, origin) for node in members if node is not origin)
                    continue
            for node in members:
                first = distinct[self.values[node].layout]
                if node is first:
                    sent.append(node)
                else:
                    rebuilt[node] = first
        return Live(tuple(sent), rebuilt)

    def can_rebuild(self, node: fx.Node, origin: fx.Node) -> bool:
        """Return whether ``node`` can be computed as a view from ``origin``, of whose storage it is."""
        if node is origin or self.same(node, origin):
            return True
        storage = self.values[origin].storage
        parents = [arg for arg in node.all_input_nodes if self.values[arg].kind in ('data', 'opaque')]
        if len(parents) != 1 or self.values[parents[0]].storage != storage:
            return False
        if self.values[node].mutates and self.values[node].layout != self.values[parents[0]].layout:
            return False
        return self.can_rebuild(parents[0], origin)

    def same(self, node: fx.Node, other: fx.Node) -> bool:
        """Return whether two nodes yield the same tensor."""
        mine, others = self.values[node], self.values[other]
        return mine.kind == others.kind == 'data' and mine.storage == others.storage and mine.layout == others.layout

    def spec(self, node: fx.Node, name: str) -> TensorSpec:
        """Return the description of a node's tensor for a batch of one."""
        value = self.values[node]
        return TensorSpec(name, value.dtype, value.shape)


_UNKNOWN = object()


def at_batch(batch: int, one: Any, two: Any) -> Any:
    """Return the value at ``batch`` of what is ``one`` at 1 and ``two`` at 2: each number is linear in between."""
    if isinstance(one, (tuple, list)):
        if len(one) != len(two):
            raise TypeError('the number of sizes depends on the batch')
        return tuple(at_batch(batch, first, second) for first, second in zip(one, two))
    if one == two:
        return one
    if type(one) is not int or type(two) is not int:
        raise TypeError('a value that is no integer depends on the batch')
    return one + (two - one) * (batch - 1)


def seeded_image(input_size: tuple[int, int], batch: int = 1, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """Return a uint8 image [batch, channels, H, W] of noise, the same on every machine."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(generator.integers(0, 256, (batch, channels, *input_size), dtype=np.uint8))


def _unpack_at_once(graph: fx.Graph) -> None:
    """Move the items taken out of a tuple directly behind it, so that no tuple stays alive."""
    for node in reversed(list(graph.nodes)):  # so that those of one tuple keep their order
        if node.op == 'call_function' and node.target is operator.getitem:
            source, item = node.args
            if isinstance(source, fx.Node) and source.op != 'placeholder' and isinstance(item, (int, str)):
                source.append(node)


def _reads_sizes(node: fx.Node) -> bool:
    """Return whether a node looks at no more of its input than its type and sizes."""
    if node.op == 'call_method':
        name = str(node.target)
    elif node.op == 'call_function':
        name = str(node.args[1]) if node.target is getattr else getattr(node.target, '__name__', str(node.target))
    else:
        return False
    return name.split('.')[0] in _SHAPE_READERS


#: Modules, functions, methods and aten operators that make whatever is negative an exact zero.
_RECTIFIERS = {'relu', 'relu6', 'hardswish'}
#: Those that do so when their lower bound is 0, by the name of that bound.
_BOUNDED = {'hardtanh': 'min_val', 'clamp': 'min', 'clamp_min': 'min'}


def _rectifies(node: fx.Node, root: nn.Module) -> bool:
    """Return whether a node is a rectifier; its type and arguments tell, not its values."""
    if node.op == 'call_module':
        module = root.get_submodule(str(node.target))
        name, given = type(module).__name__.lower(), getattr(module, 'min_val', None)
    elif node.op in ('call_function', 'call_method'):
        target = node.target if isinstance(node.target, str) else getattr(node.target, '__name__', '')
        name = target.split('.')[0].rstrip('_')  # 'relu.default' of an exported program, 'relu_'
        given = node.args[1] if len(node.args) > 1 else node.kwargs.get(_BOUNDED.get(name, ''))
    else:
        return False
    return name in _RECTIFIERS or (name in _BOUNDED and type(given) in (int, float) and given == 0)


def _is_literal(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_literal(item) for item in value)
    return isinstance(value, _LITERALS)


class _Recorder(fx.Interpreter):
    """Run a graph on real tensors, and note each node's value; values are let go after their last use."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, garbage_collect_values=True, graph=graph)
        self.values: dict[fx.Node, Value] = {}
        self._macs = _MultiplyAdds()
        self._held: dict[int, tuple[int, StorageWeakRef]] = {}

    def record(self, image: torch.Tensor) -> Any:
        with self._macs:
            return self.run(image)

    def run_node(self, n: fx.Node) -> Any:
        if n.op == 'output':
            return super().run_node(n)
        inputs = [
            (tensor, tensor._version, tensor.shape)
            for arg in n.all_input_nodes
            for tensor in tree_leaves(self.env[arg])
            if isinstance(tensor, torch.Tensor)
        ]
        before = self._macs.total
        result = super().run_node(n)
        mutated = {self._storage(tensor) for tensor, version, _ in inputs if tensor._version != version}
        value = self._describe(result)
        value.mutates = frozenset(mutated)
        value.macs = self._macs.total - before
        self.values[n] = value
        if any(tensor.shape != shape for tensor, _, shape in inputs):
            for node in self.env:
                if self.values[node].storage in mutated or self.values[node].storage == value.storage:
                    self.values[node].kind = 'opaque'  # its shape was changed in place
            value.kind = 'opaque'
        return result

    def _describe(self, result: Any) -> Value:
        if isinstance(result, torch.Tensor) and result.layout != torch.strided:
            return Value('opaque')  # sparse
        if isinstance(result, torch.Tensor):
            return Value(
                'tensor',
                str(result.dtype).removeprefix('torch.'),
                tuple(result.shape),
                tuple(result.stride()),
                int(result.storage_offset()),
                self._storage(result),
            )
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not leaves and _is_literal(result):
            return Value('scalar', literal=result)
        storages = {self._storage(leaf) for leaf in leaves if leaf.layout == torch.strided}
        return Value('opaque', storage=storages.pop() if len(storages) == 1 else -1)

    def _storage(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        # The weak reference keeps the address from another storage's use; the memory itself is freed.
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return self._held.setdefault(storage._cdata, (len(self._held), reference))[0]


class _Shapes(fx.Interpreter):
    """Run a graph on shapes alone; what follows from values stays unknown, and so does what is computed from it."""

    def __init__(self, root: nn.Module, graph: fx.Graph, values: Mapping[fx.Node, Value]) -> None:
        super().__init__(root, graph=graph)
        self._values = values
        self._seen: dict[fx.Node, Any] = {}
        self._unknown: set[fx.Node] = set()
        self._batch = 0

    def run_with(self, image: torch.Tensor, batch: int) -> dict[fx.Node, Any]:
        self._batch = batch
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            self.run(torch.empty((batch, *image.shape[1:]), dtype=image.dtype))
        return self._seen

    def run_node(self, n: fx.Node) -> Any:
        if n.op == 'output':
            return None
        value = self._values[n]
        try:
            if not self._unknown.isdisjoint(n.all_input_nodes):
                raise LookupError
            result = super().run_node(n)
        except Exception:
            if n.op != 'call_module' or not value.dtype or value.shape[:1] != (1,):
                self._unknown.add(n)
                return None
            # A module that computes sizes from values, such as a detector's front; images are its first
            # dimension.
            result = torch.empty((self._batch, *value.shape[1:]), dtype=getattr(torch, value.dtype))
        if isinstance(result, torch.Tensor) and value.dtype:
            self._seen[n] = tuple(result.shape), tuple(result.stride())
        elif _is_literal(result):
            self._seen[n] = result
        return result


def _attention_flops(query: Any, key: Any, value: Any, width: int, *_: Any, out_val: Any = None, **__: Any) -> int:
    """Two per multiply-add: projections of query, key and value, scores, weighted sum, projection of the output."""
    batch, length, _ = query.shape
    return int(2 * batch * length * width * (3 * width + 2 * key.shape[1] + width))


class _MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count multiply-adds of convolutions, matrix products and attention."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self._formulas: dict[Any, Callable[..., int]] = {
            **flop_registry,
            torch.ops.aten._native_multi_head_attention: _attention_flops,
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result
