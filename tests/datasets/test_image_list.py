"""Lists of a step's images by name."""
import numpy as np
import pytest

from mmseg_hrhf.datasets.source import load_image_list


def test_names_with_folder_and_suffix_are_found(tmp_path):
    (tmp_path / 'a.txt').write_text('b.jpg\nimages\\a.jpg\nx/c\n')
    assert load_image_list(str(tmp_path / 'a.txt'), ['a', 'b', 'c']).tolist() == [1, 0, 2]


def test_a_name_that_two_images_share_is_refused_and_others_are_not(tmp_path):
    names = ['a', 'b', 'a', 'c']
    (tmp_path / 'a.txt').write_text('b\nc\n')
    assert load_image_list(str(tmp_path / 'a.txt'), names).tolist() == [1, 3]
    (tmp_path / 'a.txt').write_text('b\na\n')
    with pytest.raises(ValueError, match=r"names 'a', but the dataset contains 2 images with that name: use integer"):
        load_image_list(str(tmp_path / 'a.txt'), names)
    np.save(tmp_path / 'a.npy', [2, 1])
    assert load_image_list(str(tmp_path / 'a.npy'), names).tolist() == [2, 1]
