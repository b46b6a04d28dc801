import torch
from mmseg.registry import DATASETS

from mmseg_hrhf.utils.randomness import SampleIndex


def test_the_mixed_image_is_that_of_its_place(tiny_config):
    data = tiny_config.train_dataloader.dataset
    pack = data.pipeline.pop()
    mixed = DATASETS.build(dict(
        type='SeededMixDataset',
        dataset=dict(type='IncrementalDataset', dataset=data, scenario=tiny_config.scenario, step=0),
        pipeline=[dict(type='RandomMosaic', prob=1.0, img_scale=(48, 48)), pack]))
    one, again, other = (mixed[SampleIndex(3, (0, 2, position))]['inputs'] for position in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
