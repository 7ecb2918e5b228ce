# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is predicted arrives in every form that someone listens to, and never waits for a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import threading
from types import SimpleNamespace

from conftest import picture, wait
import cv2
import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
import torch

from dynsplit_ros.codec import decode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages import predictions, vision
from dynsplit_ros.messages.images import from_rgb, to_rgb
from dynsplit_ros.messages.tensors import from_tensors
from dynsplit_ros.model import load_model
from dynsplit_ros.model.preprocess import Resize
from dynsplit_ros.nodes import publications, topics
from dynsplit_ros.nodes.publications import Publications
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.tasks import interpret, output_digest, Result
from dynsplit_ros.tensors import TensorSpec

OBJECTS = {
    'boxes.0': torch.tensor([[1.0, 2.0, 5.0, 8.0], [2.0, 1.0, 3.0, 6.0], [0.0, 0.0, 1.0, 1.0]]),
    'labels.0': torch.tensor([1, 2, 1]),
    'scores.0': torch.tensor([0.9, 0.6, 0.2]),
    'masks.0': torch.rand(3, 1, 12, 20, generator=torch.Generator().manual_seed(0)),
    'keypoints.0': torch.tensor([[[1.0, 2.0, 1.0]], [[3.0, 4.0, 1.0]], [[5.0, 6.0, 1.0]]]),
    'keypoints_scores.0': torch.tensor([[3.0], [-2.0], [1.0]]),
}


class Publisher(Node):
    """Stands for the camera's node; pictures have 48 x 80 pixels, the network's input a quarter of height and width."""

    def __init__(self) -> None:
        super().__init__('publisher', namespace='/robot1')
        self.values = SimpleNamespace(top_k=2, min_score=0.5, image_bits=16, output_digest=True, classes=[''])
        self.told: list[str] = []

    def log_throttled(self, kind: str, text: str, *, error: bool = False) -> None:
        self.told.append(text)


def model(task: str, specs: tuple[TensorSpec, ...] | None = None) -> SimpleNamespace:
    """Return what Publications need to know of a split model."""
    return SimpleNamespace(
        fingerprint='f00d',
        output_specs=specs,
        model=SimpleNamespace(
            name='my_net',
            task=task,
            labels=['', 'cat', 'dog'],
            resize=Resize((12, 20)),
            scores='logits',
            keypoint_names=['nose'] if task == 'detection' else [],
        ),
    )


class Scene:
    """Publications of one model, and a subscriber to its predictions."""

    def __init__(self, ros: Callable[[Node], Node], task: str) -> None:
        self.node, self.listener = ros(Publisher()), ros(Node('listener', namespace='/robot1'))
        self.publications = Publications(self.node, model(task))
        self.sent = 0
        self.predictions = self.listen(topics.PREDICTION)

    def listen(self, topic: topics.Topic) -> list:
        """Subscribe to a topic; return the list that its messages come into, once both sides know of each other."""
        heard: list = []
        self.listener.create_subscription(
            topic.type, topic.name, heard.append, QoSProfile(depth=100, durability=topic.qos.durability)
        )
        publishers = (
            self.publications._annotated,
            *self.publications._own,
            *(publisher for publisher, _ in self.publications._forms),
        )
        matched = [publisher for publisher in publishers if publisher.topic_name == f'/robot1/{topic.name}']
        wait(lambda: matched[0].get_subscription_count(), f'{topic.name} was not found')
        return heard

    def publish(self, outputs: dict[str, torch.Tensor]) -> Image:
        """Publish a prediction for the next picture; return that picture's message."""
        self.sent += 1
        image = from_rgb(picture(self.sent))
        image.header = Header(frame_id='camera')
        image.header.stamp.sec = self.sent
        self.publications.publish(image, (48, 80), outputs, FrameRecord(sequence=self.sent, split_name='features.4'))
        return image


@pytest.fixture
def scene(ros) -> Iterator[Callable[[str], Scene]]:
    """Return a function that sets up publications of a task."""
    scenes = []

    def make(task: str) -> Scene:
        scenes.append(Scene(ros, task))
        return scenes[-1]

    yield make
    for made in scenes:
        made.publications.close()


def test_a_detection_carries_everything(scene) -> None:
    detector = scene('detection')
    image = detector.publish(OBJECTS)
    wait(lambda: detector.predictions, 'no prediction')
    prediction = detector.predictions[0]
    assert prediction.header == image.header and prediction.task == 'detection' and prediction.model == 'my_net'
    assert (prediction.width, prediction.height, prediction.timing.sequence) == (80, 48, 1)
    assert list(prediction.labels) == ['cat', 'dog'] and list(prediction.class_ids) == [1, 2]
    assert list(prediction.boxes_px) == [4, 8, 20, 32, 8, 4, 12, 24]
    assert list(prediction.keypoints_px) == [4, 8, 12, 16] and list(prediction.keypoint_scores) == [3, -2]
    assert list(prediction.keypoint_names) == ['nose'] and not prediction.outputs
    assert prediction.output_digest == output_digest(OBJECTS)
    for mask, values in zip(prediction.masks, OBJECTS['masks.0'][:2, 0], strict=True):
        pixels = cv2.imdecode(np.frombuffer(mask.png, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (mask.height, mask.width)
        whole = np.zeros((48, 80), np.uint8)
        whole[mask.y : mask.y + mask.height, mask.x : mask.x + mask.width] = pixels
        assert np.array_equal(whole, 255 * np.kron(values.numpy() > 0.5, np.ones((4, 4), np.uint8)))


def test_the_outputs_digest_costs_nothing_unless_it_is_wanted(scene, monkeypatch) -> None:
    detector = scene('detection')
    detector.node.values.output_digest = False
    monkeypatch.setattr(predictions, 'output_digest', None)
    detector.publish(OBJECTS)
    wait(lambda: detector.predictions, 'no prediction')
    assert detector.predictions[0].output_digest == 0 and list(detector.predictions[0].class_ids) == [1, 2]


def test_an_object_without_a_pixel_has_an_empty_mask(scene) -> None:
    detector = scene('detection')
    detector.publish({**OBJECTS, 'masks.0': torch.zeros(3, 1, 12, 20)})
    wait(lambda: detector.predictions, 'no prediction')
    assert [(mask.width, mask.height, len(mask.png)) for mask in detector.predictions[0].masks] == [(0, 0, 0)] * 2


def test_another_task_s_outputs_are_passed_on(scene) -> None:
    other = scene('other')
    outputs = {'depth': torch.rand(1, 1, 6, 10)}
    other.publish(outputs)
    wait(lambda: other.predictions, 'no prediction')
    received = decode('raw', from_tensors(other.predictions[0].outputs), None)
    assert torch.equal(received['depth'], outputs['depth']) and not other.predictions[0].class_ids


def test_only_the_chosen_classes_are_named(scene) -> None:
    detector = scene('detection')
    detector.node.values.classes = ['dog']
    detector.publish(OBJECTS)
    wait(lambda: detector.predictions, 'no prediction')
    assert list(detector.predictions[0].labels) == ['dog'] and len(detector.predictions[0].boxes_px) == 4


def test_oriented_boxes_carry_their_angles(scene) -> None:
    detector = scene('detection')
    detector.publish({**OBJECTS, 'angles.0': torch.tensor([0.5, -0.25, 1.0])})
    wait(lambda: detector.predictions, 'no prediction')
    assert list(detector.predictions[0].box_angles) == [0.5, -0.25]


def test_dense_values_are_an_image_under_the_same_header(scene) -> None:
    depth = scene('dense')
    images = depth.listen(topics.DENSE_IMAGE)
    values = torch.rand(1, 1, 12, 20)
    image = depth.publish({'values': values})
    wait(lambda: images and depth.predictions, 'no image')
    received = images[0]
    assert received.header == image.header == depth.predictions[0].header and received.encoding == '32FC1'
    pixels = np.frombuffer(received.data, np.float32).reshape(48, 80)
    assert np.array_equal(pixels, np.kron(values[0, 0].numpy(), np.ones((4, 4), np.float32)))


def test_a_segmentation_is_a_label_image_under_the_same_header(scene) -> None:
    segmentation = scene('segmentation')
    images = segmentation.listen(topics.LABEL_IMAGE)
    classes = torch.randint(3, (1, 12, 20), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image = segmentation.publish({'label_map': classes})
    wait(lambda: images and segmentation.predictions, 'no label image')
    received, prediction = images[0], segmentation.predictions[0]
    assert received.header == image.header == prediction.header
    assert (received.encoding, received.height, received.width, received.step) == ('mono8', 48, 80, 80)
    pixels = np.frombuffer(received.data, np.uint8).reshape(48, 80)
    assert np.array_equal(pixels, np.kron(classes[0], np.ones((4, 4), np.uint8)))
    shares = {number: (pixels == number).mean() for number in prediction.class_ids}
    assert list(prediction.scores) == pytest.approx(list(shares.values())) and sum(shares.values()) == pytest.approx(1)


def test_a_picture_is_drawn_for_who_looks_and_for_nobody_else(scene, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(publications, 'annotate', lambda image, *_: drawn.append(image) or np.array(255 - image))
    classifier = scene('classification')
    for _ in range(3):
        classifier.publish({'logits': torch.rand(1, 3)})
    wait(lambda: len(classifier.predictions) == 3, 'no predictions')
    pictures = classifier.listen(topics.ANNOTATED)
    assert not drawn, 'a picture was drawn that nobody wanted'
    image = classifier.publish({'logits': torch.rand(1, 3)})
    wait(lambda: pictures, 'no picture')
    assert pictures[0].header == image.header and np.array_equal(to_rgb(pictures[0]), 255 - picture(4))


def test_predictions_do_not_wait_for_a_picture_and_the_newest_is_drawn_next(scene, monkeypatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(image: np.ndarray, *_: object) -> np.ndarray:
        begun.set()
        assert go_on.wait(60)
        return image

    monkeypatch.setattr(publications, 'annotate', slow)
    classifier = scene('classification')
    pictures = classifier.listen(topics.ANNOTATED)
    classifier.publish({'logits': torch.rand(1, 3)})
    assert begun.wait(60)
    for _ in range(3):
        classifier.publish({'logits': torch.rand(1, 3)})
    wait(lambda: len(classifier.predictions) == 4, 'the predictions waited for a picture')
    assert not pictures
    go_on.set()
    wait(lambda: len(pictures) == 2, 'no second picture')
    assert [image.header.stamp.sec for image in pictures] == [1, 4]


def test_a_picture_that_cannot_be_drawn_is_told_and_the_next_one_drawn(scene) -> None:
    classifier = scene('classification')
    pictures = classifier.listen(topics.ANNOTATED)
    broken = Image(header=Header(frame_id='camera'), encoding='nonsense', width=9, height=9)
    classifier.publications.publish(broken, (48, 80), {'logits': torch.rand(1, 3)}, FrameRecord())
    wait(lambda: classifier.node.told, 'nothing was told')
    assert 'image not annotated' in classifier.node.told[0]
    classifier.publish({'logits': torch.rand(1, 3)})
    wait(lambda: pictures, 'no picture afterwards')


@pytest.mark.parametrize('model_name', ['lraspp_mobilenet_v3_large', 'squeezenet1_1'])
def test_a_model_whose_outputs_are_its_task_s_is_taken(ros, model_name) -> None:
    split = SplitModel(load_model(model_name, input_size=(64, 64)))
    Publications(ros(Publisher()), split).close()


@pytest.mark.parametrize('task, shape', [('classification', (1, 3, 8, 8)), ('segmentation', (1, 3))])
def test_a_model_whose_outputs_are_not_its_task_s_is_refused_at_once(ros, task, shape) -> None:
    with pytest.raises(DynsplitError, match='set task to what the model does'):
        Publications(ros(Publisher()), model(task, (TensorSpec('output', 'float32', shape),)))


# ---- vision_msgs ----------------------------------------------------------------------------------------------------


def stand_in() -> SimpleNamespace:
    """Return types with the fields of vision_msgs 4.1.1 (its msg folder), which refuse any other field."""

    def message(**fields: Callable[[], object]) -> type:
        class Message:
            __slots__ = tuple(fields)

            def __init__(self, **given: object) -> None:
                for name, make in fields.items():
                    setattr(self, name, make())
                for name, value in given.items():
                    setattr(self, name, value)

        return Message

    point = message(x=float, y=float)
    pose = message(position=point, theta=float)
    hypothesis = message(class_id=str, score=float)
    return SimpleNamespace(
        ObjectHypothesis=hypothesis,
        Classification=message(header=Header, results=list),
        ObjectHypothesisWithPose=message(hypothesis=hypothesis, pose=object),
        Detection2D=message(header=Header, results=list, bbox=message(center=pose, size_x=float, size_y=float), id=str),
        Detection2DArray=message(header=Header, detections=list),
        VisionClass=message(class_id=int, class_name=str),
        LabelInfo=message(header=Header, class_map=list, threshold=float),
        VisionInfo=message(header=Header, method=str, database_location=str, database_version=int),
    )


@pytest.fixture(params=['stand-in', 'vision_msgs'])
def types(request, monkeypatch) -> object:
    """Return the types of vision_msgs, of a stand-in and, where it is installed, of the package itself."""
    if request.param == 'stand-in':
        monkeypatch.setattr(vision, 'vision', stand_in())
    elif vision.vision is None:
        pytest.skip('vision_msgs is not installed')
    return vision.vision


def test_a_classification_for_vision_msgs(types) -> None:
    header = Header(frame_id='camera')
    message = vision.to_classification(header, Result([7, 2], [0.75, 0.25], ['cat', 'dog']))
    assert isinstance(message, types.Classification) and message.header == header
    assert [(found.class_id, found.score) for found in message.results] == [('7', 0.75), ('2', 0.25)]


def test_detections_for_vision_msgs(types) -> None:
    header = Header(frame_id='camera')
    result = interpret('detection', OBJECTS, [], placement=Resize((12, 20)).placement(48, 80), top_k=1, min_score=0.5)
    message = vision.to_detections(header, result)
    assert isinstance(message, types.Detection2DArray) and message.header == header
    for found, number, score, box in zip(
        message.detections, ('1', '2'), (0.9, 0.6), ((4, 8, 20, 32), (8, 4, 12, 24)), strict=True
    ):
        assert found.header == header and len(found.results) == 1
        hypothesis = found.results[0].hypothesis
        assert hypothesis.class_id == number and hypothesis.score == pytest.approx(score)
        x, y = found.bbox.center.position.x, found.bbox.center.position.y
        half_x, half_y = found.bbox.size_x / 2, found.bbox.size_y / 2
        assert (x - half_x, y - half_y, x + half_x, y + half_y) == box and found.bbox.center.theta == 0


def test_oriented_boxes_for_vision_msgs(types) -> None:
    outputs = {**OBJECTS, 'angles.0': torch.tensor([0.5, -0.25, 1.0])}
    result = interpret('detection', outputs, [], placement=Resize((12, 20)).placement(48, 80), top_k=1, min_score=0.5)
    assert [found.bbox.center.theta for found in vision.to_detections(Header(), result).detections] == [0.5, -0.25]


def test_the_classes_names_for_vision_msgs(types) -> None:
    info = vision.to_label_info(Header(), ['background', 'cat'], 0.5)
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [(0, 'background'), (1, 'cat')]
    assert info.threshold == 0.5
    assert len(vision.to_label_info(Header(), ['x'] * 70_000, 0.0).class_map) == 65535
    info = vision.to_vision_info(Header(), 'my_net', '/robot1/label_info', 3)
    assert (info.method, info.database_location, info.database_version) == ('my_net', '/robot1/label_info', 3)


@pytest.mark.skipif(vision.vision is None, reason='vision_msgs is not installed')
@pytest.mark.parametrize(
    'task, outputs, topic',
    [
        ('classification', {'logits': torch.tensor([[0.0, 9.0, 1.0]])}, topics.CLASSIFICATION),
        ('detection', OBJECTS, topics.DETECTIONS),
    ],
)
def test_vision_msgs_are_published_alongside(scene, task, outputs, topic) -> None:
    scenery = scene(task)
    # These subscribers come late; the classes' names were published before.
    infos, names = scenery.listen(topics.VISION_INFO), scenery.listen(topics.LABEL_INFO)
    results = scenery.listen(topic)
    image = scenery.publish(outputs)
    wait(lambda: infos and names and results and scenery.predictions, 'not everything came')
    found = (
        results[0].results
        if task == 'classification'
        else [detection.results[0].hypothesis for detection in results[0].detections]
    )
    prediction = scenery.predictions[0]
    assert [entry.class_id for entry in found] == [str(number) for number in prediction.class_ids]
    assert [entry.score for entry in found] == pytest.approx(list(prediction.scores))
    assert results[0].header == image.header
    labels = {str(entry.class_id): entry.class_name for entry in names[0].class_map}
    assert [labels[entry.class_id] for entry in found] == list(prediction.labels)
    assert infos[0].method == 'my_net' and infos[0].database_location == '/robot1/label_info'
    if task == 'detection':
        assert names[0].threshold == 0.5
        scenery.node.values.min_score = 0.25
        scenery.publish(outputs)
        wait(lambda: names[-1].threshold == 0.25, 'the changed threshold was not told')


def test_without_vision_msgs_only_the_package_s_own_are_published(scene, monkeypatch) -> None:
    monkeypatch.setattr(vision, 'vision', None)
    classifier = scene('classification')
    classifier.publish({'logits': torch.rand(1, 3)})
    wait(lambda: classifier.predictions, 'no prediction')
    offered = {name for name, _ in classifier.node.get_publisher_names_and_types_by_node('publisher', '/robot1')}
    assert '/robot1/prediction' in offered and not offered & {'/robot1/classification', '/robot1/label_info'}


@pytest.mark.parametrize('topic', [topics.LABEL_INFO, topics.VISION_INFO])
def test_what_is_constant_is_latched(topic) -> None:
    assert topic.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
