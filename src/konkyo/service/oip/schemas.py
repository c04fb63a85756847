"""The bodies of the protocol as types: to check what comes, and to say in OpenAPI what goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

INPUTS = {"image": "UINT8", "image_bytes": "BYTES", "targets": "INT64", "attention": "FP32"}
"""Every input there is, with its datatype."""

OUTPUTS = ("logits", "probabilities", "label", "map", "overlay")
"""Every output there is; all but the last come where none is named."""

Datatype = Literal["UINT8", "INT64", "FP32", "BYTES"]
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
Parameters = dict[str, Any]


class _Came(BaseModel):
    """Unknown fields are let through, as other servers do; what is known must be of its type."""

    model_config = ConfigDict(strict=True, frozen=True)


class InferInput(_Came):
    """A tensor; its values in ``data``, nested or flat, or behind the JSON."""

    name: Annotated[str, Field(json_schema_extra={"enum": list(INPUTS)})]
    shape: Annotated[list[Size], Field(max_length=8)]
    datatype: Annotated[str, Field(json_schema_extra={"enum": list(INPUTS.values())})]
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferOutput(_Came):
    """A tensor that is wanted."""

    name: Annotated[str, Field(json_schema_extra={"enum": list(OUTPUTS)})]
    parameters: Parameters | None = None


class InferBody(_Came):
    """The JSON of an inference request."""

    id: str | None = None
    parameters: Parameters | None = None
    inputs: Annotated[list[InferInput], Field(min_length=1)]
    outputs: list[InferOutput] | None = None


class RepositoryBody(_Came):
    """The JSON of a request to the repository, which may also be empty."""

    parameters: Parameters | None = None
    ready: bool = False


class OutputTensor(BaseModel):
    """A tensor of an answer; ``data`` is flat, or behind the JSON, ``parameters.binary_data_size`` bytes."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None
    data: list[float | str | None] | None = None


class Inferred(BaseModel):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class OipError(BaseModel):
    """Body of every error under ``/v2``."""

    error: str


class Server(BaseModel):
    """What runs here."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The process lives."""

    live: Literal[True]


class Ready(Live):
    """Every model is ready."""

    ready: Literal[True]


class TensorMetadata(BaseModel):
    """A tensor of a model; −1 for a size that varies."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None


class ModelMetadata(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """A model that is ready."""

    name: str
    ready: Literal[True]


class IndexedModel(BaseModel):
    """A version of a model in the repository."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class Loaded(BaseModel):
    """A model after it was loaded or unloaded."""

    name: str
    state: Literal["READY", "UNAVAILABLE"]


class Duration(BaseModel):
    """How often, and how long in all."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Of images, by what they waited for; ``fail`` counts every one that was not answered."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class BatchStatistics(BaseModel):
    """Of the forward passes of one size."""

    batch_size: int
    compute_infer: Duration


class ModelStatistics(BaseModel):
    """Of a version of a model since the process started; ``last_inference`` in ms since 1970, 0 for never."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    """Of every model that was asked for."""

    model_stats: list[ModelStatistics]
