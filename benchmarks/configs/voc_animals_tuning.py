# SegInversion's open choices, one at a time, on the classes of VOC-animals' step 0 alone: cat and cow, then dog,
# judged on images of the training list that are held back (benchmarks/hold_back.py writes LISTS).
_base_ = ['voc_animals_3-1.py']
lists = '{{$LISTS:work_dirs/voc_animals_lists}}'
scenario = dict(steps=[['cat', 'cow'], ['dog']])
train_dataloader = dict(dataset=dict(ann_file=lists + '/kept.txt'))
test_dataloader = dict(dataset=dict(ann_file=lists + '/held_back.txt'))


def _hrhf(num_images=None, **inversion):
    replay = dict(inversion=inversion)
    if num_images:
        replay['num_images'] = num_images
    return dict(method=dict(_delete_=True, type='HRHF'), replay=replay)


_lr = dict(incremental_overrides=dict(optim_wrapper=dict(optimizer=dict(lr=0.01))))
comparison = dict(
    methods={
        'TV weight 5': _hrhf(tv_weight=5.0),
        'TV weight 30': _hrhf(tv_weight=30.0),
        'feature weight 2': _hrhf(feature_weight=2.0),
        'feature weight 12': _hrhf(feature_weight=12.0),
        'half the iterations': _hrhf(stages=[(0.25, 100), (0.5, 50), (1.0, 15)]),
        'twice the iterations': _hrhf(stages=[(0.25, 400), (0.5, 200), (1.0, 60)]),
        'longer fine stages': _hrhf(stages=[(0.25, 200), (0.5, 200), (1.0, 120)]),
        'full size only': _hrhf(stages=[(1.0, 67)]),
        'one class an image': _hrhf(classes_per_image=(1, )),
        'two classes an image': _hrhf(classes_per_image=(2, )),
        'background in the target': _hrhf(with_background=True),
        '48 fakes': _hrhf(num_images=48),
        '96 fakes': _hrhf(num_images=96),
        # A bound, not a method: see benchmarks/real_images.py.
        'real images for fakes': dict(
            custom_imports=dict(imports=['benchmarks.real_images']),
            method=dict(_delete_=True, type='HRHF'),
            replay=dict(
                num_images=384,
                inversion=dict(
                    _delete_=True,
                    type='RealImages',
                    size={{_base_.crop_size}},
                    data_root={{_base_.data_root}},
                    ann_file=lists + '/kept.txt',
                    labels=(8, 10)))),
        # The schedule, which all methods share.
        'HRHF, lr 0.01': dict(_hrhf(), **_lr),
        'MiB, lr 0.01': dict(method=dict(_delete_=True, type='MiB'), **_lr),
    })
