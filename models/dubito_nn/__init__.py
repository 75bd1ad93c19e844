"""What a user imports where the network is trained: dropout layers, training, export."""

from dubito_nn.bundle import Bundle, load_bundle
from dubito_nn.errors import BundleError, ExportError
from dubito_nn.export import export
from dubito_nn.manifest import InputSpec, Manifest, Site
from dubito_nn.program import Program

__all__ = [
    "Bundle",
    "BundleError",
    "ExportError",
    "InputSpec",
    "Manifest",
    "Program",
    "Site",
    "export",
    "load_bundle",
]
