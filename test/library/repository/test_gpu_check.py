# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The check for GPUs runs on the CPU as far as that goes, and says on a machine without CUDA what to do."""

from __future__ import annotations

import json
from pathlib import Path
import sys

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / 'scripts'))
import gpu_check  # noqa: E402


@pytest.fixture
def check() -> gpu_check.Check:
    return gpu_check.Check('cpu', (32, 32), repeats=1)


@pytest.mark.parametrize('step', [gpu_check.exactness, gpu_check.memory, gpu_check.batches])
def test_a_check_holds_on_the_cpu(check, step) -> None:
    step(check, 'squeezenet1_1')
    assert check.figures and all(figure['holds'] for figure in check.figures), check.figures


def test_the_profiler_and_the_throughput_give_figures(check) -> None:
    gpu_check.profiler(check, 'squeezenet1_1')
    gpu_check.throughput(check, 'squeezenet1_1', (1, 2))
    assert all(figure['value'] >= 0 for figure in check.figures) and check.figures[-1]['unit'] == '1/s'


def test_layouts_and_precisions_are_compared(check, monkeypatch) -> None:
    convert = gpu_check.SplitModel.add_engine

    def without_compiler(self, engine, *values, **options):  # a compilation takes longer than a test may
        return {'all': 'not tried'} if engine == 'inductor' else convert(self, engine, *values, **options)

    monkeypatch.setattr(gpu_check.SplitModel, 'add_engine', without_compiler)
    gpu_check.options(check, 'squeezenet1_1')
    named = {figure['name'] for figure in check.figures}
    assert any('channels last, eager, bfloat16, largest difference' in name for name in named)
    assert sum(not figure['holds'] for figure in check.figures if 'parts that cannot run' in figure['name']) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a CUDA device')
def test_a_machine_without_cuda_is_told_so_in_one_sentence(capsys) -> None:
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().err.startswith('gpu_check: this machine has no CUDA device that PyTorch can use; ')


def test_the_figures_are_written_and_what_found_no_time_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu_check, 'CHECKS', (lambda check, name: check.add('one', 1.0, ''), gpu_check.memory))
    assert gpu_check.main(['--device', 'cpu', '--models', 'x', '--json', str(tmp_path / 'out'), '--seconds', '-1']) == 0
    document = json.loads((tmp_path / 'out').read_text())
    assert document['left_out'] == ['<lambda> of x', 'memory of x'] and document['measured']['device'] == 'cpu'
    assert 'no time was left' in capsys.readouterr().out
