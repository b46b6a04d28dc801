"""Stands in for ``mmcv._ext`` where mmcv-lite is installed; ``.ci/upstream`` copies it into its test environment.

Upstream mmsegmentation imports mmcv's compiled operators whatever the model. With this they can be imported, and raise
only where a model calls one.
"""


def __getattr__(name: str):
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f'mmcv._ext.{name}: this environment has mmcv-lite, without compiled operators.')

    return missing
