import numpy as np

from mmseg_hrhf.utils.pictures import colour_mask, fit, image_grid, overlay

PALETTE = [[0, 0, 0], [200, 100, 0]]


def test_a_class_without_a_colour_is_white():
    painted = colour_mask(np.array([[0, 1, 255]], dtype=np.uint8), PALETTE)
    assert painted.tolist() == [[[0, 0, 0], [200, 100, 0], [255, 255, 255]]]


def test_overlay_mixes_colours_and_leaves_background_clear():
    image = np.full((1, 2, 3), 100, dtype=np.uint8)
    painted = overlay(image, np.array([[0, 1]], dtype=np.uint8), PALETTE, alpha=0.25)
    assert painted.tolist() == [[[100, 100, 100], [125, 100, 75]]]


def test_grid_has_a_cell_for_each_image_and_white_between():
    images = [np.full((4, 4, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    grid = image_grid(images, columns=2, cell=(4, 4), gap=1)
    assert grid.shape == (9, 9, 3)
    assert grid[:4, :4].max() == 10 and grid[:4, 5:].min() == 20 and grid[5:, :4].max() == 30
    assert (grid[4] == 255).all() and (grid[:, 4] == 255).all() and (grid[5:, 5:] == 255).all()


def test_a_large_image_is_shrunk_in_its_shape_and_a_small_one_is_not_blown_up():
    assert fit(np.zeros((100, 50, 3), dtype=np.uint8), (20, 20)).shape == (20, 10, 3)
    assert fit(np.zeros((3, 5, 3), dtype=np.uint8), (20, 20)).shape == (3, 5, 3)
