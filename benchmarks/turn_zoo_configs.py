"""Turn every config of the installed model zoo into configs of two learning steps, without data or weights.

    python benchmarks/turn_zoo_configs.py [--out docs/config_compat.md] [--only FAMILY]

A config is *turned* if its two-line form (its file and configs/_base_/methods/hrhf.py as bases, and a scenario of all
classes but the last, then the last) gives configs of steps 0 and 1 that keep every setting of the zoo config, except
those that must depend on the step. Otherwise the error is the reason.
"""
import argparse
import collections
import os.path as osp
import re
import tempfile
from pathlib import Path

import mmengine
import mmseg
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from mmseg_hrhf.config.check import refuse_unsupported
from mmseg_hrhf.config.plain import plain_config
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.config.step import step_config
from mmseg_hrhf.datasets.raw_labels import RawLabels
from mmseg_hrhf.datasets.source import split_mix, unwrap

ZOO = Path(mmseg.__file__).parent / '.mim' / 'configs'
METHOD = Path(__file__).parents[1] / 'configs/_base_/methods/hrhf.py'
# Keys that depend on the step; all other keys must be unchanged.
FOLLOWS_THE_STEP = {
    'model', 'data_preprocessor', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator',
    'test_evaluator', 'val_cfg', 'optim_wrapper', 'custom_hooks', 'visualizer', 'randomness', 'work_dir',
    'experiment_name', 'load_from', 'resume', 'train_cfg'
}
# Remedies named by errors, applied to check whether they suffice.
REMEDIES = {r'batch_size=1 cannot be divided': {'train_dataloader.batch_size': 2}}


def two_lines(path: Path) -> Config:
    with tempfile.NamedTemporaryFile('w', suffix='.py') as file:
        file.write(f'_base_ = [{str(path)!r}, {str(METHOD)!r}]\n')
        file.flush()
        return Config.fromfile(file.name, import_custom_modules=False)


def labels_of(dataset: dict) -> RawLabels:
    leaf = unwrap(split_mix(dataset)[0])[0][0]
    classes = (leaf.get('metainfo') or {}).get('classes')
    return RawLabels.of(DATASETS.get(leaf['type']), classes, leaf.get('reduce_zero_label'))


def turn(cfg: Config) -> None:
    """Raise ``ValueError`` unless the configs of both steps keep the settings of ``cfg``."""
    raw = labels_of(cfg.train_dataloader.dataset)
    foreground = len(raw.chosen) - (raw.names[0].lower() == 'background')
    refuse_unsupported(plain_config(cfg), cfg.get('replay') is not None)
    if foreground < 2:
        raise ValueError(f'{raw.dataset} has one foreground class: there is no second step to learn.')
    cfg.scenario = dict(task=f'{foreground - 1}-1', setting='overlapped')
    scenario, run = raw.scenario(cfg.scenario), RunConfig.parse(cfg)
    for step in (0, 1):
        out = step_config(run, scenario, step, 600)
        lost = [
            key for key, value in plain_config(cfg).items()
            if key not in FOLLOWS_THE_STEP and out.get(key, 'lost') != value
        ]
        inner = out.train_dataloader.dataset
        inner = (inner.real if step else inner).dataset
        lost += ['train_dataloader.dataset'] * (inner != split_mix(cfg.train_dataloader.dataset)[0])
        lost += [f'optim_wrapper.{key}' for key, value in cfg.optim_wrapper.items()
                 if key != 'constructor' and out.optim_wrapper.get(key) != value]
        hooks = list(cfg.get('custom_hooks') or [])
        lost += ['custom_hooks'] * (list(out.get('custom_hooks') or [])[:len(hooks)] != hooks)
        # The user's loop, made resumable.
        lost += [f'train_cfg.{key}' for key, value in cfg.train_cfg.items()
                 if key not in ('type', 'by_epoch') and out.train_cfg.get(key) != value]
        if lost:
            raise ValueError(f'lost without a word: {lost}')


def remedied(path: Path, reason: str) -> bool:
    """Whether a config works after setting the option that its error names."""
    options = next((options for pattern, options in REMEDIES.items() if re.search(pattern, reason)), None)
    if options is None:
        return False
    cfg = two_lines(path)
    cfg.merge_from_dict(options)
    turn(cfg)
    return True


def reason_of(error: Exception) -> str:
    """An error message without config-specific parts."""
    text = str(error).splitlines()[0] if str(error) else repr(error)
    return re.sub(r'^\w*(DRIVE|HRF|STARE|ChaseDB1|LEVIRCD)Dataset', 'The dataset', text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, help='write the figures to this Markdown file')
    parser.add_argument('--only', default='', help='family, such as segformer')
    args = parser.parse_args()
    init_default_scope('mmseg')
    files = sorted(path for path in (ZOO / args.only).rglob('*.py') if '_base_' not in path.relative_to(ZOO).parts)
    families = collections.defaultdict(lambda: [0, 0, 0])
    reasons = collections.defaultdict(list)
    for path in files:
        name, counts = str(path.relative_to(ZOO)), families[path.relative_to(ZOO).parts[0]]
        counts[0] += 1
        try:
            cfg = two_lines(path)
            turn(cfg)
            counts[1] += 1
        except Exception as error:
            reason = reason_of(error)
            mended = remedied(path, reason)
            counts[2] += mended
            kind = 'turned with the option it names' if mended else type(error).__name__
            reasons[kind, reason].append(name)
    text = report(families, reasons)
    print(text)
    if args.out:
        args.out.write_text(text)


def report(families: dict, reasons: dict) -> str:
    total, turned, mended = (sum(counts[i] for counts in families.values()) for i in range(3))
    lines = [
        '# Configs of the model zoo in two lines', '',
        f'Of the {total} config files that come with mmsegmentation {mmseg.__version__} (mmengine '
        f'{mmengine.__version__}), **{turned}** are turned into the configs of two learning steps as they are,',
        f'{mended} more with the one option that the error names, and {total - turned - mended} are refused by name.',
        '"Turned" means: the file and `configs/_base_/methods/hrhf.py` as bases and a `scenario`, nothing else; what',
        "the file says then stands in the steps' configs as it was, but for what must follow the step (classes,",
        'images, labels, metric, names of modules, seed, folders). Whether a network then trains is another matter:',
        '`model_zoo_compat.md`.', '',
        'Command: `python benchmarks/turn_zoo_configs.py --out docs/config_compat.md` (no data, no GPU, no download).',
        '',
        '| what is asked for, or why not | files | such as |', '|---|---|---|'
    ]
    for (kind, reason), names in sorted(reasons.items(), key=lambda item: (item[0][0], -len(item[1]))):
        lines.append(f'| {kind}: {reason.replace("|", "/")} | {len(names)} | {osp.splitext(names[0])[0]} |')
    lines += ['', '| family | files | turned | with the option named | refused |', '|---|---|---|---|---|']
    for family, (number, good, helped) in sorted(families.items()):
        lines.append(f'| {family} | {number} | {good} | {helped} | {number - good - helped} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    main()
