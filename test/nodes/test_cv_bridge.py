# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""cv_bridge converts where it works; our own table does where it crashes, errs, hangs or is absent."""

from __future__ import annotations

import array
import errno
import itertools
import os
from pathlib import Path
import re
import subprocess
import sys

from ament_index_python import get_package_prefix
from conftest import Observer, ROBOT, wait
import numpy as np
import pytest
from sensor_msgs.msg import Image

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages import bridge as module
from dynsplit_ros.messages.bridge import bridge, is_close, WRITTEN
from dynsplit_ros.messages.encodings import ASSUMED, by_table, from_array, PACKED
from dynsplit_ros.messages.images import to_image, to_rgb

HEADER = Path(get_package_prefix('sensor_msgs')) / 'include/sensor_msgs/sensor_msgs/image_encodings.hpp'
ENCODINGS = re.findall(r'const char \w+\[\] = "(\w+)"', HEADER.read_text()) if HEADER.is_file() else list(PACKED)
#: What CvBridge does not know, though it is in that header.
REFUSED = {'uyvy', 'yuyv', 'nv21', 'nv24'}

with_cv_bridge = pytest.mark.skipif(bridge().cv is None, reason=f'no cv_bridge that works: {bridge().words}')

#: The beginning of stand-ins for cv_bridge.
FAKE = """
import ctypes, os, sys, time
import numpy as np
from dynsplit_ros.messages.encodings import by_table, from_array
class CvBridge:
    def cv2_to_imgmsg(self, image, encoding): return from_array(image, encoding)
    def imgmsg_to_cv2(self, message, encoding):
"""
#: The package index's port: rows are taken for unpadded, 16 bits fail.
PORT = (
    FAKE
    + """
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)
        return image if message.encoding == 'rgb8' else image[..., ::-1]
"""
)
FAKES = {
    'crashes': (FAKE + '        ctypes.string_at(0)', 'it crashes (SIGSEGV), as one does that was built for another'),
    'refuses all': (FAKE + '        raise ValueError', 'it converts no encoding'),
    'hangs': (FAKE + '        time.sleep(1000)', 'it converted no image within 3 s'),
    'shifts the rows': (FAKE + '        return np.roll(by_table(message), 1, axis=1)', 'it converts rgb8 wrongly'),
    'is the port': (PORT, 'wrongly'),
    'swaps bytes': (FAKE + '        message.is_bigendian = 0; return by_table(message)', 'it converts rgb16 wrongly'),
    'writes wrongly': (
        FAKE.replace('(image, encoding)', '(image[::-1], encoding)') + '        return by_table(message)',
        'it writes rgb8 wrongly',
    ),
    'cannot be imported': ('import no_such_module', "No module named 'no_such_module'"),
    'has no CvBridge': ('', "cannot import name 'CvBridge'"),
    'prints nothing': ('import os; os._exit(0)', 'it ended without a result'),
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that puts a stand-in for cv_bridge first on the path."""

    def install(text: str) -> str:
        (tmp_path / 'cv_bridge').mkdir()
        (tmp_path / 'cv_bridge' / '__init__.py').write_text(text)
        for name in [name for name in sys.modules if name.partition('.')[0] == 'cv_bridge']:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)
        return str(tmp_path)

    before = {name: kept for name, kept in sys.modules.items() if name.partition('.')[0] == 'cv_bridge'}
    yield install
    for name in [name for name in sys.modules if name.partition('.')[0] == 'cv_bridge']:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize('what', FAKES)
def test_a_cv_bridge_that_does_not_work_is_found_out(what, fake, monkeypatch) -> None:
    text, why = FAKES[what]
    fake(text)
    if what == 'hangs':
        monkeypatch.setattr(module, 'CHECK_S', 3.0)
    found = bridge.__wrapped__()
    assert found.broken and found.cv is None and not found.encodings
    assert found.words.startswith('own table (cv_bridge cannot be used: ') and why in found.words
    assert '\n' not in found.words


def test_a_cv_bridge_that_works_takes_what_it_converts_and_leaves_the_rest_to_the_table(fake) -> None:
    fake(
        FAKE + "        if message.encoding in ('yuyv', 'mono16'): raise ValueError('unknown')\n"
        '        return by_table(message)'
    )
    found = bridge.__wrapped__()
    assert (found.words, found.broken) == ('cv_bridge', False)
    assert found.encodings == PACKED.keys() - {'yuyv', 'mono16'}
    message = from_array(np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8), 'bgr8')
    assert np.array_equal(found.to_rgb(message), by_table(message))
    message.step, message.data = 31, array.array('B', bytes(6 * 31))
    assert found.to_rgb(message) is None, 'rows padded by a part of a pixel'
    message.step, message.data = 33, array.array('B', bytes(6 * 33 - 3))
    assert found.to_rgb(message) is None, 'the last row has no padding'
    wide = from_array(np.zeros((6, 10, 3), np.uint16), 'rgb16')
    assert found.to_rgb(wide) is not None and found.to_rgb(wide, 12) is None, 'cv_bridge scales all 16 bits'


def test_a_process_that_cannot_be_started_leaves_the_table_and_the_reason(fake, monkeypatch) -> None:
    def run(*arguments, **options):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    fake(FAKE)
    monkeypatch.setattr(module.subprocess, 'run', run)
    found = bridge.__wrapped__()
    assert found.broken and found.cv is None
    assert 'did not start: Resource temporarily unavailable' in found.words


def test_without_cv_bridge_no_process_is_started(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(module.subprocess, 'run', None)
    assert bridge.__wrapped__().words == 'own table (cv_bridge is not installed)'


def random_images(encoding: str):
    """Yield images of random bytes in an encoding: sizes, padding of whole and of parts of pixels, byte orders."""
    pixel = 16 if encoding not in PACKED else PACKED[encoding].pixel_bytes
    for (height, width), padding, is_bigendian in itertools.product(
        ((6, 10), (5, 7), (1, 2), (48, 64)), (0, 1, pixel, 3 * pixel + 2), (False, True)
    ):
        step = 4 * width * pixel + padding if encoding not in PACKED else width * pixel + padding
        data = np.random.default_rng(width).integers(0, 256, 3 * height * step, np.uint8)
        data = data if encoding.startswith('nv') else data[: height * step]
        yield Image(
            height=height,
            width=width,
            encoding=encoding,
            step=step,
            is_bigendian=is_bigendian,
            data=array.array('B', data.tobytes()),
        )


def outcome(convert):
    """Return an image or why it is refused."""
    try:
        return convert()
    except DynsplitError as error:
        return str(error)
    except Exception as error:  # what CvBridge and OpenCV raise
        return f'refused: {error}'


@with_cv_bridge
@pytest.mark.parametrize('encoding', sorted({*ENCODINGS, *PACKED}))
def test_cv_bridge_and_our_table_agree(encoding) -> None:
    """For every encoding: CvBridge refuses it, or gives what our table gives, or we do not ask CvBridge."""
    converter = bridge().cv
    for message in random_images(encoding):
        case = f'{message.width}x{message.height}, step {message.step}, is_bigendian {message.is_bigendian}'
        own = outcome(lambda: by_table(message))
        theirs = outcome(lambda: np.asarray(converter.imgmsg_to_cv2(message, 'rgb8')))
        ours = outcome(lambda: to_rgb(message))
        whole_pixels = encoding in PACKED and message.step % PACKED[encoding].pixel_bytes == 0
        if isinstance(own, str):
            assert isinstance(ours, str), case
            assert isinstance(theirs, str) or 'odd width' in own, f'only cv_bridge takes {encoding}: {case}'
        else:
            assert is_close(ours, own), case
            if encoding in REFUSED or encoding in ASSUMED:
                assert isinstance(theirs, str) and encoding not in bridge().encodings, case
            elif whole_pixels:
                assert is_close(theirs, own), case
                assert bridge().to_rgb(message) is not None, f'cv_bridge is not asked: {case}'
    if encoding in PACKED and encoding not in REFUSED:
        assert encoding in bridge().encodings


@with_cv_bridge
@pytest.mark.parametrize('encoding', WRITTEN)
def test_cv_bridge_writes_what_we_write(encoding) -> None:
    dtype, channels = WRITTEN[encoding]
    for height, width in ((6, 10), (5, 7), (1, 1)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, 2 * width, channels)).astype(dtype)[:, ::2]
        pixels = pixels if channels > 1 else pixels[..., 0]
        assert bridge().to_message(pixels, encoding) == from_array(pixels, encoding) == to_image(pixels, encoding)


def start_camera(processes, parameters, folder: str) -> None:
    """Start a camera whose path begins with a folder."""
    path = ':'.join([folder, *sys.path])
    processes.start('camera', 'camera_node', ROBOT, parameters, env={'PYTHONPATH': path})


def test_a_node_lives_beside_a_cv_bridge_that_crashes(processes, ros, model_parameters, fake) -> None:
    start_camera(processes, model_parameters, fake(FAKES['crashes'][0]))
    observer = ros(Observer())
    observer.settle()
    wait(lambda: observer.diagnosed('camera_node', 'image_converter'), 'no diagnostics name the converter')
    words = observer.diagnosed('camera_node', 'image_converter')
    assert words.startswith('own table (cv_bridge cannot be used: it crashes (SIGSEGV)')
    assert '[WARN]' in (log := processes.log('camera').read_text()) and f'images are converted by: {words}' in log
    processes.check()


def test_a_node_uses_a_cv_bridge_that_works(processes, ros, model_parameters, fake, tmp_path) -> None:
    used = tmp_path / 'used'
    # The child process that tries it has no torch.
    start_camera(
        processes,
        model_parameters,
        fake(
            FAKE + f"        if 'torch' in sys.modules: open({str(used)!r}, 'a').close()\n"
            '        return by_table(message)'
        ),
    )
    observer = ros(Observer())
    observer.settle()
    wait(lambda: observer.diagnosed('camera_node', 'image_converter') == 'cv_bridge', 'cv_bridge is not named')
    assert used.exists() and 'images are converted by: cv_bridge' in processes.log('camera').read_text()


@with_cv_bridge
def test_a_node_uses_the_real_cv_bridge(processes, ros, model_parameters) -> None:
    processes.start('camera', 'camera_node', ROBOT, model_parameters)
    observer = ros(Observer())
    observer.settle()
    wait(lambda: observer.diagnosed('camera_node', 'image_converter') == 'cv_bridge', 'cv_bridge is not named')


def test_the_child_process_needs_no_torch() -> None:
    """It has to be cheap."""
    code = 'import dynsplit_ros.messages.bridge, sys; print("torch" in sys.modules)'
    result = subprocess.run(
        [sys.executable, '-c', f'import sys; sys.path[:] = sys.argv[1:]; {code}', *sys.path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == 'False'
