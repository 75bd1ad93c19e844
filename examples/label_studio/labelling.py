"""What a project's labelling configuration asks for, and predictions in its words.

Flow: XML of the project → the `Choices` and the object that they are for → one prediction per task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from xml.etree import ElementTree

Json: TypeAlias = dict[str, object]


class ConfigurationError(ValueError):
    """A labelling configuration that classes cannot be put into."""


@dataclass(frozen=True)
class Choices:
    """The `Choices` of a labelling configuration.

    Args:
        name: of the tag.
        to_name: of the object that is labelled.
        field: of the task's data, that the object shows.
        words: a class → the value of its choice.
    """

    name: str
    to_name: str
    field: str
    words: dict[str, str]

    def prediction(self, label: str, probability: float, score: float, version: str) -> Json:
        """A prediction as Label Studio takes it.

        Args:
            label: the class.
            probability: of the class, in [0, 1].
            score: orders the tasks, in [0, 1].
            version: of the model.
        """
        chosen = {
            "from_name": self.name,
            "to_name": self.to_name,
            "type": "choices",
            "score": probability,
            "value": {"choices": [self.words[label]]},
        }
        return {"model_version": version, "score": score, "result": [chosen]}


def read_choices(configuration: str, classes: Sequence[str]) -> Choices:
    """Find the choices that stand for the classes of a network.

    Args:
        configuration: XML, as Label Studio sends it.
        classes: names of the network's classes; a choice has one as its value or its alias.

    Raises:
        ConfigurationError: There are no such choices, or nothing that they are for.
    """
    try:
        root = ElementTree.fromstring(configuration)
    except (ElementTree.ParseError, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"expected the project's labelling configuration as XML, got {configuration[:40]!r}: "
            "save it once more in Label Studio"
        ) from error
    tags = list(root.iter("Choices"))
    if not tags:
        raise ConfigurationError(
            "expected <Choices> in the labelling configuration, got none: a classification needs "
            "a <Choice> for each class"
        )
    offered = [_words(tag) for tag in tags]
    for tag, words in zip(tags, offered, strict=True):
        if set(classes) <= words.keys():
            mine = {label: words[label] for label in classes}
            to_name = tag.get("toName", "")
            return Choices(tag.get("name", ""), to_name, _field(root, to_name), mine)
    lacking = [label for label in classes if label not in offered[0]]
    raise ConfigurationError(
        f"expected a <Choice> for each of the network's {len(classes)} classes, got none for "
        f"{', '.join(lacking[:5])}: add them, or give a choice the class as its alias"
    )


def _words(tag: ElementTree.Element) -> dict[str, str]:
    """Values of the choices by what stands for a class: the value itself, and the alias."""
    choices = [(one.get("alias"), one.get("value", "")) for one in tag.iter("Choice")]
    return {value: value for _, value in choices} | {
        alias: value for alias, value in choices if alias is not None
    }


def _field(root: ElementTree.Element, name: str) -> str:
    """The field of the data that the object of that name shows, `value="$field"`."""
    for tag in root.iter():
        value = tag.get("value", "")
        if tag.get("name") == name and value.startswith("$"):
            return value[1:]
    raise ConfigurationError(
        f'expected an object with name="{name}" and value="$FIELD", got none: <Choices> says by '
        "toName what it is for"
    )
