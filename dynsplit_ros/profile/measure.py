# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Measure how long each cut's head and tail take on this machine, and how large each codec makes what flows there.

One run of the model is timed in stages, from each cut to the next, so that every repeat sees all cuts:
whatever slows the machine down for a while slows all of them. A head's time is the sum of the stages before
its cut, a tail's of those behind; heads can thus only grow from cut to cut. The model as one piece is timed in
turn with the stages, and the sums are scaled to end at its time. On a CUDA device the marks in time are the
device's own events. Nodes and tools call :func:`dynsplit_ros.memory.keep_freed` first: in a process that returns freed
memory to the kernel, the stages with the largest tensors took twice as long in every other profile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
import functools
import hashlib
import importlib.metadata
import os
import platform
import time
from typing import Any

import numpy as np
import torch

from dynsplit_ros.codec import CODECS, decode, encode, encode_answer, usable_codecs
from dynsplit_ros.engine_names import EAGER, version_key
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.parameters import MIN_SCORE
from dynsplit_ros.partition import Cut, SplitModel
from dynsplit_ros.profile.profile import CodecProfile, CutProfile, FORMAT, Profile, undominated
from dynsplit_ros.tasks import condensed

#: Repeats in which every codec is measured, before those that are not worth it are left out.
_TRIAL_REPEATS = 3

#: Called with what is being measured and the share (0 to 1) of the work that is done.
Progress = Callable[[str, float], None]


def measure(
    split: SplitModel,
    batches: Sequence[int] = (1,),
    codecs: Sequence[str] | None = None,
    repeats: int = 15,
    warm_up: int = 3,
    images: Sequence[torch.Tensor] = (),
    progress: Progress = lambda what, share: None,
) -> Profile:
    """
    Return the profile of ``split`` on this machine, with the threads and the device that it has.

    :param batches: batch sizes; 1 is measured in any case.
    :param codecs: names of codecs; ``None`` for all that fit each cut.
    :param repeats: timed runs, of which medians and half the distance between the quartiles are kept.
    :param warm_up: runs before those.
    Parts that are ready on other engines than eager are each timed by itself.

    :param images: uint8 [3, H, W]; what the codecs are measured on (payload sizes follow the content); drawn
        ones with a photograph's statistics without them.
    :raises DynsplitError: when a batch, a codec or an image cannot be used.
    """
    if repeats < 1 or warm_up < 0:
        raise DynsplitError(f'{repeats} repeats and {warm_up} warm-up runs were given; give at least 1 and 0')
    sizes = sorted({1, *batches})
    limit = split.model.max_batch
    if sizes[0] < 1 or (limit is not None and sizes[-1] > limit):
        raise DynsplitError(f'batches {list(batches)} were given, but {split.model.name} takes 1 to {limit or "any"}')
    unknown = [name for name in codecs or () if name not in CODECS]
    if unknown:
        raise DynsplitError(f'codec {unknown[0]!r} was given to measure; known are {", ".join(CODECS)}')
    frames = _frames(split, images)
    steps = len(sizes) + repeats + 1
    heads, tails = {}, {}
    for number, batch in enumerate(sizes):
        progress(f'heads and tails, batch {batch}', number / steps)
        of_heads, of_tails = _stage_times(split, _batch(frames, batch), repeats, warm_up)
        heads[batch], tails[batch] = (np.quantile(times, (0.25, 0.5, 0.75), axis=0) for times in (of_heads, of_tails))
    engine_s = [_engine_times(split, _batch(frames, batch), repeats, warm_up) for batch in sizes]
    measured = _codecs(
        split, frames, sizes, codecs, repeats, lambda share: progress('codecs', (len(sizes) + share * repeats) / steps)
    )
    answers = [encode_answer(condensed(split.model.task, split.whole(image[None]), MIN_SCORE))[1] for image in frames]
    progress('done', 1.0)
    return Profile(
        model=split.model.name,
        fingerprint=split.fingerprint,
        device=str(split.device),
        threads=torch.get_num_threads(),
        cuts=tuple(
            CutProfile(
                index=at,
                name=cut.name,
                natural=cut.natural,
                nbytes=cut.nbytes,
                macs_before=cut.macs_before,
                head_s={batch: float(middle[at]) for batch, (_, middle, _) in heads.items()},
                tail_s={batch: float(middle[at]) for batch, (_, middle, _) in tails.items()},
                codecs=measured[at],
                head_spread_s={batch: float(high[at] - low[at]) / 2 for batch, (low, _, high) in heads.items()},
                tail_spread_s={batch: float(high[at] - low[at]) / 2 for batch, (low, _, high) in tails.items()},
                engine_head_s=_by_engine('head', at, sizes, engine_s),
                engine_tail_s=_by_engine('tail', at, sizes, engine_s),
            )
            for at, cut in enumerate(split.cuts)
        ),
        answer_bytes=sum(memoryview(part.data).nbytes for answer in answers for part in answer) // len(answers),
        measured=this_machine(split),
    )


def conditions(split: SplitModel) -> dict[str, str]:
    """
    Return all that decides, besides the model itself, how long ``split`` takes in this process.

    This is the only list of it. Two profiles whose conditions are equal are interchangeable; the kept profile is
    looked for by it.
    """
    cuda = split.device.type == 'cuda'
    return {
        'host': platform.node(),
        'machine': _machine(),
        'processor': processor(),
        'cores': f'{len(os.sched_getaffinity(0))} of {os.cpu_count()}',
        'quota': _read_line('/sys/fs/cgroup/cpu.max') or 'none',
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'threads': str(torch.get_num_threads()),
        'device': f'{split.device} ({torch.cuda.get_device_name(split.device)})' if cuda else str(split.device),
        **split.options,
        'python': platform.python_version(),
        'torch': torch.__version__,  # with the CUDA version that it was built for
        **{name: importlib.metadata.version(name) for name in ('torchvision', 'numpy', 'blosc2')},
        'codecs': ' '.join(CODECS),
        'format': str(FORMAT),
    }


def engine_of(split: SplitModel, engine: str = EAGER) -> dict[str, str]:
    """Return what can change an output on one of the split model's engines: what an agreement is measured with."""
    now = conditions(split)
    return {
        'engine': engine,
        'version': now.get(version_key(engine), now['torch']),
        **{key: now[key] for key in ('torch', 'processor', 'instructions', 'device', 'channels_last')},
    }


def this_machine(split: SplitModel) -> dict[str, str]:
    """Return under which conditions a profile is measured now, and for a person when and of what."""
    return {
        **conditions(split),
        'system': platform.platform(),
        'input_size': '{}x{}'.format(*split.model.input_size),
        'when': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
    }


def processor() -> str:
    """Return the name of this machine's processor; on ARM, where it has none, that of the board."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            for line in lines:
                if line.startswith('model name'):
                    return line.partition(':')[2].strip()
    except OSError:
        pass
    return _read_line('/proc/device-tree/model') or platform.processor() or platform.machine()


def _machine() -> str:
    """
    Return what tells this machine from another of the same host name.

    /etc/machine-id must not be shown in a network, and profiles are sent, so it is hashed (see machine-id(5)).
    """
    return hashlib.sha256(b'dynsplit_ros' + _read_line('/etc/machine-id').encode()).hexdigest()[:12]


def _read_line(path: str) -> str:
    """Return the first line of a small file of the system; empty where there is none."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.readline(1000).strip('\0\n ')
    except OSError:
        return ''


def _frames(split: SplitModel, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    size = split.model.image_shape
    for image in images:
        if image.dtype != torch.uint8 or tuple(image.shape) != size:
            raise DynsplitError(
                f'an image of type {image.dtype} and shape {tuple(image.shape)} was given to measure with, but'
                f" {split.model.name} takes torch.uint8 {list(size)}; resize it with the model's own resize"
            )
    return list(images) or [_like_a_photograph(size, seed) for seed in range(2)]


def _like_a_photograph(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """
    Return a seeded uint8 image [channels, H, W] whose amplitudes fall with frequency as 1 / f, as in natural scenes.

    White noise would make every codec look useless, a plain image every codec perfect. After Field (1987),
    'Relations between the statistics of natural images and the response properties of cortical cells', J.
    Opt. Soc. Am. A 4(12).
    """
    _, height, width = shape
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = np.inf
    grey, colour = generator.standard_normal((1, height, width)), generator.standard_normal(shape)
    values = np.fft.irfft2(np.fft.rfft2(grey + 0.3 * colour) / frequency, s=(height, width))
    values /= values.std(axis=(1, 2), keepdims=True) + 1e-9
    return torch.from_numpy(np.clip(128 + 50 * values, 0, 255).astype(np.uint8))


def _batch(frames: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
    return torch.stack([frames[number % len(frames)] for number in range(batch)])


class _Clock:
    """Marks in time: the processor's clock, or a CUDA device's own events."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        if self._device.type == 'cuda':
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def intervals_s(self) -> list[float]:
        """Return the times between the marks, and forget them."""
        marks, self._marks = self._marks, []
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
            return [begin.elapsed_time(end) / 1000 for begin, end in zip(marks, marks[1:])]
        return [end - begin for begin, end in zip(marks, marks[1:])]


def _stage_times(
    split: SplitModel, image: torch.Tensor, repeats: int, warm_up: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return head and tail times in seconds, [repeats, cuts], for ``image`` on the device."""
    image = image.to(split.device)
    stages = [split.stage(at, at + 1) for at in range(split.local_index)]
    whole = split.stage(0, split.local_index)
    clock = _Clock(split.device)
    stage_s, whole_s = [], []
    with torch.inference_mode():
        for repeat in range(warm_up + repeats):
            clock.mark()
            values: Any = (image,)
            for stage in stages:
                values = stage(*values)
                clock.mark()
            in_stages = clock.intervals_s()
            clock.mark()
            whole(image)
            clock.mark()
            at_once = clock.intervals_s()
            if repeat >= warm_up:
                stage_s.append(in_stages)
                whole_s.append(at_once[0])
    times = np.asarray(stage_s)
    times *= np.median(whole_s) / np.median(times.sum(axis=1))
    heads = np.concatenate([np.zeros((repeats, 1)), times.cumsum(axis=1)], axis=1)
    return heads, heads[:, -1:] - heads


#: 'head' or 'tail', engine, and split index.
_PartKey = tuple[str, str, int]


def _engine_times(split: SplitModel, image: torch.Tensor, repeats: int, warm_up: int) -> dict[_PartKey, float]:
    """Return the median time in seconds of each part that is ready on an engine other than eager, run by itself."""
    parts: dict[_PartKey, Callable[[], Any]] = {}
    image = image.to(split.device)
    values: Any = (image,)
    for cut in split.cuts if len(split.engines) > 1 else ():
        index = cut.index or 0
        for engine in split.engines[1:]:
            if split.has_head(cut, engine):
                parts['head', engine, index] = functools.partial(split.stage(0, cut, engine), image)
            if split.has_tail(cut, engine):
                parts['tail', engine, index] = functools.partial(split.stage(cut, split.local_index, engine), *values)
        if index < split.local_index:
            values = split.stage(index, index + 1)(*values)
    clock = _Clock(split.device)
    times_s: dict[_PartKey, list[float]] = defaultdict(list)
    for repeat in range(warm_up + repeats):
        for key, run in parts.items():
            clock.mark()
            run()
            clock.mark()
            interval_s = clock.intervals_s()
            if repeat >= warm_up:
                times_s[key] += interval_s
    return {key: float(np.median(seconds)) for key, seconds in times_s.items()}


def _by_engine(
    part: str, at: int, sizes: Sequence[int], times_s: Sequence[Mapping[_PartKey, float]]
) -> dict[str, dict[int, float]]:
    """Return the times of a cut's head or tail by engine and batch size."""
    engines = [engine for kind, engine, index in times_s[0] if (kind, index) == (part, at)]
    return {
        engine: {batch: of_batch[part, engine, at] for batch, of_batch in zip(sizes, times_s)} for engine in engines
    }


def _codecs(
    split: SplitModel,
    frames: Sequence[torch.Tensor],
    sizes: Sequence[int],
    names: Sequence[str] | None,
    repeats: int,
    progress: Callable[[float], None],
) -> list[dict[str, CodecProfile]]:
    """
    Measure, for each cut, the codecs among ``names`` that fit it, all in turn in every repeat.

    The first repeats measure all of them. The rest measure only lossless codecs that are worth having, at cuts that are
    worth sending: the others are never chosen, or only where their exact time matters little.
    """
    sending = split.cuts[: split.local_index]
    chosen = [_fitting(cut, names) for cut in sending]
    timings: dict[tuple[int, str, int], list[tuple[int, float, float]]] = defaultdict(list)
    for batch in sizes:
        # A batch takes its frames from another start in each repeat, so that sizes are not those of one image.
        images = [_batch([*frames[start:], *frames[:start]], batch) for start in range(min(len(frames), repeats, 4))]
        kept = [[split.head(cut)(image) for image in images] for cut in sending]
        measured = [(at, name) for at, names_here in enumerate(chosen) for name in names_here]
        for repeat in range(repeats):
            if repeat == _TRIAL_REPEATS:
                trial = [
                    {name: _profile_of(name, timings, at, [batch]) for name in here} for at, here in enumerate(chosen)
                ]
                measured = [(at, name) for at, here in enumerate(_worth_timing(trial, batch)) for name in here]
            for at, name in measured:
                timings[at, name, batch].append(_timed(name, kept[at][repeat % len(images)], sending[at], batch))
            progress((sizes.index(batch) + (repeat + 1) / repeats) / len(sizes))
    return [*({name: _profile_of(name, timings, at, sizes) for name in here} for at, here in enumerate(chosen)), {}]


def _timed(name: str, tensors: Mapping[str, torch.Tensor], cut: Cut, batch: int) -> tuple[int, float, float]:
    """Return the bytes of a payload and the seconds of its encoding and decoding."""
    start_s = time.perf_counter()
    encoded = encode(name, tensors)
    between_s = time.perf_counter()
    decode(name, encoded, cut.tensors, max_batch=batch)
    end_s = time.perf_counter()
    size_bytes = sum(memoryview(tensor.data).nbytes for tensor in encoded)
    return size_bytes, between_s - start_s, end_s - between_s


def _profile_of(
    name: str, timings: Mapping[tuple[int, str, int], list[tuple[int, float, float]]], at: int, sizes: Sequence[int]
) -> CodecProfile:
    """Return the medians of what was measured of a codec at a cut."""
    medians = {batch: np.median(np.asarray(timings[at, name, batch]), axis=0) for batch in sizes}
    return CodecProfile(
        payload_bytes={batch: round(float(median[0])) for batch, median in medians.items()},
        encode_s={batch: float(median[1]) for batch, median in medians.items()},
        decode_s={batch: float(median[2]) for batch, median in medians.items()},
        lossless=CODECS[name].lossless,
    )


def _worth_timing(trial: Sequence[Mapping[str, CodecProfile]], batch: int) -> list[set[str]]:
    """Return, for each cut, the codecs worth having that make it smaller than every cut before it."""
    worth, least = [], float('inf')
    for codecs in trial:
        lossless = {
            name: (codec.payload_bytes[batch], codec.encode_s[batch], codec.decode_s[batch])
            for name, codec in codecs.items()
            if codec.lossless
        }
        here = set(undominated(lossless))
        smallest = min((codecs[name].payload_bytes[batch] for name in here), default=least)
        worth.append({name for name in here if codecs[name].payload_bytes[batch] < least})
        least = min(least, smallest)
    return worth


def _fitting(cut: Cut, names: Sequence[str] | None) -> list[str]:
    usable = usable_codecs(cut.tensors, allow_lossy=True)
    return [name for name in usable if names is None or name in names] or ['raw']
