# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The profiler measures every cut, in an order that holds, and writes what the monitor reads."""

import subprocess
import sys

import pytest
import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.profile.plot import plot_profile
from dynsplit_ros.profile.profile import merge, Profile
from dynsplit_ros.tools import profile as profile_tool

CODECS = ['raw', 'blosc2', 'quant8-zstd', 'jpeg90']


@pytest.fixture(scope='module')
def split():
    return SplitModel(load_model('mobilenet_v2', input_size=(64, 64)))


@pytest.fixture(scope='module')
def profile(split):
    shares = []
    measured = measure(split, [2], CODECS, repeats=5, progress=lambda what, share: shares.append(share))
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    return measured


def test_every_cut_is_measured_for_every_batch(split, profile):
    assert [cut.name for cut in profile.cuts] == [cut.name for cut in split.cuts]
    assert profile.fingerprint == split.fingerprint and profile.batches == (1, 2)
    assert profile.answer_bytes == 4000 and profile.threads == torch.get_num_threads() and profile.device == 'cpu'
    assert {'processor', 'torch', 'python'} <= profile.measured.keys()


def test_heads_grow_tails_shrink_and_both_end_at_the_whole(profile):
    for batch in profile.batches:
        heads = [cut.head_s[batch] for cut in profile.cuts]
        tails = [cut.tail_s[batch] for cut in profile.cuts]
        assert heads == sorted(heads) and tails == sorted(tails, reverse=True)
        assert heads[0] == 0 and tails[-1] == 0 and heads[-1] == pytest.approx(tails[0]) and tails[0] > 0
        assert all(cut.head_spread_s[batch] >= 0 for cut in profile.cuts)


def test_payloads_are_those_of_the_codecs(profile):
    for cut in profile.cuts[:-1]:
        raw = cut.codecs['raw']
        assert raw.payload_bytes == {1: cut.nbytes, 2: 2 * cut.nbytes}
        assert set(cut.codecs) == ({'raw', 'blosc2', 'jpeg90'} if cut.index == 0 else {'raw', 'blosc2', 'quant8-zstd'})
        assert all(value > 0 for codec in cut.codecs.values() for value in codec.encode_s.values())
    lossy = profile.cuts[1].codecs['quant8-zstd']
    assert lossy.payload_bytes[1] < profile.cuts[1].nbytes / 3
    assert raw.lossless and not lossy.lossless
    assert profile.cuts[-1].codecs == {}


def test_a_profile_survives_its_file_and_merges(profile, tmp_path):
    path = tmp_path / 'profile.yaml'
    profile.save(path)
    again = Profile.load(path)
    assert again.fingerprint == profile.fingerprint and again.cuts[1].codecs.keys() == profile.cuts[1].codecs.keys()
    merged = merge(again, profile)
    assert merged.local_index == len(profile.cuts) - 1
    other = SplitModel(load_model('mobilenet_v2', input_size=(64, 64), seed=1))
    with pytest.raises(DynsplitError, match='same model'):
        merge(profile, measure(other, codecs=['raw'], repeats=1, warm_up=0))


def test_the_images_that_are_given_are_measured(split):
    flat = [torch.full((3, 64, 64), 7, dtype=torch.uint8)]
    plain = measure(split, codecs=['blosc2'], repeats=2, warm_up=0, images=flat)
    assert plain.cuts[0].codecs['blosc2'].payload_bytes[1] < 1000


@pytest.mark.parametrize(
    'arguments, says',
    [
        ({'batches': [0]}, 'batches'),
        ({'codecs': ['zip']}, 'zip'),
        ({'repeats': 0}, 'repeats'),
        ({'images': [torch.zeros(3, 5, 5)]}, 'resize'),
    ],
)
def test_bad_arguments_are_named(split, arguments, says):
    with pytest.raises(DynsplitError, match=says):
        measure(split, **arguments)


def test_the_command_writes_a_profile_a_table_and_a_plot(tmp_path, capsys):
    out, plot = tmp_path / 'p.yaml', tmp_path / 'p.png'
    arguments = ['squeezenet1_1', '--input-size', '64', '64', '--repeats', '2', '--warm-up', '0', '--threads', '1']
    before = torch.get_num_threads()
    try:
        assert profile_tool.main([*arguments, '--codec', 'raw', '--output', str(out), '--plot', str(plot)]) == 0
    finally:
        torch.set_num_threads(before)
    assert Profile.load(out).threads == 1
    assert plot.read_bytes().startswith(b'\x89PNG') and len(plot.read_bytes()) > 10_000
    assert 'head ms' in capsys.readouterr().out
    assert profile_tool.main(['squeezenet9']) == 2 and 'squeezenet1_1' in capsys.readouterr().err


def test_a_dense_model_and_a_detector_are_profiled(tmp_path):
    dense = SplitModel(load_model('lraspp_mobilenet_v3_large', input_size=(64, 64)))
    measured = measure(dense, codecs=['raw', 'quant8-zstd'], repeats=1, warm_up=0)
    assert 0 < measured.answer_bytes <= 64 * 64 + 32, 'a label map, not 21 scores'
    detector = SplitModel(load_model('fasterrcnn_mobilenet_v3_large_320_fpn', input_size=(64, 64)))
    measured = measure(detector, codecs=['raw', 'quant8-zstd'], repeats=1, warm_up=0)
    plot_profile(measured, tmp_path / 'detector.svg')
    assert (tmp_path / 'detector.svg').stat().st_size > 1000


def test_the_profile_tool_measures_with_memory_as_nodes_have_it(tmp_path):
    """In a process of its own: what the C library keeps is the whole process's. Without, each run has 2000 faults."""
    code = """
import resource
import sys
import torch
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.tools.profile import main
torch.set_num_threads(1)
assert main(['mobilenet_v2', '--codec', 'raw', '--repeats', '2', '--output', sys.argv[1]]) == 0
split = SplitModel(load_model('mobilenet_v2'))
image = torch.zeros((1, 3, *split.model.input_size), dtype=torch.uint8)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    split.whole(image)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""
    command = [sys.executable, '-c', code, str(tmp_path / 'profile.yaml')]
    printed = subprocess.run(command, check=True, capture_output=True, timeout=300).stdout
    assert int(printed.split()[-1]) < 200


def test_the_profile_tool_has_freed_memory_kept_before_it_measures(monkeypatch):
    events = []

    def measured(*_, **__):
        events.append('measured')
        raise DynsplitError('enough')

    monkeypatch.setattr('dynsplit_ros.tools.model_options.keep_freed', lambda: events.append('kept'))
    monkeypatch.setattr('dynsplit_ros.profile.measure.measure', measured)
    assert profile_tool.main(['squeezenet1_1', '--input-size', '64', '64']) != 0
    assert events == ['kept', 'measured']
