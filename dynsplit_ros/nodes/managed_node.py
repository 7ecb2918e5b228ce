# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the managed (lifecycle) nodes share: their transitions, what is made and released in them, and the autostart."""

from __future__ import annotations

from collections.abc import Callable
import math
import time
import traceback

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
import rclpy.parameter

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.memory import keep_memory
from dynsplit_ros.nodes.base_node import BaseNode, interruptible
from dynsplit_ros.parameters import Parameter, Value
from dynsplit_ros.policies.senders import SenderSessions
from dynsplit_ros.text import printable

#: Longest time in which a node that is told to end finishes what is under way.
END_S = 1.0


class ManagedNode(LifecycleNodeMixin, BaseNode):
    """
    A managed node, which configures and activates itself unless the parameter ``autostart`` is false.

    A subclass defines ``configure`` and ``activate``, which raise DynsplitError for parameters that cannot be followed,
    and ``deactivate`` and ``cleanup``, which also undo what only half succeeded. Publishers, subscriptions and timers
    that are made in ``configure`` go with ``cleanup``, those made later with ``deactivate``.
    """

    def __init__(self, name: str, parameters: tuple[Parameter, ...]) -> None:
        self._unusable: dict[str, DynsplitError] = {}
        self._failure: Exception | None = None
        self.senders = SenderSessions()  # the cameras and monitors that are heard in this node's namespace
        BaseNode.__init__(self, name, parameters)
        LifecycleNodeMixin.__init__(self, enable_communication_interface=self.values.remote_control)
        if self.values.remote_control:
            # The mixin's own callback lets a transition that is impossible from here end the node.
            self._transition = self._service_change_state.callback
            self._service_change_state.callback = self._on_change_state
        elif not self.values.autostart:
            raise DynsplitError(
                "parameters 'autostart' and 'remote_control' are both false, so nothing can "
                'activate the node; set one of them to true'
            )
        self._before_configure = self._before_activate = self._entities()

    # ---- what a subclass defines -----------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load what the node needs, by the parameters as they are now."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self, within_s: float) -> None:
        """Accept nothing more and finish what is under way, which may take ``within_s`` seconds."""

    def cleanup(self) -> None:
        """Release what was loaded."""

    # ---- transitions -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The lifecycle state's name: unconfigured, inactive, active, finalized or that of a transition."""
        return str(self._state_machine.current_state[1])

    def start(self) -> None:
        """Configure and activate, or leave that to others; raises what a transition failed with."""
        for transition in (self.trigger_configure, self.trigger_activate) if self.values.autostart else ():
            transition()
            if self._failure is not None:
                raise self._failure

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; a failure leaves nothing behind."""
        self._before_configure = self._entities()
        return self._attempt(self._configure, self._cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; a failure leaves nothing behind."""
        self._before_activate = self._entities()
        return self._attempt(self._activate, lambda: self._deactivate(END_S))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate, with all the time that it takes."""
        with interruptible():
            self._deactivate(math.inf)
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._cleanup()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything for good; the process ends by a signal."""
        if state.label == 'active':
            self._deactivate(END_S)
        if state.label in ('active', 'inactive'):
            self._cleanup()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what can be, so that the node can be configured again."""
        self._deactivate(END_S)
        self._cleanup()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        for error in self._unusable.values():
            raise error
        self.configure()

    def _activate(self) -> None:
        self.activate()
        keep_memory()

    def _deactivate(self, within_s: float) -> None:
        self.deactivate(within_s)
        self._destroy_all_but(self._before_activate)

    def _cleanup(self) -> None:
        self.cleanup()
        self._destroy_all_but(self._before_configure)

    def _attempt(self, step: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        self._failure = None
        try:
            with interruptible():
                step()
        except Exception as error:
            self._failure = error
            undo()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _on_change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        """Carry out what somebody asks for; say why where it fails, and live on."""
        asked = request.transition.label or request.transition.id
        if not any(asked in transition[:2] for transition in self._state_machine.available_transitions):
            # Here, because rcl would log whatever label is asked for, as often as it is asked for.
            self.log_throttled(
                'transition',
                f'the transition {str(asked)[:100]!r} is not possible in state {self.state}; ros2 '
                f'lifecycle list {self.get_fully_qualified_name()} shows the possible ones',
                error=True,
            )
            response.success = False
            return response
        self._failure = None
        response = self._transition(request, response)
        if isinstance(self._failure, DynsplitError):
            self.get_logger().error(printable(str(self._failure)))
        elif self._failure is not None:
            self.get_logger().error(''.join(traceback.format_exception(self._failure)))
        elif response.success:
            self.get_logger().info(f'now {self.state}')
        return response

    def _entities(self) -> list[object]:
        return [*self.publishers, *self.subscriptions, *self.timers]

    def _destroy_all_but(self, kept: list[object]) -> None:
        for entities, destroy in (
            (self.publishers, self.destroy_publisher),
            (self.timers, self.destroy_timer),
            (self.subscriptions, self.destroy_subscription),
        ):
            for entity in [entity for entity in entities if entity not in kept]:
                destroy(entity)

    # ---- the base node ---------------------------------------------------------------------------------------------

    fixed_for_good = False

    def close(self) -> None:
        """Finish what is under way."""
        self.deactivate(END_S)

    def status(self) -> tuple[bytes, str, dict[str, object]]:
        """Return what the diagnostics show: how an active node is, or that this one is not active."""
        if self.state != 'active':
            return DiagnosticStatus.WARN, f'the node is {self.state} (ros2 lifecycle)', {'state': self.state}
        level, words, values = super().status()
        return level, words, {'state': self.state, **values}

    def shared_namespaces(self) -> list[str]:
        """Return this node's namespace if it hears two robots in it."""
        return [self.get_namespace()] if self.senders.has_duplicate(time.monotonic()) else []

    def remedy(self) -> str:
        """Say how a parameter that ``configure`` reads gets another value; empty while the node is not configured."""
        if self.state == 'unconfigured':
            return ''
        return (
            f'reconfigure the node (ros2 lifecycle set {self.get_fully_qualified_name()} deactivate, then cleanup; '
            'set the parameter; then configure, activate) or start the node with it'
        )

    def _declare(self, parameter: Parameter, *, ignore_override: bool = False) -> Value:
        try:
            return super()._declare(parameter, ignore_override=ignore_override)
        except DynsplitError as error:  # told when the node is configured, unless it has another value by then
            if parameter.locked:
                raise
            self._unusable[parameter.name] = error
            if self.has_parameter(parameter.name):
                self.undeclare_parameter(parameter.name)
            return super()._declare(parameter, ignore_override=True)

    def _has(self, change: rclpy.parameter.Parameter) -> bool:
        return change.name not in self._unusable and super()._has(change)

    def _change(self, changes: list[rclpy.parameter.Parameter]) -> SetParametersResult:
        result = super()._change(changes)
        for change in changes if result.successful else ():
            self._unusable.pop(change.name, None)
        return result
