# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Split a model at any of its cuts: a head for the robot, a tail for the edge, the same result to the bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
from dataclasses import dataclass, replace
from functools import cached_property
import math
import threading
from typing import Any

import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import LoadedModel, name_outputs
from dynsplit_ros.partition.analysis import Live
from dynsplit_ros.partition.build import arrange, build_part, interruptible
from dynsplit_ros.partition.choose import choose_trace
from dynsplit_ros.partition.fingerprint import fingerprint
from dynsplit_ros.tensors import TensorSpec

Tensors = dict[str, torch.Tensor]
Stop = Callable[[], bool]

_AUTOCAST = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True)
class Cut:
    """
    A position in the graph's order, and what flows there.

    ``index`` is the split index, or ``None`` for a position that is no choice; ``position`` counts all
    positions from the image (0). ``tensors`` are those of a batch of one; ``macs_before`` is the share (0 to
    1) of the whole model's multiply-adds. ``fewer_bytes`` says that fewer bytes flow here than in the 8-bit image and
    at every earlier position; ``fewer_elements`` says the same of elements, whatever their type, as in Bakhtiarnia et
    al. (2022): an activation of 4 bits per element is then smaller than the image.
    """

    index: int | None
    position: int
    name: str
    tensors: tuple[TensorSpec, ...]
    macs_before: float
    fewer_bytes: bool = False
    fewer_elements: bool = False

    @property
    def natural(self) -> bool:
        """Whether this is a natural bottleneck, by bytes or by elements."""
        return self.fewer_bytes or self.fewer_elements

    @property
    def elements(self) -> int:
        """Elements of all tensors for a batch of one."""
        return sum(math.prod(spec.shape) for spec in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors for a batch of one."""
        return sum(spec.nbytes for spec in self.tensors)


class _Part:
    """
    A part of the model. ``module`` is None until the part is built; ``has_run`` has the shapes that it ran for.

    What torch sets up in a first run is for one number of images: with another, the run is a first one again.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.module: Callable[..., Any] | None = None
        self.has_run: set[tuple[tuple[int, ...], ...]] = set()

    def __call__(self, *values: torch.Tensor) -> Any:
        assert self.module is not None
        result = self.module(*values)
        self.has_run.add(_shapes(values))
        return result


class SplitModel:
    """
    A model and its cuts.

    Split index 0 sends the 8-bit image, ``local_index`` sends nothing, and those between are the natural
    bottlenecks in the order of the graph. Heads and tails are built when first used; all share the model's
    own weights. Calls from several threads are safe. Activations and outputs are on the CPU, whatever the
    device.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str = 'cpu',
        *,
        cut: bool = True,
        leaves: Sequence[str] = (),
        channels_last: bool = False,
        autocast: str | None = None,
        compile: bool = False,
        cache_size: int = 64,
    ) -> None:
        """
        Trace ``model`` and find its cuts; this runs it on the CPU, and then moves it to ``device``.

        :param cut: without, the only choices are full offloading and local inference, and any module will do.
        :param leaves: class names or paths of submodules whose code is not followed.
        :param channels_last: lay out weights and images with the channels innermost; not exact.
        :param autocast: ``'bfloat16'`` or ``'float16'``: compute in that type where torch finds it safe; not
            exact.
        :param compile: compile heads and tails with ``torch.compile``; not exact.
        :param cache_size: how many parts stay built, at least 2.
        :raises UntraceableError: when no tracer gives an exact trace of the module.
        :raises DynsplitError: when the device or an option cannot be used.
        """
        if autocast is not None and autocast not in _AUTOCAST:
            raise DynsplitError(
                f'autocast {autocast!r} was given; allowed are {", ".join(_AUTOCAST)} or none'
            )
        if cache_size < 2:
            raise DynsplitError(f'cache_size {cache_size} was given, but it is at least 2: a head and a tail')
        self.model = model
        self.device = checked_device(device)
        self._channels_last, self._autocast, self._compile = channels_last, autocast, compile
        self._cache: OrderedDict[tuple[int, int], _Part] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.RLock()

        trace, self._analysis = choose_trace(model, cut, leaves)
        self._root = trace.root
        #: How the model was traced, and what stays whole because it could not be.
        self.tracer = ', '.join((trace.tracer, *(f'{name} whole' for name in trace.kept)))
        self._lives: list[tuple[int, Live]] = []
        self.positions: tuple[Cut, ...] = self._list_positions(trace.names)
        self._mark_candidates(choose=cut)
        for module in (self._root, model.module):  # the trace need not hold the module itself
            module.to(self.device)
            if channels_last:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.output_specs: tuple[TensorSpec, ...] | None = self._output_specs()

    def _list_positions(self, names: Mapping[Any, str]) -> tuple[Cut, ...]:
        analysis = self._analysis
        total = sum(value.macs for value in analysis.values.values()) or 1
        macs, done = 0, 0
        self._names = names
        cuts: list[Cut] = []
        for node, live in analysis.positions():
            at = analysis.index[node]
            macs += sum(analysis.values[passed].macs for passed in analysis.nodes[done : at + 1])
            done = at + 1
            tensors = tuple(analysis.spec(sent, names[sent]) for sent in live.sent)
            cuts.append(Cut(None, len(cuts), names[node], tensors, macs / total))
            self._lives.append((at, live))
        return tuple(cuts)

    def _mark_candidates(self, choose: bool) -> None:
        """
        Find the natural bottlenecks by both definitions and number their union.

        The numbering follows from the model alone, whatever codecs are allowed. Among neighbours of equal size, the
        first of those with the most bytes behind a rectifier stands for all: a rectifier's zeros are what a codec
        shrinks. Robot and edge must choose the same, so nothing here depends on computed values, whose last bits
        differ between processors.
        """
        cuts = list(self.positions)
        for flag, sizes in (('fewer_bytes', [cut.nbytes for cut in cuts]),
                            ('fewer_elements', [cut.elements for cut in cuts])):
            limit, first = sizes[0], 1
            while choose and first < len(cuts):
                if sizes[first] >= limit:
                    first += 1
                    continue
                limit = sizes[first]
                behind = first
                while behind < len(cuts) and sizes[behind] == limit:
                    behind += 1
                chosen = max(range(first, behind), key=self._rectified_bytes)  # the first of several
                cuts[chosen] = replace(cuts[chosen], **{flag: True})  # type: ignore[arg-type]
                first = behind
        chosen_positions = [0] + [cut.position for cut in cuts if cut.natural]
        for index, position in enumerate(chosen_positions):
            cuts[position] = replace(cuts[position], index=index)
        self.positions = tuple(cuts)
        #: The split index that sends nothing.
        self.local_index = len(chosen_positions)
        end = Cut(self.local_index, len(cuts), 'output', (), 1.0)
        #: The choices, by split index.
        self.cuts: tuple[Cut, ...] = (*(cuts[position] for position in chosen_positions), end)

    def _rectified_bytes(self, position: int) -> int:
        at, live = self._lives[position]
        return sum(self._analysis.rectified_bytes(node, at) for node in live.sent)

    def _output_specs(self) -> tuple[TensorSpec, ...] | None:
        """Describe the outputs for a batch of one; ``None`` for a detector, whose outputs' shapes follow the image."""
        outputs = name_outputs(self._analysis.output, self.model.output_name)
        self._analysis.output = None
        if self.model.task == 'detection':
            return None
        return tuple(
            TensorSpec(name, str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape))
            for name, tensor in outputs.items()
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of architecture, weights, input size and cuts, the same on both sides and over time."""
        with self._lock:
            return fingerprint(self.model, self._root, self._analysis, self.positions, self.cuts)

    @property
    def options(self) -> dict[str, str]:
        """How this model computes, besides its device: all that the constructor was told and that changes the times."""
        return {
            'precision': self._autocast or 'float32',
            'channels_last': 'yes' if self._channels_last else 'no',
            'engine': 'torch.compile' if self._compile else 'torch',
        }

    def whole(self, image: torch.Tensor) -> Tensors:
        """Return the outputs of the unchanged module for ``image``, uint8 [N, 3, H, W]."""
        with self._computing():
            return _to_cpu(self.model.whole(self._laid_out(self._checked_image(image).to(self.device))))

    def head(self, cut: int | Cut) -> Callable[..., Tensors]:
        """
        Return the function from an image, uint8 [N, 3, H, W], to the tensors that the cut sends.

        ``cut`` is a split index or any of :attr:`positions`. At :attr:`local_index` it returns the model's
        outputs. Given a function ``stop`` too, it raises Interrupted soon after that returns True. A cut or an
        image that does not fit the model raises DynsplitError.
        """
        to = self._position(cut)
        part = self._part(0, to)

        def run(image: torch.Tensor, stop: Stop | None = None) -> Tensors:
            self._checked_image(image)
            with self._computing(), interruptible(stop):
                values = part(arrange(self._laid_out(image.to(self.device)), self._sent_values(0)[0]))
                if to == len(self.positions):
                    return _to_cpu(name_outputs(values, self.model.output_name))
                specs = self.positions[to].tensors
                return {
                    spec.name: value.to('cpu', getattr(torch, spec.dtype)).contiguous()
                    for spec, value in zip(specs, values)
                }

        return run

    def tail(self, cut: int | Cut) -> Callable[..., Tensors]:
        """
        Return the function from the tensors that the cut sends to the model's outputs; it changes none of them.

        At :attr:`local_index` it returns the outputs that it is given. Given a function ``stop`` too, it raises
        Interrupted soon after that returns True. A cut or tensors that do not fit the model raise DynsplitError.
        """
        start = self._position(cut)
        if start == len(self.positions):
            return lambda tensors, stop=None: dict(tensors)
        part = self._part(start, len(self.positions))
        specs = self.positions[start].tensors
        values = self._sent_values(start)

        def run(tensors: Mapping[str, torch.Tensor], stop: Stop | None = None) -> Tensors:
            self._check_activation(start, tensors)
            with self._computing(), interruptible(stop):
                arguments = [
                    arrange(self._laid_out(tensors[spec.name].to(self.device)), value)
                    for spec, value in zip(specs, values)
                ]
                return _to_cpu(name_outputs(part(*arguments), self.model.output_name))

        return run

    def prepare_tail(self, cut: int | Cut, images: int = 1, stop: Stop | None = None) -> bool:
        """
        Build the tail at ``cut`` and run it once, on zeros for ``images`` images, unless it has run for as many.

        Return whether it had to. The next run then takes as long as later ones: what torch sets up in a first run is
        there. Given a function ``stop``, it raises Interrupted soon after that returns True.
        """
        start = self._position(cut)
        if start == len(self.positions):
            return False
        tensors = {spec.name: torch.zeros(value.shape_at(images), dtype=getattr(torch, spec.dtype))
                   for spec, value in zip(self.positions[start].tensors, self._sent_values(start))}
        if _shapes(tensors.values()) in self._part(start, len(self.positions)).has_run:
            return False
        self.tail(cut)(tensors, stop)
        return True

    def stage(self, begin: int | Cut, end: int | Cut) -> Callable[..., Any]:
        """
        Return the function from the values sent at one cut to those at a later one, both on the device.

        It takes them one by one and returns a tuple; at the end, the module's own output. It is what heads
        and tails are made of; the profiler times it.
        """
        part = self._part(self._position(begin), self._position(end))

        def run(*values: torch.Tensor) -> Any:
            with self._computing():
                return part(*(self._laid_out(value) for value in values))

        return run

    def _position(self, cut: int | Cut) -> int:
        if isinstance(cut, Cut):
            return cut.position
        if not 0 <= cut <= self.local_index:
            raise DynsplitError(
                f'split index {cut} was given, but {self.model.name} has 0 to {self.local_index}'
            )
        return self.cuts[cut].position

    def _sent_values(self, position: int) -> list[Any]:
        return [self._analysis.values[node] for node in self._lives[position][1].sent]

    def _part(self, begin: int, end: int) -> _Part:
        with self._lock:
            part = self._cache.setdefault((begin, end), _Part())
            self._cache.move_to_end((begin, end))
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        with part.lock:  # each part has its own lock, so that a part that is being built holds up no other
            if part.module is None:
                at, live = self._lives[begin]
                to, result = self._lives[end] if end < len(self._lives) else (len(self._analysis.nodes), None)
                built = build_part(self._root, self._analysis, self.device, at, live, to, result, not self._compile)
                part.module = torch.compile(built) if self._compile else built
        return part

    @contextlib.contextmanager
    def _computing(self) -> Any:
        with torch.inference_mode():
            if self._autocast is None:
                yield
            else:
                with torch.autocast(self.device.type, _AUTOCAST[self._autocast]):
                    yield

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _checked_image(self, image: torch.Tensor) -> torch.Tensor:
        shape = self.model.image_shape
        limit = self.model.max_batch
        if (
            image.dtype != torch.uint8
            or image.ndim != 4
            or tuple(image.shape[1:]) != shape
            or not len(image)
        ):
            raise DynsplitError(
                f'an image of type {image.dtype} and shape {tuple(image.shape)} was given, but'
                f' {self.model.name} takes'
                f" torch.uint8 [N, {shape[0]}, {shape[1]}, {shape[2]}]; resize it with the model's own resize"
            )
        if limit is not None and len(image) > limit:
            raise DynsplitError(
                f'a batch of {len(image)} was given, but {self.model.name} takes {limit} at once; give fewer, or export'
                ' it with a dynamic batch'
            )
        return image

    def _check_activation(self, position: int, tensors: Mapping[str, torch.Tensor]) -> None:
        specs = self.positions[position].tensors
        name = self.positions[position].name
        if tensors.keys() != {spec.name for spec in specs}:
            raise DynsplitError(
                f'tensors {sorted(tensors)} were given for the cut at {name}, which takes'
                f' {sorted(spec.name for spec in specs)}; use the head of the same cut'
            )
        for spec, value in zip(specs, self._sent_values(position)):
            tensor = tensors[spec.name]
            if not value.allows(tensor.shape) or str(tensor.dtype) != f'torch.{spec.dtype}':
                raise DynsplitError(
                    f'tensor {spec.name!r} of type {tensor.dtype} and shape {tuple(tensor.shape)} was given,'
                    f' but the cut at {name} takes torch.{spec.dtype} {list(spec.shape)} for a batch of one'
                )


def checked_device(name: str) -> torch.device:
    """
    Return the device called ``name``.

    :raises DynsplitError: when this machine does not have it.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # 'meta' has no values
    except (RuntimeError, AssertionError, ImportError) as error:
        have = ['cpu', *(f'cuda:{number}' for number in range(torch.cuda.device_count()))]
        raise DynsplitError(
            f'device {name!r} was given, but this machine offers {", ".join(have)}; choose one of these'
        ) from error
    return device


def _shapes(values: Iterable[torch.Tensor]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(value.shape) for value in values)


def _to_cpu(outputs: Tensors) -> Tensors:
    return {name: tensor.cpu() for name, tensor in outputs.items()}
