"""DKD: losses against their formulas, background without a classifier, and the auxiliary classifier."""
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from torch import nn

from mmseg_hrhf.models.segmentors import DKD
from mmseg_hrhf.models.segmentors.dkd import checked_classifier, try_classifier
from mmseg_hrhf.utils.errors import UserError

AUXILIARY = 'decode_head.next_classifier.'


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


@pytest.fixture
def build_dkd(build_system):
    """``build(**options)``: DKD at step 1, or at step 0 if ``num_old=0``; the auxiliary classifier is large."""
    def build(num_old=3, num_classes=5, **options):
        generator = torch.Generator().manual_seed(1)
        state = dict(method='DKD', classifier=dict(weight=torch.randn(1, 4, 1, 1, generator=generator),
                                                   bias=torch.randn(1, generator=generator)))
        return build_system('DKD', num_old, num_classes, method_state=state, **options)

    return build


def moved(model, size=0.3):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter += size * torch.randn_like(parameter)
    return model


def features_of(network, inputs):
    """(N, D, H, W): what the main head classifies, at label resolution."""
    head = network.decode_head
    return F.interpolate(head._forward_feature(network.extract_feat(inputs)), size=inputs.shape[2:], mode='bilinear')


def bit_loss(z, y):
    """Binary cross-entropy of one logit."""
    return y * max(-z, 0) + (1 - y) * max(z, 0) + math.log1p(math.exp(-abs(z)))


def soft_loss(new, old):
    return sum(map(bit_loss, new.tolist(), old.sigmoid().tolist()))


@pytest.mark.parametrize('threshold', [0.5, 0.3])
@pytest.mark.parametrize('num_old', [0, 3])
def test_losses_pixel_by_pixel(build_dkd, make_batch, num_old, threshold):
    """In float64. Scores are sums of upsampled products, as mmseg upsamples logits."""
    model = moved(build_dkd(num_old, threshold=threshold, positive_weight=(3., 7.), loss_kd=dict(loss_weight=2.),
                            loss_dkd=dict(loss_weight=4.))).double().eval()
    inputs, samples = make_batch([0, 1, 3, 4, 255])
    inputs = inputs.double()
    losses = model.loss(inputs, samples)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    gamma, first = (7., num_old) if num_old else (3., 1)
    shift = math.log(threshold / (1 - threshold))
    with torch.no_grad():
        head = model.student.decode_head
        logits = model.student.encode_decode(inputs, [dict(img_shape=(16, 16))] * 2) + shift
        u = features_of(model.student, inputs)
        unseen = (u * head.next_classifier.weight[0]).sum(1) + head.next_classifier.bias + shift
        mbce = ac = kd = dkd = 0.
        for n in range(2):
            for y in range(16):
                for x in range(16):
                    label = int(labels[n, y, x])
                    if label == 255:
                        continue
                    for z, c in zip(logits[n, first:, y, x].tolist(), range(first, 5)):
                        mbce += gamma * bit_loss(z, 1) if label == c else bit_loss(z, 0)
                    ac += bit_loss(unseen[n, y, x].item(), 0)
        if num_old:
            small = [network.decode_head._forward_feature(network.extract_feat(inputs))
                     for network in (model.student, model.teacher)]
            old = model.teacher.encode_decode(inputs, [dict(img_shape=(16, 16))] * 2) + shift
            for c in range(1, num_old):
                scores = []
                for features, network in zip(small, (model.student, model.teacher)):
                    products = features * network.decode_head.conv_seg.weight[c]
                    for part in (products.clamp(min=0), products.clamp(max=0)):
                        scores.append(F.interpolate(part.sum(1, keepdim=True), size=(16, 16), mode='bilinear')[:, 0])
                new_above, new_below, old_above, old_below = (score.flatten() for score in scores)
                kd += soft_loss(logits[:, c].flatten(), old[:, c].flatten())
                dkd += soft_loss(new_above, old_above) + soft_loss(new_below, old_below)
    number = labels.numel()
    expected = {'decode.loss_bce': mbce / number, 'loss_ac': ac / number}
    if num_old:
        expected.update(loss_kd=2 * kd / number, loss_dkd=4 * dkd / number)
    assert {name for name in losses if 'loss' in name} == {*expected, 'aux.loss_bce'}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-9), name


def test_gradients_are_those_of_the_formulas(build_dkd, make_batch):
    """In float64, at every parameter; autograd of the definitions, product by product."""
    model = moved(build_dkd()).double().eval()
    inputs, samples = make_batch([0, 3, 4])
    inputs, labels = inputs.double(), torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    weights = dict(model.student.named_parameters())
    total(model.loss(inputs, samples)).backward()
    stages = model.student.extract_feat(inputs)
    sums = []
    for network, maps in ((model.student, stages), (model.teacher, model.teacher.extract_feat(inputs))):
        u = network.decode_head._forward_feature(maps)
        products = u[:, None] * network.decode_head.conv_seg.weight[1:3][None]
        z = torch.cat([products.clamp(min=0).sum(2), products.clamp(max=0).sum(2)], 1)
        sums.append((u, network.decode_head.conv_seg(u), z))

    def up(z):
        return F.interpolate(z, size=(16, 16), mode='bilinear')

    def bce(z, y):
        return F.binary_cross_entropy_with_logits(z, y, reduction='none').sum(1).mean()

    (u, z, parts), (_, old_z, old_parts) = sums
    one_hot = torch.stack([labels == c for c in (3, 4)], 1).double()
    auxiliary = model.student.auxiliary_head.forward(stages)
    unseen = model.student.decode_head.next_classifier(u.detach())
    expected = (bce(up(z[:, 3:]), one_hot) + 0.4 * bce(up(auxiliary[:, 3:]), one_hot)
                + 5 * bce(up(z[:, 1:3]), up(old_z[:, 1:]).sigmoid()) + 5 * bce(up(parts), up(old_parts).sigmoid())
                + bce(up(unseen), torch.zeros(2, 1, 16, 16).double()))
    for (name, weight), gradient in zip(weights.items(), torch.autograd.grad(expected, list(weights.values()))):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-8, atol=1e-12, msg=name)
        assert name.endswith('conv_seg.bias') or gradient.any(), name


def test_the_auxiliary_loss_trains_the_auxiliary_classifier_alone(build_dkd, make_batch):
    for num_old in (0, 3):
        model = build_dkd(num_old).train()
        model.loss(*make_batch([0, 3, 4]))['loss_ac'].backward()
        assert {name for name, weight in model.named_parameters() if weight.grad is not None} == {
            f'{AUXILIARY}weight', f'{AUXILIARY}bias'}


def test_auxiliary_heads_keep_their_weight_and_have_no_other_loss(build_dkd, make_batch):
    model = build_dkd(0, 3).eval()
    with torch.no_grad():
        for head in (model.student.decode_head, model.student.auxiliary_head):
            head.conv_seg.weight.zero_(), head.conv_seg.bias.zero_()
        losses = model.loss(*make_batch([0]))
    assert losses['decode.loss_bce'].item() == pytest.approx(2 * math.log(2))  # two classes, one bit each
    assert losses['aux.loss_bce'].item() == pytest.approx(0.4 * 2 * math.log(2))


@pytest.mark.parametrize('threshold', [0.5, 0.3, 0.8])
@pytest.mark.parametrize('num_old', [0, 3])
def test_the_plain_segmentor_predicts_by_eq_12(build_dkd, build_system, make_batch, num_old, threshold):
    model = build_dkd(num_old, threshold=threshold)
    inputs, samples = make_batch([0, 1, 2, 3, 4])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        total(model.train().loss(inputs, samples)).backward()
        optimizer.step()
    with torch.no_grad():  # so that all answers occur
        conv, u = model.eval().student.decode_head.conv_seg, features_of(model.student, inputs)
        conv.weight[1:] = torch.randn(4, 4, 1, 1) / u.std()
        conv.bias[1:] = -F.conv2d(u, conv.weight[1:]).amax(1).median()
    plain = build_system('FT', num_old=0).student
    plain.load_state_dict(model.plain_weights(model.state_dict()))
    plain.eval().test_cfg = ConfigDict(mode='whole')
    with torch.no_grad():
        z = F.conv2d(u.double(), conv.weight[1:].double(), conv.bias[1:].double())
        p = (z + math.log(threshold / (1 - threshold))).sigmoid()
        expected = torch.where(p.amax(1) < threshold, 0, 1 + p.argmax(1))
        found = torch.stack([sample.pred_sem_seg.data[0] for sample in plain.predict(inputs)])
    clear = (p.amax(1) - threshold).abs() > 1e-5  # not decided by rounding
    assert torch.equal(found[clear], expected[clear]) and clear.float().mean() > 0.9
    assert 0 in found and len(found.unique()) > 2


@pytest.mark.parametrize('optimizer', [
    lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.1),
])
@pytest.mark.parametrize('num_old', [0, 3])
def test_background_stays_zero(build_dkd, make_batch, optimizer, num_old):
    """Even if initial weights hold a classifier of background."""
    model = build_dkd(num_old).train()
    conv = model.student.decode_head.conv_seg
    assert not conv.weight[0].any() and not conv.bias[0].any() and conv.weight[1:].any()
    with torch.no_grad():
        conv.weight[0], conv.bias[0] = 1, 1
    before, optimizer = conv.weight.detach().clone(), optimizer(model.parameters())
    for seed in range(4):
        optimizer.zero_grad()
        total(model.loss(*make_batch([0, 1, 2, 3, 4], seed=seed))).backward()
        assert not conv.weight.grad[0].any() and not conv.bias.grad[0].any()
        optimizer.step()
    assert not conv.weight[0].any() and not conv.bias[0].any()
    assert all(not torch.equal(*rows) for rows in zip(conv.weight[1:], before[1:]))


def test_new_classes_start_from_the_auxiliary_classifier(build_dkd):
    model = build_dkd()
    conv, auxiliary, old = (model.student.decode_head.conv_seg, model.student.decode_head.next_classifier,
                            model.teacher.decode_head.conv_seg)
    for name in ('weight', 'bias'):
        rows, start, known = (getattr(layer, name) for layer in (conv, auxiliary, old))
        assert torch.equal(rows[1:3], known[1:]) and not rows[0].any()
        assert torch.equal(rows[3:], start.expand_as(rows[3:])) and start.any()
        assert torch.equal(start.detach(), model.method_state()['classifier'][name])
    auxiliary = model.student.auxiliary_head.conv_seg
    assert not torch.equal(auxiliary.weight[3], auxiliary.weight[4])  # at random


def test_plain_weights_are_those_of_a_plain_segmentor(build_dkd, build_system):
    model = build_dkd()
    state = model.state_dict()
    assert set(model.plain_weights(state)) == set(build_system('FT').student.state_dict())
    assert set(state) - set(model.plain_weights(state)) == {f'{AUXILIARY}weight', f'{AUXILIARY}bias'}


def test_an_optimizer_s_options_for_the_head_hold_for_the_auxiliary_classifier(build_dkd):
    model = build_dkd()
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=1.), constructor='StudentOptimWrapperConstructor',
        student_constructor='DefaultOptimWrapperConstructor',
        paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10.)})))
    weight = model.student.decode_head.next_classifier.weight
    rates = [group['lr'] for group in wrapper.optimizer.param_groups if any(held is weight for held in group['params'])]
    assert rates == [10.]


@MODELS.register_module(force=True)
class BiasFreeHead(FCNHead):

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv_seg = nn.Conv2d(self.channels, self.num_classes, 1, bias=False)


def test_a_classifier_without_bias(build_system, make_batch):
    head = dict(type='BiasFreeHead')
    state = dict(method='DKD', classifier=dict(weight=torch.ones(1, 4, 1, 1)))
    for model in (build_system('DKD', 0, head=head), build_system('DKD', method_state=state, head=head)):
        total(model.train().loss(*make_batch([0, 3, 4]))).backward()
        assert set(model.method_state()['classifier']) == {'weight'}
        assert not model.student.decode_head.conv_seg.weight[0].any()
    assert (model.student.decode_head.conv_seg.weight[3:] == 1).all()
    DKD.check_segmentor(model.student, (16, 16))


@MODELS.register_module(force=True)
class ScaledHead(FCNHead):
    """Its logits are not those of ``conv_seg``."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


@MODELS.register_module(force=True)
class NormalisedHead(FCNHead):

    def cls_seg(self, feat):
        return super().cls_seg(F.normalize(feat))


@MODELS.register_module(force=True)
class WideHead(FCNHead):

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv_seg = nn.Conv2d(self.channels, self.num_classes, 3, padding=1)


@pytest.mark.parametrize('head', ['ScaledHead', 'NormalisedHead', 'WideHead'])
def test_a_head_that_cannot_be_decomposed_is_refused(build_system, head):
    model = build_system('FT', head=dict(type=head)).student
    with pytest.raises(ValueError, match=rf"{head} does not classify by mmseg's conv_seg alone, .*: choose another"):
        DKD.check_segmentor(model, (16, 16))
    if head != 'ScaledHead':  # found without a trial
        with pytest.raises(ValueError, match=rf'{head} does not classify'):
            build_system('DKD', num_old=0, head=dict(type=head))


def test_a_network_that_cannot_be_tried_is_not_refused(build_system):
    model = build_system('FT').student
    model.backbone.conv1 = nn.Conv2d(6, 4, 7)
    try_classifier(model, (16, 16))
    assert checked_classifier(model) is model.decode_head.conv_seg


@pytest.mark.parametrize('options, message', [
    (dict(classifier_start='mib'), r"method\.classifier_start='mib': DKD's new classes start from its auxiliary"),
    (dict(threshold=0.), r'method\.threshold=0\.0 must be between 0 and 1, both excluded'),
    (dict(threshold=1), r'method\.threshold=1 must be between 0 and 1'),
    (dict(positive_weight=(2., 0.)), r'method\.positive_weight=\(2\.0, 0\.0\) must be two positive numbers'),
    (dict(loss_dkd=dict(loss_weight=-1.)), r'method\.loss_dkd=.*loss_weight=-1\.0 must not be negative'),
])
def test_options_out_of_range_are_refused(build_dkd, options, message):
    with pytest.raises(ValueError, match=message):
        build_dkd(0, **options)


def test_a_previous_step_of_another_method_is_refused(build_system):
    for state in (None, dict(method='EWC')):
        with pytest.raises(ValueError, match=r'no auxiliary classifier of DKD: train .*, with method\.type=DKD'):
            build_system('DKD', method_state=state)


def test_each_network_runs_once_and_every_weight_trains(build_dkd, make_batch):
    model, calls = build_dkd().train(), []
    for name, network in (('student', model.student), ('teacher', model.teacher)):
        network.backbone.register_forward_hook(lambda *args, name=name: calls.append(name))
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    total(model.loss(*make_batch([0, 3, 4]))).backward()
    assert sorted(calls) == ['student', 'teacher']
    assert all(weight.grad is not None for weight in model.parameters())  # as DDP requires
    assert all(torch.equal(before[name], tensor) for name, tensor in model.teacher.state_dict().items())


def test_a_backbone_may_be_frozen(build_dkd, make_batch):
    model = build_dkd(freeze_backbone=True).train()
    total(model.loss(*make_batch([0, 3, 4]))).backward()
    assert {name.split('.')[0] for name, weight in model.named_parameters() if weight.grad is not None} == {
        'decode_head', 'auxiliary_head'}


@pytest.mark.parametrize('option', ['loss_kd', 'loss_dkd'])
def test_a_loss_that_folds_new_classes_into_background_is_refused(option):
    with pytest.raises(UserError, match=rf'method\.{option}=.* merges new classes into background'):
        DKD.check_options({option: dict(type='DistillationLoss')})
    DKD.check_options({option: dict(loss_weight=2.0)})
