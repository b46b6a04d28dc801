# The network as published: LeakyReLU(0.01) in the backbone too. LeakyResNet is of this package, so the plain configs of
# a run's steps need it to be evaluated; no stock mmseg config can express this backbone.
# Published weights (tools/convert_iabn.py): --cfg-options model.backbone.init_cfg.checkpoint=CONVERTED.pth
_base_ = './deeplabv3_r101-d16.py'
model = dict(backbone=dict(type='LeakyResNet'))
