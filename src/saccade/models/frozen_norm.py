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

from saccade.models.fused import MAX_CHANGE, followed_by_norm, noise_for


class _Scaling(nn.Conv2d):
    """What a convolution does in the place of the normalisation after it, while that does not learn statistics."""

    norm_after: tuple[nn.BatchNorm2d]  # in a tuple, so that it does not become a part of this module

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        (norm,) = self.norm_after
        if norm.training:
            return super().forward(x_BCHW)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else shift + norm.bias
        shift = shift if self.bias is None else shift + self.bias * scale
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
    changed: list[tuple[nn.Module, type]] = []
    with torch.inference_mode():
        network.eval()
        try:
            pairs, expected = followed_by_norm(network, x_BCHW)
            for pair in pairs:
                conv, norm = pair.convolution, pair.normalisation
                pays = batch_size * pair.num_outputs >= LEAST_OUTPUTS * conv.weight.numel()
                if norm in frozen and pays:
                    changed += [(conv, type(conv)), (norm, type(norm))]
                    vars(conv)["norm_after"] = (norm,)
                    conv.__class__, norm.__class__ = _with(_Scaling, type(conv)), _with(_Left, type(norm))
            change = (network(x_BCHW) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
            is_same = bool(change <= MAX_CHANGE)
        except Exception:  # code of a network may look at its layers; as it was, it still works
            is_same = False
    if not is_same:
        for module, kind in changed:
            module.__class__ = kind
    for module, mode in modes:
        module.training = mode
    return is_same and bool(changed)
