"""Other ways to compute what some nodes of the suffix compute, with less work.

thinned   mask, linear, pointwise, mask, linear: kept units only
linear    a mask of channels in front of a convolution: partial results once per row
skipped   a residual branch: not computed where a sample drops it
stacked   the thinned form of all samples in one batched product, for GPUs
layer     what both thinned forms do with a layer
about     what a form knows of a plan
"""

from dubito.engine.forms.about import About
from dubito.engine.forms.linear import Linear, linear_maps
from dubito.engine.forms.skipped import Skipped, branches
from dubito.engine.forms.thinned import PackedWeights, Thinned, chains

__all__ = [
    "About",
    "Linear",
    "PackedWeights",
    "Skipped",
    "Thinned",
    "branches",
    "chains",
    "linear_maps",
]
