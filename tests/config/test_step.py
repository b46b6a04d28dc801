import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS

from mmseg_hrhf.config import step as config_step
from mmseg_hrhf.config.plain import plain_config
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.scenario import Scenario

SAMPLER = dict(type='RealFakeSampler', batch_size=4, ratio=None, shuffle=True, infinite=False)


def step_config(cfg, scenario, step, work_dir, num_real, seed):
    cfg.work_dir = work_dir
    return config_step.step_config(RunConfig.parse(cfg, seed), scenario, step, num_real)


@pytest.fixture
def scenario():
    return Scenario.build(dict(red=1, green=2, blue=3), task='2-1')


def test_step_0_has_no_teacher_and_no_fakes(tiny_config, scenario):
    out = step_config(tiny_config, scenario, 0, '/run', 13, seed=5)
    assert out.model.type == 'HRHF' and 'teacher' not in out.model
    assert out.model.student.decode_head.num_classes == 3
    assert out.train_dataloader.sampler == SAMPLER
    assert out.train_dataloader.dataset.type == 'IncrementalDataset'
    assert out.randomness.seed == 5 and out.work_dir == '/run/step_0/train'


def test_step_1_has_a_teacher_of_the_classes_before_and_mixed_batches(tiny_config, scenario):
    out = step_config(tiny_config, scenario, 1, '/run', 8, seed=5)
    assert out.model.student.decode_head.num_classes == 4
    assert out.model.teacher.decode_head.num_classes == 3
    assert out.model.teacher_checkpoint == '/run/step_0/checkpoint.pth'
    assert out.train_dataloader.sampler == dict(SAMPLER, ratio='1:1')
    assert out.train_dataloader.dataset.num_fake == 4
    assert [hook.type for hook in out.custom_hooks] == [
        'SegInversionHook', 'PredictionGridHook', 'IterationSeedHook', 'FiniteLossHook'
    ]
    assert out.custom_hooks[0].seed == out.custom_hooks[2].seed == 6
    assert out.randomness.seed == 6


def test_added_synthetic_images_leave_the_real_ones_of_a_batch(tiny_config, scenario):
    tiny_config.replay.update(ratio='2:1', added=True)
    tiny_config.auto_scale_lr = dict(enable=True, base_batch_size=16)
    steps = [step_config(tiny_config, scenario, t, '/run', 8, seed=5) for t in (0, 1)]
    assert [out.auto_scale_lr.base_batch_size for out in steps] == [16, 24]  # the same factor of the learning rate
    first, later = (out.train_dataloader for out in steps)
    assert first.batch_size == first.sampler.batch_size == 4
    assert later.batch_size == later.sampler.batch_size == 6 and later.sampler.ratio == '2:1'


def test_each_step_is_evaluated_by_its_own_groups_of_classes(tiny_config, scenario):
    groups = [step_config(tiny_config, scenario, t, '/w', 8, 0).test_evaluator.groups for t in (0, 1)]
    assert groups == [dict(old=(1, 2), new=(), all=(1, 2)), dict(old=(1, 2), new=(3, ), all=(1, 2, 3))]


def test_nothing_of_ours_is_left_at_the_top_of_a_step_s_config(tiny_config, scenario):
    out = step_config(tiny_config, scenario, 1, '/run', 8, seed=0)
    assert not {'scenario', 'method', 'replay', 'runner_type', 'incremental_overrides'} & set(out.keys())
    assert 'custom_imports' not in plain_config(tiny_config)


def test_overrides_hold_from_step_1_on(tiny_config, scenario):
    tiny_config.incremental_overrides = dict(optim_wrapper=dict(optimizer=dict(lr=0.001)))
    rates = [step_config(tiny_config, scenario, t, '/w', 8, 0).optim_wrapper.optimizer.lr for t in (0, 1)]
    assert rates == [0.2, 0.001]


def test_iteration_based_steps_draw_without_end(tiny_iter_config, scenario):
    out = step_config(tiny_iter_config, scenario, 1, '/w', 8, 0)
    assert out.train_dataloader.sampler.infinite and out.train_cfg.type == 'ResumableIterLoop'


@pytest.mark.parametrize('train_cfg, loop', [
    (dict(by_epoch=True, max_epochs=2), 'ResumableEpochLoop'),
    (dict(type='EpochBasedTrainLoop', max_epochs=2), 'ResumableEpochLoop'),
    (dict(by_epoch=False, max_iters=2), 'ResumableIterLoop'),
])
def test_training_can_be_resumed_in_either_loop(tiny_config, scenario, train_cfg, loop):
    tiny_config.pop('train_cfg')
    tiny_config.train_cfg = train_cfg
    out = step_config(tiny_config, scenario, 0, '/w', 13, 0)
    length = {key: value for key, value in train_cfg.items() if key.startswith('max')}
    assert out.train_cfg == dict(length, type=loop)


def test_what_cannot_be_resumed_is_refused(tiny_config, scenario):
    tiny_config.train_cfg = dict(type='MyLoop', max_epochs=2)
    with pytest.raises(ValueError, match=r"train_cfg\.type='MyLoop'.*EpochBasedTrainLoop"):
        step_config(tiny_config, scenario, 0, '/w', 13, 0)
    tiny_config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    tiny_config.train_dataloader.sampler = dict(type='ClassBalanced')
    with pytest.raises(ValueError, match=r"sampler\.type='ClassBalanced' would be replaced.*DefaultSampler"):
        step_config(tiny_config, scenario, 0, '/w', 13, 0)


def test_the_user_s_order_is_kept(tiny_config, scenario):
    tiny_config.train_dataloader.sampler.shuffle = False
    assert step_config(tiny_config, scenario, 1, '/w', 8, 0).train_dataloader.sampler.shuffle is False


def test_a_config_without_resume_hook_gets_one(tiny_config, scenario):
    def resume_hooks():
        return [hook for hook in step_config(tiny_config, scenario, 0, '/w', 13, 0).custom_hooks
                if hook.type == 'ResumeHook']

    assert not resume_hooks()
    tiny_config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=5)
    assert resume_hooks() == [dict(type='ResumeHook')]


@pytest.mark.parametrize('num_real, expected', [(1, 512), (512, 512), (600, 600), (9000, 4096)])
def test_buffer_follows_the_real_images_within_limits(tiny_config, num_real, expected):
    tiny_config.replay.num_images = None
    assert RunConfig.parse(tiny_config).num_fake_images(1, num_real) == expected
    assert RunConfig.parse(tiny_config).num_fake_images(0, num_real) == 0


def test_fine_tuning_has_no_fakes_whatever_replay_says(tiny_config):
    tiny_config.method.type = 'FineTuning'
    assert RunConfig.parse(tiny_config).num_fake_images(1, 600) == 0


def test_validation_during_training_is_kept_only_before_the_end(tiny_config, scenario):
    tiny_config.val_dataloader, tiny_config.val_evaluator = tiny_config.test_dataloader, tiny_config.test_evaluator
    tiny_config.val_cfg = dict(type='ValLoop')
    assert step_config(tiny_config, scenario, 0, '/w', 13, 0).val_dataloader is None
    tiny_config.train_cfg.val_interval = 3
    kept = step_config(tiny_config, scenario, 0, '/w', 13, 0)
    assert kept.val_dataloader.dataset.test_mode and kept.val_evaluator.type == 'IncrementalIoUMetric'


@pytest.mark.parametrize('name, counts', [
    ('voc_19-1', (20, 21)), ('voc_15-5', (16, 21)), ('voc_15-1', (16, 17, 18, 19, 20, 21)),
    ('voc_5-3', (6, 9, 12, 15, 18, 21)),
    ('voc_10-5', (11, 16, 21)), ('voc_10-1', tuple(range(11, 22))), ('ade_100-50', (101, 151)),
    ('ade_100-10', (101, 111, 121, 131, 141, 151)), ('ade_50-50', (51, 101, 151)),
    ('ade_100-5', tuple(range(101, 152, 5)))])
def test_the_paper_s_configs(repo, name, counts):
    cfg = Config.fromfile(repo / f'configs/hrhf/{name}.py')
    number = counts[-1] - 1
    labels = {f'class {i}': i for i in range(1, number + 1)}
    scenario = Scenario.build(labels, **cfg.scenario)
    assert tuple(scenario.num_classes(t) for t in range(scenario.num_steps)) == counts
    first, second = (step_config(cfg, scenario, t, '/w', 600, 0) for t in (0, 1))
    assert first.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    assert second.optim_wrapper.optimizer.lr == 0.001
    assert first.train_cfg.max_epochs == (30 if name.startswith('voc') else 60)
    head = second.model.student.decode_head
    assert head.num_classes == counts[1] and head.dilations == (1, 6, 12, 18) and head.channels == 256
    inversion = next(hook for hook in second.custom_hooks if hook.type == 'SegInversionHook').inversion
    assert (inversion.size, inversion.batch_size, inversion.lr) == ((512, 512), 16, 0.25)
    assert inversion.stages == [(1.0, 1000)] and inversion.aggregation.r == (0.5, 1, 5, 10, 20)
    assert cfg.scenario.setting == 'overlapped' and cfg.replay.ratio == '1:1'


def test_weights_to_start_from_are_for_step_0(tiny_config, scenario, tmp_path):
    tiny_config.load_from = str(tmp_path / 'start.pth')
    (tmp_path / 'start.pth').write_bytes(b'')
    starts = [step_config(tiny_config, scenario, t, '/w', 8, 0).load_from for t in (0, 1)]
    assert starts == [tiny_config.load_from, None]


def test_options_by_module_name_find_the_modules_of_the_bare_segmentor(tiny_config, scenario):
    tiny_config.optim_wrapper.paramwise_cfg = dict(
        custom_keys={'backbone.conv1': dict(lr_mult=0.5), 'head': dict(lr_mult=10.0)}, norm_decay_mult=0.0)
    tiny_config.optim_wrapper.optimizer.weight_decay = 0.1
    tiny_config.activation_checkpointing = ['backbone.layer1']
    out = step_config(tiny_config, scenario, 0, '/w', 13, 0)
    model = MODELS.build(out.model)
    ours = build_optim_wrapper(model, out.optim_wrapper)
    bare = build_optim_wrapper(MODELS.build(out.model.student), tiny_config.optim_wrapper)
    rates = [[(group['lr'], group['weight_decay']) for group in wrapper.param_groups] for wrapper in (ours, bare)]
    assert rates[0] == rates[1] and {rate for rate, _ in rates[0]} == {0.1, 0.2, 2.0}
    assert set(out.activation_checkpointing) < dict(model.named_modules()).keys()


def test_mixing_stays_around_the_step_s_images(tiny_config, scenario):
    inner = tiny_config.train_dataloader.dataset
    mix = dict(type='MultiImageMixDataset', pipeline=[dict(type='RandomMosaic', prob=1.0, img_scale=(48, 48))])
    tiny_config.train_dataloader.dataset = dict(
        type='RepeatDataset', times=3, dataset=dict(mix, dataset=dict(type='ConcatDataset', datasets=[inner, inner])))
    first, second = (step_config(tiny_config, scenario, t, '/w', 26, 0).train_dataloader.dataset for t in (0, 1))
    assert first.type == 'SeededMixDataset' and first.pipeline == mix['pipeline']
    assert first.dataset.type == second.real.type == 'IncrementalDataset'
    assert first.dataset.dataset.type == 'RepeatDataset' and second.mix == dict(mix, type='SeededMixDataset')
    tiny_config.train_dataloader.dataset = dict(mix, dataset=dict(mix, dataset=inner))
    with pytest.raises(ValueError, match='MultiImageMixDataset within MultiImageMixDataset'):
        step_config(tiny_config, scenario, 0, '/w', 26, 0)


def test_the_user_s_name_of_the_experiment_is_kept(tiny_config, scenario):
    tiny_config.experiment_name = 'mine'
    assert step_config(tiny_config, scenario, 1, '/run', 8, 0).experiment_name == 'mine_step_1'
