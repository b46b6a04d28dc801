# Two steps of the embedded default in little time, on generated data: a job to be killed. Whatever is random in a
# training is in it. gpu/stop.py says where it is killed, and what the ranks of a run end with.
_base_ = './chaos_by_iteration.py'
custom_imports = dict(imports=['gpu.stop'], allow_failed_imports=False)
scenario = dict(task='3-2', setting='overlapped')
# Which kernels are chosen must not differ from run to run.
env_cfg = dict(cudnn_benchmark=False)
train_cfg = dict(max_iters=12, val_interval=12)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, end=12)]
default_hooks = dict(logger=dict(interval=4), checkpoint=dict(interval=5))
custom_hooks = [dict(type='EMAHook', momentum=0.05), dict(type='StopHook'), dict(type='WeightsOfRanksHook')]
incremental_overrides = dict(_delete_=True, optim_wrapper=dict(optimizer=dict(lr=0.02)))
replay = dict(num_images=16, inversion=dict(batch_size=8, stages=[(0.5, 6), (1.0, 4)]))
