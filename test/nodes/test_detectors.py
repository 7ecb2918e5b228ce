# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Detectors with a last step of their own: an edge answers with their boxes, in pixels of the camera image."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from conftest import expected_digest, PATIENT, picture, System
import numpy as np
import pytest
from safetensors.torch import save_file
import torch

from dynsplit_ros import msg
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.tasks import interpret

pytestmark = pytest.mark.timeout(300)
STAND_IN = """
import torch
from torch import nn
from dynsplit_ros.model.ending import Ending
from dynsplit_ros.model.loaded import LoadedModel
from dynsplit_ros.model.preprocess import Normalise, Resize

class Boxes(Ending):
    def forward(self, raw):
        found = []
        for image in raw.flatten(2):
            score = image[4].sigmoid()
            order = score.argsort(descending=True)[:30]
            corner = image[:2, order].T.abs() * 9
            found.append({'boxes': torch.cat((corner, corner + 4), 1), 'labels': (image[3, order] > 0).long(),
                          'scores': score[order]})
        return found

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    return LoadedModel('', net, 'detection', ['cat', 'dog'], (64, 64), Resize((64, 64), pad='around'),
                       Normalise(None, None), ending=Boxes())
"""


@pytest.mark.parametrize('name', ['own_boxes:build', 'ultralytics:yolo11n'])
def test_boxes_of_an_edge_are_those_of_the_whole_model(processes, ros, tmp_path: Path, monkeypatch, name) -> None:
    if name.startswith('ultralytics') and importlib.util.find_spec('ultralytics') is None:
        pytest.skip('ultralytics is not installed')
    (tmp_path / 'own_boxes.py').write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    split = SplitModel(load_model(name, input_size=(64, 64)))
    profile = tmp_path / 'profile.yaml'
    measure(split, codecs=['raw'], repeats=1, warm_up=1).save(profile)
    running = System(
        processes,
        ros,
        {'model': name, 'weights': 'none', 'input_size': [64, 64], 'threads': 1, 'profile': str(profile)},
        monitor={'pinned_split': 0, **PATIENT},
        camera={'min_score': 0.0},
    )
    running.wait_for_edge()
    predictions = running.observer.predictions
    assert any(prediction.timing.outcome == msg.FrameTiming.ANSWERED for prediction in predictions)
    for prediction in predictions:
        number = prediction.header.stamp.sec
        assert prediction.output_digest == expected_digest(split, number)
        outputs = split.whole(split.model.resize(picture(number))[None])
        placement = split.model.resize.placement(48, 80)
        own = interpret('detection', outputs, split.model.labels, placement=placement, top_k=1)
        assert len(own.scores) >= 20 and list(prediction.labels) == own.labels
        assert np.array_equal(np.float32(own.boxes_px), prediction.boxes_px)
        boxes = np.reshape(prediction.boxes_px, (-1, 4))
        assert boxes.min() >= 0 and boxes[:, 2].max() <= 80 and boxes[:, 3].max() <= 48


@pytest.mark.parametrize('split_index', [0, 1])
def test_boxes_on_photographs_over_an_emulated_link_are_those_of_ultralytics(
    processes, ros, tmp_path: Path, monkeypatch, split_index
) -> None:
    monkeypatch.setenv('YOLO_CONFIG_DIR', str(tmp_path))
    ultralytics = pytest.importorskip('ultralytics')
    photographs = pytest.importorskip('skimage.data')
    model = load_model('ultralytics:yolo11n', input_size=(320, 320))
    for branch in model.module.model[-1].cv3:  # classes of seeded weights get scores that differ
        with torch.no_grad():
            branch[-1].weight.mul_(0.05)
            branch[-1].bias.zero_()
    weights = tmp_path / 'yolo.safetensors'
    save_file(model.module.state_dict(), weights)
    split = SplitModel(load_model('ultralytics:yolo11n', weights=str(weights), input_size=(320, 320)))
    profile = tmp_path / 'profile.yaml'
    measure(split, codecs=['raw'], repeats=1, warm_up=1).save(profile)
    running = System(
        processes,
        ros,
        {
            'model': 'ultralytics:yolo11n',
            'weights': str(weights),
            'input_size': [320, 320],
            'threads': 1,
            'profile': str(profile),
        },
        monitor={'pinned_split': split_index, 'codecs': ['raw'], **PATIENT},
        camera={'min_score': 0.0},
        link_mbps=100.0,
    )
    running.wait_for_edge()
    theirs = ultralytics.YOLO('yolo11n.yaml', verbose=False)
    theirs.model.load_state_dict(
        {f'model.{key.removeprefix("model.")}': value for key, value in split.model.module.state_dict().items()}
    )
    for photograph in (photographs.astronaut(), photographs.coffee(), photographs.chelsea()):
        image = photograph[:240, :400]  # a larger message may be lost between the processes
        prediction = running.observer.prediction(running.observer.send(from_rgb(np.ascontiguousarray(image))))
        assert prediction.timing.outcome == msg.FrameTiming.ANSWERED
        letterboxed = split.model.resize(image).permute(1, 2, 0).numpy()[..., ::-1]
        [found] = theirs.predict(
            np.ascontiguousarray(letterboxed), imgsz=320, conf=0.001, iou=0.7, max_det=300, verbose=False, device='cpu'
        )
        expected = ultralytics.utils.ops.scale_boxes((320, 320), found.boxes.xyxy.clone(), image.shape)
        boxes = torch.tensor(prediction.boxes_px).view(-1, 4)
        assert len(boxes) >= 20 and len(expected) >= 20
        matched = 0
        for box, score, number in list(zip(expected, found.boxes.conf, found.boxes.cls))[:50]:
            near = ((boxes - box).abs().max(1).values < 1) & (torch.tensor(prediction.class_ids) == number)
            near &= (torch.tensor(prediction.scores) - score).abs() < 0.01
            matched += bool(near.any())
        assert matched >= 49, f'{matched} of 50'  # two boxes whose overlap is the limit may change places
