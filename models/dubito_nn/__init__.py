"""What a user imports where the network is trained: dropout layers, training, export.

dropout          layers of dropout
networks         reference networks
training         the loop, and what is read off its result
examining        what of a network is random, whether or not it can be exported
export           from a trained network to a bundle
capturing        a network recorded as a graph
lifting          its randomness lifted out
proving          the lifted graph shown to be the network
advice           what the literature warns of, looked for in the lifted graph
preprocess       what is declared of inputs as people have them
operators        the operators that a graph may name
program          a graph as data, and its interpreter
flow             where its draws meet its data
manifest         what a bundle says of itself
manifest_reader  the same, read from a stranger
tensors          its weights
strict_json      its JSON
strict_fields    fields of that JSON
archive          the zip around it
bundle           the file
trial            whether it runs, before it is there
errors           what can go wrong
"""

from dubito_nn.bundle import Bundle, load_bundle
from dubito_nn.errors import BundleError, ExportError
from dubito_nn.examining import Examination, examine
from dubito_nn.export import export
from dubito_nn.manifest import InputSpec, Manifest, Site
from dubito_nn.program import Program

__all__ = [
    "Bundle",
    "BundleError",
    "Examination",
    "ExportError",
    "InputSpec",
    "Manifest",
    "Program",
    "Site",
    "examine",
    "export",
    "load_bundle",
]
