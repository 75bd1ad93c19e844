"""The configuration of `dubito train`: TOML, read strictly.

What a network is made of beside the rows is declared once, by the network's own arguments: a table
names those that a file may set, and takes their types and defaults from there.

Flow: file -> TOML -> tables checked key by key -> `TrainConfig`, or one `InputError` that names the
key, what was expected there and, for a key that does not exist, those that do.
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from torch import nn

from dubito.errors import InputError
from dubito.labels import LabelsAre
from dubito.problems import read_problems
from dubito_nn.networks import CNN, RNN, ResNet, Transformer

Rate = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Sizes = Annotated[tuple[Count, ...], Field(min_length=1)]


class TomlTable(BaseModel):
    """A table of the file: no key but those it knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, table: object) -> object:
        for key in table if isinstance(table, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                meant = f" (did you mean `{near[0]}`?)" if near else ""
                known = ", ".join(sorted(cls.model_fields))
                raise ValueError(f"unknown key `{key}`{meant}, the keys are {known}")
        return table


class NetworkTable(TomlTable):
    """A network of which some arguments are keys of the table."""

    arguments: ClassVar[tuple[str, ...]] = ()

    def options(self) -> dict[str, Any]:
        """The arguments that the table holds, by name."""
        return {name: getattr(self, name) for name in self.arguments}


_CHECKED: dict[object, object] = {
    int: Count,
    float: Rate,
    float | None: Positive | None,
    Sequence[int]: Sizes,
    tuple[int, int]: tuple[Count, Count],
}
"""How a value of a file is checked for an argument of that type; a lone float is a rate."""
_Table = TypeVar("_Table", bound=NetworkTable)


def _taking(network: type[nn.Module], *names: str) -> Callable[[type[_Table]], type[_Table]]:
    """Give a table the arguments of a network as keys, with their types and defaults."""
    types, arguments = get_type_hints(network.__init__), inspect.signature(network).parameters

    def with_keys(table: type[_Table]) -> type[_Table]:
        keys: dict[str, Any] = {
            name: (_CHECKED.get(types[name], types[name]), arguments[name].default)
            for name in names
        }
        made = create_model(
            table.__name__, __base__=table, __module__=__name__, __doc__=table.__doc__, **keys
        )
        made.arguments = names
        return made

    return with_keys


class MLPTable(TomlTable):
    """A multi-layer perceptron."""

    kind: Literal["mlp"]
    hidden: Sizes = (64, 64)
    drop_inputs: StrictBool = False
    heteroscedastic: StrictBool = False
    standardise: StrictBool = True


class SELUTable(TomlTable):
    """A self-normalising network; its p is `dropout.drop_prob`."""

    kind: Literal["selu"]
    hidden: Sizes = (64, 64)
    standardise: StrictBool = True


class ImageTable(NetworkTable):
    """A network for images, whose rows are flat."""

    image_shape: tuple[Count, Count, Count] | None = None


@_taking(CNN, "channels", "hidden", "cosine_scale")
class CNNTable(ImageTable):
    """A small convolutional network for images."""

    kind: Literal["cnn"]


@_taking(ResNet, "channels", "stochastic_depth", "dropblock", "block_size")
class ResNetTable(ImageTable):
    """A residual network for images; `dropout.drop_prob` is that before its head."""

    kind: Literal["resnet"]


class TokenTable(NetworkTable):
    """A network for tokens."""

    num_words: Count | None = None


@_taking(RNN, "embedding_size", "hidden", "num_layers", "cell", "word_drop_prob")
class RNNTable(TokenTable):
    """A recurrent network for tokens; `dropout.drop_prob` is that of inputs and states."""

    kind: Literal["rnn"]


@_taking(Transformer, "num_features", "num_heads", "num_layers")
class TransformerTable(TokenTable):
    """An encoder for tokens; `dropout.drop_prob` is that of all places but attention."""

    kind: Literal["transformer"]
    attention_drop_prob: Rate = 0.1


AnyNetworkTable = Annotated[
    MLPTable | SELUTable | CNNTable | ResNetTable | RNNTable | TransformerTable,
    Field(discriminator="kind"),
]
_KINDS = {"mlp", "selu", "cnn", "resnet", "rnn", "transformer", "standard", "concrete"}


class StandardTable(TomlTable):
    """Dropout with fixed rates."""

    kind: Literal["standard"] = "standard"
    drop_prob: Rate = 0.2
    spatial_drop_prob: Rate = 0.1


class ConcreteTable(TomlTable):
    """Dropout that learns its rates."""

    kind: Literal["concrete"]
    drop_prob_init: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] = 0.1
    length_scale: Positive = 1e-2


DropoutTable = Annotated[StandardTable | ConcreteTable, Field(discriminator="kind")]


class TrainingTable(TomlTable):
    """How the network is trained."""

    epochs: Count = 100
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    weight_decay: NotNegative = 0.0
    l1: NotNegative = 0.0
    max_norm: Positive | None = None
    clip_norm: Positive | None = None
    label_smoothing: Rate = 0.0
    mixup: Positive | None = None
    validation_share: Rate = 0.2
    patience: Count | None = None
    reestimate_batch_norm: StrictBool = False
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    device: str = "cpu"


class SearchTable(TomlTable):
    """Which drop probabilities are tried."""

    drop_prob: Annotated[
        tuple[Annotated[float, Field(strict=True, gt=0.0, lt=1.0)], ...], Field(min_length=1)
    ]
    num_samples: Annotated[int, Field(strict=True, ge=2)] = 64


class TrainConfig(TomlTable):
    """The whole configuration file."""

    data: Path
    bundle: Path
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    labels_are: LabelsAre | None = None
    label: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    target: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    notes: str | None = None
    network: AnyNetworkTable
    dropout: DropoutTable = StandardTable()
    training: TrainingTable = TrainingTable()
    search: SearchTable | None = None

    @field_validator("classes")
    @classmethod
    def _refuse_equal_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError(f"expected different names, got {', '.join(names)}")
        return names


def read_config(path: Path) -> TrainConfig:
    """Read a configuration; the paths in it are relative to its own folder.

    Raises:
        InputError: it is not TOML, a key is unknown or missing, or a value is out of range.
        OSError: the file cannot be read.
    """
    try:
        config = TrainConfig.model_validate(_with_kind(tomllib.loads(path.read_text("utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected TOML, got something else: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {_first(error)}") from error
    folder = path.parent
    return config.model_copy(
        update={"data": folder / config.data, "bundle": folder / config.bundle}
    )


def _with_kind(tables: dict[str, object]) -> dict[str, object]:
    """The tables with the kind of dropout written out where it is the default one."""
    dropout = tables.get("dropout")
    return (
        tables | {"dropout": {"kind": "standard"} | dropout}
        if isinstance(dropout, dict)
        else tables
    )


def _first(error: ValidationError) -> str:
    """The first thing wrong: key, and what was expected and given."""
    path, message = read_problems(error.errors())[0]
    # Pydantic names the member of a union as well.
    key = ".".join(part for part in path.split(".") if part not in _KINDS)
    return f"{key}: {message}" if key else message
