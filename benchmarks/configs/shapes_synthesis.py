# Ways to synthesise 48 fakes a step, compared by the student that they teach: the published schedule, stages from
# coarse to fine, fewer iterations of these, and half precision. All have the weights that were chosen for the stages.
_base_ = ['shapes.py']
replay = dict(num_images=48)


def _hrhf(**inversion):
    return dict(method=dict(_delete_=True, type='HRHF'), replay=dict(inversion=inversion))


comparison = dict(
    methods={
        'published': _hrhf(stages=[(1.0, 1000)], lr=0.25, batch_size=16),
        'stages': _hrhf(),
        'half the stages': _hrhf(stages=[(0.5, 50), (1.0, 30)]),
        'a quarter of the stages': _hrhf(stages=[(0.5, 25), (1.0, 15)]),
        'stages, bf16': _hrhf(amp='bf16'),
    })
