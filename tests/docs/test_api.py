import importlib
import inspect
import re

from mmseg.registry import MODELS

from mmseg_hrhf.models.losses import TeacherLoss
from mmseg_hrhf.models.segmentors import IncrementalSegmentor


def test_the_api_page_names_what_exists_and_every_method_and_loss(repo):
    names = re.findall(r'^::: (\S+)$', (repo / 'docs/api.md').read_text(), re.MULTILINE)
    documented = []
    for name in names:
        module, _, attribute = name.rpartition('.')
        documented.append(getattr(importlib.import_module(module), attribute))
    methods = {value for value in MODELS.module_dict.values() if issubclass(value, IncrementalSegmentor)
               and value.__module__.startswith('mmseg_hrhf.')}
    assert len(methods) > 10 and methods <= set(documented)
    modules = {value.__name__ for value in documented if inspect.ismodule(value)}
    losses = {value for value in MODELS.module_dict.values() if issubclass(value, TeacherLoss)
              and value.__module__.startswith('mmseg_hrhf.')}
    assert len(losses) == 6 and {value.__module__ for value in losses} <= modules
