# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Head plus tail is the whole model, to the bit: every segmentation model and every detector of torchvision."""

import pytest
from test_partition_exact import assert_exact, images
import torch

from dynsplit_ros.model import load_model, model_names
from dynsplit_ros.partition import SplitModel

pytestmark = pytest.mark.timeout(900)
#: With these, a detector with random weights finds something. Its second stage would take minutes for a thousand
#: proposals.
FINDS_ALL = {'box_score_thresh': 0.0, 'box_nms_thresh': 0.9, 'box_detections_per_img': 3, 'rpn_post_nms_top_n_test': 32}


@pytest.mark.parametrize('name', model_names('segmentation'))
def test_every_segmentation_model_is_exact_at_every_candidate(name):
    model = load_model(name, input_size=(48, 64), kwargs={'aux_loss': True} if 'raspp' not in name else {})
    model.ending, ending = None, model.ending
    scores = SplitModel(model)
    assert_exact(scores, scores.cuts)
    image = images((48, 64), 2)
    best = scores.whole(image)['out'].argmax(1)

    model.ending = ending
    split = SplitModel(model)
    assert_exact(split, split.cuts, batches=(2,))
    classes = split.whole(image)['label_map']
    assert classes.dtype == torch.uint8 and len(classes.unique()) > 1
    assert torch.equal(classes, best.to(torch.uint8))
    assert split.fingerprint != scores.fingerprint
    # What computes the second output alone is no part of the network, and keeps nothing alive in it.
    assert not any(cut.name.startswith('aux') or len(cut.tensors) > 1 for cut in split.cuts)


@pytest.mark.parametrize('name', model_names('detection'))
def test_every_detector_is_exact(name):
    free = not name.startswith('ssd')
    model = load_model(name, input_size=(64, 96) if free else None, kwargs=FINDS_ALL if 'rcnn' in name else {})
    if 'rcnn_resnet50' in name:  # activations grow with depth under random weights, until no box is left
        with torch.no_grad():
            for parameter in model.module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(0.7)
    split = SplitModel(model)
    expected = split.whole(images(model.input_size, 2))
    assert len(expected['boxes.0']) and len(expected['boxes.1']), 'nothing was found, so nothing is compared'
    smallest = min(split.positions, key=lambda cut: cut.nbytes)
    # No detector's bottlenecks are many, so the pyramid (the last position) and one amid the backbone are cut
    # too.
    places = {*split.cuts, smallest, split.positions[-1], split.positions[len(split.positions) // 2]}
    assert_exact(split, sorted(places, key=lambda cut: cut.position), (1, 2) if free else (1,))
