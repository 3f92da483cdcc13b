"""Batch normalisation with fixed statistics, left to the convolution before it also in training.

Small batches tell too little of statistics, so that pretrained ones stay as they are in most fine-tuning. Normalisation
is then a factor and a shift of each channel, that are trained. The convolution before it can apply them to its weights,
of which there are far fewer than activations: neither these nor their gradients are passed over once more. All
parameters and their gradients are the same as ever but for rounding, and so are a network's names in a checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from saccade.models.batch_norm_folding import Pair, followed_by_norm, is_alike, noise_for, scale_and_shift


class _Scaling(nn.Conv2d):
    """What a convolution does in the place of the normalisation after it, while that does not learn statistics."""

    norm_after: tuple[nn.BatchNorm2d]  # in a tuple, so that it does not become a part of this module

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        (norm,) = self.norm_after
        if norm.training:
            return super().forward(x_BCHW)
        scale, shift = scale_and_shift(self, norm)
        # What is in the instance's own dictionary is found before the parameters, by convolutions of any kind.
        own: dict[str, Any] = self.__dict__
        own["weight"], own["bias"] = self.weight * scale[:, None, None, None], shift
        try:
            return super().forward(x_BCHW)
        finally:
            del own["weight"], own["bias"]


class _Left(nn.BatchNorm2d):
    """A normalisation that leaves its work to the convolution before it, while it does not learn statistics."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(x_BCHW)
        outputs: torch.Tensor = self.act(x_BCHW) if isinstance(self, BatchNormAct2d) else x_BCHW
        return outputs


LEAST_OUTPUTS = 2.0
"""Numbers that a convolution must make of a batch for each of its weights: it costs time to scale these as well."""

_MADE: dict[tuple[type, type], type] = {}


def _with(mixin: type, kind: type) -> type:
    """Return the class of modules of one kind that do something else first, under the same name."""
    return _MADE.setdefault((mixin, kind), type(kind.__name__, (mixin, kind), {}))


def leave_norms_to_convolutions(network: nn.Module, batch_size: int, in_chans: int, side: int) -> bool:
    """Let convolutions do what frozen normalisation after them does; return whether anything has changed.

    Parameters
    ----------
    network : torch.nn.Module
        In the mode in which it is trained; it stays in it. Normalisation that learns statistics, now or when its mode
        is changed later, works as ever.
    batch_size, in_chans, side : int
        Images in a batch, and their channels and pixels of a side.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> leave_norms_to_convolutions(network.train(), 9, 3, 8), leave_norms_to_convolutions(network.eval(), 9, 3, 8)
    (False, True)
    """
    frozen = {module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and not module.training}
    if not frozen:
        return False
    modes = [(module, module.training) for module in network.modules()]
    x_BCHW = noise_for(network, in_chans, side)
    left: list[Pair] = []
    try:
        with torch.inference_mode():
            pairs, expected = followed_by_norm(network.eval(), x_BCHW)
            left = [pair for pair in pairs if pair.normalisation in frozen and _pays(pair, batch_size)]
            for pair in left:
                _leave(pair)
            is_same = not left or is_alike(network(x_BCHW), expected)
    except Exception:  # code of a network may look at its layers; as it was, it still works
        is_same = False
    finally:
        for module, mode in modes:
            module.training = mode
    if not is_same:
        for pair in left:
            _take_back(pair)
    return is_same and bool(left)


def _pays(pair: Pair, batch_size: int) -> bool:
    return batch_size * pair.num_outputs >= LEAST_OUTPUTS * pair.convolution.weight.numel()


def _leave(pair: Pair) -> None:
    conv, norm = pair.convolution, pair.normalisation
    vars(conv)["norm_after"] = (norm,)
    conv.__class__, norm.__class__ = _with(_Scaling, type(conv)), _with(_Left, type(norm))


def _take_back(pair: Pair) -> None:
    for module, mixin in ((pair.convolution, _Scaling), (pair.normalisation, _Left)):
        if isinstance(module, mixin):
            module.__class__ = type(module).__mro__[2]  # after the class that was made, and the mixin
    vars(pair.convolution).pop("norm_after", None)
