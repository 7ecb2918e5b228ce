# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Modules as people have them: torch.export after torch.fx, what is kept on disk, what is refused and how."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import exported, SplitModel, UntraceableError
from dynsplit_ros.partition.choose import same_tensors

SIZE = (32, 32)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'dynsplit_ros'


def loaded(factory, task='classification'):
    module = sys.modules[__name__]
    module._made = factory
    return load_model(f'{__name__}:_made', input_size=SIZE, task=task, weights='none')


def split_of(factory, task='classification', **options):
    return SplitModel(loaded(factory, task), **options)


def images(batch, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8, generator=generator)
    noise[..., seed % 16 :, : 8 + seed] = 0
    return noise


def assert_exact(split, batches=(1, 2, 3)):
    for batch in batches:
        image = images(batch, seed=batch)
        expected = split.whole(image)
        for cut in split.positions:
            assert same_tensors(split.tail(cut)(split.head(cut)(image)), expected), cut.name


def body(channels=3, classes=4):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes),
    )  # fmt: skip


class ChecksSizes(nn.Module):
    """torch.fx cannot trace a comparison of sizes."""

    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, x):
        assert x.shape[-1] == 32
        return self.body(x)


def test_code_that_torch_fx_cannot_trace_is_exported():
    split = split_of(ChecksSizes)
    assert split.tracer == 'torch.export' and split.model.max_batch is None
    assert any(cut.name.startswith('body.3') for cut in split.positions)
    assert_exact(split)
    own = {tensor.data_ptr() for tensor in split.model.module.parameters()}
    part = split._part(0, split.cuts[1].position).module
    assert {tensor.data_ptr() for tensor in part.parameters()} <= own


def test_an_exported_program_is_kept_without_weights(kept, monkeypatch):
    torch.manual_seed(0)
    module = ChecksSizes()
    first = split_of(lambda: module)
    (file,) = kept.glob('program_*.pt2')
    assert [path.name for path in kept.iterdir()] == [file.name]
    bias = module.body[-1].bias.detach().numpy().tobytes()
    assert bias not in file.read_bytes()
    monkeypatch.setattr(torch.export, 'export', lambda *_, **__: pytest.fail('exported again'))
    second = split_of(lambda: copy.deepcopy(module))
    assert second.tracer == 'torch.export (kept)' and second.fingerprint == first.fingerprint
    assert_exact(second)


def damage(file, how):
    content = bytearray(file.read_bytes())
    if how == 'empty':
        content = b''
    elif how == 'cut off':
        content = content[: len(content) // 2]
    else:
        for place in range(0, len(content), 97):
            content[place] ^= 0x5A
    file.write_bytes(content)


@pytest.mark.parametrize('how', ['empty', 'cut off', 'flipped bits'])
def test_a_damaged_program_is_made_again(kept, how):
    torch.manual_seed(0)
    module = ChecksSizes()
    split_of(lambda: module)
    (file,) = kept.glob('program_*.pt2')
    damage(file, how)
    again = split_of(lambda: module)
    assert again.tracer == 'torch.export'
    assert_exact(again, batches=(2,))
    assert split_of(lambda: module).tracer == 'torch.export (kept)'


class ChecksSizesToo(ChecksSizes):
    def forward(self, x):
        return super().forward(x) * 2


def test_the_program_of_another_module_is_not_believed(kept):
    torch.manual_seed(0)
    module = ChecksSizes()
    other = ChecksSizesToo()
    other.load_state_dict(module.state_dict())
    split_of(lambda: other)
    (file,) = kept.glob('program_*.pt2')
    file.rename(exported.kept_path(loaded(lambda: module), True))
    split = split_of(lambda: module)
    assert split.tracer == 'torch.export'
    assert_exact(split, batches=(2,))


def test_a_folder_that_cannot_be_written_is_done_without(kept, monkeypatch):
    torch.manual_seed(0)
    module = ChecksSizes()
    fingerprint = split_of(lambda: module).fingerprint
    monkeypatch.setenv('XDG_CACHE_HOME', str(next(kept.iterdir())))  # a file where the folder should be
    split = split_of(lambda: module)
    assert split.tracer == 'torch.export' and split.fingerprint == fingerprint
    assert_exact(split, batches=(2,))


class Assigns(nn.Module):
    """What it keeps for the next image would be a symbol or a tensor without values after tracing."""

    def __init__(self):
        super().__init__()
        self.body = body()
        self.shape, self.seen = None, []
        self.register_buffer('grid', torch.zeros(1), persistent=False)

    def forward(self, x):
        self.seen.append(x)
        del self.seen[:-1]
        if self.shape != x.shape:
            self.shape = x.shape
            self.grid = torch.linspace(0, 1, x.shape[-1], device=x.device)
        return self.body(x + self.grid)


def test_the_module_keeps_no_symbols():
    split = split_of(Assigns)
    assert_exact(split)
    module = split.model.module
    for value in (module.grid, module.seen[0]):
        assert type(value) is torch.Tensor and value.sum().isfinite()
    assert all(type(size) is int for size in module.shape)


class Picks(nn.Module):
    """As many rows as there are bright places."""

    def __init__(self, leaf):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU())
        self.pick = Bright()
        self.leaf = leaf
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        y = self.body(x)
        rows = self.pick(y) if self.leaf else (y > y.mean()).nonzero().to(y.dtype)
        return self.head(rows).sum(0, keepdim=True)


class Bright(nn.Module):
    def forward(self, y):
        return torch.tensor((y > y.mean()).nonzero().tolist(), dtype=y.dtype)


@pytest.mark.parametrize('leaf', [False, True])
def test_no_cut_sends_a_tensor_whose_shape_follows_from_values(leaf):
    split = split_of(lambda: Picks(leaf), leaves=['Bright'])
    assert not any(spec.shape[:1] > (1,) for cut in split.positions for spec in cut.tensors)
    for seed in range(4):
        image = images(1, seed)
        expected = split.whole(image)
        for cut in split.positions:
            assert same_tensors(split.tail(cut)(split.head(cut)(image)), expected)


class Undefined(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) * float('nan')


class Casts(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, x):
        with torch.autocast('cpu', torch.bfloat16):
            return self.body(x)


@pytest.mark.parametrize('factory', [Undefined, Casts])
def test_what_is_the_same_each_time_does_not_depend_on_chance(factory):
    assert_exact(split_of(factory), batches=(1, 2))


class Drops(nn.Module):
    def forward(self, x):
        return functional.dropout(x.mean((2, 3)), 0.5)


class CountsAnew(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('calls', torch.zeros(1))

    def forward(self, x):
        self.calls = self.calls + 1
        return x.mean((2, 3)) * self.calls


class KeywordOnly(nn.Module):
    def forward(self, *, pixel_values):
        return pixel_values.mean((2, 3))


class Nothing(nn.Module):
    def forward(self, x):
        return None


class Decides(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


@pytest.mark.parametrize(
    'factory, says',
    [
        (Drops, 'depends on chance'),
        (CountsAnew, 'changes its own parameters or buffers'),
        (KeywordOnly, 'cannot run on a float32 image'),
        (Nothing, 'returns no tensor'),
        (Decides, 'if x.mean'),
        (lambda: body(channels=5), 'cannot run on a float32 image'),
        (lambda: body().to('meta'), 'meta device'),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_sentence(factory, says, capfd):
    with pytest.raises(DynsplitError, match=says) as error:
        split_of(factory)
    assert '\n' not in str(error.value) and len(str(error.value)) < 1500
    assert capfd.readouterr().err.count('\n') <= 2


def quantised(seed):
    torch.manual_seed(seed)
    return torch.ao.quantization.quantize_dynamic(body(classes=300), {nn.Linear}, dtype=torch.qint8)


def sparse(seed):
    torch.manual_seed(seed)
    return Sparse()


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = body()
        self.register_buffer('weight', torch.rand(4, 4).relu().to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.weight, self.body(x).t()).t()


def lazy(seed):
    return nn.Sequential(nn.LazyConv2d(4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('factory', [quantised, sparse])
def test_the_fingerprint_follows_packed_and_sparse_weights(factory):
    split = split_of(lambda: factory(0))
    assert_exact(split, batches=(1,))
    assert split_of(lambda: factory(0)).fingerprint == split.fingerprint
    assert split_of(lambda: factory(1)).fingerprint != split.fingerprint


@pytest.mark.filterwarnings('ignore')
def test_lazy_modules_get_the_same_weights_on_two_machines():
    torch.manual_seed(1)
    split = split_of(lambda: lazy(0))
    assert_exact(split)
    torch.manual_seed(2)
    assert split_of(lambda: lazy(0)).fingerprint == split.fingerprint


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'factory, least',
    [
        (lambda: torch.jit.script(body()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 4, 4), torch.jit.script(body(4))), 2),
        (lambda: nn.DataParallel(body()), 4),
        (lambda: torch.compile(body()), 4),
    ],
    ids=['scripted', 'scripted inside', 'data parallel', 'compiled'],
)
def test_wrapped_and_scripted_modules_are_split(factory, least):
    split = split_of(factory)
    assert len(split.positions) > least
    assert_exact(split, batches=(1, 2))


class Detects(nn.Module):
    """A detector of a person's own: its trunk is four convolutions, its boxes are as many as the image has."""

    def __init__(self, listed, decode):
        super().__init__()
        torch.manual_seed(0)
        self.listed = listed
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)
        )
        self.head = nn.Conv2d(8, 6, 1)
        self.decode = decode

    def forward(self, x):
        if self.listed:
            x = torch.stack(x)
        return self.decode(self.head(self.body(x)).flatten(2).transpose(1, 2))


class Decode(nn.Module):
    def forward(self, y):
        found = []
        for image in y:
            scores = image[:, 4:].softmax(1).max(1).values
            sure = scores > scores.mean()
            found.append({'boxes': image[sure, :4], 'scores': scores[sure], 'labels': image[sure, 4:].argmax(1)})
        return found


class DecodeInPython(Decode):
    def forward(self, y):
        found = super().forward(y)
        return found if len(found[0]['boxes'].tolist()) < 3 else [dict(boxes) for boxes in found]


@pytest.mark.parametrize(
    'listed, decode, most',
    [(False, nn.Identity(), None), (False, Decode(), None), (False, DecodeInPython(), None), (True, Decode(), 1)],
)
def test_the_trunk_of_a_detector_is_cut_and_its_decoding_is_not(listed, decode, most):
    split = split_of(lambda: Detects(listed, decode), task='detection')
    plain = split_of(lambda: Detects(False, nn.Identity()), task='other')
    assert split.local_index >= 4 and split.model.image_list == listed and split.model.max_batch == most
    sizes = [cut.nbytes for cut in split.cuts if cut.natural]
    assert set(sizes) >= {cut.nbytes for cut in plain.cuts[:-2] if cut.natural}
    assert_exact(split, batches=(1,) if most else (1, 2))


def test_the_message_of_two_tracers_is_one_sentence():
    with pytest.raises(UntraceableError) as error:
        split_of(Decides)
    message = str(error.value)
    assert message.count('with torch.fx') == 1 and message.count('with torch.export') == 1
    assert 'Decides' in message and '--leaf' in message and '--whole' in message
