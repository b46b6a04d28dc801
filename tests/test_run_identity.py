"""A work dir is bound to one config, and seen by all processes of a job."""
import pytest

from mmseg_hrhf import run_identity
from mmseg_hrhf.files import read_json, write_json
from mmseg_hrhf.run_identity import check_same_run, claim_work_dir


def test_what_an_earlier_version_did_not_record_is_not_held_against_a_run(tiny_config, tmp_path):
    claim_work_dir(str(tmp_path), tiny_config, 0)
    held = read_json(tmp_path / 'run.json')
    del held['custom_hooks']
    held['test_dataloader'] = None
    write_json(tmp_path / 'run.json', held)
    tiny_config.custom_hooks = [dict(type='EMAHook')]
    check_same_run(str(tmp_path), tiny_config, 0)
    tiny_config.train_cfg.max_epochs = 9
    with pytest.raises(ValueError, match=r'different are train_cfg\.max_epochs\.'):
        check_same_run(str(tmp_path), tiny_config, 0)


def test_validation_stands_for_a_test_that_is_not_given(tiny_config):
    wanted = run_identity.run_identity(tiny_config, 0)
    for kind in ('dataloader', 'evaluator', 'cfg'):
        tiny_config[f'val_{kind}'] = tiny_config.pop(f'test_{kind}')
    assert run_identity.run_identity(tiny_config, 0) == wanted and wanted['test_evaluator'] is not None


@pytest.fixture
def other_rank(monkeypatch):
    """This process is not rank 0; the list takes what happens in each second that it waits."""
    seconds = []
    monkeypatch.setattr(run_identity, 'is_main_process', lambda: False)
    monkeypatch.setattr(run_identity.time, 'sleep', lambda duration: seconds.pop(0)())
    return seconds


def test_claimed_for_one_config(tiny_config, tmp_path):
    claim_work_dir(str(tmp_path), tiny_config, 0)
    check_same_run(str(tmp_path), tiny_config, 0)
    assert read_json(tmp_path / 'run.json')['randomness']['seed'] == 0
    with pytest.raises(ValueError, match=r'different are randomness\.seed\.'):
        check_same_run(str(tmp_path), tiny_config, 1)


def test_a_hook_that_only_looks_has_a_place(tiny_config, tmp_path):
    claim_work_dir(str(tmp_path), tiny_config, 0)
    tiny_config.default_hooks.look = dict(type='EmptyCacheHook')
    check_same_run(str(tmp_path), tiny_config, 0)
    tiny_config.custom_hooks = [dict(type='EMAHook')]
    with pytest.raises(ValueError, match=r'different are custom_hooks\..*a key of default_hooks instead'):
        check_same_run(str(tmp_path), tiny_config, 0)


def test_a_network_drive_may_show_it_late(tiny_config, tmp_path, other_rank):
    other_rank += [lambda: None, (tmp_path / 'run.json').touch]
    claim_work_dir(str(tmp_path), tiny_config, 0)
    assert other_rank == []


def test_a_drive_that_is_not_shared_is_an_error(tiny_config, tmp_path, other_rank):
    other_rank += [lambda: None] * 60
    with pytest.raises(ValueError, match='must be on a file system that all processes share'):
        claim_work_dir(str(tmp_path), tiny_config, 0)
    assert other_rank == []


def test_scaled_learning_rates_are_another_run(tiny_config, tmp_path):
    claim_work_dir(str(tmp_path), tiny_config, 0)
    tiny_config.auto_scale_lr = dict(enable=True, base_batch_size=24)
    with pytest.raises(ValueError, match='different are auto_scale_lr'):
        check_same_run(str(tmp_path), tiny_config, 0)
