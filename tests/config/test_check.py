"""What is right is not refused."""
from typing import Optional, Sequence, Union

import pytest
from mmengine.config import Config

from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.utils.errors import UserError
from mmseg_hrhf.utils.options import check_choice, check_names, check_types, parameters, suggest


def test_every_config_of_ours_passes(repo):
    paths = [path for path in sorted((repo / 'configs').rglob('*.py')) if '_base_' not in path.parts]
    assert len(paths) > 10
    for path in paths:
        cfg = load_config(str(path))
        if 'method' in cfg:
            assert RunConfig.parse(cfg).method_options == cfg.method


@pytest.mark.parametrize('value, wanted', [
    (1, float), (0.5, float), (3, int), ('a', str), (True, bool), (None, Optional[int]), (3, Optional[int]),
    ([1, 2.5], Sequence[float]), ((1, 2), tuple[float, float]), ([1, 2], tuple[float, float]),
    ([(0.5, 2), [1.0, 2]], Sequence[tuple[float, int]]), (dict(a=1), dict), (Config(dict(a=dict(b=1))).a, dict),
    (48, Union[int, Sequence[int]]), ([48, 32], Union[int, Sequence[int]]), (object(), object)
])
def test_values_that_fit(value, wanted):
    check_types('x', dict(a=value), dict(a=wanted))


@pytest.mark.parametrize('value, wanted, described', [
    (True, float, 'a number'), ('1', float, 'a number'), (float('nan'), float, 'a number'),
    (1.0, int, 'a whole number'), (False, int, 'a whole number'), (1, bool, 'True or False'),
    ('ab', Sequence[str], 'a list, each item a string'), ([1, 2, 3], tuple[float, float], '2 values, a number, a num'),
    ([1, 'a'], Optional[Sequence[float]], 'a list, each item a number, or None'), ([], dict, 'a dict')
])
def test_values_that_do_not(value, wanted, described):
    with pytest.raises(ValueError, match=f'^x\\.a=.* must be {described}'):
        check_types('x', dict(a=value), dict(a=wanted))


def test_nearest_name_is_given_only_where_one_is_near():
    with pytest.raises(ValueError, match=r"no option 'ration': did you mean 'ratio'\?"):
        check_names('replay', ['ration'], ['ratio', 'seed'])
    with pytest.raises(ValueError, match=r"no option 'xyz'; its options are \['ratio', 'seed'\]"):
        check_names('replay', ['xyz'], ['ratio', 'seed'])
    with pytest.raises(ValueError, match=r"^m=1 is not one of 'a', True\.$"):
        check_choice('m', 1, ['a', True])
    with pytest.raises(ValueError, match=r"^m='abcd' is not one of 'abcde', True: did you mean 'abcde'\?$"):
        check_choice('m', 'abcd', ['abcde', True])


def test_how_near_a_suggestion_is_can_be_chosen():
    assert suggest('scenaro', ['scenario', 'method', 3]) == ": did you mean 'scenario'?"
    assert suggest('scene', ['scenario'], cutoff=0.6) != suggest('scene', ['scenario'], cutoff=0.8) == ''
    assert suggest(None, ['ratio'], '; give one.') == '; give one.'


def test_options_of_parents_count():

    class Base:

        def __init__(self, a: int, *args, **kwargs) -> None: ...

    class Child(Base):

        def __init__(self, *, b: float = 1.0, **kwargs) -> None: ...

    assert parameters(Child) == dict(a=int, b=float)


@pytest.mark.parametrize('name, message', [('no_such_package', r'needs a package .*no_such_package'),
                                           ('mmengine', r'needs a package .*Failed to import Missing from mmengine')])
def test_what_a_pure_python_config_cannot_import_is_named(tmp_path, name, message):
    path = tmp_path / 'pure.py'
    path.write_text(f'from mmengine.dataset import DefaultSampler\nfrom {name} import Missing\n'
                    'sampler = dict(type=DefaultSampler)\nmodel = dict(type=Missing)\n')
    with pytest.raises(UserError, match=message):
        load_config(str(path))
