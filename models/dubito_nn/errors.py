"""The two things that can go wrong in `dubito_nn`, both `ValueError`.

ValueError
├── ExportError   a network that cannot be lifted, with the module path and the remedy
└── BundleError   a file that is not a sound bundle, with the first reason
"""


class ExportError(ValueError):
    """The network cannot be served as it is; the message names the module and the remedy."""


class BundleError(ValueError):
    """The bundle is damaged, hostile or of an unknown format; the message names the reason."""
