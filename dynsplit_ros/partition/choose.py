# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Choose the tracer of a model: the first whose trace computes what the module computes, to the bit.

``torch.fx`` is first because it takes a fifth of the time of ``torch.export``. A trace counts if its outputs equal
the module's own for two images of different content and, where the module takes batches, for two images at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
import logging
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from dynsplit_ros.errors import DynsplitError, in_short
from dynsplit_ros.model import LoadedModel, name_outputs
from dynsplit_ros.partition import exported
from dynsplit_ros.partition.analysis import Analysis, seeded_image
from dynsplit_ros.partition.pipeline import MODULE, pipeline_for, TORCHVISION_DETECTORS
from dynsplit_ros.partition.trace import own_name, trace, TracedPipeline, UntraceableError
from dynsplit_ros.partition.unchanged import unchanged

_logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
#: Submodules that fail one after the other and are kept whole; a module with more is left to torch.export.
_MOST_KEPT = 20


def choose_trace(model: LoadedModel, cut: bool, leaves: Sequence[str]) -> tuple[TracedPipeline, Analysis]:
    """
    Return the trace of ``model`` and its analysis; this runs the model on the CPU.

    :param cut: whether the module's code is traced; otherwise the module is a single node.
    :raises UntraceableError: when no tracer gives a trace that computes what the module computes.
    :raises DynsplitError: when the module cannot run, or cannot be the same on two machines.
    """
    if model.torchvision:  # this package's tests show that these traces are exact
        found = trace(pipeline_for(model, cut=cut), leaves if cut else (MODULE,))
        image = seeded_image(model.input_size, channels=model.image_shape[0])
        return found, Analysis(found.root, found.graph, image, model.max_batch != 1)
    reference = _Reference(model)
    if not cut:
        found = trace(pipeline_for(model, cut=False), (MODULE,))
        return found, Analysis(found.root, found.graph, reference.images[0], reference.takes_batches)
    failures: dict[str, str] = {}
    for attempt in _attempts(model, leaves, reference.takes_batches):
        try:
            with unchanged(model.module):
                found = attempt.trace()
                analysis = Analysis(found.root, found.graph, reference.images[0], attempt.batched)
                reference.check(found, analysis, attempt.batched)
        except Exception as error:
            if isinstance(error, _DifferError):
                reference.check_repeats()
            failures.setdefault(attempt.tracer, str(error) if isinstance(error, DynsplitError) else in_short(error))
            continue
        if not attempt.batched:
            model.max_batch = 1
        if found.kept:
            _logger.warning('%s: the code of %s cannot be traced, so it stays whole', model.name, ', '.join(found.kept))
        return replace(found, tracer=attempt.tracer), analysis
    reason, *others = (f'with {tracer}, {reason}' for tracer, reason in failures.items())
    raise UntraceableError(
        f'{model.name} cannot be cut: {reason}{"".join(f"; nor {other[:300]}" for other in others)}; name the submodule'
        ' or its type as a leaf (--leaf, parameter leaves), which keeps it whole, or ask for the whole-model split'
        ' (--whole, parameter cut: false), which leaves full offloading and local inference'
    )


class _DifferError(DynsplitError):
    """A trace computes something else than the module."""


@dataclass(frozen=True)
class _Attempt:
    """A way to a trace, and whether that is for any batch or for single images."""

    tracer: str
    trace: Callable[[], TracedPipeline]
    batched: bool


def _attempts(model: LoadedModel, leaves: Sequence[str], batched: bool) -> Iterator[_Attempt]:
    """Yield the ways to a trace of a module, the best first."""
    symbolic = not model.image_list or isinstance(model.module, TORCHVISION_DETECTORS)
    if symbolic:
        yield _Attempt('torch.fx', lambda: trace(pipeline_for(model), leaves), batched)
        if model.task == 'detection':
            yield _Attempt('torch.fx', lambda: _trace_trunk(model, leaves), batched)
    if not isinstance(model.module, fx.GraphModule):  # an exported program already
        yield from _exports(model, batched and not model.image_list)
    if symbolic:
        yield _Attempt('torch.fx', lambda: _trace_around(model, leaves), batched)


def _exports(model: LoadedModel, batched: bool) -> Iterator[_Attempt]:
    """Yield torch.export's ways: those that are kept on disk first, then for any batch, then for single images."""
    paths = {size: exported.kept_path(model, size) for size in ([True, False] if batched else [False])}

    def program(make: Callable[..., nn.Module], *arguments: Any) -> TracedPipeline:
        return trace(pipeline_for(model, make(model, *arguments)))

    for any_batch, path in paths.items():
        if path.is_file():
            yield _Attempt('torch.export (kept)', partial(program, exported.load_kept, path), any_batch)
    for any_batch, path in paths.items():
        yield _Attempt('torch.export', partial(program, exported.export, path, any_batch), any_batch)


def _trace_around(model: LoadedModel, leaves: Sequence[str]) -> TracedPipeline:
    """Trace with torch.fx and keep each submodule whole whose code cannot be traced."""
    kept: list[str] = []
    while True:
        try:
            with unchanged(model.module):
                return trace(pipeline_for(model), leaves, kept)
        except UntraceableError as error:
            if not error.submodule or len(kept) >= _MOST_KEPT:
                raise
            kept.append(error.submodule)


def _trace_trunk(model: LoadedModel, leaves: Sequence[str]) -> TracedPipeline:
    """Trace a detector with torch.fx and keep its decoding whole: the end of the network, with few of its weights."""
    found = _trace_around(model, leaves)
    for node in found.graph.nodes:
        if node.op == 'call_module' and (name := own_name(str(node.target))) in found.kept:
            share = _weights(model.module.get_submodule(name)) / max(_weights(model.module), 1)
            if share > 0.5 or any(user.op != 'output' for user in node.users):
                raise DynsplitError(f'submodule {name!r} is more than the decoding of boxes')
    return found


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class _Reference:
    """What the module itself gives for calibration images, and whether it takes two at once."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        noise = seeded_image(model.input_size, channels=model.image_shape[0])
        #: Noise, and a dark image with a bright quarter.
        self.images = (noise, noise // 8)
        self.images[1][..., : noise.shape[-2] // 2, : noise.shape[-1] // 2] |= 192
        self._settle()
        before = _state(model.module)
        self._outputs = self._run(self.images[0])
        if any(tensor._version != version for tensor, version in before):
            raise self._changes_itself()
        after = _state(model.module)
        #: Whether a run puts another tensor in the place of a parameter or a buffer.
        self._replaces = len(before) != len(after) or any(one[0] is not two[0] for one, two in zip(before, after))
        if not self._outputs:
            raise DynsplitError(
                f'{model.name} returns no tensor; return a tensor, or a dict, tuple, list or dataclass of tensors'
            )

    def _settle(self) -> None:
        """Find out whether the module takes a batch or a list of images, and create the parameters of lazy modules."""
        model = self._model
        if any(tensor.is_meta for tensor, _ in _state(model.module)):
            raise DynsplitError(f'{model.name} has tensors on the meta device, which have no values; load its weights')
        with torch.random.fork_rng(devices=[]):
            if any(is_lazy(tensor) for tensor, _ in _state(model.module)):
                torch.manual_seed(model.seed)  # the same parameters on two machines
            model.image_list = False
            try:
                self._run(self.images[0])
                return
            except Exception as error:
                first = error
            model.image_list = True
            try:
                self._run(self.images[0])
            except Exception:
                raise DynsplitError(
                    f'{model.name} cannot run on a float32 image {[1, *model.image_shape]}'
                    f' ({in_short(first)}); set input_size to what it takes, or wrap it in a module whose forward takes'
                    ' such images as its first argument'
                ) from first

    def _run(self, image: torch.Tensor) -> Tensors:
        with torch.no_grad():  # what a module keeps for later runs must not be an inference tensor
            return self._model.whole(image)

    @cached_property
    def _pair(self) -> Tensors | None:
        """The outputs for both images at once; ``None`` where the module does not take two."""
        if self._model.max_batch == 1:
            return None
        try:
            return self._run(torch.cat(self.images))
        except Exception:
            return None

    @property
    def takes_batches(self) -> bool:
        """Whether the module takes more than one image at once."""
        return self._pair is not None

    def check(self, found: TracedPipeline, analysis: Analysis, batched: bool) -> None:
        """Raise unless a trace computes what the module computes; find value-dependent shapes in the analysis."""
        name = self._model.output_name
        _check_same(self._outputs, name_outputs(analysis.output, name))
        other = name_outputs(analysis.compare_shapes(found.root, self.images[1]), name)
        _check_same(self._run(self.images[1]), other)
        if batched and self._pair is not None:
            with torch.no_grad():
                both = fx.Interpreter(found.root, graph=found.graph).run(torch.cat(self.images))
            _check_same(self._pair, name_outputs(both, name))

    def check_repeats(self) -> None:
        """Raise if a second run on the same image has other outputs, and say what that comes from."""
        if same_tensors(self._run(self.images[0]), self._outputs):
            return
        if self._replaces:
            raise self._changes_itself()
        raise UntraceableError(
            f'{self._model.name} cannot be cut: two runs of the module on one image differ, so its code depends on'
            ' chance, such as dropout that is active outside of training; switch that off, or ask for the whole-model'
            ' split (--whole, parameter cut: false)'
        )

    def _changes_itself(self) -> DynsplitError:
        return DynsplitError(
            f'{self._model.name} changes its own parameters or buffers when it runs, so two machines would drift apart;'
            ' only a module without such state can be split'
        )


def _state(module: nn.Module) -> list[tuple[torch.Tensor, int]]:
    """Return the parameters and buffers, each with a number that grows when it is written to."""
    return [(tensor, 0 if is_lazy(tensor) else tensor._version) for tensor in (*module.parameters(), *module.buffers())]


def _check_same(own: Tensors, traced: Mapping[str, torch.Tensor]) -> None:
    if not same_tensors(own, traced):
        raise _DifferError('the outputs of the trace differ from those of the module')


def same_tensors(some: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    """Return whether two sets of tensors are equal to the bit, where not a number equals not a number."""
    return some.keys() == others.keys() and all(_same(some[name], others[name]) for name in some)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(torch.equal(one, other) or ((one == other) | (one.isnan() & other.isnan())).all())
