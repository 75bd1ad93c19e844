"""Hostile declarations of what inputs are made of."""

from __future__ import annotations

from typing import Any

from .cases import hostile
from .parts import Json, Parts

NUMBER: Json = {
    **{"name": "age", "mean": 0.0, "scale": 1.0, "missing": None},
    **{"input": "x", "type": "number"},
}
CATEGORY: Json = {
    **{"name": "job", "values": ["nurse", "clerk"], "encoding": "one_hot", "unknown": "refuse"},
    **{"missing": None, "unknown_code": None, "missing_code": None, "mean": None, "scale": None},
    **{"input": "x", "type": "category"},
}
BOOLEAN: Json = {"name": "smokes", "missing": None, "input": "x", "type": "boolean"}
DATE: Json = {
    **{"name": "born", "origin": "1970-01-01", "unit": "days", "mean": 0.0, "scale": 1.0},
    **{"missing": None, "input": "x", "type": "date"},
}
ARRAY: Json = {"scale": 1.0, "shift": 0.0, "input": "x", "seen": None, "kind": "array"}
IMAGE: Json = {
    **{"mode": "RGB", "size": [8, 8], "shorter_side": None, "longer_side": None},
    **{"filter": "bilinear", "crop": None, "fill": 0, "background": [255, 255, 255]},
    **{"scale": 1.0, "mean": 0.0, "std": 1.0, "layout": "CHW", "orient": True, "input": "x"},
    **{"kind": "image"},
}
COLUMNS = [NUMBER, CATEGORY, BOOLEAN]
"""Which give the four numbers that the network reads."""


def table(columns: object) -> Json:
    return {"columns": columns, "kind": "table"}


def _declares(title: str, reason: str, preprocess: object) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        parts.manifest["preprocess"] = preprocess
        return parts.sealed()


def _column(title: str, reason: str, known: Json, **fields: Any) -> None:
    others = [column for column in COLUMNS if column["name"] != known["name"]]
    _declares(title, f"preprocess.*{reason}", [table([*others, {**known, **fields}])])


def _array(title: str, reason: str, **fields: Any) -> None:
    _declares(title, f"preprocess.*{reason}", [{**ARRAY, **fields}])


def _image(title: str, reason: str, **fields: Any) -> None:
    _declares(title, f"preprocess.*{reason}", [{**IMAGE, **fields}])


_declares("a declaration that is code", "expects a list", "__import__('os').system('id')")
_declares("a declaration without parts", "every input", [])
_declares("a part of no kind", "kind: expects one of", [{}])
_declares("a part of a kind nobody knows", "kind: expects one of", [{"kind": "pickle"}])
_declares("a part with a field of its own", "expects the fields", [{**ARRAY, "code": "x"}])
_declares("a part that lacks a field", "expects the fields", [{"kind": "array"}])
_declares("a part twice", "made once", [ARRAY, ARRAY])
_declares("a part for no input", "made once", [{**ARRAY, "input": "y"}])
_declares("a part whose input is not named", "made once", [{**ARRAY, "input": None}])
_declares("a hundred parts", "at most 64", [ARRAY] * 100)
_declares("a table without columns", "at least one", [table([])])
_declares("a table of a thing", "expects a list", [table({"age": NUMBER})])
_declares("five thousand columns", "at most 4096", [table([NUMBER] * 5000)])
_declares("a table that is too narrow", r"shape \(1,\), the network takes", [table([NUMBER])])
_column("a column of a type nobody knows", "type: expects one of", NUMBER, type="formula")
_column("a column without a name", "a name of 1 to", NUMBER, name="")
_column("a column whose name is a megabyte", "at most", NUMBER, name="x" * 10**6)
_column("a column whose name is a list", "expects a text", NUMBER, name=["age"])
_column("a scale of nothing", "other than 0", NUMBER, scale=0)
_column("a scale so small that all is infinite", "other than 0", NUMBER, scale=1e-320)
_column("a mean that is a text", "finite number", NUMBER, mean="0; drop table")
_column("a missing value that is true", "finite number", NUMBER, missing=True)
_column("a category twice", "all different", CATEGORY, values=["nurse", "nurse"])
_column("one category and true", "all different", CATEGORY, values=[1, True])
_column("categories of two kinds", "got both", CATEGORY, values=["nurse", 1])
_column("no categories", "at least one", CATEGORY, values=[])
_column("categories that are lists", "finite number", CATEGORY, values=[[], {}])
_column("an encoding nobody knows", "encoding: expects one of", CATEGORY, encoding="hash")
_column("an unknown place nobody knows", "unknown: expects one of", CATEGORY, unknown="run")
_column("a code for a place that is none", "unknown_code expects null", CATEGORY, unknown_code=3)
_column("zeros for an index", "for an index", CATEGORY, encoding="index", unknown="zeros")
_column("a missing category of another kind", "like the others", CATEGORY, missing=7)
_column("means for other places", "mean expects 2 numbers", CATEGORY, mean=[0.0])
_column("one scale of nothing", "other than 0", CATEGORY, scale=[1.0, 0.0])
_column("half a character in a category", "characters", CATEGORY, values=["nurse", "\ud800"])
_column("a truth value that is a number", "true, false or null", BOOLEAN, missing=1)
_column("an origin that is no time", "ISO 8601", {**DATE, "name": "smokes"}, origin="yesterday")
_column("a unit nobody knows", "unit: expects one of", {**DATE, "name": "smokes"}, unit="eons")
_array("factors for other places", "last axis", scale=[1.0, 2.0])
_array("a factor that is an object", "finite number", scale={"__reduce__": []})
_array("a shift that is infinite", "finite number", shift=10**400)
_array("a range the wrong way round", "no least value above", seen=[[1.0], [0.0]])
_array("a range of other places", "seen.*expects 4 numbers", seen=[[0.0] * 3, [1.0] * 3])
_array("half a range", "two lists", seen=[[0.0]])
_image("images for rows of numbers", r"shape \(3, 8, 8\), the network takes")
_image("images with a field of their own", "expects the fields", plugin="os")
_image("a mode nobody knows", "mode: expects one of", mode="CMYK; rm")
_image("a filter that is code", "filter: expects one of", filter="__import__('os')")
_image("a layout nobody knows", "layout: expects one of", layout="CWH")
_image("a size of one side", "a height and a width", size=[8])
_image("a size of no pixels", r"an integer in \[1, 16384\]", size=[0, 8])
_image("a size of a terapixel", r"an integer in \[1, 16384\]", size=[10**6, 10**6])
_image("a size of all memory", "at most 16777216 pixels", size=[16384, 16384])
_image("a size that is true", r"an integer in \[1, 16384\]", size=[True, 8])
_image("a side that is a fraction", "an integer in", size=None, shorter_side=8.5)
_image("two ways to resize", "at most, got several", shorter_side=8)
_image("a crop that is a text", "expects a list", crop="8x8")
_image("a fill beyond a pixel", "at most 255", fill=256)
_image("a background of four values", "at most 3", background=[0, 0, 0, 0])
_image("a background beyond a pixel", r"an integer in \[0, 255\]", background=[0, 0, 256])
_image("a std of nothing", "other than 0", std=[1.0, 0.0, 1.0])
_image("a std so small that all is infinite", "other than 0", std=1e-320)
_image("means for two channels", "each of 3 channels", mean=[0.0, 0.0])
_image("a mean that is not finite", "finite number", mean=1e308)
_image("a scale that is an object", "finite number", scale={"__reduce__": []})
_image("colours without an axis", "layout expects channels", layout="HW")
_image("a turn that is a number", "true or false", orient=1)
_image("a rounding nobody knows", "crop_rounding: expects one of", crop_rounding="up")
