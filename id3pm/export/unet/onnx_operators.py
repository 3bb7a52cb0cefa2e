"""ONNX forms of three PyTorch operators that the exporter writes less well.

The exporter writes shapes as computations on the input (`Shape`, `Concat`, ...), from which no runtime can see that all
but the batch axis is constant. Here they are constants: a `Reshape` to 0 keeps the batch axis as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from id3pm.errors import EngineError


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """PyTorch operator -> function that writes its ONNX form, for `torch.onnx.export(custom_translation_table=...)`."""
    import torch

    aten = torch.ops.aten
    return {
        aten.group_norm.default: group_norm,
        aten.scaled_dot_product_attention.default: attention,
        aten.upsample_bilinear2d.vec: upsample_bilinear,
    }


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """[N, C, ...] -> the same: instance norm of `num_groups` wide channels, then scale and shift of every channel.

    ONNX's own `GroupNormalization` is a function that onnxruntime's CPU provider computes node by node in more passes;
    `InstanceNormalization` is one kernel everywhere.
    """
    from onnxscript import opset20 as op

    channels, *size = _sizes(x)
    ones, zeros = _constant([1.0] * num_groups), _constant([0.0] * num_groups)
    grouped = op.Reshape(x, _constant([0, num_groups, -1]))
    normal = op.Reshape(op.InstanceNormalization(grouped, ones, zeros, epsilon=eps), _constant([0, channels, *size]))
    if weight is None:
        return normal
    per_channel = _constant([channels] + [1] * len(size))
    return op.Add(op.Mul(normal, op.Reshape(weight, per_channel)), op.Reshape(bias, per_channel))


def attention(
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q k^T / sqrt(d)) v over [N, heads, T, d]: the pattern that runtimes recognise, scaled on the short side.

    Raises:
        EngineError: An option is used that the U-Net does not use.
    """
    from onnxscript import opset20 as op

    if attn_mask is not None or dropout_p or is_causal or scale is not None or enable_gqa:
        raise EngineError("attention with a mask, dropout, own scale or grouped queries is not part of this U-Net")
    width = _sizes(q)[-1]
    scores = op.MatMul(op.Mul(q, _constant(width**-0.5)), op.Transpose(k, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), v)


def upsample_bilinear(x: Any, output_size: Sequence[int], align_corners: bool, scale_factors: Any = None) -> Any:
    """[N, C, h, w] -> [N, C, H, W], `align_corners=False`."""
    from onnxscript import opset20 as op

    if align_corners:
        raise EngineError("bilinear upsampling with align_corners is not part of this U-Net")
    _, height, width = _sizes(x)
    scales = [1.0, 1.0, output_size[0] / height, output_size[1] / width]
    return op.Resize(x, None, _constant(scales), mode="linear", coordinate_transformation_mode="half_pixel")


def _sizes(x: Any) -> list[int]:
    """All sizes but the batch's."""
    sizes = list(x.shape)[1:]
    assert all(isinstance(size, int) for size in sizes), f"only the batch axis may be dynamic, not {sizes}"
    return sizes


def _constant(value: float | list[int] | list[float]) -> Any:
    import numpy as np
    import onnx_ir
    from onnxscript import opset20 as op

    array = np.asarray(value)
    array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
    return op.Constant(value=onnx_ir.tensor(array))
