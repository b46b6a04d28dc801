# DKD with the schedule of its paper, as far as stated: 60 epochs, lr 0.001, then 0.0001, total batch size 32 (8 GPUs
# with 4 each; the lr scales with it). Weight decay, Nesterov momentum, crop and augmentation are not stated: they are
# those of the other methods. In a comparison, all methods have the same schedule.
_base_ = '../hrhf/voc_15-1.py'
method = dict(
    type='DKD',
    loss_kd=dict(type='OldClassBinaryDistillationLoss', loss_weight=5.0),
    loss_dkd=dict(type='OldClassBinaryDistillationLoss', loss_weight=5.0),
    positive_weight=(2.0, 1.0))  # gamma of step 0 and of later steps; ADE20K: 35 and 35
optim_wrapper = dict(optimizer=dict(lr=0.001))
incremental_overrides = dict(optim_wrapper=dict(optimizer=dict(lr=0.0001)))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=True, end=60, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=60, val_interval=60)
auto_scale_lr = dict(base_batch_size=32)
