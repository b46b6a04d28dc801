import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_hrhf.replay.buffer import stored_png


@pytest.mark.parametrize('height, width', [(1, 1), (7, 5), (512, 300)])  # the last is longer than a deflate block
def test_others_read_what_is_written(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = stored_png(image)
    with Image.open(io.BytesIO(data)) as read:
        assert (read.format, read.mode) == ('PNG', 'RGB')
        np.testing.assert_array_equal(np.asarray(read), image)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], image)


def test_damage_is_found():
    data = bytearray(stored_png(np.zeros((9, 9, 3), dtype=np.uint8)))
    data[len(data) // 2] ^= 255
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(bytes(data))) as image:
        image.load()


def test_a_view_of_another_layout_is_stored_as_seen():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(3, 5, 4).transpose(2, 1, 0)
    with Image.open(io.BytesIO(stored_png(image))) as read:
        np.testing.assert_array_equal(np.asarray(read), image)
