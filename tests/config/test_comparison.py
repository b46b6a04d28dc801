import pytest
from mmengine.config import Config

from mmseg_hrhf.analysis.comparison.cell import Cell, cell_config
from mmseg_hrhf.analysis.comparison.comparison import plan_cells, plan_runs
from mmseg_hrhf.config.comparison import (
    GROUPS,
    METHODS,
    choose_methods,
    compared_config,
    load_base,
    method_options,
)
from mmseg_hrhf.config.identity import run_identity, training_identity
from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.config.run import RunConfig

ABLATIONS = {
    'table2_baseline_voc_{}': 'HRHF without fakes',
    'table2_noise_voc_{}': 'HRHF with noise',
    'table3_avg_voc_19-1': 'HRHF AVG',
    'table3_max_voc_19-1': 'HRHF MAX',
    'table4_r0.5_voc_19-1': 'HRHF r=0.5',
    'table4_r1_voc_19-1': 'HRHF r=1',
    'table4_r5_voc_19-1': 'HRHF r=5',
    'table4_r10_voc_19-1': 'HRHF r=10',
    'table4_r20_voc_19-1': 'HRHF r=20',
    'table5_without-kd_voc_{}': 'HRHF without KD',
    'table6_1-2_voc_19-1': 'HRHF 1:2',
    'table6_2-1_voc_19-1': 'HRHF 2:1',
}
CASES = [(name.format(task), method, task) for name, method in ABLATIONS.items()
         for task in (('19-1', '15-5', '15-1') if '{}' in name else ('19-1', ))]


@pytest.mark.parametrize('name, method, task', CASES)
def test_the_ablation_configs_are_the_methods_of_the_comparison(repo, tmp_path, name, method, task):
    ablation = load_config(str(repo / f'configs/ablations/{name}.py'))
    options = ['train_dataloader.batch_size=6'] if name.startswith('table6') else None
    base = load_base(repo / f'configs/hrhf/voc_{task}.py', options)
    cell = cell_config(Cell(str(tmp_path), method, None, 'overlapped', 0), base)
    ablation.pop('comparison')
    assert run_identity(RunConfig.parse(ablation)) == run_identity(RunConfig.parse(cell))


@pytest.mark.parametrize('name', ['voc_19-1', 'ade_100-50', 'shapes_3-1'])
def test_every_group_runs_on_the_configs(repo, tmp_path, name):
    options = ['train_dataloader.batch_size=6']
    base = load_base(repo / f'configs/hrhf/{name}.py', options)
    cells = plan_cells(tmp_path, choose_methods(['all', *GROUPS]), [(None, 'overlapped'), (None, 'disjoint')], [0])
    assert len(plan_runs(cells, base)) == 2 * (len(METHODS) + len(GROUPS['frozen']) + 1)


def test_a_batch_that_a_ratio_does_not_divide_is_refused_with_the_method_s_name(repo, tmp_path):
    base = load_base(repo / 'configs/hrhf/voc_19-1.py', None)
    with pytest.raises(ValueError, match=r'HRHF 1:2, overlapped, seed 0: train_dataloader.batch_size=4 cannot be'):
        plan_runs(plan_cells(tmp_path, choose_methods(['table6']), [(None, 'overlapped')], [0]), base)
    assert list(tmp_path.iterdir()) == []


def test_plop_weighs_less_on_ade20k(repo):
    base = load_config(str(repo / 'configs/hrhf/ade_100-50.py'))
    assert method_options('PLOP', base, '100-50')['method'] == dict(
        _delete_=True, type='PLOP', loss_pod=dict(loss_weight=0.001), loss_pod_logits=dict(loss_weight=0.00001))
    assert 'loss_pod' not in method_options('PLOP', base, '19-1')['method']


def test_dkd_weighs_positives_more_on_ade20k(repo):
    base = load_config(str(repo / 'configs/hrhf/ade_100-50.py'))
    assert method_options('DKD', base, '100-50')['method'] == dict(
        _delete_=True, type='DKD', positive_weight=(35.0, 35.0))
    assert method_options('DKD', base, '19-1')['method'] == dict(_delete_=True, type='DKD')


def test_later_methods_are_a_group():
    assert choose_methods(['later']) == ['PLOP', 'DKD', 'HRHF+']
    assert len(GROUPS['table1']) == 11 and 'DKD' not in GROUPS['table1']
    assert choose_methods(['DKD frozen']) == ['DKD frozen']


def test_every_ablation_config_is_checked_above(repo):
    assert {path.stem for path in (repo / 'configs/ablations').glob('*.py')} == {name for name, _, _ in CASES}


def test_groups_name_known_methods_and_all_covers_them():
    assert set(GROUPS['all']) == set(METHODS)
    assert all(name.removesuffix(' frozen') in METHODS for names in GROUPS.values() for name in names)


def test_choose_keeps_the_order_and_takes_each_once():
    assert choose_methods(['table5', 'FT', 'HRHF']) == ['HRHF', 'HRHF without KD', 'FT']


def test_an_unknown_method_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="no method 'MIB': did you mean 'MiB'"):
        choose_methods(['MIB'])


def test_a_method_of_the_config_keeps_its_options_where_the_method_is_the_same():
    cfg = Config(dict(method=dict(type='HRHF', loss_kd=dict(loss_weight=3.0)), replay=dict(inversion=dict(size=8))))
    assert method_options('HRHF', cfg)['method']['loss_kd'] == dict(loss_weight=3.0)
    assert 'loss_kd' not in method_options('FT', cfg)['method']
    assert method_options('HRHF without KD', cfg)['method']['loss_kd'] is None


def test_every_method_of_several_steps_has_a_frozen_row(repo):
    base = load_config(str(repo / 'configs/hrhf/voc_15-1.py'))
    base.comparison['methods'] = {'MiB': dict(method=dict(classifier_start='random')),
                                  'FT frozen': dict(method=dict(freeze_norm='all')), 'my frozen': dict(seed=1)}
    assert method_options('MiB frozen', base, '15-1')['method'] == dict(
        method_options('MiB', base, '15-1')['method'], freeze_norm=True)
    assert method_options('MiB', base, '15-1')['method']['loss_kd'] == dict(loss_weight=100.0)
    assert method_options('HRHF without fakes frozen', base) == dict(
        method=dict(method_options('HRHF', base)['method'], freeze_norm=True), replay=None)
    assert method_options('FT frozen', base)['method']['freeze_norm'] == 'all'
    assert method_options('my frozen', base) == dict(seed=1)
    rows = ['HRHF AVG frozen', 'my frozen', 'FT frozen']
    assert choose_methods(rows, own=base.comparison['methods']) == rows
    with pytest.raises(ValueError, match="no method 'Joint frozen'"):
        choose_methods(['Joint frozen'])


def test_frozen_rows_share_step_0_and_fakes_with_the_others(repo, tmp_path):
    base = load_base(repo / 'configs/hrhf/shapes_3-1.py', None)
    cells = plan_cells(tmp_path, ['HRHF', 'HRHF frozen', 'FT frozen'], [(None, 'overlapped')], [0])
    first, plain, frozen, tuned = sorted(plan_runs(cells, base, write=False), key=lambda run: not run.only_first_step)
    assert first.only_first_step and all(run.first_step is first for run in (plain, frozen, tuned))
    assert frozen.fakes_from == (plain.cell, )
    assert frozen.identities[0] == plain.identities[0] and frozen.identities[1] != plain.identities[1]


@pytest.mark.parametrize('option', ['freeze_norm', 'freeze_backbone'])
def test_a_step_0_of_its_own_is_the_same_with_frozen_layers(tiny_config, option):
    identities = []
    for freeze in (False, True):
        tiny_config.method = {'type': 'EWC', option: freeze}
        identities.append([training_identity(RunConfig.parse(tiny_config), step) for step in (0, 1)])
    assert identities[0][0] == identities[1][0] and identities[0][1] != identities[1][1]


def test_the_config_adds_to_a_method_or_defines_one():
    cfg = Config(
        dict(
            method=dict(type='HRHF'),
            comparison=dict(methods={
                'MiB': dict(method=dict(loss_kd=dict(loss_weight=100.0))),
                'twice': dict(method=dict(loss_kd=dict(loss_weight=2.0))),
            })))
    assert method_options('MiB', cfg)['method'] == dict(_delete_=True, type='MiB', loss_kd=dict(loss_weight=100.0))
    assert method_options('twice', cfg) == dict(method=dict(loss_kd=dict(loss_weight=2.0)))
    assert choose_methods(['twice'], own=['twice']) == ['twice']


@pytest.mark.parametrize('method', ['HRHF with noise', 'HRHF AVG', 'HRHF 1:2'])
def test_fakes_cannot_be_compared_where_there_are_none(method):
    with pytest.raises(ValueError, match='the config has no inversion'):
        method_options(method, Config(dict(method=dict(type='HRHF'), replay=None)))


def test_published_weights_of_one_task_hold_on_that_task_alone(repo):
    base = load_config(str(repo / 'configs/hrhf/voc_19-1.py'))
    assert method_options('MiB', base, '15-1')['method']['loss_kd'] == dict(loss_weight=100.0)
    assert 'loss_kd' not in method_options('MiB', base, '19-1')['method']


def test_a_user_s_weight_stands_before_the_published_one(repo):
    base = load_config(str(repo / 'configs/hrhf/voc_15-1.py'))
    base.comparison['methods'] = dict(MiB=dict(method=dict(loss_kd=dict(loss_weight=7.0))))
    assert method_options('MiB', base, '15-1')['method']['loss_kd'] == dict(loss_weight=7.0)
    base = load_config(str(repo / 'configs/hrhf/voc_15-1.py'), ['method.type=MiB', 'method.loss_kd.loss_weight=7.0'])
    assert method_options('MiB', base, '15-1')['method']['loss_kd'] == dict(loss_weight=7.0)


def test_a_method_s_short_name_is_the_same_method():
    cfg = Config(dict(method=dict(type='FT', classifier_start='random')))
    assert method_options('FT', cfg)['method'] == dict(_delete_=True, type='FineTuning', classifier_start='random')


def test_a_second_seed_gets_the_same_options(repo):
    merged = []
    for _ in range(2):
        base = load_config(str(repo / 'configs/hrhf/voc_19-1.py'))
        base.merge_from_dict(method_options('HRHF AVG', base))
        merged.append(base.replay.inversion.aggregation)
    assert merged[0] == merged[1] == dict(type='AverageAggregation')


def test_hrhf_plus_adds_synthetic_images_to_the_real_ones_of_the_base(repo):
    base = load_config(str(repo / 'configs/hrhf/voc_15-1.py'), ['replay.num_images=7'])
    rows = {name: compared_config(base, name, '15-1', 'overlapped') for name in (*GROUPS['plus'], 'HRHF')}
    assert rows['HRHF+'].method.type == rows['HRHF+ without fakes'].method.type == 'HRHFPlus'
    assert rows['HRHF+'].replay == dict(rows['HRHF'].replay, ratio='2:1', added=True)
    assert rows['HRHF+'].replay.num_images == 7 and rows['HRHF+ without fakes'].replay is None
    assert rows['HRHF+ with noise'].replay.inversion == dict(type='GaussianNoise')
    assert rows['HRHF+ with noise'].replay.added


def test_hrhf_and_hrhf_plus_have_their_own_batches_whatever_the_base_trains(repo):
    plus = ['method.type=HRHFPlus', 'replay.ratio=3:1', 'replay.added=True']
    for options, hrhf, hrhf_plus in [([], ('1:1', False), ('2:1', True)), (plus, ('1:1', False), ('3:1', True)),
                                     (['replay.ratio=1:2'], ('1:2', False), ('2:1', True))]:
        base = load_config(str(repo / 'configs/hrhf/voc_15-1.py'), options)
        for names, expected in ((('HRHF', 'HRHF with noise', 'HRHF AVG', 'HRHF without KD'), hrhf),
                                (('HRHF+', 'HRHF+ with noise'), hrhf_plus)):
            for name in names:
                replay = compared_config(base, name, '15-1', 'overlapped').replay
                assert (replay.ratio, replay.get('added', False)) == expected, (options, name)
        assert compared_config(base, 'HRHF 1:2', '15-1', 'overlapped').replay.ratio == '1:2'
