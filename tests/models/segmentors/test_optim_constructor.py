from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NeedsBackbone:
    """Like mmseg's layer-wise decay, looks for ``backbone`` in the model it is given."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.cfg, self.paramwise_cfg = optim_wrapper_cfg, paramwise_cfg

    def __call__(self, model):
        return dict(parameters=list(model.backbone.parameters()), cfg=self.cfg, paramwise_cfg=self.paramwise_cfg)


def test_the_user_s_constructor_sees_the_student():
    model = nn.Module()
    model.student = nn.Module()
    model.student.backbone = nn.Linear(2, 2)
    built = build_optim_wrapper(
        model,
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1), paramwise_cfg=dict(num_layers=3),
             constructor='StudentOptimWrapperConstructor', student_constructor='NeedsBackbone'))
    assert built['parameters'] == list(model.student.backbone.parameters())
    assert built['cfg'] == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))
    assert built['paramwise_cfg'] == dict(num_layers=3)
