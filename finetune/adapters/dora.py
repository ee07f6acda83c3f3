"""DoRA's norms in float32, whatever the base's precision and whatever autocast says.

peft takes them in the precision of the layer's input. In bf16 a norm is off by up to 0.4 %, so an adapter that has
learned nothing moves the U-Net's output by about one percent, and a learned change is partly lost in the sum with the
weight. Here the magnitude and the norm it is divided by come from one float32 computation, so they cancel to the bit
where training starts. Everything else is peft's.
"""

from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraConv2dLayer, DoraLinearLayer
from torch import Tensor, nn


class _Float32Norm(DoraLinearLayer):  # type: ignore[misc]  # peft has no types
    def get_weight_norm(
        self, weight: Tensor, lora_weight: Tensor, scaling: float, adapter_name: str | None = None
    ) -> Tensor:
        """Return the norm of each output's row of `weight + scaling * lora_weight`, float32, in peft's shape."""
        norm: Tensor = super().get_weight_norm(weight.float(), lora_weight.float(), scaling, adapter_name=adapter_name)
        return norm


class Float32DoraLinear(_Float32Norm):
    """DoRA on a Linear; the magnitude is (out,)."""


class Float32DoraConv2d(_Float32Norm, DoraConv2dLayer):  # type: ignore[misc]
    """DoRA on a convolution; the magnitude is (1, out, 1, 1)."""


def has_dora(layer: LoraLayer, adapter_name: str) -> bool:
    """Return whether the layer has a magnitude beside its factors."""
    return adapter_name in layer.lora_magnitude_vector


def use_float32_norms(layer: LoraLayer, adapter_name: str) -> None:
    """Replace the layer's DoRA part, if it has one, by its float32 form, with the base weight's norm as magnitude."""
    if not has_dora(layer, adapter_name):
        return
    given = layer.lora_magnitude_vector[adapter_name]
    convolution = isinstance(given, DoraConv2dLayer)
    dora = Float32DoraConv2d(given.fan_in_fan_out) if convolution else Float32DoraLinear(given.fan_in_fan_out)
    layer.lora_magnitude_vector[adapter_name] = dora.train(given.training)
    dora.weight = nn.Parameter(base_norm(layer, adapter_name))


def base_norm(layer: LoraLayer, adapter_name: str) -> Tensor:
    """Return the norm of each output's row of the base's weight, in the magnitude's shape."""
    weight = layer.get_base_layer().weight.detach()
    norm: Tensor = layer.lora_magnitude_vector[adapter_name].get_weight_norm(weight, weight.new_zeros(()), 1.0)
    return norm
