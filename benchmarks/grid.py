"""Rows of a comparison that chooses the learning rate and frozen norm layers of a data set.

    PYTHONPATH=. python tools/compare.py benchmarks/configs/shapes_grid.py \
        --methods $(python benchmarks/grid.py 0.02 0.05)

Gradients are clipped, because frozen norm layers do not bound activations.
"""
import sys

METHODS = {
    'FT': dict(method=dict(_delete_=True, type='FT')),
    'LwF': dict(method=dict(_delete_=True, type='LwF')),
    'ILT': dict(method=dict(_delete_=True, type='ILT')),
    'PLOP': dict(method=dict(_delete_=True, type='PLOP')),
    'MiB': dict(method=dict(_delete_=True, type='MiB')),
    'HRHF_without_fakes': dict(method=dict(_delete_=True, type='HRHF'), replay=None),
    'HRHF': dict(method=dict(_delete_=True, type='HRHF')),
    'HRHF+': dict(method=dict(_delete_=True, type='HRHFPlus'), replay=dict(ratio='2:1', added=True)),
}


def rows(*rates):
    """Options of each method at each learning rate of later steps, with norm layers trained and frozen."""
    found = {}
    for name, options in METHODS.items():
        for rate in rates:
            for frozen in (False, True):
                optim_wrapper = dict(optimizer=dict(lr=rate), clip_grad=dict(max_norm=1.0))
                found[row(name, rate, frozen)] = dict(
                    options, method=dict(options['method'], freeze_norm=frozen),
                    incremental_overrides=dict(optim_wrapper=optim_wrapper))
    return found


def row(name, rate, frozen):
    return f'{name},{rate},{"frozen" if frozen else "trained"}'


if __name__ == '__main__':
    print(*rows(*map(float, sys.argv[1:])))
