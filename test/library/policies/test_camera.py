# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each rule of the camera, event by event, and random sequences of events in which every rule must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import math

from hypothesis import given, settings, strategies as st
import pytest

from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.policies.audit import AuditScheduler
from dynsplit_ros.policies.camera import (
    Action,
    Audit,
    CameraPolicy,
    Deliver,
    Drop,
    Encode,
    Finish,
    InterruptHead,
    Prepare,
    Report,
    ReportAudit,
    RunHead,
    Send,
    StopAudit,
    StopFinishing,
)
from dynsplit_ros.policies.records import EdgeTimes, FrameRecord, Outcome, SplitDecision, Status
from dynsplit_ros.policies.wake import WakeAt

LOCAL, SESSION = 3, 7
HEAD_S, ENCODE_S, TRANSFER_S, EDGE_S = 0.02, 0.01, 0.05, 0.04
OFFLOAD = SplitDecision(1, 'raw', 1.0, predicted_latency_s=0.2)
SILENT = SplitDecision(LOCAL, '', 0.0, degraded=True)


class Camera:
    """A policy and the present instant; each event records its actions and returns them."""

    def __init__(self, decision: SplitDecision | None = None, **options) -> None:
        self.policy = CameraPolicy(LOCAL, SESSION, **options)
        self.now_s = 100.0
        self.actions: list[Action] = []
        self.images = 0
        if decision is not None:
            self.decide(decision)

    def tell(self, event: Callable[..., list[Action]], *values, after_s: float = 0.0, **options) -> list[Action]:
        """Pass an event to the policy, and return the actions that follow."""
        self.now_s += after_s
        actions = event(*values, now_s=self.now_s, **options)
        self.actions += actions
        return actions

    def decide(self, decision: SplitDecision, **options) -> list[Action]:
        return self.tell(self.policy.on_decision, decision, **options)

    def image(self, **options) -> list[Action]:
        self.images += 1
        return self.tell(self.policy.on_image, self.images, **options)

    def show(self, **options) -> list[Action]:
        """Pass a new image, and its preparation if the policy asks for it; return the actions that follow."""
        actions = self.image(**options)
        return actions + (self.tell(self.policy.on_prepared, 1) if Prepare in kinds(actions) else [])

    def compute(self, head_s: float = HEAD_S, **options) -> list[Action]:
        """Take a new image up to a payload that is ready to send."""
        started = self.image(**options)
        assert one(started, Prepare)
        assert one(self.tell(self.policy.on_prepared, 1), RunHead)
        done = self.tell(self.policy.on_head_done, 'activation', after_s=head_s)
        if any(isinstance(action, Encode) for action in done):
            return self.tell(self.policy.on_payload_ready, 1000, after_s=ENCODE_S)
        return done

    def send(self, **options) -> FrameRecord:
        """Take a new image up to the sent payload; return its frame."""
        frame = one(self.compute(**options), Send).frame
        self.tell(self.policy.on_payload_sent)
        return frame

    def acknowledge(self, frame: FrameRecord, after_s: float = TRANSFER_S) -> list[Action]:
        return self.tell(self.policy.on_acknowledgement, SESSION, frame.sequence, after_s=after_s)

    def answer(self, frame: FrameRecord, after_s: float = EDGE_S, status: Status = Status.OK) -> list[Action]:
        outputs, times = f'answer {frame.sequence}', EdgeTimes(held_s=after_s)
        return self.tell(
            self.policy.on_answer, SESSION, frame.sequence, status, 'the reason', outputs, 10, times, after_s=after_s
        )

    def serve(self) -> FrameRecord:
        """Offload one frame, from its image to its answer."""
        frame = self.send()
        self.acknowledge(frame)
        self.answer(frame)
        return frame

    def wake(self) -> list[Action]:
        """Let time pass until the instant of the latest WakeAt."""
        self.now_s = max(self.now_s, self.wake_s)
        return self.tell(self.policy.on_time)

    @property
    def wake_s(self) -> float:
        return next((action.at_s for action in reversed(self.actions) if isinstance(action, WakeAt)), math.inf)

    def finish(self, frame: FrameRecord, after_s: float = 0.1) -> list[Action]:
        return self.tell(self.policy.on_finished, frame.sequence, f'finished {frame.sequence}', after_s=after_s)

    @property
    def delivered(self) -> list[tuple[int, Outcome]]:
        return [(action.frame.sequence, action.frame.outcome) for action in self.actions if isinstance(action, Deliver)]

    def reports(self, outcome: Outcome) -> list[FrameRecord]:
        return [
            action.frame for action in self.actions if isinstance(action, Report) and action.frame.outcome is outcome
        ]


def one(actions: list[Action], kind: type) -> Action:
    """Return the only action of a kind."""
    (found,) = (action for action in actions if isinstance(action, kind))
    return found


def kinds(actions: list[Action]) -> list[type]:
    """Return the kinds of the actions without WakeAt."""
    return [type(action) for action in actions if not isinstance(action, WakeAt)]


# ---- images ------------------------------------------------------------------------------------------------------


def test_without_a_decision_a_frame_is_local() -> None:
    camera = Camera()
    assert kinds(camera.compute()) == [Deliver, Report]
    frame = camera.reports(Outcome.LOCAL)[0]
    assert camera.delivered == [(1, Outcome.LOCAL)]
    assert (frame.split_index, frame.codec, frame.head_s) == (LOCAL, '', pytest.approx(HEAD_S))
    assert frame.latency_s == pytest.approx(HEAD_S) and camera.policy.idle


def test_only_the_newest_image_waits() -> None:
    camera = Camera()
    assert one(camera.image(), Prepare).frame.image == 1
    assert camera.image() == camera.image() == []
    camera.tell(camera.policy.on_prepared, 1)
    assert one(camera.tell(camera.policy.on_head_done, 'outputs', after_s=HEAD_S), Prepare).frame.image == 3
    assert camera.policy.counters.dropped == 1


def test_a_refused_image_takes_no_number_and_the_next_one_starts() -> None:
    camera = Camera()
    camera.image()
    camera.image()
    assert one(camera.tell(camera.policy.on_image_refused), Prepare).frame.image == 2
    camera.tell(camera.policy.on_prepared, 1)
    camera.tell(camera.policy.on_head_done, 'outputs')
    assert camera.delivered == [(1, Outcome.LOCAL)]
    counters = camera.policy.counters
    assert (counters.refused_images, counters.accepted, counters.delivered) == (1, 1, 1)


def test_a_frame_whose_head_fails_is_dropped_and_those_behind_it_are_not() -> None:
    camera = Camera()
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    assert kinds(camera.tell(camera.policy.on_head_failed)) == [Drop]
    camera.compute()
    assert camera.delivered == [(2, Outcome.LOCAL)]
    assert (camera.policy.counters.failed, camera.policy.counters.delivered) == (1, 1)


def test_a_record_says_where_the_time_of_a_frame_went() -> None:
    camera = Camera(OFFLOAD)
    camera.image()
    camera.tell(camera.policy.on_prepared, 2, after_s=0.003)
    camera.tell(camera.policy.on_head_done, 'activation', after_s=0.02)
    camera.tell(camera.policy.on_payload_ready, 1000, after_s=0.01)
    camera.tell(camera.policy.on_payload_sent, after_s=0.001)
    frame = camera.reports(Outcome.SENT)[0]
    assert (frame.images, frame.payload_bytes, frame.session) == (2, 1000, SESSION)
    assert (frame.resize_s, frame.head_s, frame.encode_s, frame.send_s) == pytest.approx((0.003, 0.02, 0.01, 0.001))
    camera.acknowledge(frame, 0.05)
    camera.tell(
        camera.policy.on_answer,
        SESSION,
        1,
        Status.OK,
        '',
        'outputs',
        77,
        EdgeTimes(0.04, 0.01, 0.005, 0.025, 3),
        after_s=0.045,
    )
    answered = camera.reports(Outcome.ANSWERED)[0]
    assert answered.answered_s - answered.acknowledged_s == pytest.approx(0.045)
    assert answered.transfer_s == pytest.approx(0.001 + 0.05 + 0.045 - 0.04)
    assert (answered.held_s, answered.queueing_s, answered.decode_s, answered.tail_s) == (0.04, 0.01, 0.005, 0.025)
    assert (answered.batch, answered.answer_bytes) == (3, 77)
    assert answered.latency_s == pytest.approx(0.003 + 0.02 + 0.01 + 0.001 + 0.05 + 0.045)
    assert answered.waited_s == pytest.approx(0.001 + 0.05 + 0.045)


def test_an_edge_that_claims_more_time_than_passed_gives_no_negative_transfer() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.tell(camera.policy.on_answer, SESSION, frame.sequence, Status.OK, '', None, 0, EdgeTimes(held_s=9.0))
    assert frame.transfer_s == 0.0


# ---- limits and pacing -------------------------------------------------------------------------------------------


def waiting_payload() -> tuple[Camera, FrameRecord]:
    """Return a camera with one overdue payload on the link, and the next payload waiting for the link."""
    camera = Camera(OFFLOAD)
    camera.serve()
    first = camera.send()
    camera.show()
    assert one(camera.wake(), RunHead)  # so that its payload is ready when the link should be free
    camera.tell(camera.policy.on_head_done, 'activation', after_s=HEAD_S)
    assert Send not in kinds(camera.tell(camera.policy.on_payload_ready, 1000, after_s=ENCODE_S))
    return camera, first


def test_one_payload_at_a_time_is_on_the_link() -> None:
    camera, first = waiting_payload()
    frame = one(camera.acknowledge(first, after_s=0.3), Send).frame
    assert frame.sequence == 3 and frame.link_wait_s == pytest.approx(0.3)


def test_the_number_of_unanswered_frames_is_limited() -> None:
    camera = Camera(OFFLOAD, max_unanswered=2)
    sent = []
    for _ in range(2):
        sent.append(camera.send())
        camera.acknowledge(sent[-1])
    assert camera.policy.link_is_full
    assert RunHead not in kinds(camera.show())
    assert RunHead in kinds(camera.answer(sent[0]))


def test_a_head_starts_so_that_its_payload_finds_link_and_edge_free() -> None:
    camera = Camera(OFFLOAD)
    camera.serve()
    first = camera.send()
    sent_s = camera.now_s
    camera.show(period_s=math.nan)
    # The edge would be free for a payload that leaves after 0.04 s, but the link is busy for 0.05 s.
    assert camera.wake_s == pytest.approx(sent_s + TRANSFER_S - HEAD_S - ENCODE_S)
    assert camera.tell(camera.policy.on_time, after_s=0.01) == []
    assert one(camera.wake(), RunHead)
    assert first.sequence == 2


def test_the_camera_waits_for_a_link_that_is_busy_for_longer_than_expected() -> None:
    camera = Camera(OFFLOAD)
    camera.serve()
    first = camera.send()
    camera.now_s += 2 * TRANSFER_S
    assert RunHead not in kinds(camera.show())
    assert RunHead in kinds(camera.acknowledge(first))


# ---- preparing while the link is busy ----------------------------------------------------------------------------


def link_is_busy() -> tuple[Camera, FrameRecord]:
    """Return a camera with one payload on the link, which will be free in 0.05 s; a head takes 0.03 s."""
    camera = Camera(OFFLOAD)
    camera.serve()
    return camera, camera.send()


def test_the_next_image_is_prepared_while_the_link_is_busy() -> None:
    camera, first = link_is_busy()
    waiting = one(camera.image(), Prepare).frame
    assert kinds(camera.tell(camera.policy.on_prepared, 2, after_s=0.003)) == [], 'its start has not come'
    assert camera.policy.counters.accepted == 2 and waiting.sequence == 0
    frame = one(camera.wake(), RunHead).frame
    assert camera.now_s == pytest.approx(first.sent_s + TRANSFER_S - HEAD_S - ENCODE_S)
    assert frame is waiting and (frame.sequence, frame.images) == (3, 2)
    assert frame.resize_s == pytest.approx(0.003)
    assert frame.wait_s + frame.resize_s == pytest.approx(camera.now_s - frame.arrived_s)


def test_the_next_image_is_prepared_while_a_payload_waits_for_the_link() -> None:
    camera, first = waiting_payload()
    assert one(camera.image(), Prepare).frame.image == 4
    assert kinds(camera.tell(camera.policy.on_prepared, 1)) == []
    assert one(camera.acknowledge(first), Send).frame.sequence == 3


def test_no_image_is_prepared_while_the_robot_computes() -> None:
    camera = Camera(OFFLOAD)
    camera.show()
    assert camera.image() == []
    camera.tell(camera.policy.on_head_done, 'activation', after_s=HEAD_S)
    assert camera.image() == []
    assert kinds(camera.tell(camera.policy.on_payload_ready, 1000, after_s=ENCODE_S)) == [Send, Prepare]


def test_an_image_is_not_prepared_if_a_newer_one_is_expected_before_its_start() -> None:
    camera, _ = link_is_busy()
    assert kinds(camera.image(period_s=0.01)) == [], 'the next image comes 0.01 s before the start'
    assert one(camera.image(period_s=0.01, after_s=0.015), Prepare).frame.image == 4


def test_an_image_that_is_not_prepared_starts_earlier_by_its_preparation_time() -> None:
    camera = Camera(OFFLOAD)
    for _ in range(2):
        camera.image()
        camera.tell(camera.policy.on_prepared, 1, after_s=0.005)
        camera.tell(camera.policy.on_head_done, 'activation', after_s=HEAD_S)
        frame = one(camera.tell(camera.policy.on_payload_ready, 1000, after_s=ENCODE_S), Send).frame
        camera.tell(camera.policy.on_payload_sent)
        if frame.sequence == 1:
            camera.acknowledge(frame)
            camera.answer(frame)
    camera.image(period_s=0.001)  # a newer image is expected but does not come
    assert camera.wake_s == pytest.approx(frame.sent_s + TRANSFER_S - HEAD_S - ENCODE_S - 0.005)
    assert one(camera.wake(), Prepare)


def test_a_newer_image_replaces_one_that_is_prepared_or_being_prepared() -> None:
    camera, first = link_is_busy()
    camera.show()
    assert one(camera.image(), Prepare).frame.image == 4
    assert kinds(camera.image()) == [], 'one image at a time is prepared'
    assert one(camera.tell(camera.policy.on_prepared, 1), Prepare).frame.image == 5
    assert kinds(camera.acknowledge(first)) == [], 'the head waits for its image'
    assert one(camera.tell(camera.policy.on_prepared, 1), RunHead).frame.image == 5
    counters = camera.policy.counters
    assert (counters.accepted, counters.dropped) == (3, 2)


def test_an_image_that_is_refused_while_the_link_is_busy_counts_once() -> None:
    camera, first = link_is_busy()
    camera.image()
    assert kinds(camera.tell(camera.policy.on_image_refused)) == []
    camera.image()
    camera.image()
    assert one(camera.tell(camera.policy.on_image_refused), Prepare).frame.image == 5
    camera.tell(camera.policy.on_prepared, 1)
    assert one(camera.acknowledge(first), RunHead).frame.sequence == 3
    counters = camera.policy.counters
    assert (counters.accepted, counters.refused_images, counters.dropped) == (3, 1, 1)


def test_a_camera_that_stops_while_it_prepares_an_image_drops_it() -> None:
    camera, first = link_is_busy()
    camera.image()
    camera.tell(camera.policy.on_stop)
    assert kinds(camera.tell(camera.policy.on_prepared, 1)) == []
    camera.answer(first)
    counters = camera.policy.counters
    assert camera.policy.ended and (counters.accepted, counters.dropped) == (2, 1)


def test_preparing_the_next_image_does_not_end_an_audit() -> None:
    camera = auditing()
    first = camera.send()
    camera.acknowledge(first)
    camera.send()
    assert Audit in kinds(camera.answer(first, after_s=0.001))
    assert kinds(camera.image(period_s=math.nan)) == [Prepare]


# ---- waiting images -----------------------------------------------------------------------------------------------


def test_the_camera_waits_for_a_newer_image_if_the_wait_pays() -> None:
    camera = Camera(SplitDecision(LOCAL, '', 0.0, waiting_share=0.5))
    for _ in range(2):  # save half of the time between two starts for a wait
        camera.compute(period_s=1.0)
        camera.now_s += 2.0
    camera.image(period_s=1.0)
    camera.tell(camera.policy.on_prepared, 1)
    camera.image(period_s=1.0)
    assert camera.tell(camera.policy.on_head_done, 'outputs', after_s=0.6)  # the waiting image is 0.6 s old
    assert not any(isinstance(action, Prepare) and action.frame.image == 4 for action in camera.actions)
    assert camera.wake_s == pytest.approx(camera.now_s - 0.6 + 1.1)
    assert one(camera.image(period_s=1.0, after_s=0.4), Prepare).frame.image == 5
    assert camera.policy.counters.dropped == 1


def test_an_image_that_would_wait_too_long_for_the_link_is_computed_on_the_robot() -> None:
    camera = Camera(SplitDecision(1, 'raw', 10.0, local_if_wait_s=0.01))
    camera.serve()
    camera.send()
    assert [action.frame.split_index for action in camera.image() if isinstance(action, Prepare)] == [LOCAL]
    camera.tell(camera.policy.on_prepared, 1)
    camera.decide(SplitDecision(1, 'raw', 10.0, local_if_wait_s=0.01, predicted_latency_s=0.0))
    assert InterruptHead not in kinds(camera.actions), 'the decision of which this is a turn is no new choice'


def test_a_chooser_that_replaces_the_decisions_keeps_the_other_rules() -> None:
    asked = []

    def choose(image, arrived_s, now_s):
        asked.append((image, arrived_s))
        return SplitDecision(image % 2, 'raw', math.inf), now_s + 0.5

    camera = Camera(OFFLOAD, choose=choose)
    assert RunHead not in kinds(camera.show())
    camera.now_s = camera.wake_s
    assert camera.wake_s == pytest.approx(100.5) and asked[-1] == (1, 100.0)
    for split, choice in [(1, (1, 'raw')), (LOCAL, (LOCAL, ''))]:
        camera = Camera(choose=lambda image, arrived_s, now_s: (SplitDecision(split, 'raw', math.inf), now_s))
        assert one(camera.image(), Prepare).frame.choice == choice


# ---- the edge fails ----------------------------------------------------------------------------------------------


def test_the_robot_finishes_a_frame_after_its_answer_timeout() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    assert camera.wake_s == pytest.approx(frame.sent_s + 1.0)
    assert camera.tell(camera.policy.on_time, after_s=0.9) == []
    assert one(camera.wake(), Finish).frame is frame
    assert frame.activation == 'activation', 'the robot needs it to finish the frame'
    assert kinds(camera.finish(frame, after_s=0.1)) == [Deliver, Report]
    assert frame.activation is None and frame.outputs == 'finished 1'
    report = camera.reports(Outcome.FELL_BACK)[0]
    assert (report.finish_s, report.waited_s) == pytest.approx((0.1, 1.0))
    assert report.detail == 'no answer within 1.000 s'
    assert camera.policy.counters.fell_back == 1


def test_no_frame_waits_for_more_than_an_hour() -> None:
    camera = Camera(SplitDecision(1, 'raw', math.inf))
    frame = camera.send()
    assert camera.wake_s == pytest.approx(frame.sent_s + 3600.0)


def test_no_head_starts_while_a_frame_is_finished() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.acknowledge(frame)
    camera.wake()
    assert Prepare not in kinds(camera.image())
    assert Prepare in kinds(camera.finish(frame))


@pytest.mark.parametrize('waited_s, first', [(0.6, Prepare), (0.8, Finish)])
def test_the_robot_finishes_a_frame_first_if_it_would_time_out_during_local_inference(waited_s, first) -> None:
    """Local inference takes 0.3 s and the answer timeout is 1 s: both at once would take twice as long."""
    camera = Camera()
    camera.compute(head_s=0.3)
    camera.decide(OFFLOAD)
    frame = camera.send(head_s=0.3)
    camera.decide(SplitDecision(LOCAL, '', 0.0), after_s=waited_s)
    assert kinds(camera.image()) == [first]
    if first is Finish:
        assert kinds(camera.finish(frame)) == [Deliver, Report, Prepare]


def test_an_answer_is_taken_while_the_robot_finishes_its_frame() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.wake()
    actions = camera.answer(frame)
    assert kinds(actions) == [StopFinishing, Deliver, Report]
    assert frame.outputs == f'answer {frame.sequence}'
    assert kinds(camera.finish(frame)) == [], 'the frame was delivered'
    assert camera.delivered == [(1, Outcome.ANSWERED)]
    assert (camera.policy.counters.fell_back, camera.policy.counters.late_answers) == (0, 0)


@pytest.mark.parametrize('timeout_s', [1e9, math.inf])
def test_the_camera_waits_at_most_an_hour_for_an_answer(timeout_s) -> None:
    camera = Camera(replace(OFFLOAD, answer_timeout_s=timeout_s))
    frame = camera.send()
    assert (frame.answer_timeout_s, frame.deadline_s) == (3600.0, camera.now_s + 3600.0)


def test_a_late_answer_is_reported_once() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.wake()
    camera.finish(frame)
    assert kinds(camera.answer(frame)) == [Report] and kinds(camera.answer(frame)) == []
    late = camera.reports(Outcome.LATE)
    assert len(late) == 1 and late[0].answered_s > late[0].given_up_s > late[0].sent_s
    assert camera.policy.counters.late_answers == 2
    assert camera.delivered == [(1, Outcome.FELL_BACK)]


def test_late_answers_are_recognised_for_the_latest_sixteen_frames_only() -> None:
    camera, frames = Camera(OFFLOAD), []
    for number in range(17):
        camera.decide(SplitDecision(1, 'raw', 1.0, SESSION, number))
        frames.append(camera.send())
        camera.wake()
        camera.finish(frames[-1])
    assert kinds(camera.answer(frames[0])) == [] and kinds(camera.answer(frames[1])) == [Report]


@pytest.mark.parametrize('session, sequence', [(SESSION + 1, 1), (SESSION, 2), (SESSION, 0)])
def test_messages_of_other_frames_change_nothing(session, sequence) -> None:
    camera = Camera(OFFLOAD)
    camera.send()
    assert camera.tell(camera.policy.on_acknowledgement, session, sequence) == []
    assert camera.tell(camera.policy.on_answer, session, sequence, Status.OK, '', None, 0, EdgeTimes()) == []
    assert camera.policy.link_is_full and camera.delivered == []
    assert camera.policy.counters.late_answers == 1


def test_an_answer_to_a_frame_that_was_never_sent_is_not_taken() -> None:
    camera, first = waiting_payload()
    camera.decide(SILENT)
    assert camera.tell(camera.policy.on_answer, SESSION, 3, Status.OK, '', 'forged', 0, EdgeTimes()) == []
    camera.finish(first)
    camera.tell(camera.policy.on_finished, 3, 'finished 3')
    assert camera.delivered[1:] == [(2, Outcome.FELL_BACK), (3, Outcome.FELL_BACK)]


@pytest.mark.parametrize('status', [Status.REFUSED, Status.SUPERSEDED, Status.FAILED])
def test_after_a_refusal_frames_are_local_until_a_decision_accounts_for_it(status) -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.acknowledge(frame)
    assert one(camera.answer(frame, status=status), Finish).frame is frame
    assert frame.detail == 'the reason'
    camera.finish(frame)
    for known, split in [(0, LOCAL), (frame.sequence, 1)]:
        camera.decide(SplitDecision(1, 'raw', 1.0, SESSION, known))
        assert one(camera.image(), Prepare).frame.split_index == split
        camera.tell(camera.policy.on_prepared, 1)
        camera.tell(camera.policy.on_head_done, 'outputs')


def test_a_decision_based_on_another_session_does_not_end_local_inference() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.wake()
    camera.finish(frame)
    camera.decide(SplitDecision(1, 'raw', 1.0, SESSION + 1, 1000))
    assert one(camera.image(), Prepare).frame.split_index == LOCAL


def test_the_robot_finishes_all_sent_frames_in_order_when_the_edge_is_silent() -> None:
    camera = Camera(OFFLOAD)
    first = camera.send()
    camera.acknowledge(first)
    second = camera.send()
    assert one(camera.decide(SILENT), Finish).frame is first
    assert one(camera.finish(first), Finish).frame is second
    camera.finish(second)
    assert camera.delivered == [(1, Outcome.FELL_BACK), (2, Outcome.FELL_BACK)]
    assert second.detail == 'the edge is silent'


def test_a_waiting_payload_is_not_sent_to_a_silent_edge() -> None:
    camera, first = waiting_payload()
    assert one(camera.decide(SILENT), Finish).frame is first
    waiting = one(camera.finish(first), Finish).frame
    camera.finish(waiting)
    assert camera.delivered[1:] == [(2, Outcome.FELL_BACK), (3, Outcome.FELL_BACK)]
    assert math.isnan(waiting.sent_s) and waiting.waited_s == 0.0
    assert len([action for action in camera.actions if isinstance(action, Send)]) == 2


def test_a_waiting_payload_is_sent_if_the_edge_answers_while_the_robot_finishes_an_older_frame() -> None:
    camera, first = waiting_payload()
    assert one(camera.decide(SILENT), Finish).frame is first
    second = one(camera.acknowledge(first, after_s=0.3), Send).frame
    camera.tell(camera.policy.on_payload_sent)
    assert StopFinishing in kinds(camera.answer(first))
    camera.acknowledge(second)
    camera.answer(second)
    assert camera.delivered[1:] == [(2, Outcome.ANSWERED), (3, Outcome.ANSWERED)]


def test_a_payload_that_waited_for_the_link_gets_the_timeout_of_the_latest_decision() -> None:
    camera, first = waiting_payload()
    camera.decide(SplitDecision(1, 'raw', 0.25))
    assert one(camera.acknowledge(first), Send).frame.answer_timeout_s == 0.25


def test_a_payload_that_waited_keeps_its_timeout_when_another_choice_is_decided() -> None:
    camera, first = waiting_payload()
    camera.decide(SplitDecision(2, 'raw', 0.25))
    assert one(camera.acknowledge(first), Send).frame.answer_timeout_s == 1.0


@pytest.mark.parametrize('stage', ['encoding', 'sending'])
def test_the_robot_finishes_a_frame_whose_payload_cannot_be_sent(stage) -> None:
    camera = Camera(OFFLOAD)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    camera.tell(camera.policy.on_head_done, 'activation')
    if stage == 'sending':
        assert Send in kinds(camera.tell(camera.policy.on_payload_ready, 1000))
    frame = one(camera.tell(camera.policy.on_payload_failed, 'out of memory'), Finish).frame
    assert frame.detail == 'the payload could not be sent (out of memory)'
    camera.finish(frame)
    assert camera.delivered == [(1, Outcome.FELL_BACK)] and not camera.policy.link_is_full
    assert one(camera.image(), Prepare).frame.split_index == LOCAL


def test_an_answer_that_comes_before_the_send_returns_is_taken() -> None:
    camera = Camera(OFFLOAD)
    frame = one(camera.compute(), Send).frame
    assert kinds(camera.answer(frame)) == [Deliver, Report]
    assert kinds(camera.tell(camera.policy.on_payload_failed, 'too late')) == []
    assert camera.delivered == [(1, Outcome.ANSWERED)] and camera.policy.idle


def test_a_frame_that_the_robot_cannot_finish_is_dropped_and_reported() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.wake()
    assert kinds(camera.tell(camera.policy.on_finish_failed, frame.sequence)) == [Drop, Report]
    assert camera.policy.counters.failed == 1 and camera.policy.idle


def test_predictions_keep_the_order_of_the_frames() -> None:
    camera = Camera(OFFLOAD)
    first = camera.send()
    camera.acknowledge(first)
    second = camera.send()
    assert kinds(camera.answer(second)) == []
    camera.answer(first)
    assert camera.delivered == [(1, Outcome.ANSWERED), (2, Outcome.ANSWERED)]
    assert first.latency_s > 0 and first.delivered_s == second.delivered_s


# ---- a new decision while a head runs ----------------------------------------------------------------------------


def slow_local_head() -> Camera:
    """Return a camera whose robot runs a local inference of 60 s."""
    camera = Camera()
    camera.compute(head_s=60.0)
    camera.image()
    return camera


@pytest.mark.parametrize('promised_s, interrupted', [(1.0, True), (59.0, False), (100.0, False)])
def test_a_head_that_takes_longer_than_a_new_decision_predicts_is_interrupted(promised_s, interrupted) -> None:
    camera = slow_local_head()
    camera.tell(camera.policy.on_prepared, 1)
    actions = camera.decide(SplitDecision(1, 'raw', 1.0, predicted_latency_s=promised_s), after_s=2.0)
    assert kinds(actions) == ([InterruptHead] if interrupted else [])
    if interrupted:
        frame = one(camera.tell(camera.policy.on_head_interrupted), RunHead).frame
        assert frame.choice == (1, 'raw') and frame.wait_s == pytest.approx(2.0)
        assert camera.decide(SplitDecision(2, 'raw', 1.0, predicted_latency_s=0.0)) == [], 'once for each frame'
        camera.tell(camera.policy.on_head_done, 'activation')
        assert Send in kinds(camera.tell(camera.policy.on_payload_ready, 1000))


def test_a_new_decision_for_the_same_choice_does_not_interrupt_a_head() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send(head_s=60.0)
    camera.acknowledge(frame)
    camera.answer(frame, after_s=0.1)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    assert camera.decide(OFFLOAD) == []
    better = SplitDecision(2, 'raw', 1.0, predicted_latency_s=0.2)
    assert one(camera.decide(better), InterruptHead)
    assert camera.decide(SplitDecision(0, 'raw', 1.0, predicted_latency_s=0.1)) == [], 'the head is about to end'
    camera.decide(OFFLOAD)
    assert one(camera.tell(camera.policy.on_head_interrupted), RunHead).frame.choice == OFFLOAD.choice
    assert camera.decide(better) == [], 'once for each frame'


def test_each_frame_may_be_interrupted_once() -> None:
    camera = slow_local_head()
    for _ in range(2):
        camera.tell(camera.policy.on_prepared, 1)
        assert one(camera.decide(SplitDecision(1, 'raw', 1.0, predicted_latency_s=0.2)), InterruptHead)
        assert camera.decide(SplitDecision(LOCAL, '', 0.0)) == []
        camera.tell(camera.policy.on_head_interrupted)
        camera.tell(camera.policy.on_head_done, 'outputs', after_s=60.0)
        camera.image()


def test_an_interrupted_head_becomes_local_if_the_edge_fails_meanwhile() -> None:
    camera = Camera()
    camera.compute(head_s=60.0)
    camera.decide(replace(OFFLOAD, answer_timeout_s=100.0))
    sent = camera.send()
    camera.decide(SplitDecision(LOCAL, '', 0.0))
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    assert one(camera.decide(OFFLOAD), InterruptHead)
    camera.answer(sent, status=Status.FAILED)
    assert one(camera.tell(camera.policy.on_head_interrupted), RunHead).frame.choice == (LOCAL, '')


def test_a_frame_that_becomes_local_after_an_interrupt_names_no_edge() -> None:
    camera = Camera(replace(OFFLOAD, edge='near', head_engine='openvino'))
    frame = camera.send(head_s=60.0)
    camera.tell(camera.policy.on_answer, SESSION, frame.sequence, Status.OK, '', 'outputs', 10, EdgeTimes(edge='near'))
    camera.image()
    assert one(camera.tell(camera.policy.on_prepared, 1), RunHead).frame.edge == 'near'
    assert one(camera.decide(replace(OFFLOAD, split_index=2, edge='near')), InterruptHead)
    camera.decide(SILENT)
    local = one(camera.tell(camera.policy.on_head_interrupted), RunHead).frame
    assert (local.choice, local.edge, local.head_engine, local.tail_engine) == ((LOCAL, ''), '', EAGER, '')
    assert math.isnan(local.answer_timeout_s)


def test_a_decision_during_the_resize_changes_the_head_before_it_runs() -> None:
    camera = slow_local_head()
    camera.decide(OFFLOAD)
    assert one(camera.tell(camera.policy.on_prepared, 1), RunHead).frame.choice == OFFLOAD.choice
    assert InterruptHead not in kinds(camera.actions)


def test_a_head_that_ends_before_its_interrupt_counts() -> None:
    camera = slow_local_head()
    camera.tell(camera.policy.on_prepared, 1)
    assert one(camera.decide(OFFLOAD), InterruptHead)
    assert Deliver in kinds(camera.tell(camera.policy.on_head_done, 'outputs'))


def test_a_decision_that_ignores_a_failure_of_the_edge_interrupts_no_head() -> None:
    camera = Camera()
    camera.compute(head_s=60.0)
    camera.decide(OFFLOAD)
    frame = camera.send()
    camera.answer(frame, status=Status.FAILED)
    camera.finish(frame)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    assert camera.decide(OFFLOAD) == [], 'it does not know of the failed frame'
    assert one(camera.decide(SplitDecision(1, 'raw', 1.0, SESSION, 2, predicted_latency_s=0.2)), InterruptHead)


def test_a_record_says_how_long_the_robot_finished_another_frame_during_the_head() -> None:
    camera = Camera(OFFLOAD)
    first = camera.send()
    camera.acknowledge(first)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    camera.decide(SILENT, after_s=0.1)
    camera.finish(first, after_s=0.2)
    camera.tell(camera.policy.on_head_done, 'activation', after_s=0.3)
    second = one(camera.tell(camera.policy.on_payload_ready, 1000), Finish).frame
    assert (second.head_s, second.finishing_s) == pytest.approx((0.6, 0.2))
    assert first.finishing_s == 0.0
    camera.finish(second)
    camera.compute()
    assert camera.reports(Outcome.LOCAL)[0].finishing_s == 0.0


# ---- the end -----------------------------------------------------------------------------------------------------


def test_a_stopped_camera_accepts_nothing_and_still_takes_answers() -> None:
    camera = Camera(OFFLOAD)
    frame = camera.send()
    camera.image()
    camera.tell(camera.policy.on_stop)
    assert camera.image() == [] and camera.policy.counters.dropped == 2
    assert not camera.policy.ended
    camera.answer(frame)
    assert camera.delivered == [(1, Outcome.ANSWERED)] and camera.policy.ended


def test_a_stopped_camera_sends_nothing_more() -> None:
    camera, first = waiting_payload()
    waiting = one(camera.tell(camera.policy.on_stop), Finish).frame
    camera.finish(waiting)
    camera.answer(first)
    assert camera.delivered[1:] == [(2, Outcome.ANSWERED), (3, Outcome.FELL_BACK)] and camera.policy.ended


def test_a_closed_camera_finishes_sent_frames_and_the_frame_at_the_head_at_once() -> None:
    camera = Camera(OFFLOAD)
    first = camera.send()
    camera.acknowledge(first)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    assert one(camera.tell(camera.policy.on_close), Finish).frame is first
    camera.finish(first)
    camera.tell(camera.policy.on_head_done, 'activation')
    second = one(camera.tell(camera.policy.on_payload_ready, 1000), Finish).frame
    assert not camera.policy.ended
    camera.finish(second)
    assert camera.delivered == [(1, Outcome.FELL_BACK), (2, Outcome.FELL_BACK)] and camera.policy.ended
    assert first.detail == 'the camera ends' and second.detail == 'the camera ends before the payload was sent'


# ---- random events -----------------------------------------------------------------------------------------------


class Chaos:
    """
    Carries out a policy's actions at random instants, with random behaviour of the edge.

    What must hold is checked after each event: order, one delivery for each frame, limits, one head and one tail at a
    time, and that the policy asks to be woken only in the future.
    """

    def __init__(self, max_unanswered: int) -> None:
        self.policy = CameraPolicy(LOCAL, SESSION, max_unanswered=max_unanswered)
        self.now_s = 0.0
        self.head: Action | None = None
        self.sending: Send | None = None
        self.interrupting = False
        self.finishing: FrameRecord | None = None
        self.sent: dict[int, FrameRecord] = {}
        self.done: list[int] = []
        self.accepted: set[int] = set()
        self.images = 0
        self.wake_s = math.inf

    def tell(self, event, *values, **options) -> None:
        for action in event(*values, now_s=self.now_s, **options):
            self.take(action)
        unanswered = self.policy.unanswered
        assert len(unanswered) <= self.policy.max_unanswered
        assert sum(math.isnan(frame.acknowledged_s) for frame in unanswered) <= 1
        assert self.wake_s > self.now_s

    def take(self, action: Action) -> None:
        match action:
            case Prepare() | RunHead() | Encode():
                assert self.head is None
                self.head = action
                if isinstance(action, RunHead):
                    self.accepted.add(action.frame.sequence)
            case Send(frame):
                assert self.sending is None and not math.isnan(frame.sent_s)
                self.sending = action
                self.sent[frame.sequence] = frame
            case InterruptHead():
                assert isinstance(self.head, RunHead)
                self.interrupting = True
            case Finish(frame):
                assert self.finishing is None
                self.finishing = frame
            case StopFinishing(frame):
                assert self.finishing is frame
                self.finishing = None
            case Deliver(frame) | Drop(frame):
                self.done.append(frame.sequence)
            case WakeAt(at_s):
                self.wake_s = at_s

    def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.wake_s <= until_s:
            self.now_s = self.wake_s
            self.tell(self.policy.on_time)
        self.now_s = until_s

    def end_head(self, well: bool) -> None:
        action, self.head = self.head, None
        match action:
            case Prepare() if well:
                self.tell(self.policy.on_prepared, 1)
            case Prepare():
                self.tell(self.policy.on_image_refused)
            case RunHead() if self.interrupting and not well:
                self.interrupting = False
                self.tell(self.policy.on_head_interrupted)
            case RunHead():
                self.interrupting = False
                event, values = (self.policy.on_head_done, ('outputs',)) if well else (self.policy.on_head_failed, ())
                self.tell(event, *values)
            case Encode() if well:
                self.tell(self.policy.on_payload_ready, 1000)
            case Encode():
                self.tell(self.policy.on_payload_failed, 'no reason')

    def end_sending(self, well: bool) -> None:
        action, self.sending = self.sending, None
        if action is not None:
            event, values = (
                (self.policy.on_payload_sent, ()) if well else (self.policy.on_payload_failed, ('no reason',))
            )
            self.tell(event, *values)

    def end_finish(self, well: bool) -> None:
        frame, self.finishing = self.finishing, None
        if frame is not None and well:
            self.tell(self.policy.on_finished, frame.sequence, 'outputs')
        elif frame is not None:
            self.tell(self.policy.on_finish_failed, frame.sequence)

    def image(self, period_s: float) -> None:
        self.images += 1
        self.tell(self.policy.on_image, self.images, period_s=period_s)


spans = st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.5, 2.0])
choices = st.tuples(st.integers(0, LOCAL), st.sampled_from(['raw', 'blosc2']))
decisions = st.builds(
    lambda choice, timeout_s, known, local_if_wait_s, predicted_s, share, degraded: SplitDecision(
        *choice, timeout_s, SESSION, known, local_if_wait_s, predicted_s, share, degraded
    ),
    choices,
    st.sampled_from([0.0, 0.05, 1.0, math.inf]),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.1, math.inf]),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.sampled_from([0.0, 0.08, 0.5]),
    st.booleans() | st.just(False),
)
events = st.one_of(
    st.tuples(st.just('image'), st.sampled_from([0.1, math.nan])),
    st.tuples(st.just('head'), st.sampled_from([True, True, True, False])),
    st.tuples(st.just('head'), st.just(True)),
    st.tuples(st.just('send'), st.sampled_from([True, True, False])),
    st.tuples(st.just('finish'), st.sampled_from([True, True, False])),
    st.tuples(st.just('acknowledge'), st.integers(0, 3)),
    st.tuples(st.just('answer'), st.integers(0, 3), st.sampled_from([Status.OK, Status.OK, *Status])),
    st.tuples(st.just('decision'), decisions),
    st.tuples(st.just('time'), spans),
    st.tuples(st.just('stop')),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(max_unanswered=st.integers(1, 4), steps=st.lists(events, max_size=80))
def test_random_events_deliver_or_drop_each_frame_once_in_order_within_the_limits(max_unanswered, steps) -> None:
    chaos = Chaos(max_unanswered)
    for kind, *values in steps:
        chaos.pass_time(0.001)
        sequence = max([0, *chaos.sent]) - values[0] if kind in ('acknowledge', 'answer') else 0
        match kind:
            case 'image':
                chaos.image(*values)
            case 'head':
                chaos.end_head(*values)
            case 'send':
                chaos.end_sending(*values)
            case 'finish':
                chaos.end_finish(*values)
            case 'acknowledge':
                chaos.tell(chaos.policy.on_acknowledgement, SESSION, sequence)
            case 'answer':
                chaos.tell(chaos.policy.on_answer, SESSION, sequence, values[1], '', 'outputs', 1, EdgeTimes(0.01))
            case 'decision':
                chaos.tell(chaos.policy.on_decision, *values)
            case 'time':
                chaos.pass_time(*values)
            case 'stop':
                chaos.tell(chaos.policy.on_stop)
        assert chaos.done == list(range(1, len(chaos.done) + 1)), 'out of order, or twice'
    chaos.tell(chaos.policy.on_close)
    for _ in range(100):
        chaos.end_head(True)
        chaos.end_sending(True)
        chaos.end_finish(True)
    assert chaos.policy.ended and chaos.done == sorted(chaos.accepted) == list(range(1, len(chaos.done) + 1))
    counters = chaos.policy.counters
    assert counters.accepted == len(chaos.accepted) == counters.delivered + counters.failed
    assert counters.accepted + counters.refused_images + counters.dropped == chaos.images


# ---- audits ----------------------------------------------------------------------------------------------------------


def auditing(codec: str = 'quant4-zstd') -> Camera:
    """Return a camera that audits every frame which it sends with loss."""
    decision = SplitDecision(1, codec, 1.0, predicted_latency_s=0.2)
    return Camera(decision, audits=AuditScheduler(1.0), lossy={'quant4-zstd'})


def test_a_frame_that_was_sent_with_loss_is_audited_in_the_pause_after_its_answer() -> None:
    camera = auditing()
    frame = camera.send()
    assert not any(isinstance(action, Audit) for action in camera.acknowledge(frame))
    answered = camera.answer(frame)
    audited = one(answered, Audit).frame
    assert answered.index(one(answered, Deliver)) < answered.index(one(answered, Audit)), 'the prediction does not wait'
    assert audited.activation == 'activation' and audited.outputs is not None and audited.image is None
    report = one(camera.tell(camera.policy.on_audited, audited, 0.75, after_s=0.1), ReportAudit)
    assert (report.agreement, report.frame.choice) == (0.75, (1, 'quant4-zstd')) and report.frame.activation is None
    assert camera.policy.audits.counters.audited == 1


def test_an_audit_ends_before_the_work_on_the_next_frame_begins() -> None:
    camera = auditing()
    frame = camera.send()
    camera.acknowledge(frame)
    audited = one(camera.answer(frame), Audit).frame
    started = camera.image()
    assert one(started, Prepare) and one(started, StopAudit).frame is audited
    assert not camera.tell(camera.policy.on_audited, audited, 1.0), 'an audit that was to end does not count'
    assert camera.policy.audits.counters.audited == 0


@pytest.mark.parametrize('decision', [OFFLOAD, SplitDecision(LOCAL, '', 1.0)])
def test_a_frame_without_loss_needs_no_audit(decision) -> None:
    camera = auditing()
    camera.decide(decision)
    if decision.split_index == LOCAL:
        camera.compute()
    else:
        frame = camera.send()
        camera.acknowledge(frame)
        camera.answer(frame)
    assert not any(isinstance(action, Audit) for action in camera.actions)
    assert (camera.policy.audits.counters.drawn, camera.policy.audits.counters.exact) == (1, 1)


def test_an_audit_under_way_at_the_end_is_skipped() -> None:
    camera = auditing()
    frame = camera.send()
    camera.acknowledge(frame)
    camera.answer(frame)
    assert one(camera.tell(camera.policy.on_stop), StopAudit)
    assert camera.policy.audits.counters.skipped == 1 and camera.policy.ended


def test_an_audit_that_fails_is_skipped_and_the_next_one_runs() -> None:
    camera = auditing()
    for _ in range(2):
        frame = camera.send()
        camera.acknowledge(frame)
        assert not camera.tell(camera.policy.on_audit_failed, one(camera.answer(frame), Audit).frame)
    assert camera.policy.audits.counters.skipped == 2


def test_a_frame_names_the_engines_of_its_decision_and_the_one_that_answered() -> None:
    camera = Camera(replace(OFFLOAD, head_engine='openvino', tail_engine='inductor', local_engine='onnxruntime'))
    frame = camera.send()
    assert (frame.head_engine, frame.tail_engine) == ('openvino', 'inductor')
    camera.acknowledge(frame)
    camera.tell(
        camera.policy.on_answer, SESSION, frame.sequence, Status.OK, '', 'answer', 10, EdgeTimes(tail_engine='eager')
    )
    assert frame.tail_engine == 'eager'


def test_local_inference_runs_on_the_local_engine_of_the_decision_and_without_one_on_eager() -> None:
    camera = Camera()
    assert one(camera.image(), Prepare).frame.head_engine == 'eager'
    camera = Camera(replace(SILENT, degraded=False, local_engine='onnxruntime'))
    frame = one(camera.image(), Prepare).frame
    assert (frame.head_engine, frame.tail_engine) == ('onnxruntime', '')
