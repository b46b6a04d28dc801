import numpy as np
import pytest
import torch
from mmseg.registry import MODELS, TASK_UTILS
from torch import nn

from mmseg_hrhf.replay.inspection import recognised
from mmseg_hrhf.replay.inversion import seg_inversion
from mmseg_hrhf.replay.inversion.base import FakeRequest, plan_requests
from mmseg_hrhf.replay.inversion.seg_inversion import SegInversion
from mmseg_hrhf.utils.errors import UserError

NORM = dict(type='BN', requires_grad=True)


class ColourNet(nn.Module):
    """A segmentor that knows red and green by their colour: what it should dream of is known."""
    num_classes = 3
    align_corners = False
    decode_head = None

    def __init__(self):
        super().__init__()
        self.data_preprocessor = MODELS.build(
            dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[63.75] * 3, bgr_to_rgb=True))
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.score = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.score.weight.copy_(torch.tensor([[0., 0., 0.], [4., -4., -2.], [-4., 4., -2.]]).view(3, 3, 1, 1))
            self.score.bias.copy_(torch.tensor([4., 0., 0.]))

    def encode_decode(self, inputs, batch_img_metas):
        return self.score(self.norm(inputs))


@pytest.fixture
def net():
    return ColourNet().eval().requires_grad_(False)


def inversion(**options):
    defaults = dict(type='SegInversion', size=32, stages=[(0.5, 20), (1.0, 20)], lr=0.2, batch_size=4)
    return TASK_UTILS.build({**defaults, **options})


REQUEST = FakeRequest(((1, ), (2, ), (1, ), (2, )), seed=7)


def test_the_network_finds_what_was_asked_for(net):
    batch = inversion()(net, REQUEST)
    shares = recognised(net, batch.images)
    assert batch.images.shape == (4, 32, 32, 3) and batch.images.dtype == torch.uint8
    assert all(shares[i, classes[0]] > 0.01 for i, classes in enumerate(REQUEST.classes))
    assert shares[0, 2] < shares[0, 1] and shares[1, 1] < shares[1, 2]


class ViewNet(ColourNet):
    """Looks at its features as DMNet does, which the usual order of memory alone allows."""

    def encode_decode(self, inputs, batch_img_metas):
        features = self.norm(inputs)
        return self.score(features.view(1, -1, *inputs.shape[2:]).view(inputs.shape))


def test_a_network_that_takes_no_other_order_of_memory():
    view_net = ViewNet().eval().requires_grad_(False)
    shares = recognised(view_net, inversion()(view_net, REQUEST).images)
    assert all(shares[i, classes[0]] > 0.01 for i, classes in enumerate(REQUEST.classes))


def test_several_classes_in_one_image(net):
    shares = recognised(net, inversion()(net, FakeRequest(((1, 2), ), seed=1)).images)
    assert (shares[0, 1:] > 0.01).all()


def test_objects_shrink_as_r_grows_from_the_same_noise(net):
    areas = []
    for r in (0.5, 5, 20):
        batch = inversion(aggregation=dict(type='ScaleAwareAggregation', r=r), feature_weight=0)(net, REQUEST)
        shares = recognised(net, batch.images)
        areas.append(float(np.mean([shares[i, c[0]] for i, c in enumerate(REQUEST.classes)])))
    assert areas[0] > areas[1] > areas[2]


def test_same_request_same_images_another_seed_others(net):
    first, again = (inversion()(net, REQUEST).images for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, inversion()(net, FakeRequest(REQUEST.classes, seed=8)).images)


def test_weights_get_no_gradient_and_global_random_state_is_untouched(net):
    before, state = torch.get_rng_state(), net.state_dict()
    held = {name: tensor.clone() for name, tensor in state.items()}
    inversion()(net, REQUEST)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(held[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_is_not_frozen_is_refused(net):
    with pytest.raises(ValueError, match=r'frozen network: call model\.eval\(\)\.requires_grad_\(False\)'):
        inversion()(net.train(), REQUEST)


def test_feature_statistics_pull_the_images_to_the_running_ones(net):
    net.norm.running_mean.fill_(0.8)
    net.norm.running_var.fill_(0.1)

    def distance(weight):
        losses = inversion(feature_weight=weight, tv_weight=0.0)(net, REQUEST).losses
        return losses['feature'] if weight else None

    assert distance(5.0) < distance(0.05)


def test_prior_smooths(net):
    def roughness(tv_weight):
        images = inversion(tv_weight=tv_weight)(net, REQUEST).images.float()
        return (images[:, 1:] - images[:, :-1]).abs().mean().item()

    assert roughness(5.0) < 0.5 * roughness(0.0)


def test_early_stop_at_the_preset_loss(net):
    calls = []
    batch = inversion(with_background=False, loss_threshold=0.5, stages=[(1.0, 200)])(net, REQUEST, calls.append)
    assert batch.losses['classification'] < 0.5
    assert batch.losses['iterations'] == len(calls) < 200
    assert calls[-2]['classification'] >= 0.5


def test_early_stop_counts_from_the_entropy_of_a_shared_target(net):
    """Class and background share the target: its cross-entropy cannot fall below ln 2."""
    batch = inversion(loss_threshold=0.1, stages=[(1.0, 200)])(net, FakeRequest(((1, ), (2, )), 7))
    assert np.log(2) <= batch.losses['classification'] < np.log(2) + 0.1
    assert batch.losses['iterations'] < 200


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_half_precision_reaches_the_same_classes(net, amp):
    shares = recognised(net, inversion(amp=amp)(net, REQUEST).images)
    assert all(shares[i, classes[0]] > 0.01 for i, classes in enumerate(REQUEST.classes))


def test_fp16_steps_by_the_gradient_of_full_precision(net, monkeypatch):
    """Plain gradient descent sees the scale of a gradient, which Adam mostly divides out."""
    monkeypatch.setattr(seg_inversion, '_adam', lambda images, lr: torch.optim.SGD([images], lr=lr))
    full, half = (inversion(amp=amp, lr=20.0)(net, REQUEST).images.int() for amp in (None, 'fp16'))
    assert (half - full).abs().float().mean() < 1
    start = TASK_UTILS.build(dict(type='SegInversion', size=32, stages=[(1.0, 1)], lr=1e-9))(net, REQUEST).images
    assert (full - start.int()).abs().float().mean() > 10  # far from where they began


def test_a_gradient_that_overflows_in_half_precision_is_tried_again_at_a_smaller_scale(net):
    net.score.weight *= 1000
    calls = []
    batch = inversion(amp='fp16', stages=[(1.0, 40)])(net, REQUEST, calls.append)
    assert 20 < len(calls) < 40 == batch.losses['iterations']  # the others took no step
    shares = recognised(net, batch.images)
    assert all(shares[i, classes[0]] > 0.01 for i, classes in enumerate(REQUEST.classes))


def test_a_term_without_weight_is_not_computed(net):
    def terms(**weights):
        return set(inversion(stages=[(1.0, 1)], **weights)(net, REQUEST).losses)

    assert terms(l2_weight=1e-3) == {'classification', 'feature', 'tv', 'l2', 'iterations'}
    assert terms(tv_weight=0, feature_weight=0) == {'classification', 'iterations'}
    assert terms(tv_weight=1e-3, feature_weight=0) == {'classification', 'tv', 'iterations'}


@pytest.mark.parametrize('size, scale, sizes', [
    ((33, 50), 0.5, [(16, 24), (33, 50)]), (12, 0.25, [(8, 8), (12, 12)]), (64, 0.3, [(16, 16), (64, 64)]),
    (128, 0.5, [(64, 64), (128, 128)])])
def test_stages_are_multiples_of_8_and_the_last_is_the_size_itself(net, size, scale, sizes):
    seen = []
    net.norm.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    inversion(size=size, stages=[(scale, 1), (1.0, 1)])(net, REQUEST)
    assert list(dict.fromkeys(found for found in seen if found != sizes[0])) == sizes[1:] and seen[-2] == sizes[0]


def test_defaults_are_those_of_the_paper():
    built = SegInversion(size=512)
    assert built.size == (512, 512) and built.stages == ((1.0, 1000), ) and built.iterations() == 1000
    assert (built.lr, built.batch_size) == (0.25, 16)
    assert (built.tv_weight, built.l2_weight, built.feature_weight) == (10, 0, 5)
    assert built.classes_per_image == (1, 1, 2) and built.with_background
    assert (built.jitter, built.flip) == (0.06, True)
    assert built.loss_threshold is built.amp is None and SegInversion(size=(1, 7)).size == (1, 7)


def test_images_stay_real_pixels_throughout(net):
    seen = []
    net.norm.register_forward_pre_hook(lambda module, args: seen.append((args[0].min().item(), args[0].max().item())))
    inversion(lr=2.0, tv_weight=0.0)(net, REQUEST)
    assert min(low for low, _ in seen) == pytest.approx(-2) and max(high for _, high in seen) == pytest.approx(2)


def test_a_loss_that_is_not_finite_names_the_batch(net):
    net.score.bias[0] = float('nan')
    with pytest.raises(UserError, match=r'iteration 0 of the batch with seed 7 and classes \[\(1,\), \(2,\)'):
        inversion()(net, REQUEST)


def test_r_is_recorded_per_class_and_average_has_none(net):
    batch = inversion(aggregation=dict(type='ScaleAwareAggregation', r=(3, 4)))(net, FakeRequest(((1, 2), ), 0))
    assert len(batch.r[0]) == 2 and set(batch.r[0]) <= {3.0, 4.0}
    assert inversion(aggregation=dict(type='AverageAggregation'))(net, REQUEST).r == [[], [], [], []]
    assert inversion(aggregation=dict(type='MaxAggregation'))(net, REQUEST).r == [[], [], [], []]


def test_a_real_segmentor_inverts_at_its_own_size():
    model = MODELS.build(dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[255.] * 3),
        backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=2, out_indices=(0, 1),
                      strides=(1, 2), dilations=(1, 1), norm_cfg=NORM),
        decode_head=dict(type='FCNHead', in_channels=8, in_index=1, channels=4, num_convs=1, num_classes=4,
                         norm_cfg=NORM))).eval().requires_grad_(False)
    batch = inversion(size=(40, 56), stages=[(0.5, 2), (1.0, 2)])(model, FakeRequest(((1, ), (3, )), 0))
    assert batch.images.shape == (2, 40, 56, 3) and np.isfinite(batch.losses['feature'])


def test_noise_has_no_loss_and_is_repeatable(net):
    noise = TASK_UTILS.build(dict(type='GaussianNoise', size=16))
    first, again = noise(net, REQUEST), noise(net, REQUEST)
    assert torch.equal(first.images, again.images) and first.losses == {} and first.images.float().std() > 40


def test_noise_is_asked_for_one_class_an_image_and_ends_as_announced(net):
    noise, calls = TASK_UTILS.build(dict(type='GaussianNoise', size=16)), []
    request, = plan_requests(5, 4, noise.batch_size, noise.classes_per_image, seed=0)
    assert [len(classes) for classes in request.classes] == [1] * 5
    noise(net, request, calls.append)
    assert calls == [{}] * noise.iterations() == [{}]


@pytest.mark.parametrize('options, message', [
    (dict(stages=[(0.5, 10)]), 'a last scale of 1'),
    (dict(stages=[(1.0, 0)]), 'at least one'),
    (dict(lr=0), r'replay\.inversion\.lr=0 must be positive'),
    (dict(tv_weight=-1), r'inversion\.tv_weight=-1 must not be negative'),
    (dict(classes_per_image=()), r'inversion\.classes_per_image=\(\)'),
    (dict(classes_per_image=(1, 0)), r'inversion\.classes_per_image=\(1, 0\) must contain numbers of at least 1'),
    (dict(size=(8, 0)), r'inversion\.size=\(8, 0\) must be positive'),
    (dict(amp='fp8'), r"inversion\.amp='fp8' is not one of"),
])
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        SegInversion(**{'size': 32, **options})
