# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Programs saved with ``torch.export``: ``PATH.pt2``, loaded only if they execute nothing of their own.

``torch.export.load`` trusts its file in several ways: it unpickles what the file asks it to unpickle (and
falls back to unsafe unpickling for sample inputs), hands the file's symbolic expressions to SymPy, which
evaluates them as Python, resolves operators by attribute lookup in ``torch`` (``torch.os.system`` is one),
and writes the file's names into Python source. So the archive is read first, with torch's own reader, and
refused unless it holds raw tensors, operators of known namespaces, arithmetic on sizes, and plain names.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
import re
from typing import Any
import warnings

import torch
from torch import fx, nn
from torch.export.pt2_archive._package import PT2ArchiveReader

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import CHANNELS
from dynsplit_ros.model.sources import Request
from dynsplit_ros.model.sources.factory import own_model

_PROGRAM = 'models/model.json'
_SAMPLES = 'data/sample_inputs/model.pt'
_CONFIGS = ('data/weights/model_weights_config.json', 'data/constants/model_constants_config.json')
_PLAIN_FILE = re.compile(
    r'data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|\.data/\w+|extra/.*'
)

_ARITHMETIC = 'getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_'
_OPERATOR = re.compile(
    rf'torch\.ops\.(aten|torchvision|prims)\.(?!from_file)\w+\.\w+|_operator\.({_ARITHMETIC})|torch\.sym_\w+'
)
_SYMBOL_WORD = re.compile(
    r"[su]\d+|'[su]\d+'|\d+|Symbol|Integer|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|IntTrueDiv|Eq|Ne"
    r'|Lt|Le|Gt|Ge|And|Or|Not|True|False|positive|nonnegative|negative|integer|zero'
)
_SYMBOL_MARKS = re.compile(r'[\s(),=*+\-/<>%&|~]+')
_PLAIN_TEXT = re.compile(r'[\w.+\- ,>:]*')
_CONTAINERS = (None, 'builtins.tuple', 'builtins.list', 'builtins.dict', 'collections.OrderedDict')


def load(request: Request) -> LoadedModel:
    """Return the model that is saved in the file of this name."""
    path = Path(request.name)
    if request.weights not in ('none', 'default') or request.options:
        raise DynsplitError(
            f'{path} is an exported program, which has its own weights and takes no arguments; leave both out'
        )
    module, (channels, *own_size), max_batch = load_exported(path)
    size = own_size[0], own_size[1]
    if request.size not in (None, size):
        raise DynsplitError(f'{path} was exported for images of {size}, and {request.size} was given; leave it out')
    model = own_model(request.name, module, size, request.task or 'classification', channels)
    model.max_batch = max_batch
    return model


def load_exported(path: Path) -> tuple[nn.Module, tuple[int, int, int], int | None]:
    """
    Return the program's module, its input's shape (channels, H, W), and its largest batch (``None`` for any).

    :raises DynsplitError: when it is no such program, would execute code, or does not take float images [N,
        1, 3 or 4, H, W].
    """
    if not path.is_file():
        raise DynsplitError(f'exported program {str(path)!r} was given, but there is no such file; give its path')
    with path.open('rb') as file:
        try:
            reader = PT2ArchiveReader(file)
            names = set(reader.get_file_names())
            texts = {name: reader.read_string(name) for name in (_PROGRAM, *_CONFIGS)}
            documents = {name: json.loads(text) for name, text in texts.items()}
            samples = reader.read_bytes(_SAMPLES)
        except Exception as error:
            raise DynsplitError(
                f'{path} is no program that this version of torch.export saved ({type(error).__name__}); save'
                ' it again with torch.export.save'
            ) from error
        for name in sorted(names - {_PROGRAM, _SAMPLES, *_CONFIGS}):
            if not _PLAIN_FILE.fullmatch(name):
                _refuse(path, f'the file {name!r}')
        for name in _CONFIGS:
            for entry in documents[name]['config'].values():
                if entry.get('use_pickle') is not False or entry.get('tensor_meta') is None:
                    _refuse(path, f'a pickled object in {name}')
                if not re.fullmatch(r'(weight|tensor)_\d+', str(entry.get('path_name'))):
                    _refuse(path, f'the object {entry.get("path_name")!r}')
        try:
            torch.load(io.BytesIO(samples), weights_only=True)
        except Exception:
            _refuse(path, 'sample inputs that are no plain tensors')
        _check(path, documents[_PROGRAM], '')
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the weights' buffers are read-only, and nothing here writes to them
            try:
                program = torch.export.load(file)
                guarded = program.module(check_guards=False)
                module = fx.GraphModule(guarded, guarded.graph)  # without its hooks, which no tracer gets through
            except Exception as error:
                reason = ' '.join(str(error).split())[:200]
                raise DynsplitError(f'{path} cannot be loaded as an exported program: {reason}') from error
    return module, *_input(path, program)


def _check(path: Path, value: Any, key: str) -> None:
    """Refuse anything in the program's document that is more than data."""
    if key in ('metadata', 'guards_code'):  # where it came from, and checks that are left out: never executed
        return
    if isinstance(value, dict):
        for name, item in value.items():
            _check(path, name, 'key')
            if name in ('as_custom_obj', 'as_graph') or (name == 'custom_obj_values' and item):
                _refuse(path, f'an object of its own ({name})')
            _check(path, item, name)
    elif isinstance(value, list):
        for item in value:
            _check(path, item, key)
    elif isinstance(value, str):
        if key in ('target', 'as_operator') and not _OPERATOR.fullmatch(value):
            if key == 'as_operator' or '.ops.' in value or not re.fullmatch(r'[a-z]\w*(\.\w+)*', value):
                _refuse(path, f'the operator {value!r}')
            if value.startswith(('torch', '_operator', 'math')):
                _refuse(path, f'the operator {value!r}')
        elif key == 'expr_str':
            for word in _SYMBOL_MARKS.split(value):
                if word and not _SYMBOL_WORD.fullmatch(word):
                    _refuse(path, f'the expression {value!r}')
        elif key in ('in_spec', 'out_spec'):
            _check_tree(path, json.loads(value)[1])
        elif not _PLAIN_TEXT.fullmatch(value):
            _refuse(path, f'the text {value[:80]!r}')


def _check_tree(path: Path, tree: dict[str, Any]) -> None:
    """Refuse inputs and outputs that are made of anything but tuples, lists and dictionaries."""
    if tree['type'] not in _CONTAINERS or '__enum__' in str(tree['context']):
        _refuse(path, f'inputs or outputs of type {tree["type"]!r}')
    if not re.fullmatch(r'[\w\s.\-",\[\]]*', str(tree['context'] or '')):
        _refuse(path, f'the text {tree["context"]!r}')
    for child in tree['children_spec']:
        _check_tree(path, child)


def _refuse(path: Path, what: str) -> None:
    raise DynsplitError(
        f'{path} holds {what}, and loading it could execute code in the file, so it is not loaded; export a'
        " module whose parameters are plain tensors and whose operators are torch's"
    )


def _input(path: Path, program: Any) -> tuple[tuple[int, int, int], int | None]:
    wanted = set(program.graph_signature.user_inputs)
    inputs = [node.meta['val'] for node in program.graph.nodes if node.op == 'placeholder' and node.name in wanted]
    image = inputs[0] if len(inputs) == 1 else None
    if (
        not isinstance(image, torch.Tensor)
        or image.dtype != torch.float32
        or image.ndim != 4
        or not all(isinstance(size, int) for size in image.shape[1:])
        or image.shape[1] not in CHANNELS.values()
    ):
        raise DynsplitError(
            f'{path} takes {[tuple(getattr(value, "shape", ())) for value in inputs]}, but it must take'
            ' float32 images [N, channels, H, W], with 1, 3 or 4 channels and H and W fixed; export it for these'
        )
    batch = image.shape[0]
    shape = int(image.shape[1]), int(image.shape[2]), int(image.shape[3])
    if isinstance(batch, int):
        if batch != 1:
            raise DynsplitError(
                f'{path} was exported for batches of {batch} only; export it for batches of 1 or of any size'
            )
        return shape, 1
    bound = program.range_constraints[batch.node.expr].upper
    limit = int(bound) if bound.is_Integer and bound < 2**31 else None
    return shape, limit
