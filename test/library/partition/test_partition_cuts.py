# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Where the cuts are, and that awkward modules are cut right: in-place operations, aliases, sizes, constants."""

import json
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import choose, SplitModel, UntraceableError
from dynsplit_ros.partition.analysis import seeded_image
from dynsplit_ros.tools import cuts as cuts_tool


def natural_kib(split):
    return [round(cut.nbytes / 1024, 1) for cut in split.cuts if cut.natural]


def test_the_natural_bottlenecks_of_mobilenet_v2():
    assert natural_kib(SplitModel(load_model('mobilenet_v2'))) == [294.0, 98.0, 49.0, 30.6, 5.0, 3.9]


def test_the_bottlenecks_by_elements_are_those_of_the_paper_whatever_their_bytes():
    # 294 KiB of float32 are more bytes than the image's 147 KiB, but half of its elements.
    first = SplitModel(load_model('mobilenet_v2')).cuts[1]
    assert first.fewer_elements and not first.fewer_bytes and first.elements == 24 * 56 * 56


def test_a_bottleneck_by_bytes_alone_is_a_candidate():
    # The label map has more elements than the cut before it, but each is one byte.
    split = SplitModel(load_model('lraspp_mobilenet_v3_large', weights='none', input_size=(64, 64)))
    label_map = next(cut for cut in split.cuts if cut.name == 'ending')
    assert label_map.fewer_bytes and not label_map.fewer_elements and label_map.natural


def test_two_tensor_cuts_of_shufflenet():
    split = SplitModel(load_model('shufflenet_v2_x1_0'))
    assert 2 in [len(cut.tensors) for cut in split.cuts if cut.natural]


def test_a_vision_transformer_has_no_bottleneck_before_its_class_token_is_taken():
    split = SplitModel(load_model('vit_b_16'))
    natural = [cut for cut in split.cuts if cut.natural]
    assert natural[0].tensors[0].shape == (1, 768)
    assert all(cut.nbytes >= 3 * 224 * 224 for cut in split.positions[: natural[0].position])


@pytest.mark.parametrize('name', ['mobilenet_v3_small', 'resnet18', 'densenet121', 'googlenet'])
def test_candidates_follow_the_definition(name):
    split = SplitModel(load_model(name))
    for definition, size in (('fewer_bytes', 'nbytes'), ('fewer_elements', 'elements')):
        least, *others = [getattr(cut, size) for cut in split.positions]
        expected = []
        for other in others:
            if other < least:
                least = other
                expected.append(other)
        assert [getattr(cut, size) for cut in split.positions if getattr(cut, definition)] == expected
    assert [cut for cut in split.cuts if cut.natural] == [cut for cut in split.positions if cut.natural]
    assert [cut.index for cut in split.cuts] == list(range(split.local_index + 1))
    shares = [cut.macs_before for cut in split.positions]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] <= 1
    assert shares[-1] == pytest.approx(1, abs=1e-6)


class Rectified(nn.Module):
    """Four positions of equal bytes; one of them is behind a rectifier."""

    def __init__(self, rectifier):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=8)
        self.norm = nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 20)  # wide enough for Hardswish, whose zeros begin at -3
        self.rectifier = rectifier
        self.last = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 64, 1)

    def forward(self, x):
        return self.head(self.last(self.rectifier(self.norm(self.conv(x)))))


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize('exported', [False, True])
@pytest.mark.parametrize(
    'rectifier, chosen',
    [
        (nn.ReLU(), 'rectifier'),
        (nn.ReLU(inplace=True), 'rectifier'),
        (nn.ReLU6(inplace=True), 'rectifier'),
        (nn.Hardswish(), 'rectifier'),
        (nn.Hardtanh(0, 3), 'rectifier'),
        (nn.Hardtanh(-1, 1), 'conv'),
        (nn.SiLU(), 'conv'),
        (Calls(torch.relu), 'rectifier'),
        (Calls(lambda x: functional.relu_(x)), 'rectifier'),
        (Calls(lambda x: x.relu_()), 'rectifier'),
        (Calls(lambda x: x.clamp(min=0)), 'rectifier'),
        (Calls(lambda x: torch.clamp(x, 0, 6)), 'rectifier'),
        (Calls(lambda x: torch.clamp(x, -1, 6)), 'conv'),
    ],
    ids=str,
)
def test_behind_a_rectifier_stands_for_the_positions_of_equal_bytes(rectifier, chosen, exported, tmp_path):
    def factory():
        torch.manual_seed(0)
        return Rectified(rectifier)

    if exported:
        path = tmp_path / 'net.pt2'
        torch.export.save(torch.export.export(factory().eval(), (torch.zeros(1, 3, 32, 32),)), path)
        split = SplitModel(load_model(str(path)))
    else:
        split = own(factory, (32, 32))
    (cut,) = [cut for cut in split.cuts if cut.natural]
    zeros = float((split.head(cut)(seeded_image((32, 32)))[cut.tensors[0].name] == 0).float().mean())
    assert zeros > 0 if chosen == 'rectifier' else zeros == 0
    if not exported:  # there, positions have the names of operators
        assert cut.name.startswith(chosen)


class Borderline(nn.Module):
    """Two rectifiers in a row; the second adds about a twentieth of zeros, more or less as the image has it."""

    def forward(self, x):
        x = functional.avg_pool2d(x - 0.5, 4)[:, :1]
        return torch.cat([torch.relu(torch.relu(x) - 0.06)] * 100, 1)


@pytest.mark.parametrize('factory, name', [(Borderline, None), (None, 'squeezenet1_1'), (None, 'mobilenet_v3_small')])
def test_the_choice_among_equal_cuts_does_not_depend_on_values(factory, name, monkeypatch):
    def cuts():
        split = own(factory, (32, 32)) if factory else SplitModel(load_model(name, weights='none', input_size=(64, 64)))
        flags = [(cut.index, cut.name, cut.fewer_bytes, cut.fewer_elements) for cut in split.positions]
        return split.fingerprint, flags

    images = [seeded_image((64, 64) if name else (32, 32), seed=seed) for seed in range(8 if factory else 1)]
    images += [torch.full_like(images[0], value) for value in (0, 255)]
    seen = set()
    for image in images:
        monkeypatch.setattr(choose, 'seeded_image', lambda size, image=image, **_: image)
        seen.add(str(cuts()))
    assert len(seen) == 1


def own(factory, size=(16, 16), **options):
    """Split the module that ``factory`` makes, as a user's module of this file."""
    module = sys.modules[__name__]
    module._made = factory
    return SplitModel(load_model(f'{__name__}:_made', input_size=size), **options)


def assert_every_position_exact(split, batches=(1, 2, 3)):
    for batch in batches:
        image = torch.randint(
            0,
            256,
            (batch, 3, *split.model.input_size),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(batch),
        )
        expected = split.whole(image)
        for cut in split.positions:
            kept = split.head(cut)(image)
            before = {name: tensor.clone() for name, tensor in kept.items()}
            for _ in range(2):  # the second time finds what the first left
                outputs = split.tail(cut)(kept)
                assert outputs.keys() == expected.keys()
                for name, value in expected.items():
                    assert torch.equal(outputs[name], value), (cut.name, name)
            for name, tensor in kept.items():
                assert tensor.is_contiguous() and torch.equal(tensor, before[name]), (cut.name, name)


class InPlaceOnAlias(nn.Module):
    """The tail writes through one view; the head's other view of the same storage has to see it."""

    def forward(self, x):
        kept = x * 2
        flat = kept.flatten(1)
        column = kept[:, :, 0]
        flat.add_(1)
        return kept + column[:, :, None], flat.sum(1)


class WritesThroughNames(nn.Module):
    """``+=`` and item assignment write into a tensor that another name still reads."""

    def forward(self, x):
        y = x * 2
        same = y
        same += 1
        same *= torch.sigmoid(x)
        z = y.clone()
        z[:, 0] = torch.relu(x[:, 1])
        z[:, :, 0] -= y.mean()
        z /= 3
        return x + y, torch.relu(z)


class OverlappingViews(nn.Module):
    def forward(self, x):
        y = x * 2
        first, second = y[:, :2], y[:, 1:]
        first.relu_()
        return first + second


class Residual(nn.Module):
    """ResNet's trap: ``relu_`` and ``+=`` overwrite what was kept."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        for _ in range(2):
            out = self.relu(self.conv(x))
            out += x
            x = functional.relu(out, inplace=True)
        return x


class UnusedInPlaceResult(nn.Module):
    def forward(self, x):
        y = x * 3
        y.mul_(2)
        y.clamp_(-1, 1)
        return y


class Chunks(nn.Module):
    def forward(self, x):
        a, b, c = x.chunk(3, dim=1)
        later = torch.sin(a)
        values, places = (b * c).max(dim=-1)
        return {'sum': later + values[..., None], 'places': places, 'pair': (a, b)}


class SizesOfTheBatch(nn.Module):
    """Sizes flow past the cut: of the batch, of the image, and from both."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer('table', torch.arange(8.0))
        self.plain = torch.linspace(0, 1, 8)
        self.conv = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, x):
        n, _, h, w = x.shape
        y = torch.relu(self.conv(x))
        y = torch.relu(y).reshape(n, 8, (h // 4) * (w // 4)).permute(0, 2, 1)
        y = torch.cat([self.token.expand(n, -1, -1), y], dim=1)
        y = torch.relu(y + self.table * self.plain)
        windows = y[:, 1:].reshape(n * 4, 4, 8)
        windows = torch.relu(windows * (x.size(0) + 1))
        counted = x.new_zeros(n, 8)
        counted.add_(windows.reshape(n, 16, 8).sum(1))
        return torch.relu(y[:, 0] + counted)


class DropsOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return functional.dropout(self.drop(x), training=self.training) + 1


class Strided(nn.Module):
    """What flows is transposed and sliced, and a reduction's result follows from the strides."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x):
        y = self.linear(x.permute(0, 2, 3, 1))
        z = y.permute(0, 3, 1, 2)[:, ::2]
        return torch.relu(z).sum((2, 3)) + z.mean((2, 3))


@pytest.mark.parametrize(
    'factory',
    [
        InPlaceOnAlias,
        WritesThroughNames,
        OverlappingViews,
        Residual,
        UnusedInPlaceResult,
        Chunks,
        SizesOfTheBatch,
        DropsOut,
        Strided,
    ],
)
def test_awkward_modules_are_exact_at_every_position(factory):
    split = own(factory)
    assert len(split.positions) >= 4
    assert_every_position_exact(split)


def test_outputs_are_named_by_their_place():
    split = own(Chunks)
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert list(split.whole(image)) == ['sum', 'places', 'pair.0', 'pair.1']


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.inner = Branch()

    def forward(self, x):
        return self.inner(self.first(x))


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1


class DecidesItself(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def test_what_no_tracer_can_trace_is_named():
    with pytest.raises(UntraceableError) as error:
        own(DecidesItself)
    message = str(error.value)
    assert 'if x.sum() > 0' in message and 'DecidesItself' in message
    assert 'leaf' in message and 'torch.export' in message and 'whole-model split' in message


def test_a_submodule_that_no_tracer_can_trace_is_kept_whole(caplog):
    split = own(Decides)
    assert_every_position_exact(split)
    assert len(split.positions) > 2 and 'stays whole' in caplog.text and 'inner' in caplog.text


def test_a_leaf_or_the_whole_model_split_makes_it_work():
    for split in (own(Decides, leaves=['inner']), own(Decides, leaves=['Branch'])):
        assert_every_position_exact(split)
        assert len(split.positions) > 2
    split = own(Decides, cut=False)
    assert split.local_index == 1 and [cut.name for cut in split.cuts] == ['image', 'output']
    image = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    expected = split.whole(image)
    local = split.head(1)(image)
    remote = split.tail(0)(split.head(0)(image))
    for outputs in (split.tail(1)(local), remote):
        assert torch.equal(outputs['logits'], expected['logits'])


def test_a_detector_can_be_left_whole():
    split = SplitModel(load_model('fasterrcnn_mobilenet_v3_large_320_fpn', input_size=(64, 64)), cut=False)
    image = torch.full((1, 3, 64, 64), 99, dtype=torch.uint8)
    expected, outputs = split.whole(image), split.tail(0)(split.head(0)(image))
    assert split.local_index == 1 and outputs.keys() == expected.keys()
    assert all(torch.equal(outputs[name], expected[name]) for name in expected)


class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand(1)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('calls', torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return x * self.calls


@pytest.mark.parametrize('factory, says', [(Random, 'chance'), (Counts, 'changes its own parameters')])
def test_a_module_that_no_two_machines_would_agree_on_is_refused(factory, says):
    with pytest.raises(DynsplitError, match=says):
        own(factory)


def test_the_inspector_writes_what_it_lists(tmp_path, capsys):
    out = tmp_path / 'deep' / 'cuts.json'
    assert cuts_tool.main(['shufflenet_v2_x1_0', '--input-size', '64', '64', '--json', str(out), '--all']) == 0
    cuts = json.loads(out.read_text())['cuts']
    assert {'index', 'name', 'tensors', 'bytes', 'elements', 'macs_before'} <= cuts[0].keys()
    assert cuts[0]['tensors'] == [{'name': 'image', 'dtype': 'uint8', 'shape': [1, 3, 64, 64]}]
    assert len(cuts) > 200 and any(cut['fewer_bytes'] for cut in cuts) and cuts[-1]['bytes'] == 0
    assert 'stage4' in capsys.readouterr().out


def test_the_inspector_answers_an_unknown_name(capsys):
    assert cuts_tool.main(['resnet51']) == 2
    assert 'resnet50' in capsys.readouterr().err
