import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_hrhf.analysis.comparison.cell import Cell, cell_config, parse_setting
from mmseg_hrhf.analysis.comparison.comparison import plan_cells, plan_runs
from mmseg_hrhf.analysis.comparison.runs import Run, Scheduler, adopt
from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.engine.plan import RunPlan
from mmseg_hrhf.scenario import SETTINGS
from mmseg_hrhf.utils.io import write_json
from mmseg_hrhf.work_dir.layout import StepFiles

# Stands in for tools/train.py: does what the cell's config says.
TRAIN = '''
import json, os, sys, time
config, folder = sys.argv[1], sys.argv[sys.argv.index('--work-dir') + 1]
what = open(config).read()
if 'fail' in what:
    sys.exit('error: told to fail')
time.sleep(float(what or 0))
steps = ['0'] if '--step' in sys.argv else ['0', '1']
for step in steps:
    os.makedirs(f'{folder}/step_{step}', exist_ok=True)
    metrics = dict(mIoU_all=1.0, mIoU_old=1.0)
    if not os.path.exists(f'{folder}/step_{step}/result.json'):
        open(f'{folder}/trained', 'a').write(step)
        json.dump(dict(step=int(step), metrics=metrics), open(f'{folder}/step_{step}/result.json', 'w'))
results = [dict(step=int(step), metrics=metrics) for step in steps]
json.dump(dict(results=results, num_steps=2, num_base_classes=1), open(f'{folder}/results.json', 'w'))
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    return path


def make(root, method, text=''):
    cell = Cell(str(root), method, None, 'overlapped', 0)
    os.makedirs(os.path.dirname(cell.config), exist_ok=True)
    with open(cell.config, 'w') as file:
        file.write(text)
    return Run(cell)


def trained(run):
    with open(f'{run.cell.folder}/trained') as file:
        return file.read()


def test_step_0_is_trained_once_and_shared(tmp_path, script):
    first = make(tmp_path, 'first')
    first.only_first_step = True
    runs = [make(tmp_path, name) for name in ('a', 'b')]
    for run in runs:
        run.first_step = first
    lines = []
    assert Scheduler(script, 2, 0, lines.append).run([*runs, first]) == []
    assert trained(first) == '0'
    assert [trained(run) for run in runs] == ['1', '1']
    assert lines[0].startswith('[1/3] first') and len(lines) == 3


def test_joint_is_trained_once_for_all_settings(tmp_path, script):
    run = make(tmp_path, 'Joint')
    twin = Run(replace(run.cell, setting='disjoint'), same_as=run)
    os.makedirs(os.path.dirname(twin.cell.config))
    Path(twin.cell.config).write_text('')
    assert Scheduler(script, 2, 0, print).run([twin, run]) == []
    assert trained(run) == '01'
    assert not os.path.exists(f'{twin.cell.folder}/trained')
    assert twin.cell.results() == run.cell.results()


def test_a_run_whose_twin_failed_is_left_out(tmp_path, script):
    run, lines = make(tmp_path, 'Joint', 'fail'), []
    twin = Run(replace(run.cell, setting='disjoint'), same_as=run)
    assert Scheduler(script, 2, 0, lines.append).run([run, twin]) == [run, twin]
    assert lines[-1] == 'Joint, disjoint, seed 0 is skipped: Joint, overlapped, seed 0 failed.'


def test_finished_runs_are_read_not_repeated(tmp_path, script):
    run, lines = make(tmp_path, 'a'), []
    Scheduler(script, 1, 0, lines.append).run([run])
    Scheduler(script, 1, 0, lines.append).run([run])
    assert trained(run) == '01'
    assert lines[-1] == '1 of 1 runs are already finished.'


def test_a_failure_is_named_and_the_others_go_on(tmp_path, script):
    bad, good, depends, lines = make(tmp_path, 'bad', 'fail'), make(tmp_path, 'good'), make(tmp_path, 'c'), []
    bad.only_first_step = True
    depends.first_step = bad
    assert Scheduler(script, 1, 0, lines.append).run([bad, depends, good]) == [bad, depends]
    assert any('bad' in line and 'FAILED: error: told to fail' in line for line in lines)
    assert any('skipped: its step 0 failed' in line for line in lines)
    assert good.is_done()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupt_stops_the_runs_and_the_next_call_continues(tmp_path, script, number):
    make(tmp_path, 'a')
    make(tmp_path, 'slow', '60')
    # Tests may run under nohup, whose ignored SIGHUP children inherit.
    code = ('import signal, sys; signal.signal(int(sys.argv[3]), signal.SIG_DFL)\n'
            'from mmseg_hrhf.analysis.comparison.runs import *; from mmseg_hrhf.analysis.comparison.cell import Cell\n'
            'runs = [Run(Cell(sys.argv[1], name, None, "overlapped", 0)) for name in ("a", "slow")]\n'
            'Scheduler(sys.argv[2], 1, 0, lambda line: print(line, flush=True)).run(runs)')
    command = [sys.executable, '-c', code, str(tmp_path), str(script), str(int(number))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert any(line.startswith('[1/2] a') for line in process.stdout)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(20) != 0
    children = subprocess.run(['pgrep', '-f', f'{tmp_path}/overlapped/seed_0/slow'], capture_output=True, text=True)
    assert children.stdout == ''
    slow = make(tmp_path, 'slow')
    assert Scheduler(script, 1, 0, print).run([slow]) == []


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, script):
    run, lines = make(tmp_path, 'a'), []
    code = ('import sys; from mmseg_hrhf.work_dir.lock import WorkDirLock\n'
            'lock = WorkDirLock(sys.argv[3]); print("locked", flush=True); sys.stdin.readline()\n'
            'exec(open(sys.argv[4]).read())')
    command = [sys.executable, '-c', code, run.cell.config, '--work-dir', run.cell.folder, str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert any(line == 'locked\n' for line in other.stdout)

        def report(line):
            lines.append(line)
            if 'waiting' in line:
                other.stdin.write('go on\n')
                other.stdin.flush()

        assert Scheduler(script, 1, 0, report).run([run]) == []
        assert other.wait(20) == 0
    assert f'a, overlapped, seed 0 is being trained by process {other.pid} on host ' in lines[0]
    assert lines[1:] == ['a, overlapped, seed 0: old 1.00, all 1.00']
    assert trained(run) == '01' and not os.path.exists(f'{run.cell.folder}.log')


def test_adopted_folders_leave_training_files_behind(tmp_path):
    source = tmp_path / 'source'
    (source / 'train').mkdir(parents=True)
    (source / 'train/iter_1.pth').write_text('x')
    (source / 'checkpoint.pth').write_text('weights')
    adopt(str(source), str(tmp_path / 'there/target'))
    assert [path.name for path in (tmp_path / 'there/target').iterdir()] == ['checkpoint.pth']
    (source / 'checkpoint.pth').unlink()
    assert (tmp_path / 'there/target/checkpoint.pth').read_text() == 'weights'


def test_jobs_must_divide_the_gpus(tmp_path):
    with pytest.raises(ValueError, match='does not divide the 8 GPUs'):
        Scheduler(tmp_path, 3, 8, print)


@pytest.mark.parametrize('jobs, gpus, processes', [(1, 0, 1), (3, 0, 1), (1, 8, 8), (4, 8, 2), (8, 8, 1)])
def test_processes_of_a_run(tmp_path, jobs, gpus, processes):
    assert Scheduler(tmp_path, jobs, gpus, print).processes == processes


@pytest.mark.parametrize('text, wanted', [('15-1/disjoint', ('15-1', 'disjoint')),
                                          ('overlapped', (None, 'overlapped'))])
def test_settings_are_task_and_setting(text, wanted):
    assert parse_setting(text) == wanted


def test_an_unknown_setting_is_named():
    with pytest.raises(ValueError, match="'15-1/overlaped' is not of the form"):
        parse_setting('15-1/overlaped')


@pytest.mark.parametrize('options, shown', [
    (['--settings', '15-1/overlapped', 'disjoint'], {'overlapped'}),
    (['--cfg-options', 'scenario.task=15-1', 'scenario.setting=disjoint'], {'disjoint'}), ([], set())])
def test_published_figures_of_the_compared_tasks(run_tool, tiny_config_file, tmp_path, options, shown):
    done = run_tool('compare.py', tiny_config_file, '--table-only', '--published', '--work-dir', tmp_path / 'c',
                    *options)
    assert done.returncode == 0, done.stderr
    measured, published = done.stdout.split('## Published')
    assert 'arXiv' not in measured and ('None for these tasks' in published) == (not shown)
    assert re.findall(r'### (.*)', published) == ['VOC 2012 15-1, without background'] * len(shown)
    assert set(re.findall(r'\| (overlapped|disjoint) \|', published)) == shown
    assert published.count('arXiv:2104.00875, Table 1') == 10 * len(shown)


@pytest.mark.parametrize('value, measured, titles', [
    ('in', ['With'], ['with']), ('both', ['Without', 'With'], ['without', 'with'])])
def test_the_background_option_selects_measured_and_published_figures(run_tool, tiny_config_file, tmp_path, value,
                                                                      measured, titles):
    done = run_tool('compare.py', tiny_config_file, '--table-only', '--published', '--background', value, '--settings',
                    '15-1/overlapped', '--work-dir', tmp_path / 'c')
    assert done.returncode == 0, done.stderr
    assert re.findall(r'\n## (\w+) background\n', done.stdout) == measured
    assert re.findall(r'### VOC 2012 15-1, (\w+) background\n', done.stdout) == titles
    assert '15-1 overlapped: all, with background |' in done.stdout
    assert '| 0-15 | 16-20 | all, with background | source |' in done.stdout


def test_the_plan_shares_step_0_and_equal_fakes(tiny_config, tmp_path):
    methods = ['FT', 'HRHF', 'HRHF without KD', 'HRHF 1:2', 'HRHF AVG', 'Joint']
    tiny_config.train_dataloader.batch_size = 6
    cells = plan_cells(tmp_path, methods, [(None, 'overlapped')], [0])
    runs = {run.cell.method: run for run in plan_runs(cells, tiny_config)}
    first = runs['_first_step']
    assert first.only_first_step
    assert all((runs[name].first_step is first) == (name != 'Joint') for name in methods)
    assert [cell.method for cell in runs['HRHF 1:2'].fakes_from] == ['HRHF', 'HRHF without KD']
    assert runs['HRHF AVG'].fakes_from == ()
    assert len(runs) == len(methods) + 1


def test_the_plan_shares_joint_among_settings_of_a_task_and_seed(tiny_config, tmp_path):
    settings = [(None, setting) for setting in SETTINGS]
    cells = plan_cells(tmp_path, ['Joint', 'EWC'], [*settings, ('1-1', 'disjoint')], [0, 1])
    runs = {run.cell: run for run in plan_runs(cells, tiny_config)}
    shared = {(cell.column, cell.seed): run.same_as.cell for cell, run in runs.items() if run.same_as is not None}
    first = {seed: Cell(str(tmp_path), 'Joint', None, 'overlapped', seed) for seed in (0, 1)}
    assert shared == {(setting, seed): first[seed] for setting in SETTINGS[1:] for seed in (0, 1)}
    # What is trained, and on which images, is the same indeed; the setting is named where the test images are chosen.
    runs = []
    for setting in SETTINGS:
        config = Cell(str(tmp_path), 'Joint', None, setting, 0).config
        plan = RunPlan(RunConfig.parse(load_config(config, [f'work_dir={tmp_path}/run'])), None)
        step, = plan.steps
        kept = {key: value for key, value in plan.configs[step].items() if not key.startswith(('val_', 'test_'))}
        runs.append((Config(kept).pretty_text, plan.train_positions[step].tolist(), plan.test_positions[step].tolist()))
    assert len(runs) == 4 and all(run == runs[0] for run in runs)


def test_a_row_brings_modules_of_its_own(tiny_config, tmp_path, monkeypatch):
    module = tmp_path / 'row_of_a_test.py'
    module.write_text('from mmseg.registry import TASK_UTILS\n'
                      'from mmseg_hrhf.replay.inversion import GaussianNoise\n\n\n'
                      '@TASK_UTILS.register_module()\nclass NoiseOfATest(GaussianNoise):\n    pass\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    row = dict(replay=dict(inversion=dict(_delete_=True, type='NoiseOfATest', size=32)))
    tiny_config.comparison = dict(methods=dict(
        own=dict(row, method=dict(type='HRHF'), custom_imports=dict(imports=['row_of_a_test'])),
        missing=dict(method=dict(type='HRHF'), custom_imports=dict(imports=['no_such_module']))))
    runs = plan_runs(plan_cells(tmp_path, ['own'], [(None, 'overlapped')], [0]), tiny_config)
    assert "'row_of_a_test'" in Path(runs[-1].cell.config).read_text()
    with pytest.raises(ValueError, match=r"Method 'missing'.*no_such_module"):
        plan_runs(plan_cells(tmp_path, ['missing'], [(None, 'overlapped')], [0]), tiny_config)


def test_what_a_row_deletes_is_deleted_for_every_seed(tiny_config, tmp_path):
    tiny_config.method = dict(type='HRHF', loss_kd=dict(loss_weight=3.0))
    tiny_config.comparison = dict(methods=dict(own=dict(
        method=dict(_delete_=True, type='MiB'),
        replay=dict(inversion=dict(_delete_=True, type='GaussianNoise', size=32)))))
    for seed in (0, 1, 2):
        cfg = cell_config(Cell(str(tmp_path), 'own', None, 'overlapped', seed), tiny_config)
        assert cfg.method == dict(type='MiB')
        assert cfg.replay.inversion == dict(type='GaussianNoise', size=32)


def planned(cfg, root, methods, settings=((None, 'overlapped'), )):
    return {run.cell.method: run for run in plan_runs(plan_cells(root, methods, settings, [0]), cfg)}


def test_a_row_whose_step_0_differs_trains_its_own(tiny_config, tmp_path):
    tiny_config.comparison = dict(methods={
        'faster': dict(method=dict(type='HRHF'), optim_wrapper=dict(optimizer=dict(lr=9.0))),
        'unrecorded': dict(method=dict(type='HRHF'), replay=dict(feature_statistics=None)),
        'faster later': dict(method=dict(type='HRHF'),
                             incremental_overrides=dict(optim_wrapper=dict(optimizer=dict(lr=9.0)))),
        'other fakes': dict(method=dict(type='HRHF'), replay=dict(num_images=8)),
    })
    runs = planned(tiny_config, tmp_path, ['FT', 'faster', 'unrecorded', 'faster later', 'other fakes', 'HRHF'])
    shared = {name for name, run in runs.items() if run.first_step is runs['_first_step']}
    assert shared == {'FT', 'faster later', 'other fakes', 'HRHF'}
    assert [cell.method for cell in runs['HRHF'].fakes_from] == ['faster later']


def test_a_row_s_scenario_joins_the_column_s(tiny_config, tmp_path):
    tiny_config.comparison = dict(methods=dict(
        PLOP=dict(scenario=dict(label_protocol='plop')), own=dict(method=dict(type='MiB'), scenario=dict(task='1-2'))))
    cell = Cell(str(tmp_path), 'PLOP', '1-2', 'disjoint', 0)
    assert cell_config(cell, tiny_config).scenario == dict(task='1-2', setting='disjoint', label_protocol='plop')
    runs = planned(tiny_config, tmp_path, ['PLOP', 'FT'])
    assert runs['PLOP'].first_step is None and runs['FT'].first_step is not None
    with pytest.raises(ValueError, match=r"Method 'own' of the comparison sets scenario.task"):
        planned(tiny_config, tmp_path, ['own'])


def finish(run):
    """Leave what a finished run leaves of its identity and results."""
    for step, identity in run.identities.items():
        files = StepFiles(run.cell.folder, step)
        write_json(files.identity, identity)
        write_json(files.result, dict(step=step))
    write_json(f'{run.cell.folder}/results.json', dict(results=[dict(step=1)], num_steps=2))


@pytest.mark.parametrize('options', [
    dict(custom_hooks=[dict(type='EMAHook')]),
    dict(test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU'], nan_to_num=0)),
], ids=['custom_hooks', 'test_evaluator'])
def test_what_changes_step_0_or_its_test_is_part_of_a_run(tiny_config, tmp_path, options):
    tiny_config.comparison = dict(methods=dict(own=dict(method=dict(type='HRHF'), **options)))
    runs = planned(tiny_config, tmp_path, ['HRHF', 'own'])
    assert runs['HRHF'].first_step is not None and runs['own'].first_step is None and runs['own'].fakes_from == ()
    finish(runs['HRHF'])
    assert runs['HRHF'].is_done()
    tiny_config.merge_from_dict(options)
    if 'custom_hooks' in options:
        with pytest.raises(ValueError, match='step 0 was trained with other settings of custom_hooks'):
            planned(tiny_config, tmp_path, ['HRHF'])
    else:  # its networks stand; the run measures them again
        assert not planned(tiny_config, tmp_path, ['HRHF'])['HRHF'].is_done()


@pytest.mark.parametrize('methods, settings, seeds, message', [
    (['FT'], ['1-7/overlapped'], [0], r'FT, 1-7 overlapped, seed 0: .*1-7'),
    (['FT'], ['overlapped'], [-1], r'randomness\.seed=-1 \(--seed\) must be between'),
    (['FT'], ['overlapped', '2-1/overlapped'], [0], "own task '2-1' twice: as 'overlapped' and as '2-1 overlapped'"),
    (['a b', 'a/b'], ['overlapped'], [0], "'a/b, overlapped, seed 0' and of 'a b, overlapped, seed 0' would share"),
    (['_first_step'], ['overlapped'], [0], 'and of the shared step 0 would share the folder'),
])
def test_what_cannot_run_is_refused_before_it_is_written(tiny_config, tmp_path, methods, settings, seeds, message):
    own = dict(method=dict(type='HRHF'))
    tiny_config.comparison = dict(methods={'a b': own, 'a/b': own, '_first_step': own})
    out = tmp_path / 'compared'
    with pytest.raises(ValueError, match=message):
        plan_runs(plan_cells(out, methods, [parse_setting(text) for text in settings], seeds), tiny_config)
    assert not out.exists()


def test_a_seed_or_setting_given_twice_is_one_cell(tmp_path):
    assert plan_cells(tmp_path, ['FT'], [('2-1', 'overlapped')] * 2, [0, 0, 1]) == [
        Cell(str(tmp_path), 'FT', '2-1', 'overlapped', seed) for seed in (0, 1)]


@pytest.mark.parametrize('finished, changed, value', [('HRHF', 'method.loss_kd', dict(loss_weight=7.0)),
                                                      ('_first_step', 'train_cfg.max_epochs', 7)])
def test_runs_of_another_config_are_refused_and_left_alone(tiny_config, tmp_path, finished, changed, value):
    run = planned(tiny_config, tmp_path, ['FT', 'HRHF'])[finished]
    finish(run)
    before = {path: path.read_text() for path in tmp_path.rglob('*.py')}
    assert len(planned(tiny_config, tmp_path, ['FT', 'HRHF'])) == 3
    tiny_config.merge_from_dict({changed: value})
    with pytest.raises(ValueError, match=fr'overlapped, seed 0: .*holds a run of another config.*{changed}'):
        planned(tiny_config, tmp_path, ['FT', 'HRHF'])
    assert before == {path: path.read_text() for path in tmp_path.rglob('*.py')}


@pytest.mark.parametrize('changed, named', [
    (dict(class_order=['green', 'blue', 'red']), r'step 0 .*training_data\.classes, training_data\.labels'),
    (dict(label_protocol='plop'), r'step 0 .*training_data\.labels'),
    (dict(image_lists=['{folder}/first.txt', '{folder}/other.txt']), r'step 1 .*training_data\.image_list'),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else '')
def test_runs_of_other_data_are_refused(tiny_config, tmp_path, changed, named):
    for name in ('first', 'second', 'other'):
        (tmp_path / f'{name}.txt').write_text(f'{name}\n')
    if 'image_lists' in changed:
        changed = dict(image_lists=[path.format(folder=tmp_path) for path in changed['image_lists']])
        tiny_config.scenario.image_lists = [str(tmp_path / 'first.txt'), str(tmp_path / 'second.txt')]
    finish(planned(tiny_config, tmp_path, ['FT'])['FT'])
    assert planned(tiny_config, tmp_path, ['FT'])['FT'].is_done()
    tiny_config.scenario.update(changed)
    with pytest.raises(ValueError, match=named):
        planned(tiny_config, tmp_path, ['FT'])


def test_image_lists_are_those_of_one_task_and_setting(tiny_config, tmp_path):
    tiny_config.scenario.image_lists = {0: 'a.txt', 1: 'b.txt'}

    def lists(*place):
        return cell_config(Cell(str(tmp_path), 'FT', *place, 0), tiny_config).scenario.get('image_lists')

    assert lists(None, 'overlapped') == lists('2-1', 'overlapped') == {0: 'a.txt', 1: 'b.txt'}
    for place, named in (((None, 'disjoint'), '2-1/disjoint'), (('1-2', 'overlapped'), '1-2/overlapped')):
        with pytest.raises(ValueError, match=f'image_lists of the config belong to its own.*--settings {named} '):
            lists(*place)
    tiny_config.comparison = dict(tasks={
        '1-2': dict(task='1-2', image_lists=None),
        '2-1/disjoint': dict(task='2-1', image_lists={0: 'c.txt'})})
    assert lists('1-2', 'overlapped') is None
    assert lists('2-1', 'disjoint') == {0: 'c.txt'}
    assert lists('2-1', 'overlapped') == {0: 'a.txt', 1: 'b.txt'}


def test_a_cell_s_task_replaces_the_config_s(tiny_config, tmp_path):
    tiny_config.comparison = dict(tasks={'named': dict(steps=[['red'], ['blue', 'green']])})
    cell = Cell(str(tmp_path), 'FT', 'named', 'disjoint', 0)
    cfg = cell_config(cell, tiny_config)
    assert cfg.scenario == dict(steps=[['red'], ['blue', 'green']], setting='disjoint')
    assert cell_config(Cell(str(tmp_path), 'FT', '1-2', 'disjoint', 0), tiny_config).scenario.task == '1-2'
    assert cfg.method.type == 'FineTuning' and 'comparison' not in cfg


def test_the_command_ends_in_the_table(repo, tiny_config_file, tmp_path):
    out = tmp_path / 'compared'
    options = ['train_cfg.max_epochs=1', 'param_scheduler.0.end=1']
    command = [sys.executable, str(repo / 'tools/compare.py'), str(tiny_config_file), '--methods', 'FT', 'HRHF',
               '--work-dir', str(out), '--jobs', '2', '--cfg-options', *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((out / 'table.json').read_text())
    assert {row['method'] for row in table['cells']} == {'FT', 'HRHF'}
    held = json.loads((out / 'overlapped/seed_0/HRHF/results.json').read_text())
    value = next(run for run in table['runs'] if run['method'] == 'HRHF')['scores']['without background']['all']
    assert value == pytest.approx(held['steps'][-1]['mIoU_all'])
    same = [(out / f'overlapped/seed_0/{name}/step_0/checkpoint.pth').read_bytes() for name in ('FT', 'HRHF')]
    assert same[0] == same[1]


def test_joint_of_another_setting_is_a_whole_run(run_tool, tiny_config_file, tmp_path):
    done = run_tool('compare.py', tiny_config_file, '--methods', 'Joint', '--settings', 'overlapped', 'disjoint',
                    '--work-dir', tmp_path / 'compared', '--cfg-options', 'train_cfg.max_epochs=1',
                    'param_scheduler.0.end=1')
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [tmp_path / f'compared/{setting}/seed_0/Joint' for setting in ('overlapped', 'disjoint')]
    assert [(folder / 'step_1/train').exists() for folder in folders] == [True, False]
    assert [(folder / 'step_1/config.py').exists() for folder in folders] == [True, True]
    first, second = (json.loads((folder / 'results.json').read_text()) for folder in folders)
    assert first == second
    assert 'disjoint' in (folders[1] / 'results.md').read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason='with an accelerator it would run')
def test_amp_is_refused_on_a_cpu_before_anything_is_written(run_tool, tiny_config_file, tmp_path):
    done = run_tool('compare.py', tiny_config_file, '--amp', '--work-dir', tmp_path / 'compared')
    assert done.returncode == 2 and '--amp needs an accelerator' in done.stderr
    assert not (tmp_path / 'compared').exists()


def test_a_dry_run_lists_the_runs_and_writes_nothing(run_tool, tiny_config_file, tmp_path):
    done = run_tool('compare.py', tiny_config_file, '--dry-run', '--methods', 'FT', 'HRHF', 'Joint', '--settings',
                    'overlapped', 'disjoint', '--work-dir', tmp_path / 'compared')
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.strip().splitlines()
    first = tmp_path / 'compared/overlapped/seed_0/_first_step'
    assert f'HRHF, overlapped, seed 0: to run, {first.with_name("HRHF")}, step 0 of {first}' in lines
    assert any(line.startswith('Joint, disjoint') and 'the same as Joint, overlapped, seed 0' in line for line in lines)
    assert len([line for line in lines if ': to run, ' in line]) == 8 and 'Nothing was trained' in last
    assert not (tmp_path / 'compared').exists()


def test_image_lists_that_are_absent_are_named_before_any_run(tiny_config, tmp_path):
    tiny_config.comparison = dict(tasks={'1-2': dict(task='1-2', image_lists=['absent/a.npy', None])})
    with pytest.raises(ValueError, match=r"FT, 1-2 overlapped, seed 0: Image list 'absent/a\.npy' does not exist"):
        planned(tiny_config, tmp_path, ['FT'], [('2-1', 'overlapped'), ('1-2', 'overlapped')])
    assert not list(tmp_path.glob('**/*_first_step*'))
