import numpy as np
import pytest

from mmseg_hrhf.analysis.finished_step import FinishedStep, make_panels, take_turns


def test_classes_take_turns():
    shares = [[.9, .1, 0], [.5, .5, 0], [.8, 0, .2], [.1, .9, 0]]
    assert take_turns(shares, 3) == [0, 2, 1]
    # What fills the image or is a speck shows its class badly.
    assert take_turns([[.1, .9], [.99, .01]], 2) == []
    assert take_turns([], 3) == []


def test_panels_hold_truth_and_the_prediction_of_each_step(run):
    panels = make_panels(dict(first=run.files(0).folder, last=run.files(1).folder), 2)
    assert len(panels) == 2
    for panel in panels:
        assert panel.image.shape == (48, 48, 3) and panel.truth[0, 0] == 255
        assert panel.predictions['first'].max() <= 2
        assert panel.predictions['last'].shape == panel.truth.shape
    assert {1, 2, 3} >= set(np.unique([panel.truth for panel in panels])) - {0, 255}


def test_missing_data_and_other_checkpoints_are_named(run):
    step = FinishedStep(run.files(1).folder)
    step.cfg.test_dataloader.dataset.data_root = '/nowhere'
    with pytest.raises(ValueError, match=r'Cannot read the test images of .*step_1: '):
        step.choose_images(2)
    step.cfg.model.decode_head.num_classes = 9
    with pytest.raises(ValueError, match=r'checkpoint\.pth does not match config\.py in its folder'):
        step.predict(0)
