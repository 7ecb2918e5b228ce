# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Trace a pipeline with ``torch.fx``, which runs the module's Python code on symbols instead of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import operator
import traceback
from typing import Any

from torch import fx, nn

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.ending import Ending
from dynsplit_ros.partition.pipeline import DetectorFront, DetectorRest, MODULE, TakesBatch


class UntraceableError(DynsplitError):
    """A module's code cannot be traced; the message names the operation, the submodule, and what to do."""

    def __init__(self, message: str, submodule: str = '') -> None:
        super().__init__(message)
        #: Path of the submodule in whose code the tracer failed; empty for the model itself.
        self.submodule = submodule


@dataclass(frozen=True)
class TracedPipeline:
    """
    A pipeline, its graph, and the name of each node in the model's module hierarchy.

    ``kept`` are the paths of submodules that stay whole because their code cannot be traced. ``tracer`` is the name of
    the tracer.
    """

    root: nn.Module
    graph: fx.Graph
    names: Mapping[fx.Node, str]
    kept: tuple[str, ...] = ()
    tracer: str = 'torch.fx'


# Not operator.iadd: torch.fx writes that as ``a += b``, which is no Python where ``a`` has become a number.


def iadd(held: Any, other: Any) -> Any:
    """Return ``held += other``."""
    held += other
    return held


def isub(held: Any, other: Any) -> Any:
    """Return ``held -= other``."""
    held -= other
    return held


def imul(held: Any, other: Any) -> Any:
    """Return ``held *= other``."""
    held *= other
    return held


def itruediv(held: Any, other: Any) -> Any:
    """Return ``held /= other``."""
    held /= other
    return held


class _Proxy(fx.Proxy):
    """A symbol that also remembers what is written into it: torch.fx makes ``x += y`` an addition to a new tensor."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy('call_function', itruediv, (self, other), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy('call_function', operator.setitem, (self, key, value), {})


class _Tracer(fx.Tracer):
    """A tracer that gives every node its name in the module hierarchy and remembers where it is."""

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.path = ''
        self.failed_in: str | None = None
        self.names: dict[fx.Node, str] = {}
        self._taken: set[str] = set()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = own_name(module_qualified_name)
        return (
            module_qualified_name in self.leaves
            or (bool(own) and (own in self.leaves or type(m).__name__ in self.leaves))
            or isinstance(m, (DetectorFront, DetectorRest, TakesBatch, Ending))
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        try:
            if isinstance(m, fx.GraphModule) and not self.is_leaf_module(m, self.path):
                return _Copied(m, self).run(*args, **kwargs)
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in if self.failed_in is not None else self.path
            raise
        finally:
            self.path = outer

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == 'call_module':
            name = own_name(self.path)
        elif kind == 'placeholder':
            name = str(target)
        else:
            operation = target if isinstance(target, str) else getattr(target, '__name__', str(target))
            name = '.'.join(part for part in (own_name(self.path), operation.split('.')[0].strip('_')) if part)
        unique, count = name, 1
        while unique in self._taken:
            unique, count = f'{name}_{count}', count + 1
        self._taken.add(unique)
        self.names[node] = unique
        return node


class _Copied(fx.Interpreter):
    """Copy the nodes of a graph module, such as an exported program's, as they are; none of them runs."""

    def __init__(self, module: fx.GraphModule, tracer: _Tracer) -> None:
        super().__init__(module)
        self._tracer = tracer
        self._path = tracer.path

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ('placeholder', 'output'):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        target = f'{self._path}.{n.target}' if n.op in ('get_attr', 'call_module') else n.target
        self._tracer.path = f'{self._path}.{_place(n)}'.rstrip('.')
        return self._tracer.create_proxy(n.op, target, args, kwargs)


def _place(node: fx.Node) -> str:
    """Return the path of the submodule whose code made a node of an exported program, as far as it is known."""
    stack = list(node.meta.get('nn_module_stack', {}).values())
    path = str(stack[-1][0]) if stack else ''
    return path.removeprefix("L['self']").removeprefix('.').removeprefix(INNER).removeprefix('.')


#: Name of the module inside of the one that is exported.
INNER = 'inner'


def own_name(path: str) -> str:
    """Return the name that a module of the traced graph has in the model itself."""
    return path.removeprefix(MODULE).removeprefix('.') if path.startswith(MODULE) else path


def trace(pipeline: nn.Module, leaves: Sequence[str] = (), kept: Sequence[str] = ()) -> TracedPipeline:
    """
    Trace ``pipeline`` symbolically.

    :param leaves: class names, or paths in the module's hierarchy, of modules that the user wants whole.
    :param kept: paths of modules that have to stay whole.
    :raises UntraceableError: when the module's code cannot be traced; the message is the reason alone.
    """
    tracer = _Tracer((*leaves, *kept))
    try:
        return TracedPipeline(pipeline, tracer.trace(pipeline), tracer.names, tuple(kept))
    except Exception as error:  # whatever the module's code raises when it is given a symbol instead of a tensor
        place = own_name(tracer.failed_in or '')
        submodule = pipeline.get_submodule(tracer.failed_in or MODULE)
        raise UntraceableError(
            f'the operation {operation(error)} in submodule {place or "(the model itself)"!r} of type'
            f' {type(submodule).__name__} cannot be traced ({" ".join(str(error).split())[:300]})',
            place,
        ) from error


def operation(error: BaseException) -> str:
    """Return the line of the module's own code that raised ``error``, and where it is."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if '/torch/' not in frame.filename and '/dynsplit_ros/partition/' not in frame.filename
    ]
    last = frames[-1] if frames else None
    return f'{last.line!r} ({last.filename}, line {last.lineno})' if last else 'its code'
