"""Every mistake of a config shows in the plan, before anything is trained."""

import copy
import glob
import os
import re
import shutil
import threading

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import HOOKS
from mmengine.visualization import Visualizer
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, OPTIMIZERS, TRANSFORMS
from PIL import Image

from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.engine.plan import RunPlan


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp('class_index'))


@TRANSFORMS.register_module()
class Fails(BaseTransform):
    """Works on files it knows: not on fakes."""

    def transform(self, results):
        if 'fakes' in results['img_path']:
            raise RuntimeError('no such object in the store')
        return results


@HOOKS.register_module()
class NeedsPath(Hook):
    def __init__(self, path):
        self.path = path


def run_preflight(cfg, cache, changes):
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(changes)
    plan = RunPlan(RunConfig.parse(cfg), cache)
    plan.preflight()
    return plan


PACK = dict(type='PackSegInputs')
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
SLIDE = dict(mode='slide', crop_size=(32, 32))
# What is changed in a config by epochs, and what the refusal says.
MISTAKES = {
    'optimizer': (
        {'optim_wrapper.optimizer.learning_rate': 1},
        r'optim_wrapper of step 0 cannot be built.*learning_rate',
    ),
    'optimizer type': (
        {'optim_wrapper.optimizer.type': 'SDG'},
        r"optimizer\.type='SDG' of step 0 is not a registered optimizer",
    ),
    'optimizer wrapper': ({'optim_wrapper.type': 'Wrapper'}, 'optim_wrapper of step 0 cannot be built.*Wrapper'),
    'clipping': ({'optim_wrapper.clip_grad': 5}, 'optim_wrapper of step 0 cannot be built'),
    'scheduler': (
        {'param_scheduler': [dict(type='PolyLR', powr=1)]},
        'param_scheduler of step 0 cannot be built.*powr',
    ),
    'scheduler type': ({'param_scheduler': [dict(type='Polly')]}, 'param_scheduler of step 0 cannot be built.*Polly'),
    'hook': ({'custom_hooks': [dict(type='NeedsPath')]}, r'custom_hooks.* of step 0 cannot be built.*path'),
    'hook type': ({'default_hooks.timer.type': 'Timer'}, r'default_hooks.* of step 0 cannot be built.*Timer'),
    'visualizer': ({'visualizer.colour': 1}, r'visualizer.* of step 0 cannot be built.*colour'),
    'log processor': ({'log_processor.window': 3}, r'log_processor.* of step 0 cannot be built.*window'),
    'randomness': (
        {'randomness': dict(seed=1, determinstic=True)},
        r'randomness.* of step 0 cannot be built.*determinstic',
    ),
    'test loader': ({'test_dataloader.batch': 3}, 'test_dataloader of step 0 cannot be built.*batch'),
    'test sampler': ({'test_dataloader.sampler.type': 'Sampler'}, 'test_dataloader of step 0 cannot be built'),
    'workers': (
        {'train_dataloader.persistent_workers': True},
        'train_dataloader of step 0 cannot be built.*num_workers',
    ),
    'collate': ({'train_dataloader.collate_fn': dict(type='stack_it')}, 'train_dataloader of step 0 cannot be built'),
    'metric name': ({'test_evaluator.iou_metrics': ['mIOU']}, r"test_evaluator of step 0 cannot evaluate.*\['mIOU'\]"),
    'metric option': ({'test_evaluator.metric': 'mIoU'}, r"test_evaluator IoUMetric has no option 'metric'"),
    'metric type': (
        {'test_evaluator': [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='Boundary')]},
        'test_evaluator of step 0 cannot be built.*Boundary',
    ),
    'test loop': ({'test_cfg': dict(type='TestingLoop')}, 'test_cfg .* of step 0 cannot be built.*TestingLoop'),
    'slide without stride': ({'model.test_cfg': SLIDE}, r'model \(with test_cfg\) of step 0 cannot predict.*stride'),
    'test transform': ({'test_dataloader.dataset.pipeline': [*LOAD, dict(type='Resize', scle=(3, 3)), PACK]}, 'scle'),
    'fakes': (
        {'train_dataloader.dataset.pipeline': [*LOAD, dict(type='Fails'), PACK]},
        r'pipeline of step 1 cannot make a sample.*no such object in the store',
    ),
    'sizes': (
        {'model.data_preprocessor.size': (40, 40), 'replay.inversion.size': 40},
        r'Images of step 1 cannot be collated into one batch: the pipeline returns real \(48, 48\), real \(48, 48\), '
        r'synthetic \(40, 40\).*replay\.inversion\.size',
    ),
    'average of weights': (
        {'custom_hooks': [dict(type='EMAHook', momentum=2)]},
        r'EMAHook\) of step 0 cannot be built.*momentum must be in range',
    ),
    'loss': (
        {'model.decode_head.loss_decode.loss_weight': 'much'},
        'model of step 0 cannot be trained on images of train_dataloader',
    ),
    'preprocessor': (
        {'model.data_preprocessor.batch_augments': [dict(type='BatchAugment')]},
        r'model\.data_preprocessor of step 0 cannot process a batch: TypeError',
    ),
    'transform before labels': (
        {'test_dataloader.dataset.pipeline': [LOAD[0], dict(type='GenerateEdge'), LOAD[1], PACK]},
        r'test_dataloader\.dataset\.pipeline of step 0 cannot make a sample: KeyError: gt_seg_map',
    ),
    'checkpointing': ({'activation_checkpointing': ['backbone.layer9']}, r"names 'backbone\.layer9', but the network"),
    'values': (
        {'train_dataloader.dataset.pipeline': [*LOAD, dict(type='Normalize', mean=[100] * 3, std=[50] * 3), PACK]},
        'Real images of train_dataloader reach the network with values',
    ),
}


@pytest.mark.parametrize(
    'transform, message',
    [
        (dict(type='Normalize', mean=[100] * 3, std=[50] * 3), 'Real images of train_dataloader reach'),
        (dict(type='RandomCutOut', prob=1.0, n_holes=9, cutout_shape=(9, 9), seg_fill_in=2), 'depend on'),
        (dict(type='Resize', scale=(64, 64)), r'one batch: .* real \(64, 64\)'),
    ],
    ids=['values', 'labels', 'size'],
)
def test_a_mistake_in_the_second_of_joined_datasets_is_named(tiny_config, cache, transform, message):
    first = tiny_config.train_dataloader.dataset
    joined = dict(type='ConcatDataset', datasets=[first, dict(first, pipeline=[*LOAD, transform, PACK])])
    tiny_config.train_dataloader.dataset = joined
    with pytest.raises(ValueError, match=message):
        run_preflight(tiny_config, cache, {})


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_named_before_training(tiny_config, cache, mistake):
    changes, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        run_preflight(tiny_config, cache, changes)


OVERRIDES = {
    'optimizer': (
        dict(optim_wrapper=dict(optimizer=dict(learning_rate=0.001))),
        r'optim_wrapper of step 1 cannot be built.*learning_rate.*incremental_overrides sets optim_wrapper',
    ),
    'deleted': (
        dict(optim_wrapper=dict(optimizer=dict(_delete_=True, lr=1))),
        'optim_wrapper of step 1 cannot be built',
    ),
    'all deleted': (
        dict(_delete_=True, optim_wrapper=dict(optimizer=dict(lr=1))),
        r"incremental_overrides has '_delete_'",
    ),
    'epochs': (dict(train_cfg=dict(max_iters=3)), r'With incremental_overrides.*one of max_epochs and max_iters'),
    'zero': (dict(train_cfg=dict(max_epochs=0)), r'train_cfg\.max_epochs=0 must be a positive whole number'),
    'no dict': (dict(optim_wrapper=5), r'incremental_overrides.*optim_wrapper=dict'),
    'no loader': (dict(train_dataloader=None), r'incremental_overrides.*train_dataloader=dict'),
    'batch': (dict(train_dataloader=dict(batch_size='8')), r"train_dataloader\.batch_size='8' must be a whole number"),
    'scheduler': (
        dict(param_scheduler=[dict(type='PolyLR', powr=1)]),
        r'param_scheduler of step 1 cannot be built.*powr',
    ),
    'hooks': (dict(custom_hooks=[dict(type='NeedsPath')]), r'custom_hooks.* of step 1 cannot be built'),
    'evaluator': (dict(test_evaluator=dict(iou_metrics=['mIOU'])), 'test_evaluator of step 1 cannot evaluate'),
    'average of weights': (
        dict(custom_hooks=[dict(type='EMAHook', begin_epoch=9)]),
        r'EMAHook\) of step 1 cannot be built.*begin_epoch: 9.*incremental_overrides sets custom_hooks',
    ),
    'loss': (
        dict(model=dict(decode_head=dict(loss_decode=dict(loss_weight='much')))),
        'model of step 1 cannot be trained on images of train_dataloader.*incremental_overrides sets model',
    ),
    'data': (
        dict(train_dataloader=dict(dataset=dict(data_prefix=dict(img_path='images/val')))),
        r'With incremental_overrides.*train_dataloader\.dataset differs, but all steps must use the same data',
    ),
    'of the run': (dict(load_from='a.pth'), r"incremental_overrides cannot set \['load_from'\]"),
    'ours': (dict(replay=None), r"incremental_overrides cannot set \['replay'\]"),
    'list': (dict(param_scheduler=dict(power=2)), r'param_scheduler|incremental_overrides'),
}


@pytest.mark.parametrize('mistake', OVERRIDES)
def test_a_mistake_in_the_overrides_is_named_before_step_0(tiny_config, cache, mistake):
    overrides, message = OVERRIDES[mistake]
    tiny_config.incremental_overrides = overrides
    with pytest.raises(ValueError, match=message):
        run_preflight(tiny_config, cache, {})


def test_a_scheduler_by_epoch_in_a_loop_by_iteration_would_do_nothing(tiny_iter_config, cache):
    with pytest.raises(ValueError, match=r'PolyLR of step 0 counts epochs .*Set by_epoch=False'):
        run_preflight(tiny_iter_config, cache, dict(param_scheduler=[dict(type='PolyLR', end=6)]))
    run_preflight(tiny_iter_config, cache, {})


@OPTIMIZERS.register_module()
class OwnSGD(torch.optim.SGD):
    pass


def test_an_optimizer_that_only_mmseg_knows(tiny_config, cache):
    run_preflight(tiny_config, cache, {'optim_wrapper.optimizer.type': 'OwnSGD'})


def test_a_scheduler_that_waits_for_a_metric_counts_validations(tiny_iter_config, cache):
    cfg = tiny_iter_config
    cfg.val_dataloader, cfg.val_evaluator = cfg.test_dataloader, cfg.test_evaluator
    plateau = [dict(type='ReduceOnPlateauLR', monitor='mIoU')]
    run_preflight(cfg, cache, {
        'val_cfg': dict(type='ValLoop'), 'train_cfg.val_interval': 2, 'param_scheduler': plateau})


@DATASETS.register_module()
class CachingDataset(BaseSegDataset):
    def __init__(self, cache_dir, **kwargs):
        self.cache_dir = cache_dir
        super().__init__(**kwargs)


def test_a_cache_of_the_users_dataset_stays_where_it_is(tiny_config, cache, monkeypatch):
    seen = set()
    monkeypatch.setattr(CachingDataset, 'full_init', lambda self: (seen.add(self.cache_dir), super_init(self))[1])
    super_init = BaseSegDataset.full_init
    run_preflight(tiny_config, cache, {f'{name}_dataloader.dataset': dict(type='CachingDataset', cache_dir='mine')
                                  for name in ('train', 'test')})
    assert seen == {'mine'}


def kept():
    instances = {name for kind in (MMLogger, MessageHub, Visualizer) for name in kind._instance_dict}
    files = {path for path in map(os.path.realpath, glob.glob('/proc/self/fd/*')) if path.endswith('.log')}
    threads = {thread for thread in threading.enumerate() if type(thread).__name__ != 'TMonitor'}  # of progress bars
    return threads, {name for name in instances if '_step_' in name}, files


def test_a_preflight_leaves_nothing_behind(tiny_config, cache, tmp_path):
    before = kept()
    plan = run_preflight(tiny_config, cache, {})
    assert not (tmp_path / 'work').exists() and kept() == before
    with pytest.raises(ValueError, match='custom_hooks'):
        run_preflight(tiny_config, cache, {'custom_hooks': [dict(type='NeedsPath')]})
    assert kept() == before
    assert all('pixel_map' not in hook for hook in plan.configs[1].custom_hooks)


def test_what_the_pipeline_makes_of_pixels_reaches_the_inversion(tiny_config, cache):
    normalise = dict(type='Normalize', mean=[100.0] * 3, std=[50.0] * 3, to_rgb=True)
    pipeline = [*LOAD, normalise, PACK]
    plan = run_preflight(
        tiny_config,
        cache,
        {
            'train_dataloader.dataset.pipeline': pipeline,
            'test_dataloader.dataset.pipeline': pipeline,
            'model.data_preprocessor': dict(type='SegDataPreProcessor', size=(48, 48), _delete_=True),
        },
    )
    hook = next(hook for hook in plan.configs[1].custom_hooks if hook['type'] == 'SegInversionHook')
    assert hook.pixel_map['channels'] == [0, 1, 2]
    assert hook.pixel_map['scale'] == pytest.approx([0.02] * 3, rel=1e-4)
    assert hook.pixel_map['offset'] == pytest.approx([-2.0] * 3, rel=1e-4)


def test_the_plan_says_what_is_background_and_what_is_ignored(tiny_config, cache):
    tiny_config.scenario = dict(steps=[['red'], ['green']])
    text = RunPlan(RunConfig.parse(tiny_config), cache).describe().splitlines()
    at = text.index('Pixels that are background or ignored:')
    rows = [line.split() for line in text[at + 1 : at + 5]]
    assert [row[:3] for row in rows] == [
        ['0', 'train', 'background'],
        ['0', 'test', 'background'],
        ['1', 'train', 'background'],
        ['1', 'test', 'background'],
    ]
    assert 'green' in text[at + 1] and 'void 255' in text[at + 1] and 'ignored 0.0 %' not in text[at + 2]
    assert 'blue' in text[at + 2].split('ignored')[1]


def test_a_class_of_most_pixels_is_background_or_ignored_but_not_silently(tiny_config, cache, tmp_path):
    # The ground of all images has the last label, and a name that says nothing.
    root, numbers = tmp_path / 'data', np.array([3, 0, 1, 2] + [255] * 252, dtype=np.uint8)
    shutil.copytree(tiny_config.train_dataloader.dataset.data_root, root)
    for path in (root / 'masks').rglob('*.png'):
        with Image.open(path) as mask:
            mapped = numbers[np.asarray(mask)]
        Image.fromarray(mapped).save(path)
    for loader in (tiny_config.train_dataloader, tiny_config.test_dataloader):
        loader.dataset.update(data_root=str(root), metainfo=dict(classes=['red', 'green', 'blue', 'ocean']))

    def describe(**scenario):
        tiny_config.scenario = scenario
        return RunPlan(RunConfig.parse(tiny_config), cache).describe()

    said = r"No class is background, and 'ocean', with \d\d\.\d % of all pixels, is learnt as a class"
    assert re.search(said + r".* scenario\.background='ocean'", describe(task='2-2'))
    steps = [['red', 'green'], ['blue']]
    refused = r"no step learns 'ocean', which has \d\d.*background='ocean'.*ignored_classes=\['ocean'\]"
    for options in ({}, dict(background=None)):
        with pytest.raises(ValueError, match=refused):
            describe(steps=steps, **options)
    for settled in (
        dict(task='2-2', background=None),
        dict(task='2-1', background='ocean'),
        dict(steps=steps, background='ocean'),
        dict(steps=steps, ignored_classes=['ocean']),
    ):
        assert 'No class is background' not in describe(**settled)
