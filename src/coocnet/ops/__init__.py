"""Operators on feature maps: torch functions, tensors in, tensors out, differentiable, on any device.

Maps are ``(b, d, h, w)``: images, channels, rows, columns. Half-precision maps are computed in float32
and returned in their own dtype. Nothing here reads a file or holds a parameter.
"""

from coocnet.ops.cooccurrence import (
    Quantile,
    Threshold,
    activation_mask,
    direct_cooccurrence,
    direct_filter,
    filtered_cooccurrence,
    window_sum,
)
from coocnet.ops.pooling import (
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
)
from coocnet.ops.priors import centre_prior, top_down_prior

__all__ = [
    "Quantile",
    "Threshold",
    "activation_mask",
    "centre_prior",
    "chco",
    "chco_sct",
    "chco_weights",
    "crow",
    "direct_cooccurrence",
    "direct_filter",
    "filtered_cooccurrence",
    "gem",
    "mac",
    "rmac",
    "sct",
    "sct_weights",
    "spoc",
    "top_down_prior",
    "ucrow",
    "unit_rows",
    "window_sum",
]
