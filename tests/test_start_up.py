"""What --help imports."""
import subprocess
import sys

import pytest

HEAVY = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'matplotlib', 'PIL', 'cv2', 'scipy', 'tqdm'}


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'report.py', 'compare.py', '-m'])
def test_help_waits_for_nothing_heavy(repo, tool):
    command = ['-m', 'mmseg_hrhf', 'train'] if tool == '-m' else [str(repo / 'tools' / tool)]
    done = subprocess.run([sys.executable, '-X', 'importtime', *command, '--help'], cwd=repo, capture_output=True,
                          text=True, check=True)
    assert 'usage:' in done.stdout
    imported = {line.rsplit('|', 1)[-1].strip() for line in done.stderr.splitlines()}
    assert 'argparse' in imported and not imported & HEAVY
