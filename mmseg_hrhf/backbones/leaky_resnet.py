"""The paper's backbone: a ResNet that activates as in-place ABN does."""
from __future__ import annotations

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS
from torch import nn

# In-place ABN's activation in MiB's and the paper's networks.
NEGATIVE_SLOPE = 0.01


@MODELS.register_module()
class LeakyResNet(ResNet):
    """mmseg's ResNet with LeakyReLU(0.01) in place of every ReLU.

    mmseg's own has ReLU built in and takes no ``act_cfg``. Batch norm followed by LeakyReLU(0.01) is what in-place ABN
    computes (with the weights of :mod:`.iabn_checkpoint`). Parameters have the names and shapes of mmseg's ResNet.

    No plain mmseg config can express this backbone: the plain config of such a run names this package in
    ``custom_imports`` and needs it to be evaluated.

    Args:
        **kwargs: of mmseg's ResNet.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))
