"""What replies of `/v2` say, as the protocol and Triton's extensions name it.

`InferPage` is never made: `reply.py` writes the arrays as they are.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, RootModel

from dubito.api.open_inference.datatypes import TEXT, Datatype
from dubito.api.open_inference.description import Description, TensorSpec
from dubito.api.pages.base import JsonPage
from dubito.columns import to_json
from dubito.serving.inferences import InferenceTally, Spent

PLATFORM = "dubito_bundle"


class ServerPage(JsonPage):
    """What the server is."""

    name: str = Field(description="`dubito`.")
    version: str = Field(description="Version of Dubito.")
    extensions: list[str] = Field(description="Extensions of the protocol that it has.")


class ServerLivePage(JsonPage):
    """Whether the server lives."""

    live: bool = Field(description="Whether the event loop and the device worker beat.")


class ServerReadyPage(ServerLivePage):
    """Whether the server takes requests."""

    ready: bool = Field(description="Whether all pinned models are loaded and requests are taken.")


class ModelReadyPage(JsonPage):
    """Whether a version is ready."""

    name: str = Field(description="Name of the model.")
    ready: bool = Field(description="Whether it is loaded, or will be by its first request.")


class TensorEntry(JsonPage):
    """An input or an output."""

    name: str = Field(description="Its name.")
    datatype: Datatype = Field(description="Its datatype.")
    shape: list[int] = Field(description="Its shape, the rows first; -1 where a size is free.")

    @classmethod
    def of_spec(cls, spec: TensorSpec) -> Self:
        """The entry of an input or output."""
        return cls.of(spec, shape=spec.shape)


class ModelMetadataPage(JsonPage):
    """What a version takes and gives."""

    name: str = Field(description="Name of the model.")
    versions: list[str] = Field(description="Numbers of its versions that can be asked.")
    platform: str = Field(description="`dubito_bundle`.")
    inputs: list[TensorEntry] = Field(description="Its inputs.")
    outputs: list[TensorEntry] = Field(
        description="The outputs of a request that names none, as it is answered now."
    )

    @classmethod
    def of_version(cls, described: Description, versions: list[str]) -> Self:
        """The page of a version, beside the others of its model."""
        return cls(
            name=described.version.model,
            versions=versions,
            platform=PLATFORM,
            inputs=[TensorEntry.of_spec(spec) for spec in described.inputs],
            outputs=[TensorEntry.of_spec(spec) for spec in described.outputs],
        )


class ConfigTensorEntry(JsonPage):
    """An input or an output, without its rows."""

    name: str = Field(description="Its name.")
    data_type: str = Field(description="Its datatype, as Triton names it: `TYPE_FP32`.")
    dims: list[int] = Field(description="Its shape without the rows; -1 where a size is free.")

    @classmethod
    def of_spec(cls, spec: TensorSpec) -> Self:
        """The entry of an input or output."""
        kind = "STRING" if spec.datatype == TEXT else spec.datatype
        return cls(name=spec.name, data_type=f"TYPE_{kind}", dims=list(spec.dims))


class ConfigParameterEntry(JsonPage):
    """A parameter of the configuration."""

    string_value: str = Field(description="Its value, as text.")


class ModelConfigPage(JsonPage):
    """The configuration of a version, as Triton has it."""

    name: str = Field(description="Name of the model.")
    platform: str = Field(description="`dubito_bundle`.")
    backend: str = Field(description="`dubito`.")
    max_batch_size: int = Field(description="Maximum number of rows in one request.")
    input: list[ConfigTensorEntry] = Field(description="Its inputs.")
    output: list[ConfigTensorEntry] = Field(
        description="The outputs of a request that names none, as it is answered now."
    )
    parameters: dict[str, ConfigParameterEntry] = Field(
        description="The version, its defaults, and of a classification `classes`: the names of "
        "the classes as JSON, in the order of the last axis."
    )

    @classmethod
    def of_version(cls, described: Description, max_rows: int) -> Self:
        """The configuration of a version."""
        version = described.version
        said = {"version": str(version.number)}
        said |= {name: str(value) for name, value in version.defaults.items() if value is not None}
        if described.classes is not None:
            said["classes"] = to_json(described.classes).decode()
        return cls(
            name=version.model,
            platform=PLATFORM,
            backend="dubito",
            max_batch_size=max_rows,
            input=[ConfigTensorEntry.of_spec(spec) for spec in described.inputs],
            output=[ConfigTensorEntry.of_spec(spec) for spec in described.outputs],
            parameters={
                name: ConfigParameterEntry(string_value=value) for name, value in said.items()
            },
        )


class DurationEntry(JsonPage):
    """How often, and how long in all."""

    count: int = Field(description="How often.")
    ns: int = Field(description="How long in all, in nanoseconds.")


class InferStatisticsEntry(JsonPage):
    """What inferences took."""

    success: DurationEntry = Field(description="Answered ones, from their body to their reply.")
    fail: DurationEntry = Field(description="Those that were refused or failed.")
    queue: DurationEntry = Field(description="Waiting for the device.")
    compute_input: DurationEntry = Field(description="Reading rows.")
    compute_infer: DurationEntry = Field(description="The work of the device.")
    compute_output: DurationEntry = Field(description="Writing replies.")
    cache_hit: DurationEntry = Field(description="Always 0: there is no cache of replies.")
    cache_miss: DurationEntry = Field(description="Always 0: there is no cache of replies.")


class BatchStatisticsEntry(JsonPage):
    """What inferences of one number of rows took; none are kept."""

    batch_size: int = Field(description="Number of rows.")


class ModelStatisticsEntry(JsonPage):
    """What one version did since the server started."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Number of the version.")
    last_inference: int = Field(description="When the last one ended, in ms since 1970; 0: never.")
    inference_count: int = Field(description="Rows of all inferences that were answered.")
    execution_count: int = Field(description="Inferences that were answered.")
    inference_stats: InferStatisticsEntry = Field(description="What they took.")
    batch_stats: list[BatchStatisticsEntry] = Field(description="Always empty.")

    @classmethod
    def of_tally(cls, model: str, number: int, tally: InferenceTally) -> Self:
        """The entry of a version."""
        none = Spent()
        spent = {
            "success": tally.success,
            "fail": tally.fail,
            "queue": tally.waiting,
            "compute_input": tally.reading,
            "compute_infer": tally.running,
            "compute_output": tally.writing,
            "cache_hit": none,
            "cache_miss": none,
        }
        return cls(
            name=model,
            version=str(number),
            last_inference=int(tally.last_s * 1000),
            inference_count=tally.num_rows,
            execution_count=tally.success.count,
            inference_stats=InferStatisticsEntry.model_validate(
                {name: DurationEntry.of(one) for name, one in spent.items()}
            ),
            batch_stats=[],
        )


class StatisticsPage(JsonPage):
    """What versions did since the server started."""

    model_stats: list[ModelStatisticsEntry] = Field(description="One entry per version.")


class IndexEntry(JsonPage):
    """A version of the repository, on this server."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Number of the version.")
    state: Literal["READY", "LOADING", "UNAVAILABLE"] = Field(
        description="READY also where its first request will load it."
    )
    reason: str = Field(description="Why it is unavailable, else empty.")


class IndexPage(RootModel[list[IndexEntry]]):
    """All versions of all models."""


class BinaryEntry(JsonPage):
    """How an output is sent."""

    binary_data_size: int = Field(description="Bytes of the tensor, behind the JSON.")


class OutputEntry(TensorEntry):
    """An output of an inference."""

    parameters: BinaryEntry | None = Field(
        default=None, description="Where it comes in the binary form."
    )
    data: list[float | int | bool | str | None] | None = Field(
        default=None,
        description="Its values in one list, where it comes as JSON; null where a number does not "
        "exist.",
    )


class InferParametersPage(JsonPage):
    """What an inference was made with; what does not apply is left out."""

    request_id: str = Field(description="Identifier of the request, which feedback takes.")
    num_samples: int = Field(description="T, the number of masked passes per row.")
    seed: int = Field(description="Seed of the masks.")
    masks: str = Field(description="Whether rows share the masks of a pass, or have their own.")
    draw: str = Field(description="How the masks were drawn.")
    method: str = Field(description="How the uncertainty was computed.")
    tolerance: float | None = Field(default=None, description="Error at which a row stopped.")
    sites: str | None = Field(default=None, description="Sampled sites, with commas.")
    precision: str | None = Field(default=None, description="Of the passes, unless float32.")
    fit: int | None = Field(
        default=None, description="The fit that `laplace` or `distilled` answered from."
    )
    fallback: float | None = Field(
        default=None, description="Share of usual rows that `mc` answers in place of `distilled`."
    )
    members: str | None = Field(default=None, description="Versions of the ensemble, with commas.")
    calibration: int | None = Field(default=None, description="The calibration that was applied.")
    warnings: str | None = Field(default=None, description="What to know, a line for each.")


class InferPage(JsonPage):
    """The outputs of an inference."""

    model_name: str = Field(description="Name of the model.")
    model_version: str = Field(description="Number of the version that answered.")
    id: str | None = Field(default=None, description="Identifier that the request gave.")
    parameters: InferParametersPage = Field(description="What the outputs were made with.")
    outputs: list[OutputEntry] = Field(description="The outputs.")
