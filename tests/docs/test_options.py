"""The options of the pages are those of the code, and the other way round."""
import ast
import dataclasses
import inspect
import re

import pytest
from mmseg.registry import MODELS

from mmseg_hrhf.models.segmentors import DKD, HRHF, ILT, PLOP, HRHFPlus, ImportanceSegmentor, IncrementalSegmentor
from mmseg_hrhf.replay.inversion import SegInversion
from mmseg_hrhf.scenario import Scenario


def options(taker):
    return set(inspect.signature(taker).parameters) - {'self', 'kwargs'}


def default(taker, option):
    """Default of an option that a class or one it inherits from takes."""
    return next(parameters[option].default for base in taker.__mro__
                if option in (parameters := inspect.signature(base.__init__).parameters))


SCENARIO = {field.name for field in dataclasses.fields(Scenario)} - {'labels'} | {'steps', 'class_order',
                                                                                  'ignored_classes'}
METHOD = options(HRHF) | {'classifier_start', 'freeze_norm', 'freeze_backbone'}
# Of all methods; the worked example's `threshold` is one of DKD's, too.
METHODS = METHOD.union(*map(options, (DKD, ILT, PLOP, HRHFPlus, ImportanceSegmentor))) | {'type'}
REPLAY = {'ratio', 'added', 'num_images', 'inversion', 'feature_statistics'}
KNOWN = {'scenario': SCENARIO, 'method': METHODS, 'replay': REPLAY,
         'replay.inversion': options(SegInversion) | {'type'}, 'comparison': {'methods', 'methods_by_task', 'tasks'}}


@pytest.mark.parametrize('names', [options(SegInversion), METHOD, SCENARIO, REPLAY],
                         ids=['inversion', 'method', 'scenario', 'replay'])
def test_every_option_is_documented(repo, names):
    page = (repo / 'docs/options.md').read_text()
    assert {name for name in names if f'`{name}`' not in page} == set()


@pytest.mark.parametrize('heading, names', [('## `scenario`', SCENARIO), ('## `replay`', REPLAY),
                                            ('### `replay.inversion`: SegInversion', options(SegInversion))])
def test_every_documented_option_exists(repo, heading, names):
    section = (repo / 'docs/options.md').read_text().split(f'\n{heading}\n')[1].split('\n#')[0]
    documented = {name for row in re.findall(r'^\| (`[^|]*) \|', section, re.MULTILINE)
                  for name in re.findall(r'`(\w+)`', row)}
    assert len(documented) > 3
    assert documented - names == set()


def test_defaults_of_the_methods_page(repo):
    page = (repo / 'docs/methods.md').read_text()
    rows = re.findall(r'^\| `(\w+)`[^|]*\|[^|]*\|([^|]+)\|', page, re.MULTILINE)
    checked = 0
    for name, cell in rows:
        taker = MODELS.get(name)
        assert taker is not None and issubclass(taker, IncrementalSegmentor), name
        for option, value in re.findall(r'`(\w+)=([^`]+)`', cell):
            assert default(taker, option) == eval(value), (name, option)
            checked += 1
    assert len(rows) == 13 and checked > 8


def test_option_names_on_the_command_line_exist(pages):
    option = re.compile(r'(?<![\w./])(scenario|method|replay\.inversion|replay|comparison)\.(\w+)')
    used = {(page.name, *found) for page, text in pages.items() if 'notes' not in page.parts
            for found in option.findall(text)}
    assert len(used) > 15
    assert {entry for entry in used if entry[2] not in KNOWN[entry[1]]} == set()


def test_options_in_config_examples_exist(pages):
    checked = 0
    for page, text in pages.items():
        for code in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
            for node in ast.walk(ast.parse(code)):
                name = node.arg if isinstance(node, ast.keyword) else (
                    getattr(node.targets[0], 'id', None) if isinstance(node, ast.Assign) else None)
                if name in KNOWN and isinstance(node.value, ast.Call):
                    given = {keyword.arg for keyword in node.value.keywords} - {'_delete_'}
                    assert given <= KNOWN[name], (page.name, name, given - KNOWN[name])
                    checked += 1
    assert checked > 5
