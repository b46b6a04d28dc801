# Half-Real Half-Fake Distillation. Add this file and a `scenario` to a model's config for an incremental run.
__import__('mmseg_hrhf').register_all()  # not custom_imports, which another base config may set
runner_type = 'IncrementalRunner'
method = dict(type='HRHF')  # loss_kd=dict(type='DistillationLoss', loss_weight=1.0), lambda of eq. 5
replay = dict(
    ratio='1:1',  # real:fake in every batch (Table 6)
    num_images=None,  # as many as the step has real images, within 512 to 4096
    inversion=dict(
        # By default, size is the network's training size, and batch_size is the paper's 16, or fewer above 512 x 512.
        type='SegInversion',
        aggregation=dict(type='ScaleAwareAggregation', r=(0.5, 1, 5, 10, 20)),
        # As published (section 4.2), except for the weights of the prior, which the paper does not state. At small
        # sizes, coarse-to-fine stages with a lower lr gave far better images in less time; at 512 pixels,
        # neither has been measured here (benchmarks/notes/seginversion.md).
        stages=[(1.0, 1000)],
        lr=0.25))
# For tools/compare.py: published loss weights that depend on the task. MiB's distillation weight is 100 on VOC 15-1 and
# 10 on other tasks; on ADE20K, PLOP's weights are lower than on VOC, and DKD's positive weight is higher.
comparison = dict(
    methods_by_task={
        '15-1': dict(MiB=dict(method=dict(loss_kd=dict(loss_weight=100.0)))),
        **{
            task: dict(
                PLOP=dict(method=dict(loss_pod=dict(loss_weight=0.001), loss_pod_logits=dict(loss_weight=0.00001))),
                DKD=dict(method=dict(positive_weight=(35.0, 35.0))))
            for task in ('100-50', '100-10', '100-5', '50-50')
        }
    })
