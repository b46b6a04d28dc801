"""A step's plain config follows the files as they are, and is proven when it is written."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from mmseg_hrhf.config import standalone as plain_step
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.config.standalone import list_files, write_plain_config
from mmseg_hrhf.engine.plan import RunPlan
from mmseg_hrhf.work_dir.layout import StepFiles

COLOURS = np.array([[120, 120, 120], [220, 60, 60], [60, 200, 60], [60, 60, 220]])


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def fill(pairs):
    """Write an image and a mask for each pair of paths; image i shows class i % 3 + 1."""
    rng = np.random.default_rng(0)
    for i, (image, mask) in enumerate(pairs):
        labels = np.zeros((48, 48), np.uint8)
        labels[8:30, 8 + i : 30 + i] = i % 3 + 1
        write(image, (COLOURS[labels] + rng.integers(-10, 10, (48, 48, 3))).clip(0, 255).astype(np.uint8))
        write(mask, labels)


def plain(cfg, step=1):
    """Write a step's plain config; returns it, loaded as mmseg loads it, and its test dataset."""
    plan = RunPlan(RunConfig.parse(cfg), os.path.join(cfg.work_dir, 'class_index'))
    files = StepFiles(cfg.work_dir, step)
    view = plan.view(step, 'test')
    write_plain_config(plan.run.at(step), plan.scenario, plan.test_source, plan.test_positions[step], files, view)
    loaded = Config.fromfile(files.config)
    dataset = DATASETS.build(loaded.test_dataloader.dataset)
    assert len(dataset) == len(view)
    for ours, theirs in zip(view, dataset):
        np.testing.assert_array_equal(ours['inputs'], theirs['inputs'])
        np.testing.assert_array_equal(ours['data_samples'].gt_sem_seg.data, theirs['data_samples'].gt_sem_seg.data)
    assert not Path(files.config).read_text().startswith('# mmseg cannot')
    return loaded, dataset, files


def point(cfg, **options):
    for name in ('train_dataloader', 'test_dataloader'):
        dataset = cfg[name].dataset
        for key in ('data_prefix', 'data_root', 'ann_file'):
            dataset.pop(key, None)
        dataset.update(options)
    return cfg


def test_lists_of_whole_file_names(tiny_config, tmp_path):
    folder = tmp_path / 'set'
    names = [f'{i}.{"png" if i % 2 else "bmp"}' for i in range(6)]
    fill([(folder / 'images' / name, folder / 'masks' / f'{name}.png') for name in names])
    (folder / 'all.txt').write_text('\n'.join(names))
    cfg = point(
        tiny_config,
        data_root=str(folder),
        ann_file='all.txt',
        img_suffix='',
        seg_map_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='masks'),
    )
    loaded, _, files = plain(cfg)
    dataset = loaded.test_dataloader.dataset
    assert (dataset.img_suffix, dataset.seg_map_suffix) == ('', '.png') and dataset.data_prefix.img_path == 'images'
    assert not os.path.exists(os.path.join(files.folder, 'masks'))


def test_images_beside_masks_in_one_folder(tiny_config, tmp_path):
    fill([(tmp_path / 'flat' / f'{i}.bmp', tmp_path / 'flat' / f'{i}.png') for i in range(6)])
    loaded, _, _ = plain(point(tiny_config, data_root=str(tmp_path / 'flat'), img_suffix='.bmp'))
    assert loaded.test_dataloader.dataset.data_root == str(tmp_path / 'flat')


def test_without_data_root(tiny_config, tmp_path):
    fill([(tmp_path / 'a' / f'{i}.png', tmp_path / 'b' / 'c' / f'{i}_labels.png') for i in range(6)])
    plain(
        point(
            tiny_config,
            img_suffix='.png',
            seg_map_suffix='_labels.png',
            data_prefix=dict(img_path=str(tmp_path / 'a'), seg_map_path=str(tmp_path / 'b' / 'c')),
        )
    )


@DATASETS.register_module()
class Pairs(BaseSegDataset):
    """A user's dataset with an option of its own, whose masks are named otherwise than its images."""

    def __init__(self, number, **kwargs):
        self.number = number
        super().__init__(**kwargs)

    def load_data_list(self):
        root = self.data_root
        return [
            dict(
                img_path=f'{root}/scans/{i:02}.png',
                seg_map_path=f'{root}/truth/t{i}.png',
                label_map=None,
                reduce_zero_label=False,
                seg_fields=[],
            )
            for i in range(self.number)
        ]


def test_a_users_dataset_is_not_needed(tiny_config, tmp_path):
    fill([(tmp_path / 'scans' / f'{i:02}.png', tmp_path / 'truth' / f't{i}.png') for i in range(6)])
    tiny_config.custom_imports = dict(imports=['not_there_for_mmseg'], allow_failed_imports=True)
    cfg = point(tiny_config, type='Pairs', number=6, data_root=str(tmp_path))
    loaded, dataset, files = plain(cfg)
    assert type(dataset) is BaseSegDataset and 'custom_imports' not in loaded
    assert sorted(os.listdir(os.path.join(files.folder, 'masks', 'scans'))) == [f'{i:02}.png' for i in range(6)]


def test_types_given_as_classes_are_written_as_names(tiny_config):
    from mmcv.transforms import LoadImageFromFile
    from mmengine.runner import TestLoop
    from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
    from mmseg.evaluation import IoUMetric
    from mmseg.models import EncoderDecoder

    tiny_config.model.type, tiny_config.test_evaluator.type, tiny_config.test_cfg.type = (
        EncoderDecoder,
        IoUMetric,
        TestLoop,
    )
    for name in ('train_dataloader', 'test_dataloader'):
        dataset = tiny_config[name].dataset
        dataset.type = BaseSegDataset
        dataset.pipeline = [dict(type=LoadImageFromFile), dict(type=LoadAnnotations), dict(type=PackSegInputs)]
    loaded, _, files = plain(tiny_config)
    assert loaded.model.type == 'EncoderDecoder' and loaded.test_evaluator.type == 'IoUMetric'
    assert '<class' not in Path(files.config).read_text()


@TRANSFORMS.register_module()
class Mine(BaseTransform):
    def transform(self, results):
        return results


def with_transform(cfg, **options):
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Mine', **options))
    return cfg


def test_what_is_needed_besides_mmseg_is_named(tiny_config, monkeypatch):
    module = Mine.__module__
    monkeypatch.setitem(sys.modules, module, sys.modules.get(module) or sys)
    tiny_config.custom_imports = dict(imports=[module, 'other'], allow_failed_imports=False)
    loaded, _, files = plain(with_transform(tiny_config))
    assert loaded.custom_imports.imports == [module]
    assert (
        Path(files.config).read_text().splitlines(keepends=True)[0]
        == f'# Needs, besides mmseg and the weights in this folder: {module}.\n'
    )


def refused(cfg, monkeypatch):
    said = []
    monkeypatch.setattr(plain_step, 'print_log', lambda text, **kwargs: said.append(text))
    plan = RunPlan(RunConfig.parse(cfg), os.path.join(cfg.work_dir, 'class_index'))
    files = StepFiles(cfg.work_dir, 1)
    write_plain_config(plan.run.at(1), plan.scenario, plan.test_source, plan.test_positions[1], files,
                       plan.view(1, 'test'))
    first = Path(files.config).read_text().splitlines(keepends=True)[0]
    assert first.startswith('# mmseg cannot use this file as it is: ')
    assert len(said) == 1 and first[len('# mmseg cannot use this file as it is: ') :].strip() in said[0]
    return first


def test_a_class_that_nothing_imports_is_said_in_the_log_and_in_the_file(tiny_config, monkeypatch):
    assert f"'Mine' is defined in {Mine.__module__}" in refused(with_transform(tiny_config), monkeypatch)


@TRANSFORMS.register_module()
class NeedsField(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'] * results['gain']
        return results


@DATASETS.register_module()
class WithGain(BaseSegDataset):
    def load_data_list(self):
        return [dict(info, gain=1) for info in super().load_data_list()]


def test_a_field_that_only_the_users_dataset_gives_is_said(tiny_config, monkeypatch):
    tiny_config.test_dataloader.dataset.type = 'WithGain'
    tiny_config.test_dataloader.dataset.pipeline.insert(1, dict(type='NeedsField'))
    tiny_config.custom_imports = dict(imports=[NeedsField.__module__], allow_failed_imports=True)
    assert 'gain' in refused(tiny_config, monkeypatch)


@TRANSFORMS.register_module()
class ByPath(BaseTransform):
    """Its result depends on what the dataset is, so that no plain dataset repeats it."""

    def transform(self, results):
        if results.get('bright'):
            results['img'] = results['img'] // 2
        return results


def test_another_first_image_is_said(tiny_config, monkeypatch):

    @DATASETS.register_module(force=True)
    class Bright(BaseSegDataset):
        def load_data_list(self):
            return [dict(info, bright=True) for info in super().load_data_list()]

    tiny_config.test_dataloader.dataset.type = 'Bright'
    tiny_config.test_dataloader.dataset.pipeline.insert(1, dict(type='ByPath'))
    tiny_config.custom_imports = dict(imports=[ByPath.__module__], allow_failed_imports=True)
    assert 'first test image differs from the one' in refused(tiny_config, monkeypatch)


@pytest.mark.parametrize(
    'paths, folder, suffix, expected',
    [
        (['d/i/a.png', 'd/i/s/b.png'], 'd/i', '.png', ('d/i', ['a', 's/b'], '.png')),
        (['d/i/a.png', 'd/i/b.jpg'], 'd/i', '.png', ('d/i', ['a.png', 'b.jpg'], '')),
        (['d/i/a.png', 'd/j/b.png'], 'e', '.png', ('d', ['i/a', 'j/b'], '.png')),
        (['/x/a.png', '/y/b.png'], '', '.png', ('/', ['x/a', 'y/b'], '.png')),
        (['s3://k/i/a.png', 's3://k/i/b.png'], None, '.png', ('s3://k/i', ['a', 'b'], '.png')),
        (['d/i/.png', 'd/i/b.png'], 'd/i', '.png', ('d/i', ['.png', 'b.png'], '')),
        (['di/a.png', 'di/b.png'], 'd', '.png', ('di', ['a', 'b'], '.png')),
    ],
)
def test_files_as_folder_name_and_suffix(paths, folder, suffix, expected):
    assert list_files(paths, folder, suffix) == expected
    folder, names, suffix = expected
    assert [f'{folder.rstrip("/")}/{name}{suffix}' for name in names] == paths
