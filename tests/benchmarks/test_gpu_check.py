"""The frame of the check on a GPU: parts that resume, the page's section, the wheels that are carried."""
import importlib
import json
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture
def module(repo, monkeypatch):
    """``module(name)`` of benchmarks/."""
    monkeypatch.syspath_prepend(str(repo / 'benchmarks'))
    yield importlib.import_module
    own = ('gpu', 'gpu_check', 'gpu_table', 'gpu_wheels', 'timing')
    for name in [name for name in sys.modules if name.split('.')[0] in own]:
        del sys.modules[name]


class Clock:
    """Advances when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


# -- parts -----------------------------------------------------------------------------------------------------------

def run(parts_module, path, works, minutes=10.0, always=(), needed=()):
    """Run parts by name: each is a number of seconds and what it returns or raises. Returns results and who ran."""
    clock, called = Clock(), []

    def call(part, seconds):
        # The file of results is whole, and has what came before.
        assert not called or called[-1] in json.loads(path.read_text())['parts']
        called.append(part.name)
        taken, outcome = works[part.name]
        if taken > seconds:
            clock.now += seconds
            raise parts_module.Overtime
        clock.now += taken
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    parts = [parts_module.Part(name, f'nowhere:{name}', 100, always=name in always, needed=name in needed)
             for name in works]
    held = parts_module.open_results(path, dict(device='cpu'))
    held = parts_module.run_parts(parts, path, held, call, minutes, clock, say=lambda text: None)
    assert json.loads(path.read_text()) == json.loads(json.dumps(held))
    return {name: record['status'] for name, record in held['parts'].items()}, called


def test_parts_are_run_once_and_what_is_missing_is_run_again(module, tmp_path):
    parts, path = module('gpu.parts'), tmp_path / 'gpu_check.json'
    wrong = dict(checks=[parts.check('a', 2.0, 1.0)])
    works = dict(good=(30, {}), broken=(10, RuntimeError('out of memory')), wrong=(10, wrong),
                 none=(1, dict(unavailable='no GPU')), cut=(90, {}), late=(5, {}), sum=(1, {}))
    found, called = run(parts, path, works, minutes=1.0, always=['sum'])
    assert found == dict(good='passed', broken='failed', wrong='wrong', none='not available', cut='not reached',
                         late='not reached', sum='passed')
    assert called == ['good', 'broken', 'wrong', 'none', 'cut', 'sum']
    records = json.loads(path.read_text())['parts']
    assert records['broken']['error'] == 'out of memory' and records['good']['seconds'] == 30
    assert parts.exit_code(dict(parts=records)) == 1
    works.update(broken=(10, {}), wrong=(0, AssertionError('is not run again')))
    found, called = run(parts, path, works, always=['sum'])
    assert called == ['cut', 'late', 'broken', 'sum']
    assert set(found.values()) == {'passed', 'wrong', 'not available'}
    assert run(parts, path, works, always=['sum'])[1] == ['sum']


def test_a_part_has_its_own_limit(module, tmp_path):
    parts = module('gpu.parts')
    found, _ = run(parts, tmp_path / 'gpu_check.json', dict(hangs=(1e9, {}), next=(1, {})))
    assert found == dict(hangs='failed', next='passed')


def test_nothing_is_tried_without_a_gpu(module, tmp_path):
    parts, path = module('gpu.parts'), tmp_path / 'gpu_check.json'
    works = dict(device=(1, RuntimeError('no GPU')), next=(1, {}), sum=(1, {}))
    assert run(parts, path, works, always=['sum'], needed=['device'])[1] == ['device']
    works['device'] = (1, {})
    assert run(parts, path, works, always=['sum'], needed=['device'])[1] == ['device', 'next', 'sum']


def test_a_check_that_is_stopped_goes_on(module, tmp_path):
    parts, path = module('gpu.parts'), tmp_path / 'gpu_check.json'
    works = dict(first=(1, {}), second=(1, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(parts, path, works)
    works['second'] = (1, {})
    assert run(parts, path, works) == (dict(first='passed', second='passed'), ['second'])


def test_results_of_another_device_are_refused(module, tmp_path):
    parts, path = module('gpu.parts'), tmp_path / 'gpu_check.json'
    parts.write(path, parts.open_results(path, dict(device='cuda')))
    with pytest.raises(ValueError, match=r"begun with device='cuda', not 'cpu': give another --out"):
        parts.open_results(path, dict(device='cpu'))


def test_what_is_no_number_does_not_hold(module):
    parts = module('gpu.parts')
    assert not parts.check('loss', float('nan'), 1.0)['holds'] and parts.check('loss', 1.0, 1.0)['holds']
    assert parts.exit_code(dict(parts=dict(a=dict(status='passed'), b=dict(status='not reached')))) == 2
    assert parts.exit_code(dict(parts=dict(a=dict(status='passed'), b=dict(status='not available')))) == 0


def test_every_part_has_its_function(module, repo):
    check, names = module('gpu_check'), set()
    for part in check.all_parts():
        file, function = part.work.split(':')
        assert f'\ndef {function}(place: Place' in (repo / f'benchmarks/{file.replace(".", "/")}.py').read_text()
        names.add(part.name)
    assert len(names) == len(check.all_parts()) and sum(part.always for part in check.all_parts()) == 1


WORKS = '''
import os, time
def double(place, number):
    return dict(twice=2 * number, process=os.getpid())
def fail(place):
    raise ValueError('of this part alone')
def die(place):
    os._exit(3)
def hang(place):
    time.sleep(1000)
'''


def test_a_worker_is_replaced_after_a_part_that_ends_badly(module, tmp_path, monkeypatch):
    parts, worker, place = module('gpu.parts'), module('gpu.worker'), module('gpu.place')
    (tmp_path / 'gpu_works.py').write_text(WORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    serving = worker.Worker(place.Place('cpu', True, tmp_path, tmp_path / 'gpu_check.json'))

    def work(name, seconds=60, **options):
        return serving(parts.Part(name, f'gpu_works:{name}', seconds, options), seconds)

    try:
        first = work('double', number=4)
        assert first['twice'] == 8 and work('double', number=5)['process'] == first['process']
        with pytest.raises(RuntimeError, match='ValueError: of this part alone'):
            work('fail')
        second = work('double', number=1)['process']
        assert second != first['process']
        with pytest.raises(RuntimeError, match='Its process ended with 3'):
            work('die')
        with pytest.raises(parts.Overtime):
            work('hang', seconds=.2)
        assert work('double', number=1)['process'] not in (first['process'], second)
    finally:
        serving.close()


# -- the page --------------------------------------------------------------------------------------------------------

def sample(row):
    figures = dict(environment={'torch': '2.11.0', 'Python': '3.12.1', 'platform': 'Linux'}, commit='abc',
                   cpu_cores=16, name='Some GPU', memory_gib=80.0)
    checks = [dict(what='losses', value=1e-6, at_most=1e-5, holds=True),
              dict(what='gradient', value=.2, at_most=.1, holds=False)]
    return dict(device='cuda', tiny=False, parts={
        'device': dict(status='passed', seconds=3.0,
                       result=dict(figures=figures, teraflops_of_products=dict(float32=50.0, bf16=790.0))),
        'losses': dict(status='wrong', seconds=2.0, result=dict(checks=checks)),
        'training, HRHF, bf16': dict(status='passed', seconds=20.0, result=dict(
            rows=[row('iteration / floor', 1.05, at_most=1.03), row('images', 1234.5)], faster='readable')),
        'memory': dict(status='passed', seconds=9.0, result=dict(
            unit=2**30, largest_batch=dict(bf16={'24': 20, '80': 70}))),
        'deterministic': dict(status='passed', result=dict(refused='some_op | refuses')),
        'broken': dict(status='failed', error='Traceback\n  file\nRuntimeError: no memory'),
        'late': dict(status='not reached'),
        'estimate': dict(status='passed', result=dict(run='VOC 15-1', minutes={'bf16, stages': {'all on 1': 12.34}})),
    })


def test_the_section_from_results(module):
    table, row = module('gpu_table'), module('timing').row
    lines = table.section(sample(row)).splitlines()
    assert lines[0].startswith('Measured at commit abc on Some GPU, 80 GiB, 16 cores; torch 2.11.0, Python 3.12.1.')
    for line in ('| losses | **wrong** | 2 | 1 of 2 hold; closest: gradient, 0.2 (at most 0.1) |',
                 '| deterministic | passed | 0 | some_op \\| refuses |',
                 '| broken | **failed** | 0 | RuntimeError: no memory |',
                 '| late | **not reached** | 0 |  |',
                 '| iteration / floor | ≤ 1.03 | 1.05 | **no** |',
                 '| images |  | 1234 |  |',
                 'Faster losses in a whole step: HRHF, bf16: readable.',
                 '| largest batch in training, HRHF | 24 GiB | 80 GiB |',
                 '| bf16 | 20 | 70 |',
                 '| bf16, stages | 12.3 |'):
        assert line in lines


def test_a_section_is_replaced_and_the_rest_left(module):
    table = module('gpu_table')
    page = f'# Title\n{table.BEGIN}old\n{table.END}after\n'
    once = table.replaced(page, 'new\n')
    assert once == f'# Title\n{table.BEGIN}\nnew\n\n{table.END}after\n'
    assert table.replaced(once, 'new\n') == once
    with pytest.raises(ValueError, match='each once'):
        table.replaced('# Title\n', 'new')


def test_the_page_is_what_the_script_makes(module, repo):
    table, parts = module('gpu_table'), module('gpu.parts')
    page = table.PAGE.read_text()
    held = parts.read(table.RESULTS) if table.RESULTS.exists() else None
    assert table.replaced(page, table.section(held)) == page
    if held is None:
        assert page.count('No GPU has been measured') == 1


# -- the wheels ------------------------------------------------------------------------------------------------------

def make_wheel(folder, name, version, needs=(), tag='py3-none-any', size=10):
    path = folder / f'{name}-{version}-{tag}.whl'
    info = f'{name}-{version}.dist-info'
    requires = ''.join(f'Requires-Dist: {need}\n' for need in needs)
    files = {f'{name}.py': '#' * size + '\n',
             f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}',
             f'{info}/WHEEL': f'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n'}
    record = ''.join(f'{file},,\n' for file in (*files, f'{info}/RECORD'))
    with zipfile.ZipFile(path, 'w') as archive:
        for file, text in {**files, f'{info}/RECORD': record}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def wheels(module, tmp_path, monkeypatch):
    script = module('gpu_wheels')
    monkeypatch.setattr(script, 'WANTED', ('gpu-one>=1', ))
    return script, tmp_path


def test_wheels_that_fit(wheels):
    script, folder = wheels
    needs = ['gpu_two<3; python_version >= "3.12"', 'numpy', 'torch>=2', 'scipy', 'opencv-python',
             'absent; extra == "more"', 'absent; sys_platform == "win32"']
    make_wheel(folder, 'gpu_one', '1.5', needs)
    make_wheel(folder, 'gpu_two', '2.0', tag='cp312-cp312-manylinux_2_17_x86_64')
    make_wheel(folder, 'opencv_python_headless', '4.11.0', tag='cp37-abi3-manylinux2014_x86_64')
    text, well = script.report(folder, source=5 * 2**20)
    assert well and 'All requirements are met.' in text and '5.00 MiB  the source' in text


def test_wheels_that_do_not_fit(wheels):
    script, folder = wheels
    make_wheel(folder, 'gpu_one', '0.9', ['gpu-two<3', 'gpu_three'])
    make_wheel(folder, 'gpu_two', '3.0', tag='cp311-cp311-manylinux_2_17_x86_64')
    text, well = script.report(folder, source=script.LIMIT)
    assert not well
    for line in ('gpu_two-3.0-cp311-cp311-manylinux_2_17_x86_64.whl is not for Python 3.12 on manylinux_2_28_x86_64',
                 'gpu-one>=1, needed by benchmarks/gpu_check.py, is there as 0.9',
                 'gpu-two<3, needed by gpu_one-0.9-py3-none-any.whl, is there as 3.0',
                 'gpu_three, needed by gpu_one-0.9-py3-none-any.whl, is not there',
                 'more than the 64 MiB that may be carried'):
        assert line in text.splitlines()


def test_wheels_packed_again_are_installed_without_a_network(module, wheels):
    (script, folder), offline = wheels, module('gpu.offline')
    wheel = make_wheel(folder, 'gpu_check_sample', '1.0', size=10**5)
    before = wheel.stat().st_size
    script.repack(wheel)
    assert wheel.stat().st_size < before / 10
    site = folder / 'site'
    assert offline.install(folder, site) == ['gpu-check-sample']
    assert offline.install(folder, site) == []  # it is there
    code = "import gpu_check_sample, importlib.metadata as m; print(m.version('gpu-check-sample'))"
    said = subprocess.run([sys.executable, '-c', code], env={'PYTHONPATH': str(site)}, capture_output=True, text=True)
    assert said.stdout == '1.0\n'


def test_no_wheels_and_no_toolbox_is_said(module, tmp_path):
    with pytest.raises(ValueError, match=r'holds no wheels: fill it with benchmarks/gpu_wheels\.py'):
        module('gpu.offline').install(tmp_path, tmp_path / 'site')


def test_what_stands_for_scipy_says_so(module, tmp_path):
    module('gpu.offline').write_scipy(tmp_path)
    code = 'from scipy import interpolate\nfrom scipy.ndimage import gaussian_filter\ngaussian_filter(0)'
    said = subprocess.run([sys.executable, '-c', code], env={'PYTHONPATH': str(tmp_path)}, capture_output=True,
                          text=True)
    assert said.returncode == 1 and 'scipy.ndimage.gaussian_filter was called' in said.stderr
