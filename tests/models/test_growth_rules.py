"""Growth of mmseg's own heads: what each rule keeps of the old head's answers, on tiny heads with random weights."""
import importlib
import math

import mmseg.models  # noqa: F401
import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from mmseg_hrhf.models.growth import grow_classifier, grow_state
from mmseg_hrhf.models.heads import query_log_probability

OLD, NEW = 3, 5
NORM = dict(type='BN', requires_grad=True)
PLAIN = dict(in_channels=4, channels=4, norm_cfg=NORM, dropout_ratio=0., align_corners=False)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def randomise(head):
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


def grow(make, start='mib'):
    """Old head, and the new one that continues it, as parts of segmentors; and the new one's own random start."""
    old, new = (nn.ModuleDict(dict(decode_head=randomise(make(n)))) for n in (OLD, NEW))
    fresh = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    grow_classifier(new, old.state_dict(), OLD, NEW, start)
    return old.decode_head, new.decode_head, fresh


def head(**cfg):
    return lambda num_classes: MODELS.build(dict(cfg, num_classes=num_classes))


def assert_background_is_shared(old, new):
    """Old classes' logits are kept; background and new classes together have background's old probability."""
    torch.testing.assert_close(new[:, 1:OLD], old[:, 1:], atol=1e-4, rtol=1e-4)
    shared = old[:, :1] - math.log(NEW - OLD + 1)
    for c in (0, *range(OLD, NEW)):
        torch.testing.assert_close(new[:, c:c + 1], shared, atol=1e-4, rtol=1e-4)


def features(channels=4, size=8):
    return torch.randn(2, channels, size, size)


@torch.no_grad()
def test_plain_rows_of_a_head():
    old, new, _ = grow(head(type='FCNHead', num_convs=1, in_index=0, **PLAIN))
    x = [features()]
    assert_background_is_shared(old.eval()(x), new.eval()(x))


@torch.no_grad()
def test_all_three_classifiers_of_danet():
    old, new, _ = grow(head(type='DAHead', pam_channels=2, in_index=0, **PLAIN))
    x = [features()]
    for before, after in zip(old.eval()(x), new.eval()(x)):
        assert_background_is_shared(before, after)


@torch.no_grad()
def test_presence_of_encnet_keeps_its_answers_and_does_not_guess_the_new_classes():
    old, new, fresh = grow(head(type='EncHead', num_codes=2, in_index=[0], **dict(PLAIN, in_channels=[4])))
    x = [features()]
    (before, presence), (after, grown) = old.eval()(x), new.eval()(x)
    assert_background_is_shared(before, after)
    torch.testing.assert_close(grown[:, :OLD], presence)
    assert torch.equal(new.se_layer.weight[OLD:], fresh['decode_head.se_layer.weight'][OLD:])


@torch.no_grad()
def test_both_classifiers_of_ddrnet():
    old, new, _ = grow(head(type='DDRHead', in_channels=4, channels=4, dropout_ratio=0))
    x = features(2), features(4)
    for before, after in zip(old.train()(x), new.train()(x)):
        assert_background_is_shared(before, after)


@torch.no_grad()
def test_classifiers_of_pidnet_and_its_boundary():
    old, new, _ = grow(head(type='PIDHead', in_channels=4, channels=4, dropout_ratio=0))
    x = features(2), features(4), features(2)
    (p, i, d), (p_new, i_new, d_new) = old.train()(x), new.train()(x)
    assert_background_is_shared(p, p_new)
    assert_background_is_shared(i, i_new)
    assert torch.equal(d, d_new)


@torch.no_grad()
def test_stdc_s_boundary_head_stays_whole():
    make = head(type='STDCHead', boundary_threshold=0.1, num_convs=1, in_index=0, **PLAIN)
    old, new = (nn.ModuleDict(dict(auxiliary_head=make(2))) for _ in range(2))
    grow_classifier(new, old.state_dict(), OLD, NEW, 'mib')
    assert all(torch.equal(old.state_dict()[name], tensor) for name, tensor in new.state_dict().items())


class QueryHead(nn.Module):
    """The classifying part of MaskFormer and Mask2Former: classes, then no-object."""

    def __init__(self, num_classes):
        super().__init__()
        self.cls_embed = nn.Linear(4, num_classes + 1)


class Target:
    masks = torch.zeros(0, 16, 16)


@torch.no_grad()
def test_no_object_stays_last_and_background_shares_in_every_query_and_pixel():
    old, new, _ = grow(QueryHead)
    queries, masks = torch.randn(2, 7, 4), torch.randn(2, 7, 8, 8)
    before, after = old.cls_embed(queries).softmax(-1), new.cls_embed(queries).softmax(-1)
    torch.testing.assert_close(after[..., 1:OLD], before[..., 1:OLD])
    torch.testing.assert_close(after[..., -1], before[..., -1])
    torch.testing.assert_close(after[..., 0] + after[..., OLD:-1].sum(-1), before[..., 0])
    before, after = (query_log_probability(net.cls_embed(queries), masks, [Target]) for net in (old, new))
    assert_background_is_shared(before, after)


def test_random_start_of_a_query_based_head():
    old, new, fresh = grow(QueryHead, 'random')
    for name in ('weight', 'bias'):
        tensor, before = getattr(new.cls_embed, name), getattr(old.cls_embed, name)
        assert torch.equal(tensor[:OLD], before[:OLD]) and torch.equal(tensor[-1], before[-1])
        assert torch.equal(tensor[OLD:-1], fresh[f'decode_head.cls_embed.{name}'][OLD:-1])


@torch.no_grad()
@pytest.mark.parametrize('each_layer', [True, False])
def test_pointrend_keeps_its_answers_though_its_inputs_grew(monkeypatch, each_layer):
    # The op that picks points is not used here.
    monkeypatch.setattr(importlib.import_module('mmseg.models.decode_heads.point_head'), 'point_sample', print)
    old, new, _ = grow(head(type='PointHead', in_channels=[4], in_index=[0], channels=6, num_fcs=2,
                            coarse_pred_each_layer=each_layer, dropout_ratio=0))
    fine, coarse = torch.randn(2, 4, 9), torch.randn(2, OLD, 9)
    shared = coarse[:, :1] - math.log(NEW - OLD + 1)
    grown = torch.cat([shared, coarse[:, 1:], shared.expand(-1, NEW - OLD, -1)], 1)
    assert_background_is_shared(old(fine, coarse), new(fine, grown))


@torch.no_grad()
def test_segmenter_s_new_classes_are_background_once_more():
    old, new, _ = grow(head(type='SegmenterMaskTransformerHead', num_layers=1, num_heads=2, embed_dims=4,
                            in_index=0, **dict(PLAIN, norm_cfg=dict(type='LN'))))
    x = [features()]
    before, after = old.eval()(x), new.eval()(x)
    for c in range(OLD, NEW):
        torch.testing.assert_close(after[:, c], after[:, 0])
    # A norm over classes and attention among their tokens: the old logits do shift, and the docs say so.
    assert not torch.allclose(after[:, 1:OLD], before[:, 1:], atol=1e-3)
    torch.testing.assert_close(new.cls_emb[:, :OLD], old.cls_emb)
    assert torch.equal(new.mask_norm.weight[OLD:], old.mask_norm.weight[:1].expand(NEW - OLD))


def knet(num_classes):
    update = dict(type='KernelUpdateHead', num_classes=num_classes, num_ffn_fcs=2, num_heads=1, num_mask_fcs=1,
                  feedforward_channels=4, in_channels=4, out_channels=4, conv_kernel_size=1,
                  feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
                  kernel_updator_cfg=dict(type='KernelUpdator', in_channels=4, feat_channels=4, out_channels=4,
                                          act_cfg=dict(type='ReLU'), norm_cfg=dict(type='LN')))
    return MODELS.build(dict(
        type='IterativeDecodeHead', num_stages=1, kernel_update_head=[update],
        kernel_generate_head=dict(type='FCNHead', num_convs=1, in_index=0, num_classes=num_classes, **PLAIN)))


@torch.no_grad()
def test_knet_s_first_stage_is_kept_and_new_kernels_are_background_s():
    old, new, _ = grow(knet)
    x = [features()]
    outputs = []
    for network in (old, new):
        network.train()
        network.kernel_generate_head.eval()
        outputs.append(network(x))
    assert_background_is_shared(outputs[0][0], outputs[1][0])
    for c in range(OLD, NEW):
        torch.testing.assert_close(outputs[1][-1][:, c], outputs[1][-1][:, 0])


@torch.no_grad()
def test_every_head_of_a_cascade():
    def make(num_classes):
        first = dict(type='FCNHead', num_convs=1, in_index=0, num_classes=num_classes, **PLAIN)
        second = dict(type='OCRHead', ocr_channels=4, in_index=0, num_classes=num_classes, **PLAIN)
        return nn.ModuleList(MODELS.build(cfg) for cfg in (first, second))

    old, new, _ = grow(make)
    x = [features()]
    before, after = old[0].eval()(x), new[0].eval()(x)
    assert_background_is_shared(before, after)
    after, before = new[1].eval()(x, after), old[1].eval()(x, before)
    assert torch.equal(new[1].conv_seg.weight[OLD:], old[1].conv_seg.weight[:1].expand(NEW - OLD, -1, -1, -1))
    assert after.shape[1] == NEW and before.shape[1] == OLD


@pytest.mark.parametrize('name, old, new', [
    ('decode_head.scale.weight', (OLD, ), (NEW, )),  # a vector over classes is no classifier
    ('decode_head.table', (4, OLD), (4, NEW)),
    ('decode_head.cls_embed.weight', (OLD, 4), (NEW, 5)),
    ('decode_head.fcs.0.conv.weight', (6, 4 + OLD, 1), (6, 5 + NEW, 1)),
    ('decode_head.mask_norm.weight', (OLD + 1, ), (NEW + 1, )),
])
def test_a_tensor_that_no_rule_explains_is_named(name, old, new):
    with pytest.raises(ValueError, match=rf'{name}.*no rule explains how it grows from {OLD} to {NEW} classes'):
        grow_state({name: torch.zeros(new)}, {name: torch.zeros(old)}, OLD, NEW)
