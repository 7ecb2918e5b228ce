# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The monitor's settings, which are the parameters of its node: the one place of their defaults and ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner import ALL_CODECS, OBJECTIVES


def _setting(
    default: object,
    description: str,
    unit: str = '',
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(
        default=default,
        metadata={'description': description, 'unit': unit, 'minimum': minimum, 'maximum': maximum, 'choices': choices},
    )


@dataclass(frozen=True)
class MonitorSettings:
    """Settings of the monitor; the metadata of each field holds description, unit, minimum, maximum and choices."""

    objective: str = _setting(
        'latency',
        'Quantity to optimise: the latency of a frame (latency), the frame rate that the system sustains (frame_rate), '
        'or the share of frames with a latency of at most deadline_s (deadline).',
        choices=OBJECTIVES,
    )
    deadline_s: float = _setting(
        0.1,
        'Deadline of a frame, from the arrival of its image to its prediction, for objective: deadline.',
        's',
        0.001,
        60.0,
    )
    codecs: tuple[str, ...] = _setting(
        ALL_CODECS,
        "Codecs that the planner may choose; [''] allows every codec in the profiles. min_agreement must allow a codec "
        'too.',
    )
    min_agreement: float = _setting(
        1.0,
        'Smallest share of images whose result a lossy codec, or another engine than eager, must keep (classification: '
        'the best class; detection: F1 of the boxes; segmentation: pixels). The lower end of the 95 % interval in the '
        'profile must reach it. 1 allows only lossless codecs, and engines whose measured outputs were equal bit for '
        'bit; 0 allows every codec and engine.',
        '',
        0.0,
        1.0,
    )
    shallowest_split: int = _setting(
        0,
        'Smallest split index whose activation may leave the robot; 1 keeps the image itself on the robot.',
        minimum=0,
        maximum=65535,
    )
    pinned_split: int = _setting(
        -1,
        'For debugging: the only split to use while the edge answers; -1 lets the planner choose.',
        minimum=-1,
        maximum=65535,
    )
    bandwidth_bps: float = _setting(
        0.0, 'Upper bound on the mean rate of the payloads; 0 sets no bound.', 'bit/s', 0.0, 1e12
    )
    frame_rate_hz: float = _setting(
        0.0,
        'Frames that the camera offers per second. The planner needs it to predict how long images wait, and for '
        'bandwidth_bps. 0 takes the rate that camera_node measures.',
        '1/s',
        0.0,
        1000.0,
    )
    batch: int = _setting(1, 'Images in a frame.', '', 1, 1024)
    switching_cost: float = _setting(
        0.01,
        'Smallest gain for which the planner changes the split, as a share of the predicted latency.',
        '',
        0.0,
        1.0,
    )
    confidence: float = _setting(
        3.5,
        'In addition, a change of split must gain this many standard deviations of the predicted gain.',
        '',
        0.0,
        10.0,
    )
    answer_timeout_s: float = _setting(
        0.0,
        'Answer timeout: the robot finishes a frame itself if no answer came this long after it sent the payload. With '
        '0, the planner chooses the timeout of each split: at most three times the predicted wait or 0.2 s, whichever '
        'is longer.',
        's',
        0.0,
        60.0,
    )
    waiting_share: float = _setting(
        0.08,
        'Largest share of the frame rate that the camera may give up to wait for newer images, if the system cannot '
        'process every image. With objective: frame_rate, the camera never waits.',
        '',
        0.0,
        0.5,
    )
    heartbeat_period_s: float = _setting(
        0.25, 'Period of the heartbeats, which measure the round-trip time.', 's', 0.02, 10.0
    )
    silence_s: float = _setting(
        0.5,
        "The link counts as lost when an answer or the edge's load report is overdue by this time and no other message "
        'came from the edge.',
        's',
        0.05,
        60.0,
    )
    probe_share: float = _setting(
        0.01, 'Largest share of the estimated rate that heartbeats and probes may take.', '', 0.0, 0.5
    )
    probe_period_s: float = _setting(
        0.2, 'The monitor sends a probe when nothing has measured the rate for this time.', 's', 0.02, 60.0
    )
    report_timeout_s: float = _setting(
        1.0, 'The monitor ignores a load report of the edge that is older than this.', 's', 0.05, 60.0
    )
    downlink_ratio: float = _setting(
        1.0, 'Rate of the downlink (answers) divided by the rate of the uplink (payloads).', '', 0.001, 1000.0
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, allowed = getattr(self, setting.name), setting.metadata
            if allowed['choices'] and value not in allowed['choices']:
                raise DynsplitError(f'{setting.name} is {value!r}, but must be one of {", ".join(allowed["choices"])}')
            if allowed['minimum'] is not None and not allowed['minimum'] <= value <= allowed['maximum']:
                raise DynsplitError(
                    f'{setting.name} is {value}, but must be between {allowed["minimum"]} and {allowed["maximum"]} '
                    f'{allowed["unit"]}'.rstrip()
                )
