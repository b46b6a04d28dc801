"""A network that was trained elsewhere takes the place of step 0."""
import copy
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS, RUNNERS

from mmseg_hrhf.analysis.comparison.comparison import plan_cells, plan_runs
from mmseg_hrhf.config.plain import set_classes
from mmseg_hrhf.engine.dry_run import dry_run
from mmseg_hrhf.models.growth import load_first_step
from mmseg_hrhf.scenario import Scenario
from mmseg_hrhf.utils.errors import explain
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint, weights_fingerprint

NAMES = ('background', 'red', 'green')


@pytest.fixture
def elsewhere(tiny_config, tmp_path):
    """What mmengine's own Runner saves after two iterations on red and green."""
    cfg = copy.deepcopy(tiny_config)
    for key in ('scenario', 'method', 'replay', 'runner_type', 'incremental_overrides', 'test_dataloader',
                'test_evaluator', 'test_cfg', 'custom_hooks'):
        cfg.pop(key, None)
    cfg.model = set_classes(cfg.model, NAMES)
    cfg.train_dataloader.dataset.metainfo = dict(classes=NAMES, palette=[[0, 0, 0], [9, 0, 0], [0, 9, 0]])
    cfg.train_dataloader.dataset.indices = list(range(12))  # of red and green alone
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.param_scheduler = None
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.work_dir = str(tmp_path / 'elsewhere')
    Runner.from_cfg(cfg).train()
    return str(tmp_path / 'elsewhere/iter_2.pth')


def test_it_is_tested_and_continued(tiny_config, elsewhere):
    tiny_config.first_step_from = elsewhere
    assert f'Weights {elsewhere} are complete' in dry_run(tiny_config)
    first, second = RUNNERS.build(tiny_config).train()
    work = Path(tiny_config.work_dir)
    given = torch.load(elsewhere, weights_only=False)['state_dict']
    held = load_checkpoint(work / 'step_0/checkpoint.pth')
    assert weights_fingerprint(held['state_dict']) == weights_fingerprint(given)
    assert held['meta']['dataset_meta']['classes'] == NAMES
    assert first['first_step_from'] == elsewhere and 'first_step_from' not in second
    assert second['num_fake_images'] == 4
    plain = Config.fromfile(work / 'step_0/config.py')
    plain.load_from, plain.work_dir = str(work / 'step_0/checkpoint.pth'), str(work / 'plain')
    assert Runner.from_cfg(plain).test()['mIoU'] == pytest.approx(first['metrics']['mIoU'], abs=1e-4)
    assert json.loads((work / 'run.json').read_text())['first_step_from'] == elsewhere
    assert not list((work / 'step_0').glob('train/*.pth'))


@pytest.mark.parametrize('options, message', [
    ({'method': dict(_delete_=True, type='EWC')}, 'step 0 of EWC differs from plain training'),
    ({'method': dict(_delete_=True, type='DKD')}, 'step 0 of DKD differs from plain training'),
    ({'load_from': 'a.pth'}, r"replaces step 0, so load_from='a\.pth' would not be used"),
    ({'first_step_from': 'absent.pth'}, r"first_step_from='absent\.pth' does not exist"),
    ({'first_step_from': 'https://example.org/a.pth'}, 'must be a local file: download it first'),
    ({'first_step_from': 3}, 'first_step_from=3 must be a string'),
    ({'scenario.task': '1-1'}, r"has the classes \['background', 'red', 'green'\], but step 0 of the scenario has "
                               r"\['background', 'red'\]"),
    ({'scenario.class_order': ['green', 'red', 'blue']}, r"has \['background', 'green', 'red'\], in this order"),
    ({'model.decode_head.channels': 4}, 'is not the network of step 0, which has 3 classes'),
])
def test_what_cannot_be_step_0_is_refused_before_anything_is_written(tiny_config, elsewhere, options, message):
    tiny_config.first_step_from = elsewhere
    tiny_config.merge_from_dict(options)
    with pytest.raises(ValueError, match=message) as info:
        RUNNERS.build(tiny_config)
    assert explain(info.value) is not None
    assert not (Path(tiny_config.work_dir) / 'run.json').exists()


@pytest.mark.parametrize('name', ['Background', '_background_', 'BG', 'background'])
def test_background_may_have_another_name_there(tiny_config, elsewhere, tmp_path, name):
    checkpoint = torch.load(elsewhere, weights_only=False)
    checkpoint['meta']['dataset_meta']['classes'] = (name, 'red', 'green')
    torch.save(checkpoint, tmp_path / 'renamed.pth')
    tiny_config.first_step_from = str(tmp_path / 'renamed.pth')
    assert 'Nothing was trained' in dry_run(tiny_config)


@pytest.mark.parametrize('held, message', [
    (('ground', 'red', 'green'), None),  # the dataset's own name of its background
    (('Background', 'red', 'green'), None),
    (('Background', 'Red', 'green'), r"classes \['Background', 'Red', 'green'\], but step 0 .* in this order"),
    (('Background', 'green', 'red'), 'in this order'),
    (('Background', 'red', 'green', 'blue'), 'in this order'),
    (('red', 'green', 'Background'), 'but class 0 of step 0 is background'),
    (('bg', 'red', 'green'), 'but class 0 of step 0 is background'),  # of this dataset it is foreground
    (('sky', 'red', 'green'), 'but class 0 of step 0 is background'),
])
def test_class_0_is_compared_as_background_and_others_by_name(tmp_path, held, message):
    scenario = Scenario.build(dict(red=1, green=2, bg=3), steps=[['red', 'green'], ['bg']])
    network = torch.nn.Conv2d(1, 3, 1)
    torch.save(dict(state_dict=network.state_dict(), meta=dict(dataset_meta=dict(classes=held))), tmp_path / 'a.pth')
    fresh = torch.nn.Conv2d(1, 3, 1)
    args = fresh, str(tmp_path / 'a.pth'), scenario, ('ground', 'red', 'green', 'bg')
    if message is None:
        load_first_step(*args)
        assert weights_fingerprint(fresh.state_dict()) == weights_fingerprint(network.state_dict())
    else:
        with pytest.raises(ValueError, match=message):
            load_first_step(*args)


def test_a_file_without_weights_is_named(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='contains a list instead of weights'):
        load_first_step(torch.nn.Conv2d(1, 3, 1), str(tmp_path / 'a.pth'), Scenario.build(dict(red=1), task='1-1'))


def test_weights_alone_do(tiny_config, tmp_path):
    network = MODELS.build(set_classes(tiny_config.model, NAMES))
    torch.save(network.state_dict(), tmp_path / 'weights.pth')
    tiny_config.first_step_from, tiny_config.only_step = str(tmp_path / 'weights.pth'), 0
    RUNNERS.build(tiny_config).train()
    held = load_checkpoint(Path(tiny_config.work_dir) / 'step_0/checkpoint.pth')['state_dict']
    assert weights_fingerprint(held) == weights_fingerprint(network.state_dict())


def test_in_a_comparison_systems_with_a_step_0_of_their_own_train_it(tiny_config, tmp_path):
    tiny_config.first_step_from = 'a.pth'
    cells = plan_cells(tmp_path, ['HRHF', 'MiB', 'EWC', 'Joint'], [(None, 'overlapped')], [0])
    runs = plan_runs(cells, tiny_config)
    given = {run.cell.method: Config.fromfile(run.cell.config).get('first_step_from') for run in runs}
    assert given == {'_first_step': 'a.pth', 'HRHF': 'a.pth', 'MiB': 'a.pth', 'EWC': None, 'Joint': None}
    shared = {run.cell.method for run in runs if run.first_step is not None}
    assert shared == {'HRHF', 'MiB'}
