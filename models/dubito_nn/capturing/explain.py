"""Say in the user's words why a network could not be recorded."""

from __future__ import annotations

import re

from dubito_nn.capturing.example import BATCH

_DATA_DEPENDENT = re.compile(r"data[- ]dependent|aten\._local_scalar_dense", re.IGNORECASE)
_LAYOUT = re.compile(r"aten\._(sparse|nested)|(sparse|nested) ?tensor", re.IGNORECASE)
_ONLY = re.compile(r"specialized it to be a constant \((\d+)\)")

SKIPPED = (
    "Where a library skips layers or hides input by a drawn number, its configuration can turn that"
    " off: layerdrop=0, apply_spec_augment=False"
)


def explain(error: Exception, running: list[str]) -> str:
    """A message with the module that was running, the reason and the remedy."""
    where = f"module `{running[-1]}`" if running else "the network"
    text = str(error)
    said = f" torch said: {reason(error)}"
    if "_detect_is_causal_mask" in text:
        return (
            f"{where}: torch looks at the values of the mask to see whether it is causal: tell it,"
            " with tgt_is_causal=True (is_causal=True of an encoder) beside the mask." + said
        )
    if _DATA_DEPENDENT.search(text) or "DataDependent" in type(error).__name__:
        return explain_values(where)
    if ".numpy() is not supported" in text:
        return (
            f"{where} leaves torch for NumPy in forward() (.numpy()), which a graph cannot hold:"
            " write the step with torch operators"
        )
    layout = _LAYOUT.search(text)
    if layout:
        kind = (layout[1] or layout[2]).lower()
        return (
            f"{where} computes with a {kind} tensor, which a graph cannot hold: use a dense one"
            " (to_dense(), or rows of one length with a mask)"
        )
    if "export 0/1 specialized due to hint of 1" in text:
        return (
            "a free dimension expects an example longer than 1, got one of 1: give rows of two or"
            " more along it"
        )
    only = _ONLY.search(text)
    fixed = f" As recorded it holds for {only[1]} of them." if only else said
    if is_about_rows(error):
        return explain_rows(where) + fixed
    if _violates(text):
        return (
            f"{where} does not work for every size of a free dimension: take sizes from x.shape in"
            f" forward(), or leave that axis out of free_dims.{fixed}"
        )
    return (
        f"{where} cannot be recorded as a graph: {type(error).__name__}: {reason(error)}."
        " Use torch operators on tensors only in forward(), with shapes as in the example"
    )


def is_about_rows(error: Exception) -> bool:
    """Whether a recording failed since it would hold for some numbers of rows only."""
    return _violates(str(error)) and BATCH in str(error).split("!")[0]


def _violates(text: str) -> bool:
    return "Constraints violated" in text or "onstraintViolation" in text


def explain_values(where: str) -> str:
    """The message for control flow or shapes that depend on the values of a tensor."""
    return (
        f"{where} decides by the values of a tensor (data-dependent control flow), so one graph"
        " cannot stand for it: replace the `if`, `while`, `.item()`, `.tolist()`, boolean indexing"
        f" or a cut to lengths.max() by torch.where or a mask over the whole length. {SKIPPED}."
    )


def explain_rows(where: str) -> str:
    """The message for a network that is tied to a number of rows."""
    return (
        f"{where} does not work for every number of rows (a fixed size such as view(4, -1), a"
        " Python loop over the rows, rows that are mixed, or a limit on their number): take the"
        " number of rows from x.shape[0]."
    )


def reason(error: Exception) -> str:
    """The line of torch's message that carries the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    details = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return (details or lines or ["nothing"])[0][:300].rstrip(".")
