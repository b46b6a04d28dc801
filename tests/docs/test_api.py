import importlib
import re

from mmseg.registry import MODELS

from mmseg_hrhf.models.segmentors import IncrementalSegmentor


def test_the_api_page_names_what_exists_and_every_method(repo):
    names = re.findall(r'^::: (\S+)$', (repo / 'docs/api.md').read_text(), re.MULTILINE)
    documented = []
    for name in names:
        module, _, attribute = name.rpartition('.')
        documented.append(getattr(importlib.import_module(module), attribute))
    methods = {value for value in MODELS.module_dict.values() if issubclass(value, IncrementalSegmentor)
               and value.__module__.startswith('mmseg_hrhf.')}
    assert len(methods) > 10 and methods <= set(documented)
