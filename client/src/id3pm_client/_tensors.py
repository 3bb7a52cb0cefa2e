"""Arrays of other libraries, torch above all, as numpy arrays; none of those libraries is imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from id3pm_client._errors import InvalidRequestError

_SHORT_FLOATS = ("bfloat16", "float8", "float16")


def is_tensor(value: object) -> bool:
    """Whether this is a `torch.Tensor`, or behaves like one."""
    return all(hasattr(value, name) for name in ("detach", "cpu", "numpy", "element_size"))


def plain(name: str, value: Any) -> Any:
    """A tensor, or a list with tensors in it, as numpy arrays: from any device, with or without gradients.

    What numpy has no type for, such as bfloat16, becomes float32, which represents all its values. Anything that is not
    a tensor is returned as it is.

    Args:
        name: Of the argument, for the message.
        value: What the caller passed.

    Raises:
        InvalidRequestError: A tensor has no plain array: sparse, quantized or without data.
    """
    if isinstance(value, (list, tuple)):
        return [plain(name, each) for each in value] if any(_is_foreign(each) for each in value) else value
    if is_tensor(value):
        try:
            tensor = value.detach().cpu()
            if tensor.is_floating_point() and tensor.element_size() < 4:
                tensor = tensor.float()
            return tensor.numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:
            said = str(error).partition("\n")[0][:200]
            raise InvalidRequestError(f"{name}: this tensor cannot become an array: {said}") from None
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "name", "").startswith(_SHORT_FLOATS) and hasattr(value, "__array__"):
        return np.asarray(value).astype(np.float32)
    return value


def _is_foreign(value: object) -> bool:
    return is_tensor(value) or isinstance(value, (list, tuple))
