"""Matrix products with weights that never change: laid out once as oneDNN reads them, activation in the same pass."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

TYPICAL_ROWS = 1024  # frames of a batch; oneDNN lays weights out for about so many


class FrozenLinear:
    """``x W^T + b``, with GELU after it if asked for, of a linear layer that is not trained any more.

    On a CPU the weights are kept in oneDNN's own layout, which spares reordering them at every call: large products
    reach 5 to 30 % more of the peak. These operators are the ones that torch.compile calls when it freezes weights.
    Elsewhere, and where oneDNN lacks them, this is :func:`torch.nn.functional.linear`.

    Args:
        weight: of the layer.
        bias: None for none.
        gelu: apply the exact GELU to what comes out.
    """

    def __init__(
        self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None, *, gelu: bool = False
    ) -> None:
        self._packed = _can_pack(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS) if self._packed else weight
        self._bias = bias
        self._gelu = gelu

    def __call__(self, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        """The product; rows may overlap in memory."""
        if self._packed:
            # the last but one names parameters of the activation; the exact GELU is called "none" there
            activation = ("gelu", "none") if self._gelu else ("none", "")
            product: Tensor = torch.ops.mkldnn._linear_pointwise(
                rows, self._weight, self._bias, activation[0], [], activation[1]
            )
            return product
        product = F.linear(rows, self._weight, self._bias)
        return F.gelu(product) if self._gelu else product


def _can_pack(weight: Tensor) -> bool:
    operators = torch.ops.mkldnn
    if weight.device.type != "cpu" or not hasattr(operators, "_linear_pointwise"):
        return False
    return weight.dtype == torch.float32 or bool(operators._is_mkldnn_bf16_supported())
