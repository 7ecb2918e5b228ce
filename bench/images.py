# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Images for the edge in other forms: bytes, same class and processor time of JPEG, WebP and H.264.

A camera pans across photographs, as in the benchmark 'alternatives'. Each form encodes and decodes all of its images,
at the camera's size and at the network's, and the whole model runs on what comes back. Needs the photographs of the
benchmark 'agreement'; without the program ffmpeg, the rows of H.264 are left out, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
import resource
import shutil
import subprocess
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from bench.agreement import photographs
from bench.alternatives import as_file, PAN_S, Photographs, RATE_HZ
from bench.figures import add_photographs, argument_parser, Figures
from dynsplit_ros.codec import decode, encode
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.tensors import TensorSpec

Picture = NDArray[np.uint8]

#: File format and quality, and constant rate factors of H.264: lower is better and larger.
FILES = (('.jpg', 95), ('.jpg', 80), ('.jpg', 50), ('.webp', 80), ('.webp', 50))
RATE_FACTORS = (18, 28)
#: Images that go through the network together.
BATCH = 20
#: Whole images between those that refer to earlier ones: one in a second, so that a lost frame spoils a second at most.
KEY_INTERVAL = round(RATE_HZ)


def files(pictures: Sequence[Picture], image: str, quality: int) -> tuple[list[Picture], int, float, float]:
    """Return what comes back, bytes, and seconds of processor time for encoding and decoding, of image files."""
    began_s = time.process_time()
    sent = [as_file(picture, image, quality) for picture in pictures]
    encoded_s = time.process_time()
    back = [cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for file in sent]
    return back, sum(file.nbytes for file in sent), encoded_s - began_s, time.process_time() - encoded_s


def lossless(pictures: Sequence[Picture], codec: str) -> tuple[list[Picture], int, float, float]:
    """Return the same for a codec of this package that loses nothing."""
    expected = [TensorSpec('image', 'uint8', (1, 3, *pictures[0].shape[:2]))]
    tensors = [{'image': torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()} for picture in pictures]
    began_s = time.process_time()
    sent = [encode(codec, tensor) for tensor in tensors]
    encoded_s = time.process_time()
    back = [decode(codec, payload, expected) for payload in sent]
    decoded_s = time.process_time()
    size = sum(memoryview(tensor.data).nbytes for payload in sent for tensor in payload)
    return (
        [one['image'][0].permute(1, 2, 0).numpy() for one in back],
        size,
        encoded_s - began_s,
        decoded_s - encoded_s,
    )


def video(pictures: Sequence[Picture], rate_factor: int) -> tuple[list[Picture], int, float, float]:
    """Return the same for H.264 without delay, by the program ffmpeg on one thread."""
    height, width = pictures[0].shape[:2]
    raw = ['-f', 'rawvideo', '-pix_fmt', 'rgb24']
    size = ['-s', f'{width}x{height}', '-r', f'{RATE_HZ:g}']
    stream, encoded_s = _ffmpeg(
        [
            *raw,
            *size,
            '-i',
            '-',
            '-c:v',
            'libx264',
            '-pix_fmt',
            'yuv420p',
            '-preset',
            'veryfast',
            '-tune',
            'zerolatency',
            '-g',
            str(KEY_INTERVAL),
            '-crf',
            str(rate_factor),
            '-threads',
            '1',
            '-f',
            'h264',
            '-',
        ],
        b''.join(picture.tobytes() for picture in pictures),
    )
    back, decoded_s = _ffmpeg(['-threads', '1', '-f', 'h264', '-i', '-', *raw, '-'], stream)
    found = np.frombuffer(back, np.uint8).reshape(-1, height, width, 3)
    if len(found) != len(pictures):
        raise SystemExit(f'ffmpeg returned {len(found)} of {len(pictures)} images')
    return list(found), len(stream), encoded_s, decoded_s


def _ffmpeg(arguments: Sequence[str], data: bytes) -> tuple[bytes, float]:
    """Return the output of ffmpeg and its processor time in seconds."""

    def used_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    began_s = used_s()
    done = subprocess.run(['ffmpeg', '-hide_banner', '-loglevel', 'error', *arguments], input=data, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f'ffmpeg ended with code {done.returncode}: {done.stderr.decode(errors="replace")[-300:]}')
    return done.stdout, used_s() - began_s


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--model', default='efficientnet_lite:lite0', help='classifier (default: %(default)s)')
    parser.add_argument('--weights', default='default', help='its weights (default: default)')
    add_photographs(parser)
    parser.add_argument('--count', type=int, metavar='N', help='only the first N photographs')
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    split = SplitModel(load_model(given.model, weights=given.weights))
    found = photographs(given.photographs)
    half = np.array_split(np.random.default_rng(0).permutation(len(found)), 2)[1]  # that of 'alternatives'
    chosen = [found[number] for number in sorted(half)][: given.count]
    camera = Photographs(chosen)
    step_ns = round(1e9 / RATE_HZ)
    large = [camera.at(number * step_ns) for number in range(round(len(chosen) * PAN_S * RATE_HZ))]
    small = [np.ascontiguousarray(split.model.resize(picture).permute(1, 2, 0).numpy()) for picture in large]

    def classes(pictures: Sequence[Picture]) -> NDArray[np.int64]:
        """Return the best class of each picture, which has the camera's size or the network's."""
        inputs = [
            split.model.resize(np.ascontiguousarray(picture))
            if picture.shape == large[0].shape
            else torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            for picture in pictures
        ]
        outputs = [
            next(iter(split.whole(torch.stack(inputs[start : start + BATCH])).values()))
            for start in range(0, len(inputs), BATCH)
        ]
        return np.asarray(torch.cat(outputs).argmax(dim=1))

    exact = classes(large)
    ffmpeg = shutil.which('ffmpeg') is not None
    if not ffmpeg:
        print('the program ffmpeg is not installed: H.264 is left out (apt-get install ffmpeg)', flush=True)
    rows = []
    for pictures in (large, small):
        forms: dict[str, Any] = {'lossless (blosc2-image)': lambda given: lossless(given, 'blosc2-image')}
        for image, quality in FILES:
            forms[f'{"JPEG" if image == ".jpg" else "WebP"} {quality}'] = lambda given, image=image, quality=quality: (
                files(given, image, quality)
            )
        for factor in RATE_FACTORS if ffmpeg else ():
            forms[f'H.264, CRF {factor}'] = lambda given, factor=factor: video(given, factor)
        for name, form in forms.items():
            back, size, encoded_s, decoded_s = form(pictures)
            exactly = all(np.array_equal(one, other) for one, other in zip(back, pictures))
            rows.append(
                {
                    'name': name,
                    'height': pictures[0].shape[0],
                    'width': pictures[0].shape[1],
                    'bytes': size / len(pictures),
                    'same_class': 1.0 if exactly else float(np.mean(classes(back) == exact)),
                    'encode_s': encoded_s / len(pictures),
                    'decode_s': decoded_s / len(pictures),
                }
            )
            print(rows[-1], flush=True)
    figures = Figures()
    figures.extra = {
        'model': given.model,
        'rate_hz': RATE_HZ,
        'key_interval': KEY_INTERVAL,
        'rows': rows,
        'photographs': [file.name for file in chosen],
    }
    figures.add('photographs', len(chosen), '')
    figures.add('images', len(large), '')
    for row in rows:
        what = f'{row["name"]}, {row["width"]} x {row["height"]}'
        for name, value, unit in (
            ('bytes for each image', row['bytes'] / 1024, 'KiB'),
            ('same class', 100 * row['same_class'], '%'),
            ('encoding', 1e3 * row['encode_s'], 'ms'),
            ('decoding', 1e3 * row['decode_s'], 'ms'),
        ):
            figures.add(f'{what}: {name}', value, unit)
    return figures.finish(given.json)


if __name__ == '__main__':
    raise SystemExit(main())
