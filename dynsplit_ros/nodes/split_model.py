# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The model that a node's parameters name, split and profiled."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import json
import logging
import os
import time
from types import SimpleNamespace
from typing import Any

import torch

from dynsplit_ros.cache import engines_folder
from dynsplit_ros.engine_names import EAGER, engine_name
from dynsplit_ros.engines import checked_engine, ENGINES
from dynsplit_ros.errors import DynsplitError, in_one_sentence
from dynsplit_ros.memory import give_back, keep_freed
from dynsplit_ros.model import load_model
from dynsplit_ros.nodes.base_node import BaseNode
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.kept import differences, kept_profile, of_ready_parts
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime.conversion import Conversion, ConversionRequest, ConversionResult
from dynsplit_ros.tasks import check_outputs
from dynsplit_ros.tensors import of_image

#: What to do about a model that raises.
MEND = "correct the model's code, or change its arguments or input size; the cuts tool tries it without ROS"
#: Numbers of frames that an edge measures, as far as it may join them; between them it interpolates.
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def load(node: BaseNode, values: SimpleNamespace, images: int, *, is_edge: bool) -> tuple[SplitModel, Profile]:
    """
    Load, cut, convert and profile for frames of ``images`` images; raise DynsplitError for what cannot be followed.

    A robot runs its heads and the whole model on its engine, an edge its tails.
    """
    with in_one_sentence(f'model {values.model!r} cannot be used', MEND):
        split = _load(node, values, images, split_options(values))
        _add_engine(node, split, values, images, is_edge)
        profile = _given_profile(node, values, split, images) or kept_profile(
            split, progress=lambda text: node.get_logger().info(text), batches=batches_to_profile(values, split, images)
        )
        _warm_up(split, images)
        return split, profile


def convert_in_background(
    node: BaseNode,
    split: SplitModel,
    values: SimpleNamespace,
    images: int,
    *,
    is_edge: bool,
    use: Callable[[Profile], None],
) -> Conversion | None:
    """
    Convert the parts that :func:`load` did not find converted; return None if there are none.

    Then ``use`` takes the new profile, on a thread of the conversion, and the parts are ready; it is not called after
    the conversion is closed. What fails is a warning.
    """
    name, log = engine_name(values.engine, values.precision), node.get_logger()
    what = 'tails' if is_edge else 'heads'
    missing = _missing(split, values, is_edge) if _converts_later(values) else 0
    try:
        checked_engine(values.engine, values.precision, split.device)
    except DynsplitError:  # load has said why
        missing = 0
    if not missing:
        return None
    sizes = batches_to_profile(values, split, images)
    started_s = time.monotonic()
    log.info(f'{missing} {what} run on eager while a separate process converts them to {name}')

    def warn(reason: str) -> None:
        log.warning(f'{reason}; these parts run on eager, because engine_fallback is true')

    def read(answer: ConversionResult, check: Callable[[], None]) -> Callable[[], None]:
        split.add_engine(
            values.engine,
            values.precision,
            heads=not is_edge,
            tails=is_edge,
            cache=engines_folder(),
            only_kept=True,
            several=max(sizes) > 1,
            progress=lambda done, count: check(),
        )
        left, profile = _missing(split, values, is_edge), None
        if left:
            warn(
                _in_words(answer.reasons, name)
                if answer.reasons
                else f'{left} {what} of {name} could not be read from {engines_folder()}'
            )
        if left < missing:
            if answer.error:
                warn(f'the {what} are converted to {name}, but cannot be used before the next start: {answer.error}')
            else:
                profile = _given_profile(node, values, split, images) or of_ready_parts(
                    Profile.from_document(answer.profile, 'the profile of the conversion'), split
                )
                check()
                _warm_up(split, images)

        def act() -> None:
            if profile is not None:
                use(profile)
                log.info(f'the {what} on {name} are ready after {time.monotonic() - started_s:.1f} s')

        return act

    return Conversion(
        ConversionRequest(
            {'name': values.model, **_model_options(node, values)},
            split_options(values),
            split.fingerprint,
            values.engine,
            values.precision,
            not is_edge,
            is_edge,
            torch.get_num_threads(),
            [] if values.profile else sorted(sizes),
            max(sizes) > 1,
        ),
        read,
        lambda reason: warn(f'the {what} were not converted to {name}: {reason}'),
    )


def load_for_replicas(node: BaseNode, values: SimpleNamespace, images: int) -> tuple[SplitModel, Profile | None]:
    """Load and cut on the CPU a model whose tails other processes run; its profile only if a parameter names one."""
    with in_one_sentence(f'model {values.model!r} cannot be used', MEND):
        split = _load(node, values, images, {**split_options(values), 'device': 'cpu'})
        return split, _given_profile(node, values, split, images)


def split_options(values: SimpleNamespace) -> dict[str, Any]:
    """Return the options of SplitModel that the parameters name."""
    return {
        'device': values.device,
        'cut': values.cut,
        'leaves': [leaf for leaf in values.leaves if leaf],
        'channels_last': values.channels_last,
    }


def batches_to_profile(values: SimpleNamespace, split: SplitModel, images: int) -> set[int]:
    """Return the numbers of images to profile: an edge that may join frames must know what that gains."""
    most = max(images, min(getattr(values, 'max_batch', 1), split.model.max_batch or BATCHES[-1]))
    return {images, most, *(size for size in BATCHES if size < most)}


def _load(node: BaseNode, values: SimpleNamespace, images: int, options: dict[str, Any]) -> SplitModel:
    started_s = time.monotonic()
    _forward_log(node)
    keep_freed()
    if values.threads:
        # With more threads than processors, each waits for the others: 1024 on 2 processors answered no image in 60 s.
        torch.set_num_threads(min(values.threads, os.cpu_count() or 1))
    split = SplitModel(load_model(values.model, **_model_options(node, values)), **options)
    node.get_logger().info(
        f'{values.model}: {split.local_index - 1} natural bottlenecks, fingerprint '
        f'{split.fingerprint[:12]}, loaded in {time.monotonic() - started_s:.1f} s'
    )
    most = split.model.max_batch
    if images > (most or images) or images > 1 and not all(spec.shape for spec in split.output_specs or ()):
        raise DynsplitError(
            f'a frame has {images} images, but {values.model!r} takes {most or 1} at a time; set batch to '
            '1, or export the program with a dynamic batch'
        )
    return split


def _model_options(node: BaseNode, values: SimpleNamespace) -> dict[str, Any]:
    """Return the arguments of load_model, besides the name, that the parameters name."""
    own_scale = not any(values.std)
    return {
        'weights': values.weights,
        'seed': values.seed,
        'kwargs': _arguments(values.model_arguments),
        'input_size': list(values.input_size) if any(values.input_size) else None,
        'task': values.task or None,
        'labels': None if values.labels == [''] else list(values.labels),
        'mean': None if own_scale else list(values.mean),
        'std': None if own_scale else list(values.std),
        'resize': values.resize or None,
        'crop_fraction': values.crop_fraction,
        'interpolation': values.interpolation or None,
        'channels': values.channels or None,
        'scores': values.scores or None,
        'download': values.model == next(iter(node.models)),
    }  # the model of the start: no peer has chosen it


def _given_profile(node: BaseNode, values: SimpleNamespace, split: SplitModel, images: int) -> Profile | None:
    """Return the profile that the parameter names, None without one."""
    profile = None
    if values.profile:
        profile = Profile.load(values.profile)
        if profile.fingerprint != split.fingerprint:
            raise DynsplitError(
                f'the profile {values.profile} is for {profile.model!r} ({profile.fingerprint[:12]}), but this node '
                f'runs {values.model!r} ({split.fingerprint[:12]}); profile this model, weights and input size, or '
                'leave profile empty'
            )
        if images not in profile.batches:
            raise DynsplitError(
                f'the profile {values.profile} is for batches of {", ".join(map(str, profile.batches))}, '
                f'but a frame has {images} images; profile with --batch 1 {images}, or leave profile empty'
            )
        if others := differences(profile, split):
            node.get_logger().warning(
                f'the profile {values.profile} was measured with {others}; its times may be '
                'wrong: profile this machine, or leave profile empty'
            )
        profile = of_ready_parts(profile, split)
    return profile


def _add_engine(node: BaseNode, split: SplitModel, values: SimpleNamespace, images: int, is_edge: bool) -> None:
    """
    Make this side's parts ready on the engine that its parameters name.

    Where a process can convert parts after the start, only those that are converted already are made ready.
    """
    name, log = engine_name(values.engine, values.precision), node.get_logger()
    if name == EAGER:
        return
    what = 'tails' if is_edge else 'heads'
    later = _converts_later(values)
    if not later:
        log.info(f'loading or converting the {what} for {name}; the first time takes a minute or more')
    started_s = time.monotonic()
    try:
        reasons = split.add_engine(
            values.engine,
            values.precision,
            heads=not is_edge,
            tails=is_edge,
            cache=engines_folder(),
            only_kept=later,
            several=max(batches_to_profile(values, split, images)) > 1,
        )
        if reasons and not later:
            raise DynsplitError(_in_words(reasons, name))
    except DynsplitError as error:
        if not values.engine_fallback:
            raise
        log.warning(f'{error}; these parts run on eager, because engine_fallback is true')
    log.info(f'loading or converting the {what} for {name} took {time.monotonic() - started_s:.1f} s')


def _in_words(reasons: dict[str, str], name: str) -> str:
    part, reason = next(iter(reasons.items()))
    return f'{len(reasons)} parts cannot run on {name}, among them the {part}: {reason}'


def _converts_later(values: SimpleNamespace) -> bool:
    """Whether parts run on eager until a process has converted them: allowed, and possible by way of the cache."""
    folder = engines_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return values.engine_fallback and ENGINES[values.engine].keeps and os.access(folder, os.W_OK)


def _missing(split: SplitModel, values: SimpleNamespace, is_edge: bool) -> int:
    """Return the number of this side's parts that are not ready on its engine."""
    name = engine_name(values.engine, values.precision)
    return sum(
        not (split.has_tail(cut, name) if is_edge else split.has_head(cut, name))
        for cut in (split.cuts[:-1] if is_edge else split.cuts[1:])
    )


def _warm_up(split: SplitModel, images: int) -> None:
    """Build and run what would otherwise be built and set up by the first frames, which would be late."""
    for cut in split.cuts:
        split.head(cut.index)
        split.tail(cut.index)
    outputs = split.head(split.local_index)(torch.zeros((images, *split.model.image_shape), dtype=torch.uint8))
    for engine in split.engines[1:]:
        for cut in split.cuts:
            if split.has_head(cut, engine):
                split.head(cut, engine)(torch.zeros((images, *split.model.image_shape), dtype=torch.uint8))
    # What is wrong with the outputs of a module of one's own is said now, and not with each frame.
    check_outputs(split.model.task, of_image(outputs, 0, images, split.output_specs is None))


def unload() -> None:
    """Give back the memory, the device's too, of models that nothing refers to any more."""
    give_back()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _forward_log(node: BaseNode) -> None:
    """Have the library's warnings on the node's log, and so on /rosout."""
    library = logging.getLogger('dynsplit_ros')
    library.handlers = [handler := logging.Handler(logging.WARNING)]
    log = node.get_logger()  # not the node: what the handler holds lives as long as the process
    handler.emit = lambda record: log.warning(record.getMessage())  # type: ignore[method-assign]
    library.propagate = False


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or '{}')
    except (ValueError, RecursionError) as error:
        arguments = error
    if not isinstance(arguments, dict):
        raise DynsplitError(
            f'parameter \'model_arguments\' is {text!r}, but must be a JSON object such as {{"num_classes": 10}}'
        )
    return arguments
