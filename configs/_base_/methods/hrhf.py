# Half-Real Half-Fake Distillation. A model's config, this file and a `scenario` make an incremental run.
__import__('mmseg_hrhf').register_all()  # not by custom_imports, which a config beside this one may have of its own
runner_type = 'IncrementalRunner'
method = dict(type='HRHF')  # loss_kd=dict(type='DistillationLoss', loss_weight=1.0), lambda of eq. 5
replay = dict(
    ratio='1:1',  # real:fake in every batch (Table 6)
    num_images=None,  # as many as the step has real images, within 512 to 4096
    inversion=dict(
        # size=: that on which the network trains. batch_size=: the paper's 16, and fewer above 512 x 512 pixels.
        type='SegInversion',
        aggregation=dict(type='ScaleAwareAggregation', r=(0.5, 1, 5, 10, 20)),
        # As published (section 4.2); the weights of the prior are ours, the paper names none. At small sizes, stages
        # from coarse to fine with a lower lr made far better images in less time (docs/results.md); at 512 pixels
        # neither form has been measured here.
        stages=[(1.0, 1000)],
        lr=0.25))
# For tools/compare.py: weights that authors publish for some tasks alone. MiB's distillation weighs 100 on VOC 15-1 and
# 10 on the others; PLOP's terms weigh less on ADE20K than on VOC.
comparison = dict(
    methods_by_task={
        '15-1': dict(MiB=dict(method=dict(loss_kd=dict(loss_weight=100.0)))),
        **{
            task: dict(
                PLOP=dict(method=dict(loss_pod=dict(loss_weight=0.001), loss_pod_logits=dict(loss_weight=0.00001))))
            for task in ('100-50', '100-10', '100-5', '50-50')
        }
    })
