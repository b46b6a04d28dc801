"""Jobs in processes of their own, for tests that kill them or run several."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope='package')
def train_in_process(unused_port):
    """Trains in a process of its own, which can be killed after some processor time, or in several."""
    # One thread, as torchrun gives its processes: sums over several threads differ in the last bits.
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name('fork_server.py'))],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env=dict(os.environ, OMP_NUM_THREADS='1'))

    def train(config, work_dir, kill_at=None, options=(), ranks=1, kill_at_mask=None, tool=()):
        job = dict(config=str(config), work_dir=str(work_dir), kill_at=kill_at, options=list(options), ranks=ranks,
                   kill_at_mask=kill_at_mask, port=unused_port(), tool=list(map(str, tool)))
        server.stdin.write(json.dumps(job) + '\n')
        server.stdin.flush()
        for line in server.stdout:
            if line.startswith('ANSWER'):
                answer = json.loads(line[len('ANSWER'):])
                if answer['code'] != 0:
                    pytest.fail(Path(f'{work_dir}.log').read_text()[-4000:])
                return answer
        pytest.fail('the server of processes died')

    yield train
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()
