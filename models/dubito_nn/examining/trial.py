"""What an export would refuse, and what it would warn of, without writing anything."""

from __future__ import annotations

from torch import nn

from dubito_nn.advice import TEXTS, advise
from dubito_nn.capturing.capture import capture
from dubito_nn.capturing.declared import Declared
from dubito_nn.capturing.example import Example, read_example
from dubito_nn.capturing.isolation import isolated
from dubito_nn.errors import ExportError
from dubito_nn.export import lift_and_prove

_AS_IT_IS = Declared("regression", "mean")  # of which nothing but its shape is held to anything


def tried(
    network: nn.Module, example: Example, output_name: str | None
) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The refusal with its remedy, or None; and the warnings with their codes."""
    try:
        with isolated():
            inputs = read_example(network, example, None)
            captured = capture(
                network, inputs, declared=_AS_IT_IS, output_name=output_name, features=None
            )
            lifted, _ = lift_and_prove(captured)
            warnings = advise(
                lifted.program,
                tuple(lifted.sites),
                paths=lifted.paths,
                modules=dict(captured.module.network.named_modules()),
                integer_inputs=frozenset(captured.inputs.bounds),
            )
    except ExportError as error:
        return str(error), ()
    codes = {text.title: code for code, text in TEXTS.items()}
    return None, tuple((codes[line.split(": ")[0]], line) for line in warnings)
