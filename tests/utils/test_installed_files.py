import runpy
import sys

import pytest
import yaml

from mmseg_hrhf.config.load import _drop_own_scope, load_config
from mmseg_hrhf.utils.environment import config_path, installed_folder


def test_the_model_index_names_every_main_config(repo):
    index = yaml.safe_load((repo / 'model-index.yml').read_text())
    files = [yaml.safe_load((repo / path).read_text()) for path in index['Import']]
    models = [model for file in files for model in file['Models']]
    collections = {collection['Name'] for file in files for collection in file['Collections']}
    assert {model['In Collection'] for model in models} == collections
    listed = sorted(model['Config'] for model in models)
    assert listed == sorted(str(path.relative_to(repo)) for path in (repo / 'configs/hrhf').glob('*.py'))


def test_configs_by_the_package_s_name(repo):
    assert config_path('mmseg_hrhf::hrhf/voc_15-1.py') == str(repo / 'configs/hrhf/voc_15-1.py')
    assert config_path('configs/own.py') == 'configs/own.py'
    assert load_config('mmseg_hrhf::hrhf/shapes_3-1.py').scenario.task == '3-1'


def test_a_part_that_was_not_installed_is_named():
    with pytest.raises(ValueError, match='has no weights: install its wheel'):
        installed_folder('weights')


@pytest.mark.parametrize('arguments', [[], ['--help']])
def test_tools_are_listed(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmseg_hrhf', *arguments])
    runpy.run_module('mmseg_hrhf.__main__', run_name='__main__')
    assert {'train', 'test', 'report', 'browse_fakes'} <= set(capsys.readouterr().out.split())


def test_a_tool_runs_with_its_own_arguments(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmseg_hrhf', 'train', '--help'])
    with pytest.raises(SystemExit) as done:
        runpy.run_module('mmseg_hrhf.__main__', run_name='__main__')
    assert done.value.code == 0 and '--dry-run' in capsys.readouterr().out


def test_an_unknown_tool_is_named(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmseg_hrhf', 'trian'])
    with pytest.raises(SystemExit, match="There is no tool 'trian'"):
        runpy.run_module('mmseg_hrhf.__main__', run_name='__main__')


def test_bases_by_the_package_s_name_leave_no_scope_behind():
    # mmengine marks every dict of such a base; our modules are registered in mmseg's scope.
    own = dict(_scope_='mmseg_hrhf', method=dict(type='HRHF', _scope_='mmseg_hrhf'), hooks=[dict(_scope_='mmseg_hrhf')],
               model=dict(_scope_='mmseg'))
    _drop_own_scope(own)
    assert own == dict(method=dict(type='HRHF'), hooks=[{}], model=dict(_scope_='mmseg'))
