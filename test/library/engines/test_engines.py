# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each engine gives what PyTorch gives, from a conversion or from its cache, or says in one sentence why it cannot."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
import importlib.util
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
import torch._dynamo
import torch.fx

from dynsplit_ros import engines
from dynsplit_ros.engines import checked_engine, convert, ENGINES, Options, version_of
from dynsplit_ros.engines.exported import converted
from dynsplit_ros.errors import DynsplitError

CPU = torch.device('cpu')
OUTSIDE = [name for name, engine in ENGINES.items() if engine.packages]


class Tail(nn.Module):
    """Two tensors in, a nested result out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor, skip: torch.Tensor) -> dict[str, tuple[torch.Tensor, ...]]:
        features = self.convolution(image).relu()
        return {'both': (features, features.mean((2, 3)) + skip)}


class OneFrame(nn.Module):
    """A part whose code holds for one frame only."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values.reshape(1, 12), torch.ones(1, 2)], 1)


@pytest.fixture
def tail() -> Tail:
    torch.manual_seed(0)
    return Tail().eval()


def example(frames: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(frames, 3, 8, 8, generator=generator), torch.rand(frames, 4, generator=generator)


def needs(name: str) -> None:
    for package in ENGINES[name].packages:
        pytest.importorskip(package, reason=f'engine {name} is not installed')


@pytest.mark.parametrize('name', ENGINES)
def test_an_engine_gives_the_structure_and_the_values_of_the_part_for_any_number_of_frames(name, tail) -> None:
    needs(name)
    run = convert(name, tail, example(), Options(CPU, 1))
    tolerance = {'rtol': 0, 'atol': 0} if ENGINES[name].exact else {'rtol': 1e-5, 'atol': 1e-6}
    for frames in (1, 2, 3):
        with torch.inference_mode():
            wanted, got = tail(*example(frames)), run(*example(frames))
        assert got.keys() == wanted.keys() and type(got['both']) is tuple
        for one, other in zip(got['both'], wanted['both']):
            torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize('name', OUTSIDE)
def test_a_part_for_one_frame_runs_several_frames_one_by_one(name) -> None:
    needs(name)
    values = torch.rand(3, 3, 4)
    run = convert(name, OneFrame().eval(), (values[:2],), Options(CPU, 1))
    assert torch.equal(run(values), torch.cat([OneFrame()(value[None]) for value in values]))


def of_openvino(monkeypatch, fails: bool = False) -> list[bool]:
    """Return a list that tells of each model that OpenVINO compiles whether it takes several frames."""
    needs('openvino')
    import openvino

    compiled: list[bool] = []
    compile_model = openvino.Core.compile_model

    def watched(core, model, *arguments):
        compiled.append(model.inputs[0].partial_shape[0].is_dynamic)
        if compiled[-1] and fails:
            raise RuntimeError('std::bad_alloc')
        return compile_model(core, model, *arguments)

    monkeypatch.setattr(openvino.Core, 'compile_model', watched)
    return compiled


def test_a_part_for_runs_of_several_frames_is_compiled_for_them_before_the_first_run(tail, monkeypatch) -> None:
    compiled = of_openvino(monkeypatch)
    run = convert('openvino', tail, example(), Options(CPU, 1, several=True))
    assert compiled == [False, True]
    run(*example())
    assert len(compiled) == 2


def test_frames_run_one_by_one_where_no_model_for_several_can_be_compiled(tail, monkeypatch, caplog) -> None:
    compiled = of_openvino(monkeypatch, fails=True)
    run = convert('openvino', tail, example(), Options(CPU, 1, several=True))
    for frames in (2, 3):
        torch.testing.assert_close(run(*example(frames))['both'][0], tail(*example(frames))['both'][0])
    assert compiled == [False, True], 'it tries to compile again'
    assert 'for several frames (std::bad_alloc)' in caplog.text


@pytest.mark.parametrize('name', OUTSIDE)
def test_a_second_start_reads_the_cache(name, tail, tmp_path, monkeypatch) -> None:
    needs(name)
    options = Options(CPU, 1, cache=tmp_path / 'part')
    first = convert(name, tail, example(), options)(*example())
    monkeypatch.setattr(torch.export, 'export', None)  # whoever exports again fails
    again = convert(name, tail, example(), options)(*example())
    assert torch.equal(first['both'][0], again['both'][0])


@pytest.mark.parametrize('name', OUTSIDE)
@pytest.mark.parametrize('damage', [b'\0', None])
def test_a_damaged_cache_is_written_again(name, damage, tail, tmp_path) -> None:
    needs(name)
    options = Options(CPU, 1, cache=tmp_path / 'part')
    first = convert(name, tail, example(), options)(*example())
    for file in options.cache.glob('*.*'):
        file.unlink() if damage is None else file.write_bytes(damage)
    again = convert(name, tail, example(), options)(*example())
    assert torch.equal(first['both'][0], again['both'][0])


@pytest.mark.parametrize('name', OUTSIDE)
def test_a_part_that_returns_no_tensor_is_refused_in_one_sentence(name) -> None:
    needs(name)

    class Counts(nn.Module):
        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, str]:
            return values + 1, 'one'

    with pytest.raises(DynsplitError, match="not a tensor, which only the engine 'eager' can run"):
        convert(name, Counts(), (torch.rand(2, 3),), Options(CPU, 1))


def test_a_disk_that_is_full_during_a_conversion_is_named_and_nothing_incomplete_stays(tail, tmp_path) -> None:
    def write(program, file) -> None:
        file.write_text('a first piece')
        raise OSError('no space left on device')

    with pytest.raises(OSError, match='no space left on device'):
        converted(tail, example(), Options(CPU, 1, cache=tmp_path / 'part'), 'model', write, lambda file: None)
    assert not list(tmp_path.iterdir()), 'an incomplete conversion takes room'


def test_a_cache_folder_that_cannot_be_made_is_done_without(tail, tmp_path) -> None:
    (tmp_path / 'file').write_text('not a folder')
    run = converted(
        tail,
        example(),
        Options(CPU, 1, cache=tmp_path / 'file' / 'part'),
        'model',
        lambda program, file: file.write_text('written'),
        lambda file: lambda arguments: list(tail(*arguments)['both']),
    )
    assert torch.equal(run(*example())['both'][0], tail(*example())['both'][0])


def test_an_engine_that_fails_is_named_with_its_reason(monkeypatch, tail) -> None:
    from dynsplit_ros.engines import eager

    def fail(*arguments):
        raise RuntimeError('operation aten::odd is not supported\nand forty more lines')

    monkeypatch.setattr(eager, 'convert', fail)
    with pytest.raises(
        DynsplitError,
        match="^engine 'eager' cannot run this part of the network: operation aten::odd "
        "is not supported; use engine 'eager'$",
    ):
        convert('eager', tail, example(), Options(CPU, 1))


@pytest.mark.parametrize(
    'name, precision, device, sentence',
    [
        ('tensorrt', 'float32', 'cpu', f"engine 'tensorrt' was given; allowed are {', '.join(ENGINES)}"),
        ('onnxruntime', 'float16', 'cpu', "precision 'float16' was given, but engine 'onnxruntime' offers float32$"),
        *(
            (
                name,
                'int8',
                'cpu',
                f"precision 'int8' was given, but engine '{name}' offers float32.*; int8 needs a "
                'calibration on images, which no engine here offers$',
            )
            for name in ENGINES
        ),
        ('openvino', 'float32', 'cuda', "device 'cuda' was given, but engine 'openvino' runs on cpu"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused_in_one_sentence(name, precision, device, sentence, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda package: 'here')
    with pytest.raises(DynsplitError, match=sentence):
        checked_engine(name, precision, torch.device(device))


@pytest.mark.parametrize('name', OUTSIDE)
def test_an_engine_that_is_not_installed_is_named_with_its_command(name, monkeypatch) -> None:
    monkeypatch.setattr(engines.importlib.util, 'find_spec', lambda package: None)
    with pytest.raises(DynsplitError, match=f'is not installed; install it with: pip install {ENGINES[name].pip}'):
        checked_engine(name, 'float32', CPU)


def test_bfloat16_is_computed_where_it_is_asked_for(tail) -> None:
    exact = convert('eager', tail, example(), Options(CPU, 1))(*example())['both'][0]
    rounded = convert('eager', tail, example(), Options(CPU, 1, precision='bfloat16'))(*example())['both'][0]
    assert rounded.dtype == torch.bfloat16 and torch.allclose(rounded.float(), exact, atol=0.05)


def test_the_version_of_a_module_that_another_distribution_installs_is_its_own(monkeypatch) -> None:
    monkeypatch.setitem(ENGINES, 'other', replace(ENGINES['eager'], packages=('another_module',)))
    monkeypatch.setitem(sys.modules, 'another_module', SimpleNamespace(__version__='1.2'))
    assert version_of('other') == '1.2'


def test_a_cache_that_cannot_be_written_is_used_only_when_it_is_complete(tail, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, 'access', lambda path, mode: mode != os.W_OK)
    written = []

    def start() -> None:
        converted(
            tail,
            example(),
            Options(CPU, 1, cache=tmp_path),
            'model',
            lambda program, file: written.append(file),
            lambda file: lambda arguments: [],
        )

    start()
    assert not [file for file in written if file.parent == tmp_path]
    (tmp_path / 'structure.json').write_text(
        '{"any_frames": true, "outputs": "[1, {\\"type\\": null, \\"context\\": null, \\"children_spec\\": []}]"}'
    )
    written.clear()
    start()
    assert not written, 'what is there is read'


def test_openvino_does_without_a_cache_folder_that_cannot_be_made(tail, tmp_path) -> None:
    needs('openvino')
    (tmp_path / 'file').write_text('not a folder')
    run = convert('openvino', tail, example(), Options(CPU, 1, cache=tmp_path / 'file' / 'part'))
    torch.testing.assert_close(run(*example())['both'][0], tail(*example())['both'][0])


def test_inductor_compiles_any_number_of_parts_in_another_precision(monkeypatch) -> None:
    compile_part = torch.compile
    monkeypatch.setattr(torch, 'compile', partial(compile_part, backend='eager'))  # the limit is the one of any backend
    monkeypatch.setattr(torch._dynamo.config, 'fail_on_recompile_limit_hit', True)
    for width in range(1, 1 + 2 * torch._dynamo.config.recompile_limit):
        part = torch.fx.symbolic_trace(nn.Linear(4, width).eval())
        run = convert('inductor', part, (torch.rand(2, 4),), Options(CPU, 1, precision='bfloat16'))
        with torch.inference_mode():
            assert run(torch.rand(3, 4)).dtype == torch.bfloat16
