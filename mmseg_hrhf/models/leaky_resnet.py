"""The paper's backbone: a ResNet with the activation of in-place ABN."""
from __future__ import annotations

import pickle
import re
from typing import Mapping

import torch
from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..utils.errors import UserError
from ..utils.io import PathLike

# Slope of in-place ABN's activation in MiB's and the paper's networks.
NEGATIVE_SLOPE = 0.01


@MODELS.register_module()
class LeakyResNet(ResNet):
    """mmseg's ResNet with LeakyReLU(0.01) in place of every ReLU.

    mmseg's ResNet has a fixed ReLU and no ``act_cfg``. Batch norm followed by LeakyReLU(0.01) computes the same as
    in-place ABN (with weights of ``convert_iabn``). Parameters have the names and shapes of mmseg's ResNet.

    A plain mmseg config cannot express this backbone: the plain config of such a run names this package in
    ``custom_imports``, so evaluating it requires this package.

    Args:
        **kwargs: options of mmseg's ResNet.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    module.add_module(name, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))


# Keys of the weights in published files: inplace_abn's ImageNet networks, MiB's steps.
_STATE_KEYS = ('state_dict', 'model_state')
# Tensors of a norm layer, as named by in-place ABN.
_NORM_PARTS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
_HEAD_BRANCHES = 4


def convert_iabn(state: Mapping[str, Tensor], eps: float = 1e-5) -> dict[str, Tensor]:
    """Convert weights of in-place ABN to batch norm + LeakyReLU(0.01).

    In-place ABN scales by ``|weight| + eps`` instead of ``weight``; that sum becomes the batch norm's weight. Supports
    the names of ``inplace_abn``'s ResNet and of MiB's segmentation network:

    - only ``mod1`` to ``mod5`` (ImageNet): to names of a ``LeakyResNet``, for its ``init_cfg``; the ImageNet classifier
      ``classifier.fc`` is dropped.
    - with ``body.``, ``head.`` and ``cls.``: to names of an ``EncoderDecoder`` with an ``ASPPHead``. Its four branches
      get ``map_convs`` and their share of ``map_bn``, its image pooling gets ``global_pooling_conv``. MiB applies a
      1 x 1 convolution to each of the two (``red_conv``, ``pool_red_conv``) and adds the results; mmseg applies one
      3 x 3 convolution to their concatenation, whose centre tap gets both and whose other taps are zero. The
      classifiers of the steps (``cls.0``, ``cls.1``, ...) are stacked.

    Supports bottleneck ResNets without deep stem (stride in the 3 x 3 convolution, ``style='pytorch'``), but not plain
    "ABN" checkpoints, which scale by the signed weight. The results are equal where MiB pools the full map: in
    training, and in evaluation on crops up to its pooling size (32 x 16 = 512 pixels). On larger images MiB's pooling
    window slides, mmseg's does not.

    Args:
        state: of the published network; a leading ``module.`` is ignored.
        eps: of its in-place ABN layers, and of the batch norm layers that get the weights.
    Returns:
        Weights by mmseg's names, in the same precision.
    Raises:
        UserError: a tensor is unknown in these layouts, or missing; names it.
    """
    state = {name[len('module.'):] if name.startswith('module.') else name: tensor for name, tensor in state.items()}
    if any(name.startswith('body.') for name in state):
        body = {name[len('body.'):]: tensor for name, tensor in state.items() if name.startswith('body.')}
        rest = {name: tensor for name, tensor in state.items() if not name.startswith('body.')}
        converted = {f'backbone.{name}': tensor for name, tensor in _convert_body(body, eps).items()}
        return dict(converted, **_convert_head(rest, eps))
    return _convert_body({name: tensor for name, tensor in state.items() if not name.startswith('classifier.fc.')}, eps)


def load_iabn(path: PathLike) -> dict[str, Tensor]:
    """Load the weights in a published file without running code from it.

    Raises:
        UserError: the file does not exist, contains more than data, or contains no weights.
    """
    try:
        loaded = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f'Checkpoint {path} does not exist.') from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f'Checkpoint {path} is not a checkpoint, or holds more than tensors and plain data, and '
                         'loading it could run code. If you trust it, save only its weights: torch.save(torch.load('
                         f"PATH, weights_only=False)['state_dict' or 'model_state'], NEW). "
                         f'({str(error).splitlines()[0]})') from error
    for key in _STATE_KEYS:
        if isinstance(loaded, dict) and key in loaded:
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f'Checkpoint {path} has no weights, neither at the top level nor under {_STATE_KEYS}.')
    return loaded


def _convert_body(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition('.')
        target = _body_layer(layer)
        is_norm = 'bn' in layer.rpartition('.')[2]
        if target is None or part not in (_NORM_PARTS if is_norm else ('weight', )):
            raise _unknown(name)
        converted[f'{target}.{part}'] = _scale(tensor, eps) if is_norm and part == 'weight' else tensor
    if 'conv1.weight' not in converted:
        raise UserError("The checkpoint has no 'mod1.conv1.weight': it is not an in-place ABN ResNet.")
    return _with_batch_counts(converted)


def _body_layer(name: str) -> str | None:
    """mmseg's name of a layer, such as ``layer1.0.conv1`` for ``mod2.block1.convs.conv1``; None if unknown."""
    stem = re.fullmatch(r'mod1\.(conv1|bn1)', name)
    if stem:
        return stem[1]
    block = re.fullmatch(r'mod([2-5])\.block(\d+)\.(?:convs\.((?:conv|bn)[123])|(proj_conv|proj_bn))', name)
    if not block:
        return None
    stage, number, inner, projection = block.groups()
    inner = inner or {'proj_conv': 'downsample.0', 'proj_bn': 'downsample.1'}[projection]
    return f'layer{int(stage) - 1}.{int(number) - 1}.{inner}'


def _convert_head(state: dict[str, Tensor], eps: float) -> dict[str, Tensor]:
    state = dict(state)

    def take(name: str) -> Tensor:
        if name not in state:
            raise UserError(f"The checkpoint has no {name!r}, which MiB's DeepLabV3 has.")
        return state.pop(name)

    def take_norm(name: str) -> dict[str, Tensor]:
        parts = {part: take(f'{name}.{part}') for part in _NORM_PARTS[:4]}
        parts['weight'] = _scale(parts['weight'], eps)
        count = state.pop(f'{name}.num_batches_tracked', torch.tensor(0))
        return dict(parts, num_batches_tracked=count)

    converted: dict[str, Tensor] = {}

    def put_norm(target: str, parts: dict[str, Tensor]) -> None:
        converted.update({f'decode_head.{target}.bn.{part}': tensor for part, tensor in parts.items()})

    branches = take_norm('head.map_bn')
    for i in range(_HEAD_BRANCHES):
        converted[f'decode_head.aspp_modules.{i}.conv.weight'] = take(f'head.map_convs.{i}.weight')
        share = {part: tensor.chunk(_HEAD_BRANCHES)[i].clone() for part, tensor in branches.items() if tensor.ndim}
        put_norm(f'aspp_modules.{i}', dict(branches, **share))
    converted['decode_head.image_pool.1.conv.weight'] = take('head.global_pooling_conv.weight')
    put_norm('image_pool.1', take_norm('head.global_pooling_bn'))
    # mmseg concatenates the pooled branch first.
    middle = torch.cat([take('head.pool_red_conv.weight'), take('head.red_conv.weight')], dim=1)
    bottleneck = middle.new_zeros(*middle.shape[:2], 3, 3)
    bottleneck[:, :, 1, 1] = middle[:, :, 0, 0]
    converted['decode_head.bottleneck.conv.weight'] = bottleneck
    put_norm('bottleneck', take_norm('head.red_bn'))
    number = sum(bool(re.fullmatch(r'cls\.\d+\.weight', name)) for name in state)
    if number == 0:
        raise UserError("The checkpoint has no classifier 'cls.0.weight'.")
    for part in ('weight', 'bias'):
        converted[f'decode_head.conv_seg.{part}'] = torch.cat([take(f'cls.{i}.{part}') for i in range(number)])
    if state:
        raise _unknown(sorted(state)[0])
    return converted


def _scale(weight: Tensor, eps: float) -> Tensor:
    return weight.abs() + eps


def _with_batch_counts(converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the counters that older in-place ABN did not save."""
    layers = [name[:-len('.running_mean')] for name in converted if name.endswith('.running_mean')]
    return dict({f'{layer}.num_batches_tracked': torch.tensor(0) for layer in layers}, **converted)


def _unknown(name: str) -> UserError:
    return UserError(f'{name!r} is not a tensor of an in-place ABN ResNet (mod1.conv1, mod2.block1.convs.bn1, ...) or '
                      "of MiB's DeepLabV3 (body.*, head.*, cls.*): this layout cannot be converted.")
