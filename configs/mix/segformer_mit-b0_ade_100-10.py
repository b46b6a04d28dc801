# Example for any model of mmseg's zoo: its config and the method as bases, plus a task. Everything else (data,
# schedule, optimizer) is as in the zoo config. To avoid the download: --cfg-options model.backbone.init_cfg=None
_base_ = ['mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', '../_base_/methods/hrhf.py']
scenario = dict(task='100-10', setting='overlapped')
