# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Distinguish two robots in one namespace, or two edges of one name, from one that has restarted: by their sessions.

A camera, a monitor and an edge draw a random session when they start. After a restart, only messages of the new session
come. If two run at the same time, their messages alternate: a session returns after another one.
"""

from __future__ import annotations

from collections import deque

#: Sessions must return this many times within this many seconds. A late message of a node that ended makes two returns:
#: its own and that of its successor. Two monitors with the slowest heartbeat, 10 s, make three returns in 20 s.
RETURNS, WITHIN_S = 3, 30.0
#: Latest sessions that are remembered for cameras and for monitors; a sender with ever new sessions is not two robots.
MAX_SESSIONS = 8


class SenderSessions:
    """Watches the sessions of the cameras and monitors in one namespace; all instants come from one clock (s)."""

    def __init__(self) -> None:
        self._cameras, self._monitors = Sessions(), Sessions()

    def on_camera(self, session: int, now_s: float) -> None:
        """Note a message of a camera with this session."""
        self._cameras.on_heard(session, now_s)

    def on_monitor(self, session: int, now_s: float) -> None:
        """Note a message of a monitor with this session."""
        self._monitors.on_heard(session, now_s)

    def has_duplicate(self, now_s: float) -> bool:
        """Whether two cameras or two monitors run in this namespace."""
        return self._cameras.has_duplicate(now_s) or self._monitors.has_duplicate(now_s)


class Sessions:
    """Watches the sessions of senders that should be one."""

    def __init__(self) -> None:
        self._latest: deque[int] = deque(maxlen=MAX_SESSIONS)  # the latest message's last
        self._returned_s: deque[float] = deque(maxlen=RETURNS)

    def on_heard(self, session: int, now_s: float) -> None:
        """Note a message with this session."""
        if self._latest and self._latest[-1] == session:
            return
        if session in self._latest:
            self._latest.remove(session)
            self._returned_s.append(now_s)
        self._latest.append(session)

    def has_duplicate(self, now_s: float) -> bool:
        """Whether two senders are heard at the same time."""
        return len(self._returned_s) == RETURNS and now_s - self._returned_s[0] <= WITHIN_S
