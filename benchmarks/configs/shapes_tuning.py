# SegInversion's open choices, one at a time, on the classes of Shapes' step 0 alone: disc and square, then triangle,
# judged on images of the training list that are held back (benchmarks/hold_back.py writes LISTS).
_base_ = ['shapes.py']
lists = '{{$LISTS:work_dirs/shapes_lists}}'
scenario = dict(_delete_=True, steps=[['disc', 'square'], ['triangle']], setting='overlapped')
train_dataloader = dict(dataset=dict(ann_file=lists + '/kept.txt'))
test_dataloader = dict(dataset=dict(ann_file=lists + '/held_back.txt'))


def _hrhf(num_images=None, **inversion):
    replay = dict(inversion=inversion)
    if num_images:
        replay['num_images'] = num_images
    return dict(method=dict(_delete_=True, type='HRHF'), replay=replay)


comparison = dict(
    methods={
        'TV weight 1': _hrhf(tv_weight=1.0),
        'TV weight 20': _hrhf(tv_weight=20.0),
        'feature weight 1': _hrhf(feature_weight=1.0),
        'feature weight 12': _hrhf(feature_weight=12.0),
        'half the iterations': _hrhf(stages=[(0.5, 50), (1.0, 30)]),
        'twice the iterations': _hrhf(stages=[(0.5, 200), (1.0, 120)]),
        'full size only': _hrhf(stages=[(1.0, 85)]),
        'one class an image': _hrhf(classes_per_image=(1, )),
        'two classes an image': _hrhf(classes_per_image=(2, )),
        'without background': _hrhf(with_background=False),
        'without background, 48 fakes': _hrhf(num_images=48, with_background=False),
        'lr 0.03': _hrhf(lr=0.03),
        'lr 0.03, TV weight 20': _hrhf(lr=0.03, tv_weight=20.0),
        'lr 0.03, feature weight 2': _hrhf(lr=0.03, feature_weight=2.0),
        'lr 0.03, without background': _hrhf(lr=0.03, with_background=False),
        'lr 0.015': _hrhf(lr=0.015),
        '48 fakes': _hrhf(num_images=48),
        '96 fakes': _hrhf(num_images=96),
        'real images for fakes': dict(replay=dict(inversion=dict(ann_file=lists + '/kept.txt'))),
    })
