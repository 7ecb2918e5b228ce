# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Tell two robots in one namespace from one that has restarted, by the sessions that their messages carry.

A camera and a monitor draw a session when they start. After a restart only the new session is heard. Two that live at
the same time are heard in turns: a session comes back after another one.
"""

from __future__ import annotations

from collections import deque

#: So often sessions must have come back, within so many seconds. A straggler of a node that ended makes two returns:
#: its own and that of its successor. Two monitors with the slowest heartbeat, 10 s, make three in 20 s.
RETURNS, WITHIN_S = 3, 30.0
#: Latest sessions of one kind of sender that are kept; whoever sends others all the time is not two robots.
MOST_SESSIONS = 8


class Senders:
    """The cameras and monitors that are heard in one namespace; instants are of any one clock, in seconds."""

    def __init__(self) -> None:
        self._cameras, self._monitors = _Sessions(), _Sessions()

    def on_camera(self, session: int, now_s: float) -> None:
        """Note that a camera with this session was heard."""
        self._cameras.on_heard(session, now_s)

    def on_monitor(self, session: int, now_s: float) -> None:
        """Note that a monitor with this session was heard."""
        self._monitors.on_heard(session, now_s)

    def are_two(self, now_s: float) -> bool:
        """Whether two cameras or two monitors live in this namespace."""
        return self._cameras.are_two(now_s) or self._monitors.are_two(now_s)


class _Sessions:
    def __init__(self) -> None:
        self._latest: deque[int] = deque(maxlen=MOST_SESSIONS)  # in the order in which they were heard last
        self._returned_s: deque[float] = deque(maxlen=RETURNS)

    def on_heard(self, session: int, now_s: float) -> None:
        if self._latest and self._latest[-1] == session:
            return
        if session in self._latest:
            self._latest.remove(session)
            self._returned_s.append(now_s)
        self._latest.append(session)

    def are_two(self, now_s: float) -> bool:
        return len(self._returned_s) == RETURNS and now_s - self._returned_s[0] <= WITHIN_S
