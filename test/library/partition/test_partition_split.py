# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Heads and tails as objects: one copy of the weights, a bounded cache, threads, fingerprints, options, bad input."""

from concurrent.futures import ThreadPoolExecutor
import os
import subprocess
import sys
import threading

import pytest
import torch

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import Interrupted, SplitModel

SIZE = (64, 64)


@pytest.fixture(scope='module')
def split():
    return SplitModel(load_model('mobilenet_v2', input_size=SIZE))


def images(batch, seed=0):
    return torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_all_parts_share_the_modules_own_weights(split):
    own = {tensor.data_ptr() for tensor in (*split.model.module.parameters(), *split.model.module.buffers())}
    own |= {tensor.data_ptr() for tensor in split.model.normalise.buffers()}
    parts = 0
    for cut in split.cuts[:-1]:
        for part in (split._part(0, cut.position), split._part(cut.position, len(split.positions))):
            parts += len(list(part.module.parameters()))
            assert {tensor.data_ptr() for tensor in (*part.module.parameters(), *part.module.buffers())} <= own
    assert parts > 100


def test_the_cache_is_bounded_and_forgets_the_oldest():
    split = SplitModel(load_model('mobilenet_v2', input_size=SIZE), cache_size=3)
    image = images(1)
    expected = split.whole(image)['logits']
    for cut in split.positions[::20]:
        assert torch.equal(split.tail(cut)(split.head(cut)(image))['logits'], expected)
        assert len(split._cache) <= 3
    newest = split._part(0, split.cuts[1].position)
    split.head(2), split.head(1), split.head(3)
    assert split._part(0, split.cuts[1].position) is newest


def test_two_threads_get_their_own_results(split):
    frames = [images(1, seed) for seed in range(8)]
    expected = [split.whole(frame)['logits'] for frame in frames]
    detector = SplitModel(load_model('ssdlite320_mobilenet_v3_large'))
    pictures = [torch.randint(0, 256, (1, 3, 320, 320), dtype=torch.uint8) for _ in range(4)]
    found = [detector.whole(picture) for picture in pictures]

    def run(number):
        index = number % split.local_index
        logits = split.tail(index)(split.head(index)(frames[number % 8]))['logits']
        outputs = detector.tail(1)(detector.head(1)(pictures[number % 4])) if number < 8 else found[number % 4]
        return torch.equal(logits, expected[number % 8]) and all(
            torch.equal(outputs[name], found[number % 4][name]) for name in outputs
        )

    # The same threads per operation in and outside the pool, or sums would be taken in another order.
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        assert all(pool.map(run, range(48)))


def digest(name='mobilenet_v2', **arguments):
    return SplitModel(load_model(name, **{'input_size': SIZE, **arguments})).fingerprint


def test_a_part_ends_when_its_result_is_no_longer_wanted(split):
    image = images(1)
    asked = []

    def stop() -> bool:
        asked.append(threading.current_thread())
        return len(asked) > 20

    with pytest.raises(Interrupted):
        split.head(split.local_index)(image, stop)
    assert len(asked) == 21
    whole = split.whole(image)
    sent = split.head(1)(image, lambda: False)
    for outputs in (split.head(split.local_index)(image), split.tail(1)(sent, lambda: False), split.tail(1)(sent)):
        assert all(torch.equal(outputs[name], whole[name]) for name in whole)
    with pytest.raises(Interrupted):
        split.tail(1)(sent, lambda: True)


def test_the_fingerprint_is_the_same_in_another_process(split):
    program = (
        'from dynsplit_ros.model import load_model; from dynsplit_ros.partition import'
        f' SplitModel;print(SplitModel(load_model("mobilenet_v2", input_size={SIZE})).fingerprint)'
    )
    for seed in ('1', '2'):
        done = subprocess.run(
            [sys.executable, '-c', program], capture_output=True, text=True, check=True, timeout=120,
            env={**os.environ, 'PYTHONHASHSEED': seed, 'PYTHONPATH': os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.stdout.strip() == split.fingerprint
    assert len(split.fingerprint) == 64 and int(split.fingerprint, 16)


def test_the_fingerprint_follows_weights_size_architecture_and_cuts(split):
    different = [
        split.fingerprint,
        digest(seed=1),
        digest(input_size=(64, 96)),
        digest('mobilenet_v3_small'),
        digest(kwargs={'num_classes': 10}),
        digest(mean=(0.5, 0.5, 0.5), std=(1, 1, 1)),
        SplitModel(load_model('mobilenet_v2', input_size=SIZE), cut=False).fingerprint,
        SplitModel(load_model('mobilenet_v2', input_size=SIZE), leaves=['InvertedResidual']).fingerprint,
    ]
    assert len(set(different)) == len(different)
    model = load_model('mobilenet_v2', input_size=SIZE)
    with torch.no_grad():
        model.module.features[5].conv[1][1].running_var[3] += 1e-6
    assert SplitModel(model).fingerprint != split.fingerprint


def test_the_fingerprint_is_computed_once_and_ignores_the_layout(split, monkeypatch):
    assert SplitModel(load_model('mobilenet_v2', input_size=SIZE), channels_last=True).fingerprint == split.fingerprint
    monkeypatch.setattr('dynsplit_ros.partition.split.fingerprint', lambda *_: pytest.fail('computed again'))
    assert split.fingerprint


@pytest.mark.parametrize('layout, precision, tolerance', [(True, 'float32', 1e-3), (False, 'bfloat16', 0.2)])
def test_options_change_the_arithmetic_not_the_interface(split, layout, precision, tolerance):
    image = images(2)
    expected = split.whole(image)['logits']
    changed = SplitModel(load_model('mobilenet_v2', input_size=SIZE), channels_last=layout)
    assert changed.add_engine('eager', precision) == {}
    engine = changed.engines[-1]
    for index in range(changed.local_index + 1):
        kept = changed.head(index, engine if changed.has_head(index, engine) else 'eager')(image)
        for spec in changed.cuts[index].tensors:
            assert str(kept[spec.name].dtype) == f'torch.{spec.dtype}' and kept[spec.name].is_contiguous()
        tail = changed.tail(index, engine if changed.has_tail(index, engine) else 'eager')
        logits = tail(kept)['logits']
        assert logits.dtype == torch.float32
        assert (logits - expected).abs().max() <= tolerance * expected.abs().max()
        # Either side may choose for itself.
        logits = tail(split.head(index)(image))['logits']
        assert (logits - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    'options, says',
    [({'device': 'cuda:77'}, 'offers'), ({'device': 'abacus'}, 'cpu'), ({'cache_size': 1}, 'at least 2')],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(DynsplitError, match=says):
        SplitModel(load_model('squeezenet1_1', input_size=SIZE), **options)


@pytest.mark.parametrize(
    'image',
    [
        torch.zeros(1, 3, 64, 64),
        torch.zeros(3, 64, 64, dtype=torch.uint8),
        torch.zeros(1, 3, 64, 65, dtype=torch.uint8),
        torch.zeros(0, 3, 64, 64, dtype=torch.uint8),
    ],
)
def test_an_image_that_does_not_fit_is_refused(split, image):
    for function in (split.whole, split.head(0), split.head(2), split.head(split.local_index)):
        with pytest.raises(DynsplitError, match='takes torch.uint8'):
            function(image)


def test_an_activation_that_does_not_fit_is_refused(split):
    tail, good = split.tail(1), split.head(1)(images(2))
    ((name, tensor),) = good.items()
    assert tail(good)['logits'].shape == (2, 1000)
    for bad in (
        {},
        {'other': tensor},
        {**good, 'other': tensor},
        {name: tensor[:, 1:]},
        {name: tensor.double()},
        {name: tensor[0]},
        {name: tensor[:0]},
    ):
        with pytest.raises(DynsplitError, match='takes'):
            tail(bad)
    for index in (-1, split.local_index + 1):
        with pytest.raises(DynsplitError, match='split index'):
            split.head(index)


def test_the_local_index_sends_nothing_and_answers_itself(split):
    image = images(2)
    outputs = split.head(split.local_index)(image)
    assert torch.equal(outputs['logits'], split.whole(image)['logits'])
    assert split.tail(split.local_index)(outputs) == outputs
    assert split.cuts[-1].tensors == () and split.cuts[-1].nbytes == 0
    assert [(spec.name, spec.shape) for spec in split.output_specs] == [('logits', (1, 1000))]


def test_listing_needs_no_gradient_and_leaves_none(split):
    image = images(1)
    outputs = split.tail(1)(split.head(1)(image))
    assert not outputs['logits'].requires_grad
    assert all(parameter.grad is None for parameter in split.model.module.parameters())
