"""Published layouts, rebuilt small: a network with explicit in-place ABN maths against the converted mmseg network."""
import argparse
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from mmseg_hrhf.models.leaky_resnet import convert_iabn, load_iabn
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

EPS = 1e-5
BLOCKS, BASE, HIDDEN = (2, 1, 1, 2), 4, 6


class InPlaceABN(nn.Module):
    """What in-place ABN computes in eval mode, written out."""

    def __init__(self, channels, leaky=True):
        super().__init__()
        self.leaky = leaky
        self.weight, self.bias = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))
        self.register_buffer('running_mean', torch.randn(channels))
        self.register_buffer('running_var', torch.rand(channels) + 0.1)

    def forward(self, x):
        scale = (self.weight.abs() + EPS) / (self.running_var + EPS).sqrt()
        y = (x - self.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return torch.where(y < 0, 0.01 * y, y) if self.leaky else y


class Block(nn.Module):

    def __init__(self, inputs, width, stride, dilation):
        super().__init__()
        self.convs = nn.Sequential()
        self.convs.add_module('conv1', nn.Conv2d(inputs, width, 1, bias=False))
        self.convs.add_module('bn1', InPlaceABN(width))
        self.convs.add_module(
            'conv2', nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False))
        self.convs.add_module('bn2', InPlaceABN(width))
        self.convs.add_module('conv3', nn.Conv2d(width, 4 * width, 1, bias=False))
        self.convs.add_module('bn3', InPlaceABN(4 * width, leaky=False))
        if stride != 1 or inputs != 4 * width:
            self.proj_conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.proj_bn = InPlaceABN(4 * width, leaky=False)

    def forward(self, x):
        residual = self.proj_bn(self.proj_conv(x)) if hasattr(self, 'proj_conv') else x
        return F.leaky_relu(self.convs(x) + residual, 0.01)


class Body(nn.Module):
    """ResNet of output stride 16: the blocks of the last stage are dilated."""

    def __init__(self):
        super().__init__()
        self.mod1 = nn.Sequential()
        self.mod1.add_module('conv1', nn.Conv2d(3, BASE, 7, 2, padding=3, bias=False))
        self.mod1.add_module('bn1', InPlaceABN(BASE))
        self.mod1.add_module('pool1', nn.MaxPool2d(3, 2, 1))
        inputs = BASE
        for stage, number in enumerate(BLOCKS):
            module, width = nn.Sequential(), BASE * 2**stage
            for i in range(number):
                stride = 2 if stage in (1, 2) and i == 0 else 1
                module.add_module(f'block{i + 1}', Block(inputs, width, stride, 2 if stage == 3 else 1))
                inputs = 4 * width
            self.add_module(f'mod{stage + 2}', module)

    def forward(self, x):
        outputs = []
        for module in self.children():
            x = module(x)
            outputs.append(x)
        return outputs[1:]


class Head(nn.Module):

    def __init__(self, inputs):
        super().__init__()
        self.map_convs = nn.ModuleList([nn.Conv2d(inputs, HIDDEN, 1, bias=False)] + [
            nn.Conv2d(inputs, HIDDEN, 3, dilation=d, padding=d, bias=False) for d in (6, 12, 18)
        ])
        self.map_bn = InPlaceABN(4 * HIDDEN)
        self.global_pooling_conv = nn.Conv2d(inputs, HIDDEN, 1, bias=False)
        self.global_pooling_bn = InPlaceABN(HIDDEN)
        self.red_conv = nn.Conv2d(4 * HIDDEN, HIDDEN, 1, bias=False)
        self.pool_red_conv = nn.Conv2d(HIDDEN, HIDDEN, 1, bias=False)
        self.red_bn = InPlaceABN(HIDDEN)

    def forward(self, x):
        out = self.red_conv(self.map_bn(torch.cat([conv(x) for conv in self.map_convs], 1)))
        pooled = self.global_pooling_bn(self.global_pooling_conv(x.mean((2, 3), keepdim=True)))
        return self.red_bn(out + self.pool_red_conv(pooled))


class Published(nn.Module):

    def __init__(self):
        super().__init__()
        self.body, self.head = Body(), Head(4 * BASE * 8)
        self.cls = nn.ModuleList([nn.Conv2d(HIDDEN, number, 1) for number in (3, 1, 2)])

    def forward(self, x):
        features = self.head(self.body(x)[-1])
        return torch.cat([classifier(features) for classifier in self.cls], 1)


@pytest.fixture
def published():
    torch.manual_seed(0)
    return Published().double().eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(2, 3, 65, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def backbone_config():
    return dict(type='LeakyResNet', depth=50, base_channels=BASE, stem_channels=BASE, norm_cfg=dict(type='BN'),
                strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=False)


def shorten(backbone):
    """Depth 50 cut to the published network's few blocks."""
    for i, number in enumerate(BLOCKS):
        del getattr(backbone, f'layer{i + 1}')[number:]
    backbone.double().eval()  # returns nothing in mmseg
    return backbone


def segmentor():
    model = MODELS.build(dict(
        type='EncoderDecoder', backbone=backbone_config(),
        decode_head=dict(type='ASPPHead', in_channels=32 * BASE, in_index=3, channels=HIDDEN, num_classes=6,
                         dilations=(1, 6, 12, 18), dropout_ratio=0.0, norm_cfg=dict(type='BN'), align_corners=False,
                         act_cfg=dict(type='LeakyReLU', negative_slope=0.01))))
    shorten(model.backbone)
    return model.double().eval()


def test_backbone_gives_the_same_features(published, images):
    state = dict(published.body.state_dict(), **{'classifier.fc.weight': torch.zeros(2, 2),
                                                 'classifier.fc.bias': torch.zeros(2)})
    backbone = shorten(MODELS.build(backbone_config()))
    backbone.load_state_dict(convert_iabn(state, EPS))
    assert any((tensor < 0).any() for name, tensor in state.items() if 'bn' in name and name.endswith('weight'))
    for expected, features in zip(published.body(images), backbone(images)):
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_segmentor_gives_the_same_logits_from_a_file_of_a_wrapped_network(published, images, tmp_path):
    torch.save({'model_state': {f'module.{k}': v for k, v in published.state_dict().items()}, 'epoch': 3},
               tmp_path / 'step.pth')
    model = segmentor()
    model.load_state_dict(convert_iabn(load_iabn(tmp_path / 'step.pth'), EPS))
    expected = published(images)
    torch.testing.assert_close(model._forward(images), expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_weights_are_positive_and_hold_eps():
    body = {'mod1.conv1.weight': torch.ones(1, 3, 7, 7), 'mod1.bn1.weight': torch.tensor([-0.5, 0.0, 0.25])}
    assert convert_iabn(body, eps=0.1)['bn1.weight'].tolist() == pytest.approx([0.6, 0.1, 0.35])


@pytest.mark.parametrize('change, message', [
    (lambda state: state.update({'body.mod2.block1.conv1.weight': torch.zeros(1)}),
     r"conv1\.weight' is not a tensor"),
    (lambda state: state.update({'body.mod2.block1.convs.conv1.bias': torch.zeros(1)}),
     r"conv1\.bias' is not a tensor"),
    (lambda state: state.update({'head.spare.weight': torch.zeros(1)}), r"'head\.spare\.weight' is not a tensor"),
    (lambda state: state.pop('head.red_conv.weight'), r"has no 'head\.red_conv\.weight'"),
    (lambda state: state.pop('body.mod1.conv1.weight'), r"has no 'mod1\.conv1\.weight'"),
    (lambda state: [state.pop(f'cls.{i}.weight') for i in range(3)], r"no classifier 'cls\.0\.weight'"),
])
def test_what_does_not_match_is_named(published, change, message):
    state = published.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_iabn(state)


def test_a_resnet_of_another_layout_is_refused():
    with pytest.raises(ValueError, match=r"'layer1\.0\.conv1\.weight' is not a tensor of an in-place ABN ResNet"):
        convert_iabn({'layer1.0.conv1.weight': torch.zeros(1)})


def test_files_that_could_run_code_or_hold_no_weights_are_refused(tmp_path):
    torch.save(dict(state_dict={}, args=argparse.Namespace()), tmp_path / 'code.pth')
    with pytest.raises(ValueError, match=r'holds more than tensors.*save only its weights'):
        load_iabn(tmp_path / 'code.pth')
    torch.save(dict(epoch=3), tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='has no weights'):
        load_iabn(tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='does not exist'):
        load_iabn(tmp_path / 'missing.pth')


def test_tool_writes_what_mmengine_loads_into_the_backbone(published, tmp_path, repo):
    # The format of files of 2019.
    torch.save(dict(state_dict=published.body.state_dict()), tmp_path / 'old.pth.tar',
               _use_new_zipfile_serialization=False)
    command = [sys.executable, str(repo / 'tools/convert_iabn.py'), str(tmp_path / 'old.pth.tar'),
               str(tmp_path / 'new.pth')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    backbone = shorten(MODELS.build(backbone_config()))
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'new.pth'))
    backbone.init_weights()
    torch.testing.assert_close(backbone.layer4[1].bn3.weight, published.body.mod5.block2.convs.bn3.weight.abs() + EPS)
    assert set(load_checkpoint(tmp_path / 'new.pth')['state_dict']) == set(backbone.state_dict())
