import dataclasses
import inspect

import pytest

from mmseg_hrhf.models.segmentors.hrhf import HRHF
from mmseg_hrhf.replay.inversion.seg_inversion import SegInversion
from mmseg_hrhf.scenario import Scenario

FIELDS = {field.name for field in dataclasses.fields(Scenario)} - {'labels'}


@pytest.mark.parametrize('names', [
    set(inspect.signature(SegInversion.__init__).parameters) - {'self'},
    set(inspect.signature(HRHF.__init__).parameters) - {'self', 'kwargs'},
    FIELDS | {'class_order'},
], ids=['inversion', 'hrhf', 'scenario'])
def test_every_option_is_documented(repo, names):
    page = (repo / 'docs/options.md').read_text()
    assert {name for name in names if f'`{name}`' not in page} == set()
