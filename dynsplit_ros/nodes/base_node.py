# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What all nodes share: parameters from their declaration, logs that cannot flood, and an orderly start and end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
import difflib
import gc
import os
import re
import signal
import sys
import threading
import time
import traceback
from types import SimpleNamespace
from typing import Any, NoReturn

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
import rclpy.parameter
from rclpy.parameter_service import ParameterService
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.service import Service
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import remove_ros_args
from std_msgs.msg import Header

from dynsplit_ros.errors import CONFIGURATION_EXIT_CODE, DynsplitError
from dynsplit_ros.memory import keep_memory
from dynsplit_ros.nodes.security import check_security
from dynsplit_ros.parameters import allowed_models, Parameter, shown, Value
from dynsplit_ros.text import printable
from dynsplit_ros.transport import check_discovery_server, defaults, leaving, small_messages

#: Seconds between two reports of the same kind of fault.
THROTTLE_S = 5.0
#: Kinds of fault that are logged separately; further ones share one. Kinds name robots, of which an edge has 64.
MOST_KINDS = 200
#: Most values in a node's diagnostics; what is counted by a robot's name comes last.
MOST_VALUES = 300
#: How alike a name that is none must be to a parameter's, from 0 to 1, to be taken for it: treads for threads (0.92).
#: Names of our nodes that are not the same are at most 0.77 like each other.
_MISTYPED = 0.8
#: The ports of a larger domain would be no ports.
MOST_DOMAIN_ID = 232
#: Where rclpy keeps the parameters that override a topic's quality of service.
_OVERRIDES = 'qos_overrides'
#: Where rcl says that it noticed an error.
_PLACE = re.compile(r',? at /[^ ]+\.(c|cpp|h|hpp):\d+')
#: What the middleware calls a publisher's node until it is told its name, a moment after it hears of the publisher.
_UNNAMED = '_NODE_NAME_UNKNOWN_'


def descriptor(parameter: Parameter, *, read_only: bool) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows of a parameter."""
    unit = f' Unit: {parameter.unit}.' if parameter.unit else ''
    allowed = f' Allowed: {parameter.allowed}.' if parameter.allowed else ''
    result = ParameterDescriptor(
        name=parameter.name, description=f'{parameter.description}{unit}{allowed}', read_only=read_only
    )
    if isinstance(parameter.default, bool) or parameter.minimum is None:
        return result
    first = parameter.default[0] if isinstance(parameter.default, list) else parameter.default
    if isinstance(first, int):
        most = 2**63 - 1 if parameter.maximum is None else int(parameter.maximum)
        result.integer_range = [IntegerRange(from_value=int(parameter.minimum), to_value=most, step=0)]
    elif isinstance(first, float):
        most = sys.float_info.max if parameter.maximum is None else float(parameter.maximum)
        result.floating_point_range = [FloatingPointRange(from_value=float(parameter.minimum), to_value=most, step=0.0)]
    return result


def mismatches(topic: str, requested: QoSProfile, publishers: Sequence[TopicEndpointInfo]) -> list[str]:
    """Return a sentence, with the fix, for each publisher of a topic that offers less than is requested."""
    # A subscription of this package asks for nothing else that a publisher may fall short of.
    demands = {
        'reliability': (
            ReliabilityPolicy.RELIABLE,
            f'start this node with the parameter qos_overrides.{topic}.subscription.reliability: best_effort, '
            'or the publisher with reliability reliable',
        ),
        'durability': (DurabilityPolicy.TRANSIENT_LOCAL, 'start the publisher with durability transient_local'),
    }
    sentences = []
    for publisher in publishers:
        for policy, (demand, fix) in demands.items():
            offered = getattr(publisher.qos_profile, policy)
            if getattr(requested, policy) == demand != offered:
                sentences.append(
                    f'no messages on {topic} from {publisher.node_namespace.rstrip("/")}/{publisher.node_name}, '
                    f'which offers {policy} {offered.name.lower()} where {demand.name.lower()} is requested; {fix}'
                )
    return sentences


class BaseNode(Node):
    """
    A node with declared parameters, throttled faults and diagnostics once a second.

    ``self.values`` holds the parameters' values by name. A subclass that can take a change of a dynamic parameter
    defines ``on_change(values)``, which raises DynsplitError to refuse it; ``diagnose()`` says how it is; ``start()``
    is called before the node is spun and ``close()`` before the end.
    """

    #: Whether a parameter that is not dynamic has the value for good that it was started with.
    fixed_for_good = True

    def __init__(self, name: str, parameters: tuple[Parameter, ...]) -> None:
        with small_messages():  # large ones have participants of their own: topics.LargeMessages
            super().__init__(name, start_parameter_services=False)
        self._declarations = {parameter.name: parameter for parameter in parameters}
        self._logged: dict[str, tuple[float, int]] = {}
        self._log_lock = threading.Lock()
        self._mismatched: dict[str, tuple[Subscription, bool]] = {}
        self._version_faults: dict[str, str] = {}  # by topic; a later message of the right version ends one
        self.values = SimpleNamespace(**{p.name: self._declare(p) for p in parameters})
        for name in set(self._parameter_overrides) - set(self._declarations):  # a file may be for several nodes
            for meant in difflib.get_close_matches(name, self._declarations, 1, _MISTYPED):
                self.get_logger().warning(
                    f'there is no parameter {name!r}; did you mean {meant!r}? It is {getattr(self.values, meant)!r}'
                )
        self.models = allowed_models(vars(self.values)) if hasattr(self.values, 'allowed_models') else {}
        if len(self.models) > 1:
            self.describe_parameter('model').read_only = False
        self.add_on_set_parameters_callback(self._change)
        if self.values.remote_control:
            self._parameter_service = ParameterService(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.every(1.0, self._publish_diagnostics)

    def every(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """Call back periodically, whatever the ROS time does: a paused simulation or bag must not stop the watching."""
        return self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def create_subscription(self, msg_type: Any, topic: str, *arguments: Any, **options: Any) -> Subscription:
        """Create a subscription that tells of publishers whose quality of service keeps it from hearing them."""

        def note(event: object) -> None:
            self._mismatched[subscription.topic_name] = subscription, False

        options.setdefault('event_callbacks', SubscriptionEventCallbacks(incompatible_qos=note))
        with _in_one_sentence(topic):
            subscription = super().create_subscription(msg_type, topic, *arguments, **options)
        return subscription

    def create_publisher(self, msg_type: Any, topic: str, *arguments: Any, **options: Any) -> Publisher:
        """Create a publisher; raise DynsplitError for a quality of service that cannot be had."""
        with _in_one_sentence(topic):
            return super().create_publisher(msg_type, topic, *arguments, **options)

    def create_service(self, srv_type: Any, srv_name: str, callback: Callable[..., Any], **options: Any) -> Service:
        """Create a service that survives every request; rclpy's own raises for a parameter of a type that is none."""

        def answer(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:
                self.log_throttled(srv_name, f'request to {srv_name} refused: {" ".join(str(error).split())}')
                return srv_type.Response()

        return super().create_service(srv_type, srv_name, answer, **options)

    def destroy_subscription(self, subscription: Subscription) -> bool:
        """Destroy it, as rclpy does; what an executor already has in hand for it goes nowhere."""
        subscription.callback = lambda message: None
        return super().destroy_subscription(subscription)

    def destroy_timer(self, timer: Timer) -> bool:
        """Destroy it, as rclpy does; should an executor have it in hand, nothing happens."""
        timer.callback = lambda: None
        return super().destroy_timer(timer)

    def on_version(self, topic: str, fault: str) -> None:
        """Note why the latest message of a topic cannot be read: its protocol version; empty if it can be read."""
        if fault:
            self.log_throttled(f'protocol version on {topic}', fault)
            self._version_faults[topic] = fault
        else:
            self._version_faults.pop(topic, None)

    def _mismatches(self) -> list[str]:
        """Return a sentence for each publisher that a subscription cannot hear at present; log it when it is new."""
        sentences = []
        for topic, (subscription, told) in list(self._mismatched.items()):
            found = (
                mismatches(topic, subscription.qos_profile, self.get_publishers_info_by_topic(topic))
                if (subscription in self.subscriptions)
                else []
            )
            named = [sentence for sentence in found if _UNNAMED not in sentence]
            if named and not told:
                self.log_throttled(f'quality of service of {topic}', named[-1])
                self._mismatched[topic] = subscription, True
            if not found:
                del self._mismatched[topic]
            sentences += named
        return sentences

    def _declare(self, parameter: Parameter, *, ignore_override: bool = False) -> Value:
        read_only = parameter.locked or self.fixed_for_good and not parameter.dynamic
        given = self._parameter_overrides
        if parameter.name in given and not ignore_override:  # before rclpy, which takes no 3 for a 3.0, sees it
            value = parameter.check(_plain(given[parameter.name].value))
            given[parameter.name] = _parameter(parameter, value)
        declared = self.declare_parameter(
            parameter.name,
            parameter.default,
            descriptor(parameter, read_only=read_only),
            ignore_override=ignore_override,
        )
        return _plain(declared.value)

    def declare_parameter(
        self,
        name: str,
        value: Any = None,
        descriptor: ParameterDescriptor | None = None,
        *arguments: Any,
        **options: Any,
    ) -> rclpy.parameter.Parameter:
        """Declare a parameter, as rclpy does; those that override a quality of service so that :meth:`forget` can."""
        if descriptor is not None and name.startswith(f'{_OVERRIDES}.'):
            descriptor.read_only = False  # else rclpy would never let go of it; `_checked` refuses a change
        return super().declare_parameter(name, value, descriptor, *arguments, **options)

    def forget(self, topic: str) -> None:
        """Undeclare what overrides the quality of service of a topic that is used no more: names may be without end."""
        self._version_faults.pop(topic, None)
        for name in self.get_parameters_by_prefix(f'{_OVERRIDES}.{topic}'):
            self.undeclare_parameter(f'{_OVERRIDES}.{topic}.{name}')

    def set_parameters_atomically(self, parameter_list: list[rclpy.parameter.Parameter]) -> SetParametersResult:
        """
        Set parameters together, as any peer may ask; a value that a parameter has already is no change.

        Refuses with our own sentence, before rclpy does with one that does not name what is allowed.
        """
        try:
            changes = [
                checked for change in parameter_list if not self._has(change) for checked in self._checked(change)
            ]
        except DynsplitError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not changes:
            return SetParametersResult(successful=True)
        locked = [
            self.describe_parameter(change.name)
            for change in changes
            if change.name in self._declarations and self._declarations[change.name].locked
        ]
        before = [descriptor.read_only for descriptor in locked]
        try:
            for descriptor in locked:  # `_checked` lets them change with the model alone
                descriptor.read_only = False
            return super().set_parameters_atomically(changes)
        finally:
            for descriptor, read_only in zip(locked, before):
                descriptor.read_only = read_only

    def _has(self, change: rclpy.parameter.Parameter) -> bool:
        """Whether a parameter has this value; ``ros2 param load`` sends some texts as numbers and numbers as texts."""
        if not self.has_parameter(change.name):
            return False
        own, value = (_plain(parameter.value) for parameter in (self.get_parameter(change.name), change))
        return str(own) == str(value) or own == value and isinstance(own, bool) == isinstance(value, bool)

    def _checked(self, change: rclpy.parameter.Parameter) -> list[rclpy.parameter.Parameter]:
        """Return a change as it may be made, with those that it brings; raise DynsplitError to refuse it."""
        declaration = self._declarations.get(change.name)
        if not self.has_parameter(change.name):
            close = difflib.get_close_matches(change.name[:100], self._declarations, 1)
            raise DynsplitError(
                f'there is no parameter {change.name[:100]!r}' + (f'; did you mean {close[0]!r}?' if close else '')
            )
        if declaration is None:
            if change.name.startswith(f'{_OVERRIDES}.'):
                raise DynsplitError(f'the node reads parameter {change.name!r} once; start the node with it')
            return [change]
        value = declaration.check(_plain(change.value))
        own = getattr(self.values, change.name)
        changes = {change.name: value}
        if declaration.locked:
            if change.name != 'model':
                raise DynsplitError(
                    f'parameter {change.name!r} stays {shown(own)}: it is locked; to set '
                    f'{shown(value)}, start the node with it'
                )
            if value not in self.models:
                raise DynsplitError(
                    f"parameter 'model' stays {shown(own)}: {shown(value)} is not one of "
                    f'{", ".join(map(repr, self.models))}; add it to allowed_models and start the '
                    'node again'
                )
            changes = self.models[value]
        remedy = '' if declaration.dynamic else self.remedy()
        if remedy:
            raise DynsplitError(
                f'parameter {change.name!r} stays {shown(own)}: the node reads it once; to set {shown(value)}, {remedy}'
            )
        return [_parameter(self._declarations[name], value) for name, value in changes.items()]

    def _change(self, changes: list[rclpy.parameter.Parameter]) -> SetParametersResult:
        values = SimpleNamespace(**vars(self.values))
        try:
            for change in changes:
                if change.name in self._declarations:
                    setattr(values, change.name, _plain(change.value))
            if values != self.values:
                self.on_change(values)
        except DynsplitError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.values = values
        return SetParametersResult(successful=True)

    def remedy(self) -> str:
        """Say how a parameter that is not dynamic gets another value; empty while it may simply be set."""
        return 'start the node with it'

    def on_change(self, values: SimpleNamespace) -> None:
        """Take new values of dynamic parameters; raise DynsplitError to refuse them."""

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Return the level (a constant of DiagnosticStatus), a few words, and the counts and values to show."""
        return DiagnosticStatus.OK, 'running', {}

    def status(self) -> tuple[bytes, str, dict[str, object]]:
        """Return what the diagnostics show."""
        return self.diagnose()

    def shared_namespaces(self) -> list[str]:
        """Return the namespaces in which this node hears two robots at the same time."""
        return []

    def _publish_diagnostics(self) -> None:
        level, words, values = self.status()
        unheard = self._mismatches()
        if unheard:
            level = DiagnosticStatus.WARN if level == DiagnosticStatus.OK else DiagnosticStatus.ERROR
            words, values['publishers_not_heard'] = unheard[0], len(unheard)
        if self._version_faults:
            level = max(level, DiagnosticStatus.WARN)
            words = '; '.join((words, *list(self._version_faults.values())[:1]))
            values['topics_of_another_protocol_version'] = len(self._version_faults)
        shared = self.shared_namespaces()
        if shared:
            sentence = f'two robots use the namespace {", ".join(shared)}; start each robot in a namespace of its own'
            self.log_throttled('two robots', sentence)
            values['shared_namespaces'] = len(shared)
            level, words = (
                (DiagnosticStatus.WARN, sentence) if level == DiagnosticStatus.OK else (level, f'{words}; {sentence}')
            )
        status = DiagnosticStatus(
            level=level,
            name=self.get_fully_qualified_name(),
            message=printable(words),
            hardware_id=self.get_namespace(),
            values=[
                KeyValue(
                    key=printable(key), value=f'{value:.6g}' if isinstance(value, float) else printable(str(value))
                )
                for key, value in list(values.items())[:MOST_VALUES]
            ],
        )
        self._diagnostics.publish(
            DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()), status=[status])
        )

    def log_throttled(self, kind: str, text: str, *, error: bool = False) -> None:
        """Log a fault, at most once in THROTTLE_S for each kind, with the number of those suppressed; any thread."""
        now_s = time.monotonic()
        with self._log_lock:
            if kind not in self._logged and len(self._logged) >= MOST_KINDS:
                self._logged = {old: last for old, last in self._logged.items() if now_s - last[0] < THROTTLE_S}
                kind = kind if len(self._logged) < MOST_KINDS else 'others'
            logged_s, suppressed = self._logged.get(kind, (-THROTTLE_S, 0))
            if now_s - logged_s < THROTTLE_S:
                self._logged[kind] = logged_s, suppressed + 1
                return
            self._logged[kind] = now_s, 0
        text = printable(text) + (f' ({suppressed} similar lines suppressed since the last one)' if suppressed else '')
        self.get_logger().error(text) if error else self.get_logger().warning(text)

    def start(self) -> None:
        """Begin; everything is set up."""
        keep_memory()

    def close(self) -> None:
        """End what runs beside the executor."""


@contextmanager
def _in_one_sentence(topic: str) -> Iterator[None]:
    """Raise DynsplitError where rclpy finds a topic, or the parameters that override its quality of service, unfit."""
    try:
        yield
    except (NameValidationException, ParameterException, RuntimeError) as error:
        raise DynsplitError(
            f'the topic {topic!r} cannot be used: {plain_words(error)}; change its name or the parameters {_OVERRIDES}'
        ) from error


def plain_words(error: Exception) -> str:
    """Return what an exception of rcl or rclpy says on one line, without the places in the source code of rcl."""
    return _PLACE.sub('', ' '.join(str(error).split())).encode(errors='replace').decode()


def _parameter(declaration: Parameter, value: Value) -> rclpy.parameter.Parameter:
    """Return a parameter as rclpy has it; the default tells the type, for an empty list does not."""
    return rclpy.parameter.Parameter(
        declaration.name, rclpy.parameter.Parameter.Type.from_parameter_value(declaration.default), value
    )


def _plain(value: object) -> Value:
    """Return a parameter's value with arrays as lists."""
    return list(value) if not isinstance(value, (bool, int, float, str)) and value is not None else value


def make_executor() -> Executor:
    """
    Return rclpy's executor that waits for events; it needs half the time of the one that builds a wait set each time.

    Where this rclpy does not have it, the other one. Spin it by ``spin_once``: its ``spin`` does not let other threads
    run.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def run(make_node: Callable[[], BaseNode], args: list[str] | None = None, *, shared_memory: bool = False) -> NoReturn:
    """
    Run a node until Ctrl-C or SIGTERM, and end the process.

    Only a node that exchanges camera images with others needs ``shared_memory`` (see transport.adapted).

    The exit code is 0 after either signal, CONFIGURATION_EXIT_CODE for a configuration that cannot be used (one
    sentence on the log), and 1 for a fault in a callback (an exception with its traceback). The signals are taken here
    and not by rclpy, which would shut the context down before the frames under way are finished.
    """
    stop, interrupted = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _raise_until_spinning(stop, interrupted))
    code = 0
    node = executor = None
    try:
        _check_start(sys.argv[1:] if args is None else args, os.environ)
        warning = check_security(os.environ)
        if warning:
            rclpy.logging.get_logger('dynsplit_ros').warning(warning)
        with defaults(shared_memory=shared_memory):
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
            node = make_node()
        executor = make_executor()
        executor.add_node(node)
        node.start()
        _spinning.set()
        while not stop.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=0.2)
    except (KeyboardInterrupt, Exception) as error:
        # The interrupt is raised wherever the program is, and what it meets there may make another exception of it.
        if not interrupted.is_set():
            code = _report(error)
    finally:
        _spinning.set()  # a second signal must not interrupt the end
        with leaving():
            if node is not None:
                node.close()
                node.destroy_node()
            rclpy.try_shutdown()
            # The middleware says goodbye when nothing holds the node any more; else others miss it much later, and its
            # shared memory stays behind.
            node = executor = None
            gc.unfreeze()
            gc.collect()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    # With torch loaded, the interpreter's own end takes a second or more, in which there is nothing left to save.
    os._exit(code)


def _report(error: BaseException) -> int:
    """Say what ended the node, and return its exit code."""
    # Of rcl and rclpy: an argument, a file of parameters, or a parameter of their own such as use_sim_time.
    if isinstance(error, (DynsplitError, RCLError, ParameterException, NameValidationException)):
        rclpy.logging.get_logger('dynsplit_ros').fatal(plain_words(error))
        return 1 if _spinning.is_set() else CONFIGURATION_EXIT_CODE
    traceback.print_exception(error)
    return 1


def _check_start(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise DynsplitError for what the middleware would pass over, or end the process for."""
    unknown = remove_ros_args([sys.argv[0], *arguments])[1:]
    if unknown:
        raise DynsplitError(
            f'{unknown[0]!r} was given, but a node takes only arguments of ROS 2; give parameters as '
            '--ros-args -p NAME:=VALUE, and see docs/reference.md for their names'
        )
    domain = environment.get('ROS_DOMAIN_ID') or '0'
    if domain.isdigit() and int(domain) > MOST_DOMAIN_ID:
        raise DynsplitError(f'ROS_DOMAIN_ID is {domain}, but must be from 0 to {MOST_DOMAIN_ID}')
    if environment.get('ROS_DISCOVERY_SERVER'):
        check_discovery_server('ROS_DISCOVERY_SERVER', environment['ROS_DISCOVERY_SERVER'])


_spinning = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Have a signal interrupt what takes long in a callback, such as loading a model, not wait for its end."""
    spinning = _spinning.is_set()
    _spinning.clear()
    try:
        yield
    finally:
        if spinning:
            _spinning.set()


def _raise_until_spinning(stop: threading.Event, interrupted: threading.Event) -> None:
    """Stop the executor's loop, or interrupt a start that has not reached it (loading a model takes a while)."""
    stop.set()
    if not _spinning.is_set():
        interrupted.set()
        raise KeyboardInterrupt
