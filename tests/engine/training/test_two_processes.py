"""Two processes train as one of the whole batch does."""
import json
import shutil

import pytest
import torch

from mmseg_hrhf.utils.io import sha256
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

# Norms over single images, since each process has batch statistics of its own; no dropout.
CONFIG = '''
norm = dict(type='GN', num_groups=2)
model['backbone']['norm_cfg'] = model['decode_head']['norm_cfg'] = norm
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(40, 40), cat_max_ratio=0.9), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=2)
'''


@pytest.fixture
def config_file(tiny_config_file):
    tiny_config_file.write_text(tiny_config_file.read_text() + CONFIG)
    return tiny_config_file


def test_same_weights_and_fakes_as_one_process_of_the_whole_batch(config_file, train_in_process, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'

    def train(step):
        for work_dir, ranks in ((one, 1), (two, 2)):
            options = [f'only_step={step}', f'train_dataloader.batch_size={4 // ranks}']
            train_in_process(config_file, work_dir, options=options, ranks=ranks)
        ours, theirs = (load_checkpoint(folder / f'step_{step}' / 'checkpoint.pth')['state_dict']
                        for folder in (one, two))
        for name, weight in ours.items():
            torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-5)

    train(0)
    # The fakes of one teacher are compared, not those of two that differ by rounding.
    for name in ('checkpoint.pth', 'result.json'):
        shutil.copy(one / 'step_0' / name, two / 'step_0' / name)
    train(1)
    fakes = [{path.name: sha256(path) for path in (folder / 'step_1/fakes/images').iterdir()} for folder in (one, two)]
    assert len(fakes[0]) == 4 and fakes[0] == fakes[1]


@pytest.mark.parametrize('method', ['EWC', 'PI', 'RW', 'PLOP', 'DKD'])
def test_what_a_system_gathers_is_that_of_the_whole_batch(config_file, train_in_process, tmp_path, method):
    """Importance and auxiliary classifier, step 0 included, and PLOP's thresholds: both steps end equal."""
    held = []
    for ranks in (1, 2):
        work_dir = tmp_path / f'on_{ranks}'
        options = [f'method.type={method}', f'train_dataloader.batch_size={4 // ranks}']
        train_in_process(config_file, work_dir, options=options, ranks=ranks)
        held.append([load_checkpoint(work_dir / f'step_{step}' / 'checkpoint.pth') for step in (0, 1)])
    for one, two in zip(*held):
        torch.testing.assert_close(two['state_dict'], one['state_dict'], rtol=1e-3, atol=1e-5)
        importance = {kind: tensors for kind, tensors in (one.get('method_state') or {}).items() if kind != 'method'}
        assert bool(importance) == (method != 'PLOP')
        for kind, tensors in importance.items():
            ours = torch.cat([tensor.flatten() for tensor in tensors.values()])
            theirs = torch.cat([two['method_state'][kind][name].flatten() for name in tensors])
            for name, tensor in tensors.items():  # no tensor hides among the others, however small
                close = torch.isclose(two['method_state'][kind][name], tensor, rtol=1e-2, atol=1e-6)
                assert close.float().mean() > 0.5, name
            if method == 'PI':  # divides by the square of a weight's way: where that is almost 0, rounding rules
                for tolerance, part in ((1e-2, 0.99), (0.1, 0.999)):
                    assert torch.isclose(theirs, ours, rtol=tolerance, atol=1e-6).float().mean() > part
            else:
                torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-6)


def test_frozen_norms_are_those_of_the_whole_batch(tiny_config_file, train_in_process, tmp_path):
    """Batch norms that share no statistics; synchronised ones in training mode would fail on a CPU."""
    text = tiny_config_file.read_text() + CONFIG.replace("dict(type='GN', num_groups=2)", "dict(type='SyncBN')")
    tiny_config_file.write_text(text + "method = dict(_delete_=True, type='MiB', freeze_norm='all')\nreplay = None\n")
    train_in_process(tiny_config_file, tmp_path / 'on_1', options=['only_step=0'])
    (tmp_path / 'on_2/step_0').mkdir(parents=True)
    for name in ('checkpoint.pth', 'result.json'):
        shutil.copy(tmp_path / 'on_1/step_0' / name, tmp_path / 'on_2/step_0')
    first = load_checkpoint(tmp_path / 'on_1/step_0/checkpoint.pth')['state_dict']
    weights = []
    for ranks in (1, 2):
        train_in_process(tiny_config_file, tmp_path / f'on_{ranks}', ranks=ranks,
                         options=[f'train_dataloader.batch_size={4 // ranks}'])
        weights.append(load_checkpoint(tmp_path / f'on_{ranks}/step_1/checkpoint.pth')['state_dict'])
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)
    changed = {name for name, weight in weights[1].items() if not torch.equal(weight, first[name])}
    assert 'backbone.conv1.weight' in changed and not any('bn' in name for name in changed)


def test_another_number_of_processes_takes_over_the_fakes(config_file, train_in_process, tmp_path):
    work_dir = tmp_path / 'work'
    train_in_process(config_file, work_dir, ranks=2, options=['default_hooks.checkpoint.interval=1'])
    (work_dir / 'step_1' / 'result.json').unlink()
    images = {path: path.stat().st_mtime_ns for path in (work_dir / 'step_1' / 'fakes' / 'images').iterdir()}
    train_in_process(config_file, work_dir)
    assert json.loads((work_dir / 'step_1' / 'result.json').read_text())['step'] == 1
    assert {path: path.stat().st_mtime_ns for path in images} == images
    log = (tmp_path / 'work.log').read_text()
    assert 'was written by 2 processes, now there are 1: the step is trained from scratch' in log


def test_a_dry_run_prints_one_plan_for_both(tiny_config_file, train_in_process, tmp_path, repo):
    work_dir = tmp_path / 'work'
    tool = [repo / 'tools/train.py', tiny_config_file, '--launcher', 'pytorch', '--dry-run', '--work-dir', work_dir]
    train_in_process(tiny_config_file, work_dir, ranks=2, tool=tool)
    said = (tmp_path / 'work.log').read_text()
    assert said.count('Nothing was trained') == 1 and not work_dir.exists()
    rows = [line.split() for line in said.splitlines() if line.endswith('red, green')]
    # 13 images, 7 for each, in two batches of 4; eight epochs.
    assert [row[:5] for row in rows] == [['0', '3', '13', '0', '16']]
