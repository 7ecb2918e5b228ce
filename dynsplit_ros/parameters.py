# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Declarations of every parameter of every node: default, unit, range and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
import json
import math
from typing import Any, Union

from dynsplit_ros.engine_names import EAGER, ENGINE_NAMES, PRECISIONS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.pacing import DEFAULT_UNANSWERED, MAX_UNANSWERED
from dynsplit_ros.text import printable

#: Most entries of a list that a peer may set. No list needs more: an edge accepts at most 64 images in a frame, so a
#: camera has at most 64 topics. Without a bound, a peer could make a node create thousands of subscriptions.
MOST_ENTRIES = 64
#: Most characters of a text that a peer may set. ROS 2 accepts topic names of at most 247 characters; device, codec and
#: frame names are shorter. Without a bound, a peer could fill the node's memory and log.
MOST_LENGTH = 256
#: Most characters of a refused value that an error repeats, so that the sentence stays readable.
_MOST_SHOWN = 200

#: Default of the smallest score of an object in a prediction. Agreement counts objects from it on, and a profile states
#: the size of an answer with them.
MIN_SCORE = 0.3

Value = Union[bool, int, float, str, 'list[int]', 'list[float]', 'list[str]']


@dataclass(frozen=True)
class Parameter:
    """
    Declaration of one parameter; the type of the default is the type of the parameter.

    ``minimum`` and ``maximum`` bound a number or each element of a list of numbers; ``choices`` lists the allowed
    texts. A ``dynamic`` parameter can change while the node runs; the node reads the others when it is configured.
    A ``locked`` parameter names code, a file, a host or a port, or starts a program. Only the command line and the
    parameter file set it, because any peer of the ROS domain can set the others.
    Lists and texts of the others are bounded for the same reason, and a list of texts names each text once.
    """

    name: str
    default: Value
    description: str
    unit: str = ''
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    locked: bool = False

    @property
    def allowed(self) -> str:
        """Allowed values in words; empty if every value of the type is allowed."""
        unit = f' {self.unit}' if self.unit else ''
        if self.choices:
            return 'one of ' + ', '.join(repr(choice) for choice in self.choices)
        if self.minimum is not None and self.maximum is not None:
            return f'from {self.minimum:g} to {self.maximum:g}{unit}'
        if self.minimum is not None:
            return f'at least {self.minimum:g}{unit}'
        return ''

    def check(self, value: Value) -> Value:
        """Return the value, an int as float if the parameter is a float; raise DynsplitError if it is not allowed."""
        if _kind(self.default).endswith('float'):
            value = [_as_float(entry) for entry in value] if isinstance(value, list) else _as_float(value)
        if _kind(value) != _kind(self.default) and not (value == [] and isinstance(self.default, list)):
            raise DynsplitError(
                f'parameter {self.name!r} is {shown(value)}, of type {_kind(value)}, but must be of type '
                f'{_kind(self.default)}{", " + self.allowed if self.allowed else ""}'
            )
        entries = value if isinstance(value, list) else [value]
        for entry in entries:
            if isinstance(entry, (int, float)) and not isinstance(entry, bool):
                fits = (
                    math.isfinite(entry)
                    and (self.minimum is None or entry >= self.minimum)
                    and (self.maximum is None or entry <= self.maximum)
                )
            else:
                fits = not self.choices or entry in self.choices
            if not fits:
                raise DynsplitError(
                    f'parameter {self.name!r} is {shown(value)}, but must be {self.allowed or "finite"}'
                )
        if not self.locked:
            self._check_bounds(entries)
        return value

    def _check_bounds(self, entries: list[Any]) -> None:
        """Raise DynsplitError for more than a peer may set."""
        if len(entries) > MOST_ENTRIES:
            raise DynsplitError(
                f'parameter {self.name!r} has {len(entries)} entries, but at most {MOST_ENTRIES} are '
                'allowed; give fewer'
            )
        texts = [entry for entry in entries if isinstance(entry, str)]
        for text in texts:
            if len(text) > MOST_LENGTH:
                raise DynsplitError(
                    f'parameter {self.name!r} has a text of {len(text)} characters, but at most '
                    f'{MOST_LENGTH} are allowed; give a shorter one'
                )
            if texts.count(text) > 1:
                raise DynsplitError(f'parameter {self.name!r} names {text!r} {texts.count(text)} times; name it once')


def shown(value: object) -> str:
    """Return a value as an error shows it: on one line, and cut where it is long."""
    return printable(repr(value), _MOST_SHOWN)


def _kind(value: object) -> str:
    """Return the name of a value's type; for a list, with the type of its entries."""
    if not isinstance(value, list):
        return type(value).__name__
    return 'list of ' + ' and '.join(sorted({type(entry).__name__ for entry in value}))


def _as_float(value: Any) -> Any:
    """Return an int as a float, anything else, and an int that no float can hold, as it is."""
    try:
        return float(value) if type(value) is int else value
    except OverflowError:
        return value


REMOTE_CONTROL = Parameter(
    'remote_control',
    True,
    'Let other nodes read and set parameters and change the '
    "lifecycle state through ROS 2's standard services. If false, the node offers none of "
    'these services.',
    locked=True,
)
AUTOSTART = Parameter(
    'autostart',
    True,
    'The node configures and activates itself when it starts. If false, you or a '
    'lifecycle manager must do this (ros2 lifecycle set).',
)

METRICS = (
    Parameter(
        'metrics_port',
        0,
        'TCP port on which the node offers metrics for Prometheus; 0 offers none.',
        minimum=0,
        maximum=65535,
        locked=True,
    ),
    Parameter(
        'metrics_address',
        '127.0.0.1',
        'Address of the interface on which the node offers metrics, without '
        'encryption or password; 0.0.0.0 for all interfaces.',
        locked=True,
    ),
)

MODEL = (
    REMOTE_CONTROL,
    AUTOSTART,
    Parameter(
        'allowed_models',
        [''],
        'Further models to which the parameter model can be set while the node runs: '
        'names, or JSON objects with the parameters of a model, such as {"model": "alexnet", "weights": "none"}. '
        "[''] allows only the model with which the node started. The node downloads nothing for them.",
        locked=True,
    ),
    Parameter(
        'model',
        'mobilenet_v2',
        'The network: name of a torchvision model, timm:NAME, transformers:NAME, '
        'ultralytics:NAME, segmentation_models_pytorch:NAME, efficientnet_lite:NAME, package.module:factory, or '
        'path of a .pt2 file saved with torch.export. Must be the same on robot and edge.',
        locked=True,
    ),
    Parameter(
        'weights',
        'default',
        "Weights of the model: 'default' for the model's own, a name from torchvision's "
        "enumeration, 'none' for random seeded weights (predictions mean nothing), or the path of a state dict "
        '(.pt, .pth, .ckpt, .bin, .safetensors). Must be the same on robot and edge.',
        locked=True,
    ),
    Parameter(
        'model_arguments',
        '',
        "Keyword arguments of the model's builder or factory, as a JSON object. Must be the same on robot and edge.",
        locked=True,
    ),
    Parameter(
        'task',
        '',
        'Task of your own model; empty means classification. Must be the same on robot and edge.',
        choices=('', 'classification', 'segmentation', 'detection', 'dense', 'other'),
    ),
    Parameter(
        'labels',
        [''],
        "Names of the classes in the order of the outputs; [''] takes the model's own names.",
        locked=True,
    ),
    Parameter(
        'resize',
        '',
        "How the node resizes camera images to the network's input: 'stretch'; 'crop' cuts out the "
        "centre; 'letterbox' keeps the aspect ratio and adds borders around the image; 'short_side' does the "
        "same with borders below and to the right. Empty takes the model's own. Only the camera node uses it.",
        choices=('', 'stretch', 'crop', 'letterbox', 'short_side'),
    ),
    Parameter(
        'crop_fraction',
        0.875,
        "Share of the scaled image's height and width that resize: crop keeps. Only the camera node uses it.",
        minimum=0.1,
        maximum=1.0,
    ),
    Parameter(
        'interpolation',
        '',
        "Interpolation of the resize; empty takes the model's own. Only the camera node uses it.",
        choices=('', 'nearest', 'bilinear', 'bicubic'),
    ),
    Parameter(
        'channels',
        '',
        "Channels of the network's input; empty takes the model's own. Must be the same on robot and edge.",
        choices=('', 'rgb', 'bgr', 'grey', 'rgba'),
    ),
    Parameter(
        'scores',
        '',
        "Kind of a classifier's outputs: 'logits' (the node applies a softmax), 'multilabel' (the "
        "node applies a sigmoid) or 'probabilities' (the network itself ends in a softmax). For a segmentation "
        "with one class, 'probabilities' sets the threshold to 0.5. Empty: the node finds out. Must be the same "
        'on robot and edge.',
        choices=('', 'logits', 'multilabel', 'probabilities'),
    ),
    Parameter(
        'mean',
        [0.0, 0.0, 0.0],
        'Mean of each channel, for pixel values scaled to 0 to 1. If std is 0, the '
        "model's own mean and std apply. Must be the same on robot and edge.",
        minimum=-1000.0,
        maximum=1000.0,
    ),
    Parameter(
        'std',
        [0.0, 0.0, 0.0],
        'Standard deviation of each channel, for pixel values scaled to 0 to 1; 0 takes '
        "the model's own mean and std. Must be the same on robot and edge.",
        minimum=0.0,
        maximum=1000.0,
    ),
    Parameter(
        'leaves',
        [''],
        'Class names or paths of submodules inside which there shall be no cut. Must be the same on robot and edge.',
        locked=True,
    ),
    Parameter(
        'cut',
        True,
        'Search the cuts of the model. If false, only full offloading and local inference are '
        'possible, and any module works. Must be the same on robot and edge.',
    ),
    Parameter(
        'input_size',
        [0, 0],
        "Height and width that images are resized to; [0, 0] takes the model's own. "
        'Must be the same on robot and edge.',
        'pixels',
        0,
        8192,
    ),
    Parameter(
        'seed',
        0,
        "Seed of the random weights if weights is 'none'. Must be the same on robot and edge.",
        minimum=0,
        maximum=2**31 - 1,
    ),
    Parameter('device', 'cpu', "Device on which this node runs its part of the network: 'cpu', 'cuda', 'cuda:1', …"),
    Parameter(
        'threads',
        0,
        "CPU threads for this node's part of the network, at most one for each processor; 0 lets PyTorch choose.",
        minimum=0,
        maximum=1024,
    ),
    Parameter(
        'channels_last',
        False,
        'Use the channels-last memory layout in this node. Results may then differ in the last bits.',
    ),
    Parameter(
        'engine',
        EAGER,
        "Engine for this node's heads or tails, in addition to 'eager', which is PyTorch and "
        "exact bit for bit: 'inductor' (torch.compile), 'openvino' or 'onnxruntime'. The monitor uses the engine "
        'where it is faster and min_agreement allows it.',
        choices=ENGINE_NAMES,
        locked=True,
    ),
    Parameter(
        'precision',
        'float32',
        'Data type in which that engine computes. With another one than float32, results '
        'differ more; min_agreement applies. docs/engines.md has the types of each engine; none offers '
        "'int8', which needs a calibration.",
        choices=PRECISIONS,
    ),
    Parameter(
        'engine_fallback',
        True,
        'If true, parts of the network that the engine cannot run, or has not converted '
        'yet, run on eager; the node warns about the former. If false, the node converts all parts before it is '
        'active, and does not configure if one fails.',
    ),
    Parameter(
        'profile',
        '',
        "Path of the model's profile on this machine, written by the tool 'profile'. Empty: the "
        'node measures this machine at its first start and keeps the result.',
        locked=True,
    ),
)

CAMERA = MODEL + (
    Parameter(
        'image_topics',
        ['image'],
        'Camera topics of type sensor_msgs/Image or CompressedImage. With several topics, a frame is a batch of the '
        'newest image of each, and every image has its own prediction.',
    ),
    Parameter(
        'image_bits',
        16,
        'Bits that the camera uses in a 16-bit image (mono16, rgb16, bayer_rggb16, …, a '
        '16-bit PNG). With 12, the value 4095 becomes white.',
        'bits',
        9,
        16,
        dynamic=True,
    ),
    Parameter(
        'batch',
        1,
        'Number of consecutive images in a frame, with a single image topic. With several image_topics, leave it at 1: '
        "a frame has one image of each topic. The edge's batch must be at least the number of images in a frame.",
        minimum=1,
        maximum=64,
    ),
    Parameter(
        'batch_timeout_s',
        0.5,
        'Longest time that an image waits for the other images of its batch; the batch then starts without them. The '
        'node does not wait for a camera that was silent for longer. Must be longer than the time in which all images '
        'of a batch arrive.',
        's',
        0.001,
        60.0,
    ),
    Parameter(
        'on_demand',
        False,
        'Run the network only when somebody calls the service infer, for the newest image. '
        'If false, it runs for every image, and each call runs it once more.',
        dynamic=True,
    ),
    Parameter(
        'classes',
        [''],
        "Classes that a prediction may name, by label or number; [''] allows all. The network "
        'computes all classes in any case.',
        dynamic=True,
    ),
    Parameter(
        'top_k',
        5,
        'Number of classes that the prediction of a classifier names.',
        minimum=1,
        maximum=1000,
        dynamic=True,
    ),
    Parameter(
        'min_score',
        MIN_SCORE,
        'Smallest score of a detected object in a prediction. Answers of the edge leave out '
        'objects with a smaller score.',
        minimum=0.0,
        maximum=1.0,
        dynamic=True,
    ),
    Parameter(
        'output_digest',
        False,
        'Put a digest of the outputs into predictions (for a detector, of the objects in the prediction), for tests '
        'that compare outputs bit for bit. It takes time: 0.3 s for 100 masks.',
        dynamic=True,
    ),
    Parameter(
        'audit_share',
        0.01,
        'Share of the frames that are drawn for an audit: if such a frame was sent with a lossy codec, the robot also '
        'computes it without loss while it is idle. The monitor takes a codec out when audits show that it does not '
        'keep min_agreement. 0 audits nothing.',
        minimum=0.0,
        maximum=1.0,
        dynamic=True,
    ),
    Parameter(
        'max_unanswered',
        DEFAULT_UNANSWERED,
        'Largest number of frames that wait for their answers. Only one payload at a time is on the link.',
        minimum=1,
        maximum=MAX_UNANSWERED,
    ),
    Parameter(
        'emulate_slowdown',
        1.0,
        'For demonstrations: the node sleeps after each computation, so that it takes this many times as long; 1 '
        'emulates nothing.',
        minimum=1.0,
        maximum=1000.0,
    ),
)

EDGE = MODEL + (
    Parameter(
        'edge_name',
        '',
        'Name by which robots know this edge, different for each edge. Empty takes the '
        'namespace and the name of the host.',
    ),
    Parameter(
        'batch',
        1,
        "Largest number of images in a frame. Set it to at least the robots' batch or number of "
        'image_topics: the edge refuses larger frames, and the robot then runs the whole network itself.',
        minimum=1,
        maximum=64,
    ),
    Parameter(
        'max_waiting',
        2,
        'Largest number of frames of one robot in the queue; a newer frame replaces the oldest.',
        minimum=1,
        maximum=64,
    ),
    Parameter(
        'max_batch',
        1,
        'Largest number of frames that share one run of the tail: frames of different robots '
        'with the same cut. They share it if the profile says that this is faster. With more than 1, results may '
        'differ from the whole model in the last bits.',
        minimum=1,
        maximum=64,
    ),
    Parameter(
        'max_batch_wait_s',
        0.0,
        'Longest time that a frame waits for others to share its run of the tail.',
        's',
        0.0,
        1.0,
    ),
    Parameter(
        'max_robots',
        64,
        'Largest number of robots that the edge serves; it ignores further robots.',
        minimum=1,
        maximum=1024,
    ),
    Parameter('load_period_s', 0.2, 'Period of the load reports to the robots.', 's', 0.02, 10.0),
    Parameter(
        'engine_pool',
        'none',
        "Where the tails run: 'none' is this process, 'ray' is replicas on a Ray cluster (docs/fleet.md).",
        choices=('none', 'ray'),
        locked=True,
    ),
    Parameter(
        'ray_address',
        '',
        "Address of the Ray cluster: HOST:PORT, or 'auto' for the one on this machine; empty "
        'starts a local one. Everyone who reaches the cluster can run code on it.',
        locked=True,
    ),
    Parameter(
        'replicas',
        [1, 1],
        'Smallest and largest number of replicas with engine_pool: ray; the number follows the load.',
        minimum=1,
        maximum=1024,
        locked=True,
    ),
    # Empty and no JSON object: rclpy takes the text of an object for an object when it reads a dumped parameter file.
    Parameter(
        'replica_resources',
        '',
        'Resources that each replica reserves, as a JSON object: CPU, GPU, and your own '
        'from ray start --resources; empty for one CPU.',
        locked=True,
    ),
    *METRICS,
    Parameter(
        'emulate_slowdown',
        1.0,
        'For demonstrations: the node sleeps after each tail, so that it takes this '
        'many times as long; 1 emulates nothing.',
        minimum=1.0,
        maximum=1000.0,
    ),
)

#: MonitorSettings declares the monitor's parameters; all can change while it runs. Not ``batch``: the camera's profile
#: has the number of images in a frame.
MONITOR = (
    REMOTE_CONTROL,
    AUTOSTART,
    *METRICS,
    *(
        Parameter(
            setting.name,
            list(default) if isinstance(default := setting.default, tuple) else default,  # type: ignore[arg-type]
            setting.metadata['description'],
            setting.metadata['unit'],
            setting.metadata['minimum'],
            setting.metadata['maximum'],
            setting.metadata['choices'],
            dynamic=True,
        )
        for setting in fields(MonitorSettings)
        if setting.name != 'batch'
    ),
)

SOURCE = (
    REMOTE_CONTROL,
    Parameter(
        'path',
        '',
        'Image file, folder of images, video file or number of a webcam to publish; empty pans '
        'across photographs of the package scikit-image.',
        locked=True,
    ),
    Parameter('rate_hz', 10.0, 'Images per second.', '1/s', 0.01, 1000.0),
    Parameter('width', 640, 'Width of the images.', 'pixels', 1, 8192),
    Parameter('height', 480, 'Height of the images.', 'pixels', 1, 8192),
    Parameter('frame_id', 'camera', 'frame_id of the images.'),
)

LINK_EMULATOR = (
    REMOTE_CONTROL,
    Parameter(
        'rates_mbps',
        [100.0],
        'For demonstrations: rate of the emulated uplink in each step of the script; at 0 the link is down.',
        'Mbit/s',
        0.0,
        100000.0,
        dynamic=True,
    ),
    Parameter('durations_s', [3600.0], 'Duration of each step; the last step does not end.', 's', 0.01, 1e6),
    Parameter('delay_s', 0.005, 'Delay in each direction, in addition to the transmission time.', 's', 0.0, 10.0),
    Parameter(
        'queue_bytes',
        2_000_000,
        'Capacity of the queue before the uplink; the emulator drops messages that do not fit.',
        'bytes',
        1000,
        1_000_000_000,
    ),
)

#: Parameters that an entry of allowed_models may set: all that describe the model.
_OF_A_MODEL = {
    parameter.name: parameter
    for parameter in MODEL
    if parameter not in (REMOTE_CONTROL, AUTOSTART) and parameter.name != 'allowed_models'
}


def allowed_models(values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """
    Return, by model, the parameters that a node takes when its parameter ``model`` is set to that model.

    ``values`` are those that the node was started with; their model comes first and takes them back. Another model has
    what its entry of ``allowed_models`` says, and otherwise the defaults of locked parameters: the weights or the
    profile of the first model would not fit it. Raises DynsplitError for an entry that cannot be used.
    """
    started = str(values['model'])
    entries: dict[str, dict[str, Any]] = {started: {'model': started}}
    for text in values['allowed_models']:  # type: ignore[union-attr]
        entry = _entry(str(text)) if text else entries[started]
        if entries.setdefault(entry['model'], entry) != entry:
            raise DynsplitError(
                f"parameter 'allowed_models' has {shown(text)}, but {shown(entry['model'])} is in the "
                'list already, or is the model in the parameter model; list each model once'
            )
    first = {
        name: values[name]
        for name, parameter in _OF_A_MODEL.items()
        if parameter.locked or any(name in entry for entry in entries.values())
    }
    defaults = {name: parameter.default for name, parameter in _OF_A_MODEL.items() if parameter.locked}
    return {
        model: {**first, **(defaults if number else {}), **entry}
        for number, (model, entry) in enumerate(entries.items())
    }


def _entry(text: str) -> dict[str, Any]:
    """Return the parameters that an entry of allowed_models names, checked."""
    if not text.lstrip().startswith('{'):
        return {'model': text}
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DynsplitError(
            f"parameter 'allowed_models' has {shown(text)}, which is not JSON ({error}); give a name, "
            'or an object such as {"model": "alexnet", "weights": "none"}'
        ) from error
    unknown = sorted(entry.keys() - _OF_A_MODEL.keys())
    if 'model' not in entry or unknown:
        raise DynsplitError(
            f"parameter 'allowed_models' has {shown(text)}, "
            + (f'but {shown(unknown[0])} is not allowed in it' if unknown else 'which names no model')
            + f"; an entry has 'model' and any of {', '.join(sorted(_OF_A_MODEL.keys() - {'model'}))}"
        )
    if isinstance(entry.get('model_arguments'), dict):  # JSON in JSON is hard to write
        entry['model_arguments'] = json.dumps(entry['model_arguments'])
    return {name: _OF_A_MODEL[name].check(value) for name, value in entry.items()}
