# The same by epochs, loaded by the training process itself.
_base_ = './chaos_by_iteration.py'
train_dataloader = dict(num_workers=0, sampler=dict(type='DefaultSampler', _delete_=True, shuffle=True))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2, val_interval=1)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=True, end=2, convert_to_iter_based=True)]
log_processor = dict(by_epoch=True)
