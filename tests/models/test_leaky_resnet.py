import torch
from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS
from torch import nn

OPTIONS = dict(depth=50, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN'), num_stages=4,
               strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))


def test_every_relu_is_leaky_and_nothing_else_changes():
    leaky = MODELS.build(dict(type='LeakyResNet', **OPTIONS))
    stock = ResNet(**OPTIONS)
    slopes = [module.negative_slope for module in leaky.modules() if isinstance(module, nn.LeakyReLU)]
    assert len(slopes) == sum(isinstance(module, nn.ReLU) for module in stock.modules()) and set(slopes) == {0.01}
    assert not any(isinstance(module, nn.ReLU) for module in leaky.modules())
    assert {k: v.shape for k, v in leaky.state_dict().items()} == {k: v.shape for k, v in stock.state_dict().items()}


def test_the_stem_activates_leakily():
    leaky, stock = MODELS.build(dict(type='LeakyResNet', deep_stem=True, **OPTIONS)), ResNet(deep_stem=True, **OPTIONS)
    stock.load_state_dict(leaky.state_dict())
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    outputs = {}
    for name, net in (('leaky', leaky), ('stock', stock)):
        net.eval()
        outputs[name] = net(x)[0]
    assert (outputs['stock'] >= 0).all() and (outputs['leaky'] < 0).any()
