"""Hostile JSON and manifests that lie."""

from __future__ import annotations

import json
from collections.abc import Callable

from .cases import hostile
from .parts import MANIFEST, Json, Parts, dumped

NOT_JSON = "manifest.json is not readable JSON"


def _raw(parts: Parts, change: Callable[[bytes], bytes]) -> bytes:
    """The file with the bytes of its manifest changed."""
    return parts.sealed(manifest=change(parts.entries()[MANIFEST]))


@hostile(NOT_JSON)
def a_manifest_cut_short(parts: Parts) -> bytes:
    return _raw(parts, lambda text: text[:-3])


@hostile(NOT_JSON)
def a_manifest_that_is_not_utf8(parts: Parts) -> bytes:
    return _raw(parts, lambda text: text.replace(b"ant", b"\xff\xfe\x80"))


@hostile(NOT_JSON)
def a_manifest_in_utf16(parts: Parts) -> bytes:
    return _raw(parts, lambda text: text.decode().encode("utf-16"))


@hostile(NOT_JSON)
def lists_nested_a_hundred_thousand_deep(parts: Parts) -> bytes:
    return parts.sealed(manifest=b"[" * 100_000 + b"]" * 100_000)


@hostile(NOT_JSON)
def objects_nested_a_hundred_thousand_deep(parts: Parts) -> bytes:
    return parts.sealed(manifest=b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


@hostile(NOT_JSON)
def a_graph_of_deep_arguments(parts: Parts) -> bytes:
    return _raw(parts, lambda text: text.replace(b"[4]", b"[" * 5000 + b"4" + b"]" * 5000))


@hostile(NOT_JSON)
def an_integer_of_a_million_digits(parts: Parts) -> bytes:
    return _raw(parts, lambda t: t.replace(b'"num_outputs":3', b'"num_outputs":' + b"9" * 10**6))


@hostile(NOT_JSON)
def a_key_twice(parts: Parts) -> bytes:
    return _raw(parts, lambda text: text.replace(b'{"task"', b'{"task":"regression","task"', 1))


@hostile(NOT_JSON)
def nan_for_a_probability(parts: Parts) -> bytes:
    return _raw(parts, lambda t: t.replace(b'"drop_prob":0.5', b'"drop_prob":NaN'))


@hostile("drop_prob|finite")
def an_infinite_number(parts: Parts) -> bytes:
    return _raw(parts, lambda t: t.replace(b'"drop_prob":0.5', b'"drop_prob":1e999'))


@hostile("holds more than")
def a_million_empty_lists(parts: Parts) -> bytes:
    return parts.sealed(sampling=b"[" + b"[]," * 1_500_000 + b"[]]")


@hostile("is larger than it may be")
def a_manifest_of_spaces(parts: Parts) -> bytes:
    return _raw(parts, lambda text: text + b" " * (20 * 2**20))


@hostile("manifest: expects the fields")
def a_manifest_that_is_a_list(parts: Parts) -> bytes:
    return parts.sealed(manifest=b"[1,2,3]")


def _field(title: str, reason: str, **fields: object) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        parts.manifest |= fields
        return parts.sealed()


HUGE = 10**12
_field("another format", "format_version", format_version=2)
_field("a format that is a text", "format_version", format_version="1")
_field("a task nobody knows", "task", task="ranking")
_field("an output of another task", "output", output="mean")
_field("an output that is a list", "output", output=["logits"])
_field("fewer classes than outputs", "classes", classes=["ant", "bee"])
_field("two classes of one name", "classes", classes=["ant", "ant", "bee"])
_field("classes that are numbers", "classes", classes=[1, 2, 3])
_field(
    "a million classes",
    "larger than it may be",
    num_outputs=10**6,
    classes=[str(i) for i in range(10**6)],
)
_field(
    *("fewer outputs than the graph returns", "the manifest states"),
    num_outputs=2,
    classes=["ant", "bee"],
)
_field(
    *("more outputs than the graph returns", "the manifest states"),
    num_outputs=4,
    classes=["ant", "bee", "cat", "dog"],
)
_field("sigmoid logits of three outputs", "the manifest states", output="sigmoid_logits")
_field(
    *("a pair that the graph does not return", "the manifest states"),
    task="regression",
    output="mean_and_log_variance",
    classes=None,
)
_field(
    *("levels of quantiles for logits", "quantile_levels expects null"),
    quantile_levels=[0.1, 0.5, 0.9],
)
_field("an axis of outputs for logits", "output_axis expects null", output_axis=1)
for _title, _levels in {
    "quantiles without levels": None,
    "levels that fall": [0.9, 0.5, 0.1],
    "levels without a median": [0.1, 0.4, 0.9],
    "levels beyond 1": [0.1, 0.5, 1.5],
    "a thousand and one levels": [0.5] * 1001,
}.items():
    _field(
        *(_title, "manifest: quantile_levels:? expects"),
        task="regression",
        output="quantiles",
        classes=None,
        quantile_levels=_levels,
    )
_field("no inputs", "at least one input", inputs=[])
_field("a negative number of outputs", "num_outputs", num_outputs=-1)
_field("true for a number", "num_outputs", num_outputs=True)
_field("a scale of zero", "target_scale", target_scale=[[0.0] * 3, [0.0] * 3])
_field("a scale of two axes", "target_scale", target_scale=[[[0.0]] * 3, [[1.0]] * 3])
_field("notes of a megabyte", "notes", notes="x" * 10**6)
_field("a field of Python's own", "manifest: expects the fields", __class__="os", __reduce__=[])
_field("half a character in a class name", "characters", classes=["ant", "bee", "\ud800"])
_field("a byte of 0 in a class name", "characters", classes=["ant", "bee", "c\0t"])


def _digests(title: str, reason: str, digests: object) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return parts.sealed(manifest=dumped(parts.manifest | {"digests": digests}))


_digests("digests that are missing", "SHA-256", {})
_digests("digests that are a list", "digests expects", [])
_digests("digests that are numbers", "digests: expects a text", {"sampling.json": 7})


def _input(title: str, reason: str, **fields: object) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        parts.manifest["inputs"][0] |= fields
        return parts.sealed()


_input("rows of another shape than the graph takes", "does not run", shape=[5])
_input("rows of numbers that the graph does not take", "does not run", dtype="int64")
_input("rows of a type nobody knows", "expects one of", dtype="complex64")
_input("rows of a million million numbers", "two rows of the inputs take", shape=[HUGE, 4])
_input("rows of 32 GiB", "two rows of the inputs take", shape=[2**33])
_input("rows of 2^40 numbers", "bytes", shape=[2**40])
_input("a negative dimension", "expects an integer", shape=[-4])
_input("a dimension that is a fraction", "expects an integer", shape=[4.5])
_input("a dimension of 2^80", "expects an integer", shape=[2**80])
_input(
    *("a dimension that is an expression", "name"),
    shape=["__import__('os').system('touch canary')"],
)
_input("a dimension that is a sum", "name", shape=["s0 + 4"])
_input("an input of an empty name", "name", name="")
_input("an input that the graph does not name", "is not declared", name="y")
_input("bounds the wrong way round", "low", low=5, high=-5)
_input("bounds beyond 64 bits", "expects an integer", low=0, high=2**64, dtype="int64")
_input("half of the bounds", "low", low=5, high=None)


def _site(title: str, reason: str, **fields: object) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        parts.manifest["sites"][0] |= fields
        return parts.sealed()


_site("a site with an index out of range", "indices", index=7)
_site("a site with a negative index", "expects an integer", index=-1)
_site("a negative probability", "drop_prob", drop_prob=-0.5)
_site("a probability above 1", "drop_prob", drop_prob=1.5)
_site("a dropout that keeps all", "equal", drop_prob=0.0)
_site("a dropout that keeps nothing", "equal", drop_prob=1.0)
_site("a probability that is a text", "finite number", drop_prob="0.5")
_site("no probability", "drop_prob", drop_prob=None)
_site("a distribution nobody knows", "expects one of", distribution="cauchy")
_site("a granularity nobody knows", "expects one of", granularity="atom")
_site("a site of another shape than is drawn", "site 0", shape=[7])
_site("a site of more axes than are drawn", "site 0", shape=[8, 8])
_site("a site of huge shape", "expects an integer|site 0", shape=[2**41])
_site("a site whose rows lie on another axis", "site 0", batch_dim=1)
_site("a site without rows that has them", "site 0", batch_dim=None)
_site("a site with an axis of rows out of range", "expects an integer", batch_dim=99)
_site("learned that is a number", "learned", learned=1)


@hostile("manifest: sites")
def eleven_thousand_sites(parts: Parts) -> bytes:
    site: Json = parts.manifest["sites"][0]
    short = site | {"operator": "", "module_path": ""}
    parts.manifest["sites"] = [short | {"index": i} for i in range(11_000)]
    return parts.sealed()


@hostile("every site of the manifest")
def a_site_that_no_graph_draws(parts: Parts) -> bytes:
    parts.manifest["sites"] += [parts.manifest["sites"][0] | {"index": 1}]
    return parts.sealed()


@hostile("indices")
def two_sites_of_one_index(parts: Parts) -> bytes:
    parts.manifest["sites"] *= 2
    return parts.sealed()


@hostile("at least one site")
def no_sites(parts: Parts) -> bytes:
    parts.manifest["sites"] = []
    return parts.sealed()


@hostile("at least one site")
def nothing_random(parts: Parts) -> bytes:
    parts.manifest["sites"] = []
    parts.sampling = json.loads(dumped(parts.point))
    return parts.sealed()
