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
from pathlib import Path
import threading
from typing import Any

import torch

from dynsplit_ros.cache import alone, digest
from dynsplit_ros.engine_names import EAGER, engine_name, version_key
from dynsplit_ros.engines import checked_engine, convert, Options, version_of
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import LoadedModel, name_outputs
from dynsplit_ros.partition.analysis import Live
from dynsplit_ros.partition.build import arrange, build_part, interruptible, stop_point
from dynsplit_ros.partition.choose import choose_trace
from dynsplit_ros.partition.fingerprint import fingerprint
from dynsplit_ros.tensors import TensorSpec

Tensors = dict[str, torch.Tensor]
Stop = Callable[[], bool]


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


class _ConvertedPart(_Part):
    """A part on another engine than eager: one thread runs it at a time, and nothing interrupts a run."""

    def __init__(self, module: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module

    def __call__(self, *values: torch.Tensor) -> Any:
        with self.lock:
            stop_point()
            return super().__call__(*values)


class SplitModel:
    """
    A model and its cuts.

    Split index 0 sends the 8-bit image, ``local_index`` sends nothing, and those between are the natural
    bottlenecks in the order of the graph. Heads and tails are built when first used; all share the model's
    own weights. Calls from several threads are safe. Activations and outputs are on the CPU, whatever the
    device. They run on the engine eager, and after :meth:`add_engine` also on others.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str = 'cpu',
        *,
        cut: bool = True,
        leaves: Sequence[str] = (),
        channels_last: bool = False,
        cache_size: int = 64,
    ) -> None:
        """
        Trace ``model`` and find its cuts; this runs it on the CPU, and then moves it to ``device``.

        :param cut: without, the only choices are full offloading and local inference, and any module will do.
        :param leaves: class names or paths of submodules whose code is not followed.
        :param channels_last: lay out weights and images with the channels innermost; not exact.
        :param cache_size: how many parts of the engine eager stay built, at least 2.
        :raises UntraceableError: when no tracer gives an exact trace of the module.
        :raises DynsplitError: when the device or an option cannot be used.
        """
        if cache_size < 2:
            raise DynsplitError(f'cache_size {cache_size} was given, but must be at least 2: a head and a tail')
        self.model = model
        self.device = checked_device(device)
        self._channels_last = channels_last
        self._converted: dict[tuple[str, int, int], _ConvertedPart] = {}
        self._versions: dict[str, str] = {}
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
        for flag, sizes in (
            ('fewer_bytes', [cut.nbytes for cut in cuts]),
            ('fewer_elements', [cut.elements for cut in cuts]),
        ):
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
            'channels_last': 'yes' if self._channels_last else 'no',
            'engines': ' '.join(self.engines),
            **{version_key(engine): version for engine, version in self._versions.items()},
        }

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines on which a head or a tail is ready, eager first."""
        return EAGER, *self._versions

    @property
    def parts(self) -> str:
        """The parts that are ready on other engines than eager, in words."""
        return ' '.join(f'{engine}:{begin}-{end}' for engine, begin, end in sorted(self._converted))

    def has_head(self, cut: int | Cut, engine: str) -> bool:
        """Return whether the head of a cut is ready on an engine."""
        return engine == EAGER or (engine, 0, self._position(cut)) in self._converted

    def has_tail(self, cut: int | Cut, engine: str) -> bool:
        """Return whether the tail of a cut is ready on an engine."""
        return engine == EAGER or (engine, self._position(cut), len(self.positions)) in self._converted

    def add_engine(
        self,
        engine: str,
        precision: str = 'float32',
        *,
        heads: bool = True,
        tails: bool = True,
        cache: Path | None = None,
        only_kept: bool = False,
        several: bool = False,
        hold: bool = True,
        progress: Callable[[int, int], None] = lambda done, count: None,
    ) -> dict[str, str]:
        """
        Convert the heads and tails of all choices to another engine; return why parts are not ready, by their names.

        The engine's name is then that of :func:`~dynsplit_ros.engines.engine_name`. Parts that compute nothing are left
        out. ``cache`` is a folder where conversions are kept for the next time. With ``only_kept``, parts that an
        engine would have to convert are not made ready. ``several`` tells that runs of several images will come: what
        the engine sets up for them is then there too. Without ``hold``, parts are converted into the cache and their
        memory is given back. ``progress`` takes the numbers of parts that are done and to do. Raises DynsplitError when
        the engine is unknown, or cannot be used here.
        """
        name, offered = engine_name(engine, precision), checked_engine(engine, precision, self.device)
        if name == EAGER:
            return {}
        end, version = len(self.positions), version_of(engine)
        wanted = {(0, cut.position): f'head of {cut.name}' for cut in self.cuts[1:] if heads}
        wanted |= {(cut.position, end): f'tail of {cut.name}' for cut in self.cuts[:-1] if tails}
        folder = None
        if cache is not None:
            made_with = {'engine': name, 'version': version, 'torch': torch.__version__, 'device': str(self.device)}
            folder = cache / f'{self.fingerprint[:24]}_{digest(made_with)}'
        failed = {}
        for number, ((begin, to), what) in enumerate(wanted.items()):
            progress(number, len(wanted))
            if (name, begin, to) in self._converted:
                continue
            options = Options(
                self.device,
                torch.get_num_threads(),
                precision,
                folder / f'{begin}_{to}' if folder is not None else None,
                self.model.max_batch != 1,
                only_kept,
                several and self.model.max_batch != 1,
            )
            try:
                # A reader does not wait for a process that converts another part.
                with alone(folder / 'lock') if folder is not None and not only_kept else contextlib.nullcontext():
                    part = self._convert(engine, begin, to, options, offered.interruptible)
                if hold:
                    self._converted[name, begin, to] = _ConvertedPart(part)
                    self._versions[name] = version
                del part  # its memory is free before the next part is converted
            except DynsplitError as error:
                failed[what] = str(error)
        progress(len(wanted), len(wanted))
        return failed

    def _convert(self, engine: str, begin: int, to: int, options: Options, stop_points: bool) -> Callable[..., Any]:
        """Return a part as a callable of an engine."""
        values = self._sent_values(begin)
        if options.batches and not all(
            value.shape and value.shape[0] == 1 and value.shape_at(2)[0] == 2 for value in values
        ):
            raise DynsplitError(
                "the first dimension of a tensor that it takes is not the image's number in the batch; "
                "use engine 'eager'"
            )
        images = 2 if options.batches else 1
        example = tuple(
            self._laid_out(torch.zeros(value.shape_at(images), dtype=getattr(torch, value.dtype), device=self.device))
            for value in values
        )
        return convert(engine, self._build(begin, to, stop_points), example, options)

    def whole(self, image: torch.Tensor) -> Tensors:
        """Return the outputs of the unchanged module for ``image``, uint8 [N, 3, H, W]."""
        with torch.inference_mode():
            return _to_cpu(self.model.whole(self._laid_out(self._checked_image(image).to(self.device))))

    def head(self, cut: int | Cut, engine: str = EAGER) -> Callable[..., Tensors]:
        """
        Return the function from an image, uint8 [N, 3, H, W], to the tensors that the cut sends.

        ``cut`` is a split index or any of :attr:`positions`. At :attr:`local_index` it returns the model's
        outputs. Given a function ``stop`` too, it raises Interrupted soon after that returns True; on an engine other
        than eager only before it starts. A cut or an image that does not fit the model, and an engine on which the head
        is not ready, raise DynsplitError.
        """
        to = self._position(cut)
        part = self._part(0, to, engine)

        def run(image: torch.Tensor, stop: Stop | None = None) -> Tensors:
            self._checked_image(image)
            with torch.inference_mode(), interruptible(stop):
                values = part(arrange(self._laid_out(image.to(self.device)), self._sent_values(0)[0], engine == EAGER))
                if to == len(self.positions):
                    return self._outputs(values, engine)
                specs = self.positions[to].tensors
                return {
                    spec.name: value.to('cpu', getattr(torch, spec.dtype)).contiguous()
                    for spec, value in zip(specs, values)
                }

        return run

    def tail(self, cut: int | Cut, engine: str = EAGER) -> Callable[..., Tensors]:
        """
        Return the function from the tensors that the cut sends to the model's outputs; it changes none of them.

        At :attr:`local_index` it returns the outputs that it is given. Given a function ``stop`` too, it raises
        Interrupted soon after that returns True; on an engine other than eager only before it starts. A cut or tensors
        that do not fit the model, and an engine on which the tail is not ready, raise DynsplitError.
        """
        start = self._position(cut)
        if start == len(self.positions):
            return lambda tensors, stop=None: dict(tensors)
        part = self._part(start, len(self.positions), engine)
        specs = self.positions[start].tensors
        values = self._sent_values(start)

        def run(tensors: Mapping[str, torch.Tensor], stop: Stop | None = None) -> Tensors:
            self._check_activation(start, tensors)
            with torch.inference_mode(), interruptible(stop):
                arguments = [
                    arrange(self._laid_out(tensors[spec.name].to(self.device)), value, engine == EAGER)
                    for spec, value in zip(specs, values)
                ]
                return self._outputs(part(*arguments), engine)

        return run

    def _outputs(self, output: Any, engine: str) -> Tensors:
        """Return the module's output by name on the CPU, in the types that it has on the engine eager."""
        outputs = _to_cpu(name_outputs(output, self.model.output_name))
        if engine == EAGER:
            return outputs
        dtypes = {spec.name: getattr(torch, spec.dtype) for spec in self.output_specs or ()}
        return {
            name: value.to(dtypes.get(name, torch.float32 if value.is_floating_point() else value.dtype))
            for name, value in outputs.items()
        }

    def prepare_tail(self, cut: int | Cut, images: int = 1, stop: Stop | None = None, engine: str = EAGER) -> bool:
        """
        Build the tail at ``cut`` and run it once, on zeros for ``images`` images, unless it has run for as many.

        Return whether it had to. The next run then takes as long as later ones: what torch sets up in a first run is
        there. Given a function ``stop``, it raises Interrupted soon after that returns True.
        """
        start = self._position(cut)
        if start == len(self.positions):
            return False
        tensors = {
            spec.name: torch.zeros(value.shape_at(images), dtype=getattr(torch, spec.dtype))
            for spec, value in zip(self.positions[start].tensors, self._sent_values(start))
        }
        if _shapes(tensors.values()) in self._part(start, len(self.positions), engine).has_run:
            return False
        self.tail(cut, engine)(tensors, stop)
        return True

    def stage(self, begin: int | Cut, end: int | Cut, engine: str = EAGER) -> Callable[..., Any]:
        """
        Return the function from the values sent at one cut to those at a later one, both on the device.

        It takes them one by one and returns a tuple; at the end, the module's own output. It is what heads
        and tails are made of; the profiler times it.
        """
        part = self._part(self._position(begin), self._position(end), engine)

        def run(*values: torch.Tensor) -> Any:
            with torch.inference_mode():
                return part(*(self._laid_out(value) for value in values))

        return run

    def _position(self, cut: int | Cut) -> int:
        if isinstance(cut, Cut):
            return cut.position
        if not 0 <= cut <= self.local_index:
            raise DynsplitError(f'split index {cut} was given, but {self.model.name} has 0 to {self.local_index}')
        return self.cuts[cut].position

    def _sent_values(self, position: int) -> list[Any]:
        return [self._analysis.values[node] for node in self._lives[position][1].sent]

    def _part(self, begin: int, end: int, engine: str = EAGER) -> _Part:
        if engine != EAGER:
            try:
                return self._converted[engine, begin, end]
            except KeyError:
                raise DynsplitError(
                    f'engine {engine!r} was given, but this part is ready on '
                    f'{", ".join(self.engines)} only; add the engine first'
                ) from None
        with self._lock:
            part = self._cache.setdefault((begin, end), _Part())
            self._cache.move_to_end((begin, end))
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        with part.lock:  # each part has its own lock, so that a part that is being built holds up no other
            if part.module is None:
                part.module = self._build(begin, end)
        return part

    def _build(self, begin: int, end: int, stop_points: bool = True) -> torch.nn.Module:
        at, live = self._lives[begin]
        to, result = self._lives[end] if end < len(self._lives) else (len(self._analysis.nodes), None)
        return build_part(self._root, self._analysis, self.device, at, live, to, result, stop_points)

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _checked_image(self, image: torch.Tensor) -> torch.Tensor:
        shape = self.model.image_shape
        limit = self.model.max_batch
        if image.dtype != torch.uint8 or image.ndim != 4 or tuple(image.shape[1:]) != shape or not len(image):
            raise DynsplitError(
                f'an image of type {image.dtype} and shape {tuple(image.shape)} was given, but {self.model.name} takes'
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
