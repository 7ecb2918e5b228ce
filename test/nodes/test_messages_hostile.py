# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Messages with anything in their fields become the library's types, or one sentence."""

from __future__ import annotations

import array
import json
import math

from hypothesis import given, HealthCheck, settings, strategies as st
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='the node tests need ROS 2')

from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from dynsplit_ros import msg  # noqa: E402
from dynsplit_ros.codec import decode  # noqa: E402
from dynsplit_ros.errors import DynsplitError  # noqa: E402
from dynsplit_ros.messages.fields import to_message  # noqa: E402
from dynsplit_ros.messages.images import to_rgb  # noqa: E402
from dynsplit_ros.messages.tensors import from_tensors  # noqa: E402
from dynsplit_ros.messages.timing import from_profile, from_timing, to_timing  # noqa: E402
from dynsplit_ros.tensors import TensorSpec  # noqa: E402
from dynsplit_ros.text import printable  # noqa: E402

pytestmark = pytest.mark.timeout(120)
floats = st.one_of(st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e308]), st.floats())
texts = st.one_of(
    st.sampled_from(['', 'raw', 'rgb8', 'bgr16', '8UC9999', 'mono8', 'bayer_rggb8', '../../etc/passwd']),
    st.text(st.characters(codec='utf-8'), max_size=30),
)
words = st.one_of(st.sampled_from([0, 1, 2, 4, 2**16, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))


def fuzz(cases: int) -> settings:
    """Return the settings of a test of that many cases, the same ones each time."""
    return settings(max_examples=cases, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@fuzz(500)
@given(
    state=st.integers(0, 255),
    sequence=st.integers(0, 2**64 - 1),
    times=st.lists(floats, min_size=6, max_size=6),
    detail=texts,
)
def test_timings(state, sequence, times, detail) -> None:
    sent_s, acknowledged_s, answered_s, held_s, tail_s, latency_s = times
    message = to_message(
        msg.FrameTiming,
        outcome=state,
        sequence=sequence,
        sent_s=sent_s,
        acknowledged_s=acknowledged_s,
        answered_s=answered_s,
        held_s=held_s,
        tail_s=tail_s,
        latency_s=latency_s,
        detail=detail,
    )
    try:
        timing = from_timing(message)
    except DynsplitError as error:
        assert state > 4 and str(state) in str(error)
        return
    assert getattr(msg.FrameTiming, timing.outcome.name) == state and timing.detail == printable(detail)
    message.detail = timing.detail
    assert repr(to_timing(timing)) == repr(message)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), floats, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                texts,
                st.sampled_from(
                    [
                        'dynsplit_profile',
                        'model',
                        'fingerprint',
                        'device',
                        'threads',
                        'cuts',
                        'index',
                        'head_s',
                        'codecs',
                        '1',
                    ]
                ),
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@fuzz(500)
@given(
    document=st.one_of(
        json_values.map(json.dumps),
        texts,
        st.sampled_from(['[' * 200_000, '1' * 5000, '{"dynsplit_profile": 1}', 'x' * 2_000_000, '"\\ud800"']),
    )
)
def test_profiles(document) -> None:
    with pytest.raises(DynsplitError) as refusal:  # none of these is a whole profile
        from_profile(msg.Profile(profile_json=document), "the edge's profile")
    assert "the edge's profile" in str(refusal.value) and len(str(refusal.value)) < 5000


@fuzz(500)
@given(data=st.binary(max_size=400), height=words, width=words, step=words, encoding=texts)
def test_images(data, height, width, step, encoding) -> None:
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.data = array.array('B', data)
    try:
        image = to_rgb(message)
    except DynsplitError as error:
        assert str(error)
        return
    assert image.dtype == np.uint8 and image.shape == (height, width, 3)


@fuzz(30)  # OpenCV takes most of a second to refuse a PNG chunk that claims gigabytes
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=200).map(lambda tail: b'\x89PNG\r\n\x1a\n' + tail),
        st.binary(max_size=200).map(lambda tail: b'\xff\xd8\xff\xe0' + tail),
    ),
    kind=texts,
)
def test_compressed_images(data, kind) -> None:
    message = CompressedImage(format=kind)
    message.data = array.array('B', data)
    try:
        assert to_rgb(message).shape[2] == 3
    except DynsplitError as error:
        assert str(error)


@fuzz(500)
@given(
    tensors=st.lists(
        st.builds(
            lambda name, dtype, shape, data: msg.Tensor(
                name=name, dtype=dtype, shape=array.array('I', shape), data=array.array('B', data)
            ),
            st.one_of(st.just('x'), texts),
            st.one_of(st.sampled_from(['float32', 'uint8']), texts),
            st.lists(words, max_size=6),
            st.binary(max_size=64),
        ),
        max_size=3,
    ),
    known=st.booleans(),
)
def test_tensors(tensors, known) -> None:
    try:
        decoded = decode('raw', from_tensors(tensors), [TensorSpec('x', 'float32', (1, 2))] if known else None)
    except DynsplitError as error:
        assert len(str(error)) < 1000
        return
    assert not known or (list(decoded) == ['x'] and decoded['x'].shape == (1, 2))
