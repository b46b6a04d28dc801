"""Evaluate the last step's plain config and checkpoint with mmseg alone, and compare with the results of our run.

    PYTHONPATH=. PYTHON benchmarks/standard_evaluation.py --out work_dirs/standard

PYTHON is the interpreter of an environment without this package, with mmdetection for the query-based family. Two
learning steps run in it with the repository on PYTHONPATH; then mmseg's tools/test.py, ``init_model`` +
``inference_model`` and ``MMSegInferencer`` run without it.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

# Description, and iterations of each step.
FAMILIES = dict(ocrnet=('cascade', 80), bisenetv2=('real-time', 120), segformer=('transformer', 20),
                mask2former=('query-based', 40))
MARKS = '<!-- evaluation table begins -->', '<!-- evaluation table ends -->'
REPO = Path(__file__).parents[1]

# Runs without this package: two prediction APIs of mmseg on the same image.
PREDICT = '''
import importlib.util, json, sys
import numpy as np
if importlib.util.find_spec('mmseg_hrhf') is not None:
    sys.exit('this interpreter knows mmseg_hrhf: use an environment without it')
from mmseg.apis import MMSegInferencer, inference_model, init_model
config, checkpoint, image = sys.argv[1:4]
one = inference_model(init_model(config, checkpoint, device='cpu'), image).pred_sem_seg.data[0].numpy()
two = MMSegInferencer(model=config, weights=checkpoint, device='cpu')(image, return_datasamples=False)['predictions']
print('RESULT ' + json.dumps(dict(equal=bool((one == np.asarray(two)).all()), classes=np.unique(one).tolist())))
'''


def train(name: str, out: Path, iterations: int) -> Path:
    """Train two learning steps of a family. Returns the folder of the last."""
    import torch
    from mmengine.registry import init_default_scope
    from mmseg.registry import RUNNERS
    from zoo_config import zoo_config
    from zoo_families import FAMILIES as ZOO

    import mmseg_hrhf
    mmseg_hrhf.register_all()
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    cfg, _ = zoo_config(name, ZOO[name], out / name, iterations)
    # From random weights, such a short run needs another optimizer than the zoo's.
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
    RUNNERS.build(cfg).train()
    return out / name / 'run' / 'step_1'


def mmseg_alone(step: Path, image: Path) -> dict:
    """mIoU in % from mmseg's tools/test.py, and results of its two prediction APIs, without this package."""
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    found = subprocess.run([sys.executable, '-c', 'import mmseg; print(mmseg.__path__[0])'], cwd=step, env=environment,
                           check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
    config, checkpoint = str(step / 'config.py'), str(step / 'checkpoint.pth')
    work = step / 'mmseg_alone'
    subprocess.run([sys.executable, str(Path(found) / '.mim' / 'tools' / 'test.py'), config, checkpoint, '--work-dir',
                    str(work)], cwd=step, env=environment, check=True, capture_output=True, text=True)
    metrics = json.loads(max(work.glob('*/*.json')).read_text())
    said = subprocess.run([sys.executable, '-c', PREDICT, config, checkpoint, str(image)], cwd=step, env=environment,
                          check=True, capture_output=True, text=True).stdout
    line = next(line for line in said.splitlines() if line.startswith('RESULT '))
    return dict(miou=metrics['mIoU'], predictions=json.loads(line[len('RESULT '):]))


def row(result: dict) -> str:
    equal = 'yes' if abs(result['ours'] - result['miou']) <= 0.01 else 'NO'
    apis = 'load, and predict the same' if result['predictions']['equal'] else 'DIFFER'
    kind, iterations = FAMILIES[result['family']]
    figures = f'{result["ours"]:.2f} | {result["miou"]:.2f}'
    return f'| {result["family"]} | {kind} | {iterations} | {figures} | {equal} | {apis} |'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--families', nargs='+', choices=list(FAMILIES), default=list(FAMILIES))
    args = parser.parse_args()
    args.out = args.out.resolve()
    for name in args.families:
        path = args.out / f'{name}.json'
        if path.exists():
            continue
        step = train(name, args.out, FAMILIES[name][1])
        ours = json.loads((step / 'result.json').read_text())['metrics']['mIoU']
        image = args.out / name / 'data' / 'images' / 'val' / '7.png'
        result = dict(family=name, ours=ours, **mmseg_alone(step, image))
        path.write_text(json.dumps(result))
        print(row(result), flush=True)
    from zoo_table import replace_between
    results = [json.loads((args.out / f'{name}.json').read_text()) for name in FAMILIES
               if (args.out / f'{name}.json').exists()]
    replace_between(REPO / 'docs' / 'model_zoo_compat.md', MARKS, '\n'.join([
        '| family | kind | iterations a step | mIoU (%), our run | mIoU (%), mmseg alone | equal to 1e-4 | '
        '`inference_model`, `MMSegInferencer` |',
        '|---|---|---|---|---|---|---|', *map(row, results)]))


if __name__ == '__main__':
    main()
