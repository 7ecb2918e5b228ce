# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Detects, by their sessions, two robots in one namespace or two edges of one name, and ignores restarts.

Camera, monitor and edge draw a random session when they start. After a restart, only messages of the new session
arrive. If two nodes run at the same time, their messages alternate: a session returns after another one.
"""

from __future__ import annotations

from collections import deque

#: Number of returns of sessions that shows two senders, and the time within which they must happen, in seconds. A late
#: message of a node that ended causes two returns: its own and that of its successor. Two monitors with the slowest
#: heartbeat, 10 s, cause three returns in 20 s.
RETURNS, WITHIN_S = 3, 30.0
#: Number of latest sessions that are remembered. It bounds the memory for senders with ever new sessions.
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
    """Watches the sessions of messages that should come from one sender."""

    def __init__(self) -> None:
        self._latest: deque[int] = deque(maxlen=MAX_SESSIONS)  # the session of the latest message is the last one
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
        """Whether two senders are active at the same time."""
        return len(self._returned_s) == RETURNS and now_s - self._returned_s[0] <= WITHIN_S
