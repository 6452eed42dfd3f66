"""POST /v1/losses/{name}: one call of one loss."""

from starlette.types import Receive, Scope

from service.admission import body
from service.catalogue.registry import AnyLoss, Catalogue, UnknownLoss
from service.doors.front import Answer, json_answer
from service.doors.pipeline import Pipeline
from service.doors.waiting import deadline
from service.engine import cost
from service.engine.call import Evaluation
from service.problems import NotFound
from service.settings import Settings
from service.wire import native


class Evaluations:
    """Answers evaluations of one loss."""

    def __init__(self, catalogue: Catalogue, settings: Settings, pipeline: Pipeline) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.pipeline = pipeline

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request."""
        loss = find(self.catalogue, scope["state"]["match"].parameters["name"])
        scope["state"]["stages"].loss = loss.name
        seconds = deadline(scope, self.settings.deadline_s)
        # decoding takes the body out, so that its memory is free for the rest
        held = [await body.read(scope, receive, self.settings)]
        work = self.pipeline.begin(scope, receive, len(held[0]), seconds)
        decode = lambda: native.decode(loss, held.pop())  # noqa: E731
        return await self.pipeline.call(work, decode, self._encode, cost.reading(work.size))

    def _encode(self, decoded: native.Decoded, evaluation: Evaluation) -> Answer:
        """Write an answer."""
        queue = self.pipeline.queue
        return json_answer(*native.parts(decoded, evaluation, queue.observer))


def find(catalogue: Catalogue, name: str) -> AnyLoss:
    """Look a loss up by name or alias.

    Raises:
        NotFound: there is none; the problem names the closest.
    """
    try:
        return catalogue[name]
    except UnknownLoss as error:
        raise NotFound(str(error)) from None
