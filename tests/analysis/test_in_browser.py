"""Both pages in a headless browser, light and dark: no script error, controls do what they say."""
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from mmseg_hrhf.analysis.fake_browser import write_fake_browser
from mmseg_hrhf.analysis.report import write_report
from mmseg_hrhf.analysis.results import find_runs

_OPTIONS = ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'hide-scrollbars',
            'disable-background-networking', 'disable-component-update', 'disable-sync', 'enable-logging=stderr',
            'virtual-time-budget=4000', 'window-size=1100,900')
# Runs in the page: works the controls, and leaves what it saw in the document.
REPORT_PROBE = '''
const seen = {};
document.querySelector('button[data-show=table][data-value="1"]').click();
seen.shown = [...document.querySelectorAll('[data-panel=table]')].map(panel => !panel.hidden);
document.dispatchEvent(new KeyboardEvent('keydown', {key: 'm', bubbles: true}));
seen.alone = document.getElementById('alone').getAttribute('aria-pressed');
seen.images = [...document.images].every(image => image.complete && image.naturalWidth > 0);
seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
'''
FAKES_PROBE = '''
const seen = {};
seen.all = document.getElementById('count').textContent;
document.querySelector('.choice button[data-class="1"]').click();
seen.red = [...document.querySelectorAll('.fake')].filter(fake => !fake.hidden).map(fake => fake.dataset.classes);
document.querySelector('.choice button[data-class=""]').click();
document.querySelector('.fake').click();
seen.open = document.getElementById('viewer').open;
document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
seen.details = document.querySelector('#viewer dl').textContent;
document.getElementById('viewer').close();
document.dispatchEvent(new KeyboardEvent('keydown', {key: 'm', bubbles: true}));
seen.mask = getComputedStyle(document.querySelector('#fakes .mask')).opacity;
seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
'''


@pytest.fixture(scope='module')
def browse(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if program is None:
        pytest.skip('no chromium to open the pages with')

    def run(*arguments):
        profile = tmp_path_factory.mktemp('profile')
        options = [f'--{name}' for name in _OPTIONS]
        done = subprocess.run([program, *options, f'--user-data-dir={profile}', *map(str, arguments)],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return done

    return run


def look(browse, page, probe, folder):
    """Errors of the page's scripts, and what the probe saw."""
    probe = f'addEventListener("load", () => {{{probe}; document.body.dataset.seen = JSON.stringify(seen)}})'
    probed = folder / f'probed_{page.name}'
    probed.write_text(page.read_text().replace('</body>', f'<script>{probe}</script></body>'))
    done = browse('--dump-dom', f'file://{probed}')
    errors = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stderr[-2000:]
    return errors, json.loads(seen.group(1).replace('&quot;', '"'))


def background(browse, page, folder, *options):
    picture = folder / 'page.png'
    browse(f'--screenshot={picture}', *options, f'file://{page}')
    with Image.open(picture) as image:
        return image.convert('L').getpixel((3, 400))


def test_report(browse, work_dir, other_dir, tmp_path):
    page = tmp_path / 'report.html'
    write_report(page, find_runs([str(work_dir), str(other_dir)]), num_images=2)
    errors, seen = look(browse, page, REPORT_PROBE, tmp_path)
    assert errors == []
    assert seen == dict(shown=[False, True], alone='true', images=True, wide=False)
    assert background(browse, page, tmp_path) > 200
    assert background(browse, page, tmp_path, '--blink-settings=preferredColorScheme=0') < 60


def test_fakes(browse, run, tmp_path):
    page = write_fake_browser(run, tmp_path)
    errors, seen = look(browse, page, FAKES_PROBE, tmp_path)
    assert errors == []
    assert seen['all'] == '4 of 4 images' and seen['open'] and float(seen['mask']) == 0 and not seen['wide']
    assert seen['red'] and all(' 1 ' in classes for classes in seen['red'])
    assert 'images/000001.bmp' in seen['details'] and 'classification loss' in seen['details']
