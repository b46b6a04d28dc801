"""Renumbering a segmentor's config: which numbers change, which do not, what is refused."""
import mmseg.models  # noqa: F401
import pytest
from mmengine.config import ConfigDict

from mmseg_hrhf.config.plain import set_classes

NAMES = ['background', 'a', 'b', 'c', 'd']


def test_every_head_of_the_main_head_s_classes_is_renumbered_and_no_other():
    model = dict(
        decode_head=[dict(type='FCNHead', num_classes=19), dict(type='OCRHead', num_classes=19, out_channels=19)],
        auxiliary_head=[dict(type='FCNHead', num_classes=19), dict(type='FCNHead', num_classes=7)])
    out = set_classes(model, NAMES)
    assert [head['num_classes'] for head in out['decode_head'] + out['auxiliary_head']] == [5, 5, 5, 7]
    assert out['decode_head'][1]['out_channels'] == 5 and model['decode_head'][0]['num_classes'] == 19


def test_boundary_head_is_left_alone_even_where_the_data_has_two_classes():
    out = set_classes(
        dict(decode_head=dict(type='FCNHead', num_classes=2), auxiliary_head=dict(type='STDCHead', num_classes=2)),
        NAMES)
    assert out['decode_head']['num_classes'] == 5 and out['auxiliary_head']['num_classes'] == 2


def test_parts_of_a_head_are_renumbered_and_their_feature_channels_are_not():
    head = dict(
        type='IterativeDecodeHead',
        kernel_generate_head=dict(type='FCNHead', num_classes=150),
        kernel_update_head=[dict(type='KernelUpdateHead', num_classes=150, out_channels=512)] * 2)
    out = set_classes(ConfigDict(decode_head=head), NAMES)['decode_head']
    assert out['kernel_generate_head']['num_classes'] == 5
    assert [(part.num_classes, part.out_channels) for part in out['kernel_update_head']] == [(5, 512)] * 2


def test_mask_features_and_class_weights_of_a_query_based_head():
    head = dict(type='MaskFormerHead', num_classes=150, out_channels=256,
                loss_cls=dict(type='CrossEntropyLoss', class_weight=[1.0] * 150 + [0.1]))
    out = set_classes(dict(decode_head=head), NAMES)['decode_head']
    assert (out['num_classes'], out['out_channels']) == (5, 256)
    assert out['loss_cls']['class_weight'] == [1.0] * 5 + [0.1]


def test_the_vocabulary_of_a_text_encoder_is_the_classes():
    model = dict(text_encoder=dict(dataset_name='coco-stuff164k'),
                 decode_head=dict(type='SideAdapterCLIPHead', num_classes=171))
    out = set_classes(model, NAMES)
    assert out['text_encoder'] == dict(dataset_name=None, vocabulary=NAMES)
    assert out['decode_head']['num_classes'] == 5


def test_one_channel_for_two_classes_is_refused():
    with pytest.raises(ValueError, match='FCNHead has out_channels=1 for 2 classes'):
        set_classes(dict(decode_head=dict(type='FCNHead', num_classes=2, out_channels=1)), NAMES)


@pytest.mark.parametrize('weights', [[0.5, 1.0, 1.0], [1.0] * 2, [1.0] * 5, 'weights.pkl'])
def test_class_weights_that_belong_to_classes_are_refused(weights):
    head = dict(type='FCNHead', num_classes=3, loss_decode=[dict(type='CrossEntropyLoss', class_weight=weights)])
    with pytest.raises(ValueError, match='FCNHead has a loss with class_weight for 3 classes'):
        set_classes(dict(decode_head=head), NAMES)


@pytest.mark.parametrize('model', [{}, dict(decode_head=dict(type='VPDDepthHead'))])
def test_a_model_without_classes_is_refused(model):
    with pytest.raises(ValueError, match='num_classes is missing'):
        set_classes(model, NAMES)
