# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Names, weights, preprocessing and labels; and files that would execute code are not loaded."""

from dataclasses import dataclass
import io
import json
import sys
from typing import NamedTuple
from urllib.error import URLError
import zipfile

import numpy as np
from PIL import Image
import pytest
from safetensors.torch import save_file
import torch
from torch import nn
import torchvision.models as zoo
from torchvision.transforms import functional as functional_v1, InterpolationMode
from torchvision.transforms.v2 import functional as functional_v2

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model, model_names, name_outputs
from dynsplit_ros.model.ending import first_output
from dynsplit_ros.model.preprocess import Resize
from dynsplit_ros.partition import SplitModel


class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=4)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(width, 5)

    def forward(self, x):
        return self.linear(self.drop(torch.relu(self.conv(x)).mean((2, 3))))


PINNED = [-0.3997354805469513, -0.3824344277381897, -0.23641808331012726]
SMALL = f'{__name__}:Small'


def photograph(height, width):
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return (ramp + np.random.default_rng(0).normal(0, 30, ramp.shape)).clip(0, 255).astype(np.uint8)


def test_every_torchvision_classifier_segmenter_and_detector_is_known():
    for room in (zoo, zoo.segmentation, zoo.detection):
        assert set(zoo.list_models(module=room)) <= set(model_names())


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(DynsplitError, match='resnet50') as error:
        load_model('resnet-50')
    assert 'package.module:factory' in str(error.value)
    with pytest.raises(DynsplitError, match='IMAGENET1K_V2'):
        load_model('mobilenet_v2', weights='IMAGENET1K_V9')


@pytest.mark.parametrize(
    'arguments, says',
    [
        ({'input_size': (0, 3)}, 'input size'),
        ({'mean': (0, 0, 0)}, 'mean and std'),
        ({'mean': (0, 0, 0), 'std': (1, 0, 1)}, 'std'),
        ({'task': 'driving'}, 'task'),
        ({'kwargs': {'nonsense': 1}}, 'nonsense'),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(DynsplitError, match=says):
        load_model('mobilenet_v2', **arguments)


@pytest.mark.parametrize('name', ['no.such.package:x', f'{__name__}:nothing', f'{__name__}:photograph', 'x:'])
def test_bad_factories_are_refused(name):
    with pytest.raises(DynsplitError):
        load_model(name)


def test_a_download_that_fails_says_what_to_set(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError('no route to host')

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', offline)
    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', offline)
    with pytest.raises(DynsplitError, match='set weights to none') as error:
        load_model('mobilenet_v2', weights='default')
    assert 'no route to host' in str(error.value)


def test_a_download_is_never_unpickled(monkeypatch, tmp_path):
    target = tmp_path / 'executed'
    file = tmp_path / 'weights.pth'
    torch.save({'x': Bomb(target)}, file)
    monkeypatch.setattr(
        'torchvision.models._api.load_state_dict_from_url', lambda *args, **kwargs: torch.load(file, weights_only=False)
    )
    with pytest.raises(DynsplitError, match='execute'):
        load_model('mobilenet_v2', weights='default')
    assert not target.exists()


def test_seeded_weights_are_reproducible_warned_about_and_alive(caplog):
    first, second = load_model('squeezenet1_1'), load_model('squeezenet1_1')
    other = load_model('squeezenet1_1', seed=1)
    assert 'seed 0' in caplog.text
    mine, same, others = (model.module.state_dict() for model in (first, second, other))
    assert all(torch.equal(mine[key], same[key]) for key in mine)
    assert not torch.equal(mine['features.0.weight'], others['features.0.weight'])
    # Exact to the bit wherever it is drawn: no transcendental function is involved.
    assert mine['features.0.weight'].flatten()[:3].tolist() == PINNED
    # Its own initialisation leaves a vision transformer's last layer at zero, which would hide any error.
    first = load_model('vit_b_32', input_size=(64, 64))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8))
    logits = first.whole(image)['logits']
    assert torch.isfinite(logits).all() and logits.std() > 0
    assert len(first.labels) == 1000 and first.task == 'classification' and not first.module.training


@pytest.mark.parametrize(
    'name, shape',
    [
        ('mobilenet_v2', (480, 640)),
        ('mobilenet_v2', (300, 300)),
        ('resnet50', (640, 427)),
        ('efficientnet_b0', (257, 999)),
    ],
)
def test_resize_and_normalise_are_torchvisions_own_preprocessing_on_uint8(name, shape):
    model = load_model(name)
    image = photograph(*shape)
    preset = zoo.get_model_weights(name).DEFAULT.transforms()
    sent = model.resize(image)
    assert sent.dtype == torch.uint8 and sent.shape == (3, *model.input_size) and sent.is_contiguous()
    tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    resized = functional_v2.resize(tensor, preset.resize_size, preset.interpolation, antialias=preset.antialias)
    cropped = functional_v2.center_crop(resized, preset.crop_size)
    assert torch.equal(sent, cropped)
    floats = functional_v1.normalize(functional_v1.convert_image_dtype(cropped), preset.mean, preset.std)
    assert torch.equal(model.normalise(sent[None])[0], floats)
    # Pillow, with which torchvision's own weights were evaluated, rounds its weights a little differently.
    pillow = functional_v1.resize(Image.fromarray(image), preset.resize_size, preset.interpolation)
    reference = functional_v1.pil_to_tensor(functional_v1.center_crop(pillow, preset.crop_size))
    difference = (sent.int() - reference.int()).abs()
    if torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512'):  # elsewhere, by way of float32
        assert difference.max() <= 2 and (difference > 0).float().mean() < 0.02


@pytest.mark.parametrize('shape', [(480, 640), (481, 641), (300, 300), (1, 2000), (97, 33)])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic', 'nearest-exact'])
@pytest.mark.parametrize('antialias', [True, False])
def test_the_resize_is_that_of_torchvision_v2_for_every_shape_and_memory_layout(shape, interpolation, antialias):
    resize = Resize((64, 96), None, InterpolationMode(interpolation), antialias)
    whole = photograph(shape[0] + 3, shape[1] + 5)
    part = whole[1:-2, 2:-3]  # rows that do not follow one another in memory
    tensor = torch.from_numpy(part.copy()).permute(2, 0, 1).contiguous()
    expected = functional_v2.resize(tensor, [64, 96], resize.interpolation, antialias=antialias)
    for image in (part, part.copy(), np.asfortranarray(part)):
        before = image.copy()
        sent = resize(image)
        assert torch.equal(sent, expected) and sent.is_contiguous() and np.array_equal(image, before)


@pytest.mark.filterwarnings('error')
def test_an_image_in_the_memory_of_a_message_is_resized_without_a_warning() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    read_only = np.lib.stride_tricks.as_strided(image, image.shape, image.strides, writeable=False)
    resize = Resize((32, 32))
    torch.set_warn_always(True)  # torch warns once per process otherwise
    try:
        assert torch.equal(resize(read_only), resize(image))
    finally:
        torch.set_warn_always(False)


def test_an_image_of_the_right_size_is_copied_so_that_the_caller_can_reuse_its_memory():
    image = photograph(64, 96)
    sent = Resize((64, 96))(image)
    before = sent.clone()
    image[:] = 0
    assert torch.equal(sent, before) and sent.any() and sent.is_contiguous()


def test_the_preprocessing_of_an_own_module_can_be_given():
    model = load_model(SMALL, input_size=(20, 30), mean=(0, 0, 0), std=(1, 1, 1), labels=list('abcde'), task='other')
    image = photograph(40, 60)
    assert model.resize(image).shape == (3, 20, 30) and model.labels == list('abcde') and model.task == 'other'
    assert torch.equal(model.normalise(model.resize(image)[None]), model.resize(image)[None].float() / 255)
    for bad in (image.astype(np.float32), image[..., :1], image[:0]):
        with pytest.raises(DynsplitError):
            model.resize(bad)


def test_detectors_run_at_the_size_they_are_given():
    model = load_model('fasterrcnn_mobilenet_v3_large_320_fpn')
    assert model.input_size == (320, 568)  # 16:9
    images, _ = model.module.transform([torch.zeros(3, *model.input_size)])
    assert images.image_sizes == [model.input_size]
    with pytest.raises(DynsplitError, match='runs at'):
        load_model('ssdlite320_mobilenet_v3_large', input_size=(100, 100))


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors', '.wrapped.pt'])
def test_state_dicts_are_loaded(tmp_path, suffix):
    path = tmp_path / f'weights{suffix}'
    torch.manual_seed(7)
    state = Small().state_dict()
    if suffix == '.safetensors':
        save_file(state, path)
    else:
        torch.save({'model': state} if 'wrapped' in suffix else state, path)
    loaded = load_model(SMALL, weights=str(path)).module.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_state_dict_that_does_not_fit_names_the_first_keys(tmp_path):
    state = Small().state_dict()
    state['surplus'] = state.pop('conv.weight')
    torch.save(state, tmp_path / 'renamed.pt')
    with pytest.raises(DynsplitError, match="'conv.weight' missing, 'surplus' unexpected"):
        load_model(SMALL, weights=str(tmp_path / 'renamed.pt'))
    torch.save(Small(6).state_dict(), tmp_path / 'wide.pt')
    with pytest.raises(DynsplitError, match='conv.weight.*shape'):
        load_model(SMALL, weights=str(tmp_path / 'wide.pt'))
    (tmp_path / 'broken.safetensors').write_bytes(b'\xff' * 40)
    for name in ('absent.pt', 'broken.safetensors'):
        with pytest.raises(DynsplitError, match=name):
            load_model(SMALL, weights=str(tmp_path / name))


class Bomb:
    """Unpickling this creates the file ``path``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_state_dict_that_would_execute_code_is_not_loaded(tmp_path):
    target = tmp_path / 'executed'
    torch.save({'conv.weight': Bomb(target)}, tmp_path / 'bomb.pt')
    with pytest.raises(DynsplitError, match='execute'):
        load_model(SMALL, weights=str(tmp_path / 'bomb.pt'))
    assert not target.exists()


@pytest.fixture(scope='module')
def program(tmp_path_factory):
    """Return the path of an exported program whose batch is dynamic and whose sizes hold expressions."""

    class Shaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, stride=4)

        def forward(self, x):
            y = torch.relu_(self.conv(x))
            return {'flat': y.reshape(x.shape[0] * 4, -1), 'first': y[:, 0]}

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('export') / 'program.pt2'
    batch = torch.export.Dim('batch', min=1, max=64)
    torch.export.save(
        torch.export.export(Shaped().eval(), (torch.rand(2, 3, 16, 16),), dynamic_shapes=({0: batch},)), path
    )
    return path


def test_an_exported_program_is_split_exactly(program):
    model = load_model(str(program))
    assert model.input_size == (16, 16) and model.max_batch == 64
    split = SplitModel(model)
    for batch in (1, 2, 3):
        image = torch.randint(0, 256, (batch, 3, 16, 16), dtype=torch.uint8)
        expected = split.whole(image)
        assert list(expected) == ['flat', 'first']
        for cut in split.positions:
            outputs = split.tail(cut)(split.head(cut)(image))
            assert all(torch.equal(outputs[name], expected[name]) for name in expected), cut.name


def test_a_program_of_one_batch_says_so(tmp_path):
    path = tmp_path / 'one.pt2'
    torch.export.save(torch.export.export(Small().eval(), (torch.rand(1, 3, 16, 16),)), path)
    split = SplitModel(load_model(str(path)))
    assert split.model.max_batch == 1
    with pytest.raises(DynsplitError, match='dynamic batch'):
        split.whole(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(DynsplitError, match='was exported for'):
        load_model(str(path), input_size=(32, 32))
    with pytest.raises(DynsplitError, match='its own weights'):
        load_model(str(path), weights='weights.pt')
    assert load_model(str(path), weights='default').input_size == (16, 16)


def rewritten(program, path, change):
    """Copy the archive, with ``change(name, data)`` for each member's new content."""
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(path, 'w') as target:
        for item in source.infolist():
            inner = item.filename.partition('/')[2]
            target.writestr(item.filename, change(inner, source.read(item)))
    return path


def changed_json(member, edit):
    def change(name, data):
        if name != member:
            return data
        document = json.loads(data)
        edit(document)
        return json.dumps(document).encode()

    return change


def _target(document):
    node = document['graph_module']['graph']['nodes'][-1]
    node['target'] = 'torch.os.system'
    node['inputs'] = [{'name': 'command', 'arg': {'as_string': 'true'}, 'kind': 1}]


def _expression(document):
    text = json.dumps(document)
    assert 'expr_str' in text

    def visit(value):
        if isinstance(value, dict):
            if 'expr_str' in value:
                value['expr_str'] = "__import__('os').system('true')"
            for item in value.values():
                visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(document)


def _names(document):
    document['graph_module']['module_call_graph'][0]['signature']['forward_arg_names'] = ['x=__import__("os")']


def _tree(document):
    signature = document['graph_module']['module_call_graph'][0]['signature']
    signature['out_spec'] = '[1, {"type": "os.system", "context": null, "children_spec": []}]'


def _pickled_weight(document):
    next(iter(document['config'].values()))['use_pickle'] = True


@pytest.mark.parametrize(
    'member, edit',
    [
        ('models/model.json', _target),
        ('models/model.json', _expression),
        ('models/model.json', _names),
        ('models/model.json', _tree),
        ('data/weights/model_weights_config.json', _pickled_weight),
    ],
)
def test_a_program_that_would_execute_code_is_not_loaded(program, tmp_path, member, edit, monkeypatch):
    evil = rewritten(program, tmp_path / 'program.pt2', changed_json(member, edit))
    monkeypatch.setattr(torch.export, 'load', lambda *args, **kwargs: pytest.fail('was handed to torch.export.load'))
    with pytest.raises(DynsplitError, match='could execute code'):
        load_model(str(evil))


def test_pickles_inside_a_program_are_not_loaded(program, tmp_path):
    target = tmp_path / 'executed'
    buffer = io.BytesIO()
    torch.save(Bomb(target), buffer)
    bomb = buffer.getvalue()
    samples = rewritten(
        program, tmp_path / 'program.pt2', lambda name, data: bomb if name.startswith('data/sample_inputs') else data
    )
    with pytest.raises(DynsplitError, match='could execute code'):
        load_model(str(samples))
    with zipfile.ZipFile(program) as archive:
        root = archive.namelist()[0].partition('/')[0]
    for extra in ('data/weights/model.pt', 'data/constants/custom_obj_0', 'data/aotinductor/model/code.so'):
        legacy = rewritten(program, tmp_path / 'program.pt2', lambda name, data: data)
        with zipfile.ZipFile(legacy, 'a') as archive:
            archive.writestr(f'{root}/{extra}', bomb)
        with pytest.raises(DynsplitError, match='could execute code'):
            load_model(str(legacy))
    assert not target.exists()


def test_what_is_no_program_is_refused(tmp_path):
    (tmp_path / 'text.pt2').write_text('no archive')
    torch.save({'a': torch.zeros(1)}, tmp_path / 'state.pt2')
    for name in ('text.pt2', 'state.pt2', 'absent.pt2'):
        with pytest.raises(DynsplitError, match=name):
            load_model(str(tmp_path / name))


def test_outputs_are_named_by_their_path():
    tensor = torch.zeros(1)
    assert list(name_outputs(tensor, 'logits')) == ['logits']
    assert list(name_outputs({'out': tensor, 'aux': (tensor, {'deep': tensor}), 'no': None})) == [
        'out',
        'aux.0',
        'aux.1.deep',
    ]
    assert list(name_outputs([{'boxes': tensor}, {'boxes': tensor}])) == ['boxes.0', 'boxes.1']


@dataclass
class Named:
    logits: torch.Tensor
    states: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None


class Pair(NamedTuple):
    best: torch.Tensor
    other: Named


def test_outputs_in_dataclasses_and_named_tuples_are_named_by_their_fields():
    tensor = torch.zeros(1)
    assert list(name_outputs(Named(tensor, (tensor, tensor)))) == ['logits', 'states.0', 'states.1']
    assert list(name_outputs({'all': Pair(tensor, Named(tensor))})) == ['all.best', 'all.other.logits']
    assert list(name_outputs([Named(tensor), Named(tensor)])) == ['logits.0', 'logits.1'], 'one for each image'
    assert first_output(Pair(None, Named(tensor))) is tensor and first_output([]) == []


assert __name__ in sys.modules  # the factories above are imported by this name
