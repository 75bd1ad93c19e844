"""The words of the warnings, by code; `docs/warnings.md` says more about each.

A line is: title: the modules: what follows from it, and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

INPUT_RATE, CONVOLUTION_RATE, ATTENTION_RATE, BATCH_NORM_RATE = 0.2, 0.3, 0.2, 0.3
VERY_HIGH_RATE = 0.8


@dataclass(frozen=True)
class Text:
    """What a kind of warning says.

    Args:
        title: what was found.
        remedy: what follows from it and what to do.
    """

    title: str
    remedy: str


TEXTS: dict[str, Text] = {
    "variance-shift": Text(
        "dropout before batch-norm",
        "the running variance was measured in one mode and is wrong in the other (dropout on when"
        " sampling, off in the point method): put dropout behind the last batch-norm",
    ),
    "output-dropout": Text(
        "dropout on the output",
        "it drops whole answers and says nothing of the features: put it before the last layer",
    ),
    "very-high-rate": Text(
        f"p of {VERY_HIGH_RATE:g} or more",
        "hardly a unit is left in a pass and the spread is mostly the mask's: lower p, 0.5 is the"
        " usual most, and train again",
    ),
    "held-scores": Text(
        "scores that an activation holds back",
        "on one side of 0, or within [-1, 1], they cannot say how sure the network is: return what"
        " goes into the activation, unless the network was trained with it there",
    ),
    "idle-dropout": Text(
        "p = 0",
        "nothing drops there: set p and train again, or override it with drop_prob in export",
    ),
    "recurrent-state": Text(
        "a fresh mask on the recurrent state in every time step",
        "what the state remembers is lost a share p at every step: draw one mask per sequence, or"
        " drop the update of the state only",
    ),
    "element-after-convolution": Text(
        "element-wise dropout on the map of a convolution",
        "neighbours carry what it drops, so little is dropped: use nn.Dropout2d (nn.Dropout1d,"
        " nn.Dropout3d) or DropBlock",
    ),
    "no-dropout-at-the-end": Text(
        "no dropout after the last feature layer",
        "the epistemic spread comes from earlier layers alone, and the weights of this one are"
        " taken for certain: put dropout before it and train again",
    ),
    "input-rate": Text(
        f"p above {INPUT_RATE:g} on the inputs",
        "information is lost that no layer can restore: lower p",
    ),
    "convolution-rate": Text(
        f"p above {CONVOLUTION_RATE:g} on the map of a convolution",
        "few weights share many places, so much dropout underfits: lower p, 0.1 to 0.2 is usual",
    ),
    "attention-rate": Text(
        f"p above {ATTENTION_RATE:g} on the weights of an attention",
        "a pass that drops the few keys in use looks elsewhere: lower p, 0.1 is usual",
    ),
    "batch-norm-rate": Text(
        f"p above {BATCH_NORM_RATE:g} beside a batch-norm",
        "batch-norm regularises already, and its statistics shift with p: lower p",
    ),
}
