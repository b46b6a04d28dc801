import pytest
from mmengine.config import Config

from mmseg_hrhf.config.plain import inversion_batch, training_size
from mmseg_hrhf.config.run import ReplayConfig


def config(pipeline, **preprocessor):
    return Config(
        dict(
            model=dict(data_preprocessor=preprocessor),
            train_dataloader=dict(
                batch_size=2,
                dataset=dict(type='RepeatDataset', times=2, dataset=dict(type='DRIVEDataset', pipeline=pipeline))),
            method=dict(type='HRHF'),
            replay=dict(inversion=dict(type='SegInversion'))))


CROP = [dict(type='RandomCrop', crop_size=(64, 96), cat_max_ratio=0.75), dict(type='PackSegInputs')]


def test_the_size_to_which_batches_are_padded_goes_before_that_of_a_crop():
    assert training_size(config(CROP, size=(128, 128))) == (128, 128)
    assert training_size(config(CROP)) == (64, 96)
    assert training_size(config([dict(type='RandomResizedCrop', size=32)])) == (32, 32)
    assert training_size(config([dict(type='Resize', scale=(64, 64))])) is None


@pytest.mark.parametrize('size, expected', [((512, 512), 16), ((64, 64), 16), ((512, 1024), 8), ((640, 640), 10),
                                            ((1024, 1024), 4), ((4096, 4096), 1)])
def test_as_many_pixels_as_the_paper_s_batch(size, expected):
    assert inversion_batch(size) == expected


def test_what_the_user_gives_stays():
    cfg = config(CROP, size=(1024, 1024))
    assert ReplayConfig.parse(cfg.replay, cfg).inversion == dict(type='SegInversion', size=(1024, 1024), batch_size=4)
    cfg.replay.inversion.size = 64
    assert ReplayConfig.parse(cfg.replay, cfg).inversion == dict(type='SegInversion', size=64, batch_size=16)
    cfg.replay.inversion.batch_size = 3
    assert ReplayConfig.parse(cfg.replay, cfg).inversion == dict(type='SegInversion', size=64, batch_size=3)


def test_no_size_is_an_error():
    with pytest.raises(ValueError, match=r'replay\.inversion\.size is missing, and neither data_preprocessor\.size'):
        ReplayConfig.parse(config([]).replay, config([]))
