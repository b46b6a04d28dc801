import json

import torch

from mmseg_hrhf.utils.environment import environment


def test_names_the_versions_a_result_depends_on():
    found = environment()
    assert found['torch'] == torch.__version__ and found['processes'] == '1'
    assert any(name.endswith('mmengine') for name in found) and any(name.endswith('mmsegmentation') for name in found)
    assert json.loads(json.dumps(found)) == found
