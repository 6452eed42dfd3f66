"""Typed JSON documents of the Open Inference Protocol; OpenAPI is made from them."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.wire.documents import FaultDocument, Map, Names

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
]
Numbers = Annotated[
    Any,
    Field(
        description="The numbers, row-major, flat or nested; null stands for NaN.",
        examples=[[2.0, 1.0, 0.1]],
    ),
]
REQUESTED = "Which outputs to return, in this order: value, grad.<input>, aux.<name>, divisor. The default is value and aux.*."
PARAMETERS = (
    "reduction, gradients (a bool, or names separated by commas), dtype, divide_by, timeout in microseconds, "
    "binary_data_output, and the loss's own params by name, lists as a JSON string."
)


class InferenceServer(TypedDict):
    """The server and its extensions."""

    name: str
    version: NotRequired[str]
    extensions: Names


class InferenceLive(TypedDict):
    """Whether the process is alive."""

    live: bool


class InferenceReady(TypedDict):
    """Whether the device is warm."""

    ready: bool


class InferenceModels(TypedDict):
    """The names of the models."""

    models: Names


class InferenceModelReady(TypedDict):
    """Whether a model is ready."""

    name: str
    ready: bool


class InferenceTensor(TypedDict):
    """A tensor that a model takes or returns."""

    name: str
    datatype: Datatype
    shape: list[int]


class InferenceModel(TypedDict):
    """Inputs and outputs of a model."""

    name: str
    versions: Names
    platform: str
    inputs: list[InferenceTensor]
    outputs: list[InferenceTensor]


class InferenceConfigTensor(TypedDict):
    """A tensor in Triton's configuration format."""

    name: str
    data_type: str
    dims: list[int]
    optional: NotRequired[bool]


class InferenceConfig(TypedDict):
    """A model in Triton's configuration format."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[InferenceConfigTensor]
    output: list[InferenceConfigTensor]


class InferenceStatistics(TypedDict):
    """Counts and times of models."""

    model_stats: list[Map]


class InferenceIndexEntry(TypedDict):
    """A model in the repository."""

    name: str
    version: str
    state: str
    reason: str


class InferenceNothing(TypedDict):
    """An empty object."""


class InferenceInput(TypedDict):
    """A tensor in a request."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: NotRequired[Map]
    data: NotRequired[Numbers]


class InferenceRequestedOutput(TypedDict):
    """A requested output."""

    name: str
    parameters: NotRequired[Map]


class InferenceRequest(TypedDict):
    """A request to evaluate a loss."""

    id: NotRequired[str]
    parameters: NotRequired[Annotated[Map, Field(description=PARAMETERS)]]
    inputs: list[InferenceInput]
    outputs: NotRequired[Annotated[list[InferenceRequestedOutput], Field(description=REQUESTED)]]


class InferenceOutput(TypedDict):
    """A tensor in an answer."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: NotRequired[Map]
    data: NotRequired[Numbers]


class InferenceResponse(TypedDict):
    """The result of a request."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[InferenceOutput]


class InferenceError(TypedDict):
    """The problem with a request."""

    error: Annotated[str, Field(description="All faults, in one text.")]
    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FaultDocument]
