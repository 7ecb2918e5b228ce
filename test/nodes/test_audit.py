# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Real nodes with a lossy codec: frames are audited on the robot, and a codec that breaks its promise is taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conftest import System, wait
import pytest

from dynsplit_ros import msg
from dynsplit_ros.agreement import Agreement
from dynsplit_ros.nodes import topics
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.profile.profile import AgreementRecord, Profile

pytestmark = pytest.mark.timeout(300)
#: Of random weights, the scores lie so close together that steps this coarse change the best class.
CODEC = 'quant2-zstd'


@pytest.fixture(scope='module')
def promise(split: SplitModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a profile that promises more of the codec than it keeps."""
    profile = measure(split, codecs=['raw', CODEC], repeats=1, warm_up=1)
    cuts = {index: {CODEC: Agreement(500, 500)} for index in range(1, profile.local_index)}
    path = tmp_path_factory.mktemp('promise') / 'profile.yaml'
    replace(profile, agreements=(AgreementRecord('classification', 'a promise', {}, {}, cuts),)).save(path)
    assert Profile.load(path).agreements
    return path


def test_a_codec_that_does_not_keep_the_bound_is_taken_out_and_no_frame_is_lost(
    processes: object, ros: Callable, split: SplitModel, model_parameters: dict[str, object], promise: Path
) -> None:
    last = split.local_index - 1
    running = System(
        processes,
        ros,
        {**model_parameters, 'profile': str(promise)},
        monitor={'min_agreement': 0.98, 'codecs': [CODEC], 'pinned_split': last},
        camera={'audit_share': 1.0},
    )
    audits: list[msg.Audit] = []
    agreements: list[msg.Agreement] = []
    topics.AUDIT.subscription(running.observer, audits.append)
    topics.AGREEMENT.subscription(running.observer, agreements.append)
    running.wait_for_edge()
    wait(lambda: running.observer.send_and_wait() and any(one.removed for one in agreements), 'nothing was taken out')
    removed = next(one for one in agreements if one.removed)
    assert (removed.split_index, removed.codec) == (last, CODEC)
    assert removed.high < 0.98 and 'taken out' in removed.reason
    assert all(0 <= one.low <= one.agreement <= one.high <= 1 for one in agreements)
    assert audits[-1].drawn >= audits[-1].audited + audits[-1].skipped + audits[-1].exact
    # No other codec is allowed.
    wait(lambda: running.observer.send_and_wait().timing.outcome == msg.FrameTiming.LOCAL, 'the codec is still used')
    wait(lambda: 'taken out' in (running.observer.diagnosed('monitor_node', 'taken_out') or ''), 'no diagnostics')
    assert running.observer.diagnosed('camera_node', 'failed') == '0'
    assert 'is taken out' in processes.log('monitor').read_text()


def test_a_bound_without_measured_agreement_is_said_with_the_command_to_run(system: Callable[..., System]) -> None:
    running = system(monitor={'min_agreement': 0.98})
    log = running.processes.log('monitor').read_text()
    assert './run profile mobilenet_v2 --image FOLDER' in log and 'at least 189 images' in log
    assert running.observer.send_and_wait().timing.outcome == msg.FrameTiming.LOCAL
