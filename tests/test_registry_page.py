"""docs/registry.md names everything that this package registers."""
import re

from mmseg import registry


def test_every_registered_name_is_on_the_page(repo):
    import mmseg_hrhf  # noqa: F401
    page = set(re.findall(r'`(\w+)`', (repo / 'docs' / 'registry.md').read_text()))
    held = {}
    for name in dir(registry):
        each = getattr(registry, name)
        while hasattr(each, 'module_dict'):
            held.update(each.module_dict)
            each = each.parent
    ours = {name for name, value in held.items() if value.__module__.split('.')[0] == 'mmseg_hrhf'}
    assert len(ours) > 15 and ours <= page, f'docs/registry.md lacks {sorted(ours - page)}'
