import numpy as np
import pytest

from mmseg_hrhf.analysis.page import choose_images, make_panels


def test_classes_take_turns():
    shares = [[.9, .1, 0], [.5, .5, 0], [.8, 0, .2], [.1, .9, 0]]
    assert choose_images(shares, 3) == [0, 2, 1]
    # What fills the image or is a speck shows its class badly.
    assert choose_images([[.1, .9], [.99, .01]], 2) == []
    assert choose_images([], 3) == []


def test_panels_hold_truth_and_the_prediction_of_each_step(run):
    panels = make_panels([('first', run, 0), ('last', run, 1)], 2)
    assert len(panels) == 2
    for panel in panels:
        assert panel.image.shape == (48, 48, 3) and panel.truth[0, 0] == 255
        assert panel.predictions['first'].max() <= 2
        assert panel.predictions['last'].shape == panel.truth.shape
    assert {1, 2, 3} >= set(np.unique([panel.truth for panel in panels])) - {0, 255}


def test_missing_data_are_named(run, tiny_root, monkeypatch):
    real = type(run).plain_config

    def moved(self, step):
        cfg = real(self, step)
        cfg.test_dataloader.dataset.data_root = '/nowhere'
        return cfg

    monkeypatch.setattr(type(run), 'plain_config', moved)
    with pytest.raises(ValueError, match='test images are not where the run had them'):
        make_panels([('last', run, 1)], 2)
