"""Operators on feature maps: torch functions, tensors in, tensors out, differentiable, on any device.

Maps are ``(b, d, h, w)``: images, channels, rows, columns. Half-precision maps are computed in float32
and returned in their own dtype. Nothing here reads a file or holds a parameter.
"""

from coocnet.ops.bilinear import Sketch, bilinear, compact_bilinear, compact_bilinear_by_fft, signed_root
from coocnet.ops.context import centred_cooccurrence_pair, context, context_pooling, power_pooling, tensor_context
from coocnet.ops.cooccurrence import (
    CooccurrenceSums,
    Quantile,
    Threshold,
    activation_mask,
    cooccurrence_sums,
    direct_cooccurrence,
    direct_cooccurrence_sums,
    direct_filter,
    factorised_cooccurrence,
    factorised_filter,
    filtered_cooccurrence,
    window_sum,
)
from coocnet.ops.losses import average_precision_loss, contrastive_loss, softmax_loss, triplet_loss
from coocnet.ops.pooling import (
    cell_weights,
    channel_weights,
    chco,
    chco_sct,
    chco_weights,
    crow,
    gem,
    mac,
    rmac,
    sct,
    sct_weights,
    spoc,
    ucrow,
    unit_rows,
    weighted_sum,
)
from coocnet.ops.priors import centre_prior, top_down_prior
from coocnet.ops.shih import reduce_channels, shih_tensor, shih_vector

__all__ = [
    "CooccurrenceSums",
    "Quantile",
    "Sketch",
    "Threshold",
    "activation_mask",
    "average_precision_loss",
    "bilinear",
    "cell_weights",
    "centre_prior",
    "centred_cooccurrence_pair",
    "channel_weights",
    "chco",
    "chco_sct",
    "chco_weights",
    "compact_bilinear",
    "compact_bilinear_by_fft",
    "context",
    "context_pooling",
    "contrastive_loss",
    "cooccurrence_sums",
    "crow",
    "direct_cooccurrence",
    "direct_cooccurrence_sums",
    "direct_filter",
    "factorised_cooccurrence",
    "factorised_filter",
    "filtered_cooccurrence",
    "gem",
    "mac",
    "power_pooling",
    "reduce_channels",
    "rmac",
    "sct",
    "sct_weights",
    "shih_tensor",
    "shih_vector",
    "signed_root",
    "softmax_loss",
    "spoc",
    "tensor_context",
    "top_down_prior",
    "triplet_loss",
    "ucrow",
    "unit_rows",
    "weighted_sum",
    "window_sum",
]
