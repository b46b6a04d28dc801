# The network as published, with LeakyReLU(0.01) also in the backbone. No backbone of mmseg supports this, so the plain
# configs of a run's steps need this package, which defines LeakyResNet.
# Published weights (tools/convert_iabn.py): --cfg-options model.backbone.init_cfg.checkpoint=CONVERTED.pth
_base_ = './deeplabv3_r101-d16.py'
model = dict(backbone=dict(type='LeakyResNet'))
