# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What plays as a camera."""

import cv2
import numpy as np
import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.sources import open_source, Panorama


def test_the_panorama_is_a_function_of_the_instant_and_moves() -> None:
    first, second = Panorama(64, 48), Panorama(64, 48)
    assert first.at(10**18).shape == (48, 64, 3) and first.at(10**18).dtype == np.uint8
    assert np.array_equal(first.at(10**18 + 5), second.at(10**18 + 5))
    assert not np.array_equal(first.at(10**18), first.at(10**18 + 10**9))


@pytest.mark.parametrize('size', [(640, 480), (100, 1000), (1920, 1080), (1, 1)])
def test_the_panorama_fills_any_size(size) -> None:
    panorama = Panorama(*size)
    for instant in range(0, 20 * 10**9, 10**9):
        assert panorama.at(instant).shape == (size[1], size[0], 3)


def test_the_panorama_shows_each_photograph_in_turn_and_names_it() -> None:
    panorama = Panorama(64, 48)
    shown = [panorama.shown(round(second * 1e9)) for second in (0, 4.9, 5, 10, 15)]
    assert shown == ['coffee', 'coffee', 'chelsea', 'rocket', 'coffee']
    means = [panorama.at(second * 10**9).mean() for second in (1, 6, 11)]
    assert np.ptp(means) > 10 and panorama.at(10**9).mean() == panorama.at(16 * 10**9).mean()


def test_a_folder_plays_in_order_and_again(tmp_path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((4, 6, 3), 10 * number, np.uint8))
    (tmp_path / 'notes.txt').write_text('no image')
    source = open_source(str(tmp_path), 6, 4)
    assert [int(source.at(0)[0, 0, 0]) for _ in range(4)] == [0, 10, 20, 0]


def test_a_file_is_resized_and_in_rgb(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((8, 8, 3), (1, 2, 3), np.uint8))
    image = open_source(str(tmp_path / 'a.png'), 4, 2).at(0)
    assert image.shape == (2, 4, 3) and image[0, 0].tolist() == [3, 2, 1]


def test_a_video_plays_again_at_its_end(tmp_path) -> None:
    path = str(tmp_path / 'a.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 32))
    for value in (0, 200):
        writer.write(np.full((32, 32, 3), value, np.uint8))
    writer.release()
    source = open_source(path, 32, 32)
    assert [int(source.at(0).mean() > 100) for _ in range(4)] == [0, 1, 0, 1]
    source.close()


@pytest.mark.parametrize('path', ['/no/such/place', ''])
def test_what_cannot_be_opened_is_named(path, tmp_path) -> None:
    with pytest.raises(DynsplitError, match=path or 'has no image'):
        open_source(path or str(tmp_path), 4, 4)


def test_a_broken_image_is_named(tmp_path) -> None:
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(DynsplitError, match='a.png cannot be read'):
        open_source(str(tmp_path), 4, 4).at(0)
