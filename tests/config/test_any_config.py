"""Whole runs of configs with what users of mmseg put into them."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.registry import MODELS, RUNNERS
from PIL import Image

from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint


@HOOKS.register_module()
class LastWeights(Hook):
    """Remembers the weights that training itself ended with."""
    weights: list = []

    def after_train(self, runner):
        self.weights.append({key: value.clone() for key, value in runner.model.state_dict().items()})


def test_wrapped_data_own_hooks_and_averaged_weights(tiny_iter_config):
    """Repeat, Concat and Mosaic around the data, EMAHook, a constructor by layer, weights to start from."""
    cfg, LastWeights.weights = tiny_iter_config, []
    inner = cfg.train_dataloader.dataset
    pack = inner.pipeline.pop()
    cfg.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, inner])),
        pipeline=[dict(type='RandomMosaic', prob=1.0, img_scale=(48, 48)),
                  dict(type='Resize', scale=(48, 48)), pack])
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='LastWeights')]
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'head': dict(lr_mult=2.0)})
    cfg.optim_wrapper.clip_grad = dict(max_norm=1.0)
    start = MODELS.build(dict(cfg.model, decode_head=dict(cfg.model.decode_head, num_classes=9)))
    cfg.load_from = str(Path(cfg.work_dir).parent / 'start.pth')
    torch.save(dict(state_dict=start.state_dict()), cfg.load_from)
    results = RUNNERS.build(cfg).train()
    assert [(r['num_train_images'], r['num_fake_images']) for r in results] == [(26, 0), (16, 4)]
    for step, result in enumerate(results):
        folder = Path(cfg.work_dir) / f'step_{step}'
        saved = load_checkpoint(folder / 'checkpoint.pth')['state_dict']
        name = 'backbone.conv1.weight'
        assert not torch.equal(saved[name], LastWeights.weights[step][name])  # the average, not the last
        plain = Config.fromfile(folder / 'config.py')
        plain.load_from, plain.work_dir = str(folder / 'checkpoint.pth'), str(folder / 'plain')
        assert Runner.from_cfg(plain).test()['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)
    log = (Path(cfg.work_dir) / 'step_0/train').glob('*/*.log')
    assert f'Load checkpoint from {cfg.load_from}' in '\n'.join(path.read_text() for path in log)


def test_weights_that_cannot_be_fetched_are_named_with_the_way_out(tiny_config):
    checkpoint = 'http://127.0.0.1:9/absent.pth'
    tiny_config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    with pytest.raises(ValueError, match=rf'weights {checkpoint}: .* model\.backbone\.init_cfg=None'):
        RUNNERS.build(tiny_config).train()


@pytest.fixture
def ade20k_like(repo, tmp_path) -> Path:
    scope = {'__name__': 'generator'}
    exec((repo / 'benchmarks/generate_ade20k_like.py').read_text(), scope)
    scope['generate'](tmp_path / 'ade', 12, 12)
    return tmp_path / 'ade'


@pytest.mark.filterwarnings('ignore:`reduce_zero_label`')
def test_two_lines_on_top_of_a_zoo_config(repo, ade20k_like, tmp_path):
    """SegFormer's config of the zoo, ADE20K 100-10 on generated data, its first two steps."""
    options = [f'{name}_dataloader.dataset.data_root={ade20k_like}' for name in ('train', 'val', 'test')]
    cfg = load_config(str(repo / 'benchmarks/configs/segformer_ade_tiny.py'), options + [
        'train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2', 'replay.num_images=4',
        'replay.inversion.stages=[(1.0,2)]'])
    cfg.work_dir = str(tmp_path / 'work')
    for step in (0, 1):
        cfg.only_step = step
        results = RUNNERS.build(cfg).train()
    assert [result['num_fake_images'] for result in results] == [0, 4]
    for step, number in ((0, 101), (1, 111)):
        state = load_checkpoint(tmp_path / f'work/step_{step}/checkpoint.pth')['state_dict']
        assert state['decode_head.conv_seg.weight'].shape[0] == number
    fingerprint = json.loads((tmp_path / 'work/step_1/fakes/fingerprint.json').read_text())
    assert (fingerprint['inversion']['size'], fingerprint['inversion']['batch_size']) == ([64, 64], 16)
    log = (tmp_path / 'work/run.log').read_text()
    assert 'train_dataloader: reduce_zero_label of ADE20KDataset is disabled' in log
    plain = Config.fromfile(tmp_path / 'work/step_1/config.py')
    plain.load_from, plain.work_dir = str(tmp_path / 'work/step_1/checkpoint.pth'), str(tmp_path / 'plain')
    assert Runner.from_cfg(plain).test()['mIoU'] == pytest.approx(results[1]['metrics']['mIoU'], abs=1e-4)
    assert 'reduce_zero_label=True' not in plain.pretty_text


def write_my_dataset(root: Path, mode: str) -> None:
    """Eight labels in masks of a mode; every class in both splits."""
    rng = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 7)):
        for folder in ('images', 'masks'):
            (root / folder / split).mkdir(parents=True)
        for i in range(number):
            mask = np.zeros((40, 48), np.uint8)
            mask[:20, :24], mask[20:, 24:] = 1 + i % 7, 1 + (i + 3) % 7
            image = np.clip(mask[..., None] * 30 + rng.normal(20, 9, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / 'images' / split / f'{i}.jpg')
            labels = Image.fromarray(mask)
            if mode == 'P':
                labels.putpalette(rng.integers(0, 256, 24).tolist())
            labels.convert(mode).save(root / 'masks' / split / f'{i}.png')


def my_config(repo: Path, root: Path) -> Config:
    options = [f'{name}_dataloader.dataset.data_root={root}' for name in ('train', 'val', 'test')]
    options += [f'{name}_dataloader.num_workers=0' for name in ('train', 'val', 'test')]
    cfg = load_config(str(repo / 'configs/mix/my_dataset_4-1.py'), options + [
        'train_dataloader.batch_size=4', 'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1', 'model.data_preprocessor.size=(64,64)', 'replay.num_images=2',
        'train_dataloader.dataset.pipeline.2.scale=(96,64)', 'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'replay.inversion.stages=[(1.0,1)]', 'replay.inversion.batch_size=2'])
    cfg.work_dir = str(root.parent / 'work')
    return cfg


@pytest.mark.parametrize('mode', ['L', 'P'])
def test_own_data_of_seven_classes_without_code(repo, tmp_path, mode):
    write_my_dataset(tmp_path / 'data', mode)
    runner = RUNNERS.build(my_config(repo, tmp_path / 'data'))
    assert runner.scenario.steps == (('crack', 'rust', 'spalling', 'stain'), ('vegetation', ), ('graffiti', ),
                                     ('rebar', ))
    assert runner.plan.num_real == {0: 8, 1: 2, 2: 2, 3: 2}


def test_own_data_train_two_steps(repo, tmp_path):
    write_my_dataset(tmp_path / 'data', 'P')
    cfg = my_config(repo, tmp_path / 'data')
    for step in (0, 1):
        cfg.only_step = step
        results = RUNNERS.build(cfg).train()
    assert results[1]['new_classes'] == ['vegetation'] and results[1]['num_fake_images'] == 2
    state = load_checkpoint(tmp_path / 'work/step_1/checkpoint.pth')['state_dict']
    assert state['decode_head.conv_seg.weight'].shape[0] == 6


def test_masks_painted_in_colours_are_refused_with_the_remedy(repo, tmp_path):
    write_my_dataset(tmp_path / 'data', 'RGB')
    with pytest.raises(ValueError, match=r"has mode 'RGB'; .* tools/convert_colour_masks\.py"):
        RUNNERS.build(my_config(repo, tmp_path / 'data'))
