"""POST /v1/losses/{name}: one call of one loss."""

from functools import partial

from starlette.types import Receive, Scope

from service.catalogue.registry import Catalogue, D, Registry, Unknown
from service.doors.coded import begin, json_answer
from service.doors.front import Answer
from service.doors.pipeline import Pipeline
from service.engine import cost
from service.engine.call import Evaluation
from service.problems import NotFound
from service.settings import Settings
from service.wire import native


class SingleCalls:
    """Answers evaluations of one loss."""

    def __init__(self, catalogue: Catalogue, settings: Settings, pipeline: Pipeline) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.pipeline = pipeline

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request."""
        loss = find_declared(self.catalogue, scope["state"]["match"].parameters["name"])
        scope["state"]["stages"].loss = loss.name
        work = await begin(self.pipeline, scope, receive, self.settings)
        queue, headers = self.pipeline.queue, scope["state"]["headers"]

        def encode(decoded: native.Decoded, evaluation: Evaluation) -> Answer:
            return json_answer(native.answer_parts(decoded, evaluation, queue.observer), headers)

        decode = partial(native.decode_held, loss, work.held)
        return await self.pipeline.call(work, decode, encode, work.size * cost.BYTE_S)


def find_declared(catalogue: Registry[D], name: str) -> D:
    """Look a loss or a metric up by name or alias.

    Raises:
        NotFound: there is none; the problem names the closest.
    """
    try:
        return catalogue[name]
    except Unknown as error:
        raise NotFound(str(error)) from None
