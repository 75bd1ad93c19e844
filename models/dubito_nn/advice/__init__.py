"""What the literature warns of, looked for in the lifted graph at export.

Its job: `advise` reads the graph and its sites, never the names of classes, and returns one line
for each kind of finding, with the modules and the remedy.

places  what lies above and below where a draw meets the data
rules   the findings
texts   the words
"""

from dubito_nn.advice.rules import advise
from dubito_nn.advice.texts import TEXTS, Text

__all__ = ["TEXTS", "Text", "advise"]
