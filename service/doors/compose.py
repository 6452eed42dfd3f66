"""POST /v1/compose: several terms over shared inputs, one value, one gradient for each input."""

from starlette.types import Receive, Scope

from service.catalogue.registry import Catalogue
from service.doors.coded import begin, json_answer
from service.doors.front import Answer
from service.doors.pipeline import Pipeline, Steps
from service.engine import cost
from service.engine.compose import Composed, compose
from service.engine.composition import Planner
from service.settings import Settings
from service.wire.compose import DecodedComposition, composition_parts, decode_composition


class Compositions:
    """Answers requests for one composition."""

    def __init__(
        self, catalogue: Catalogue, settings: Settings, pipeline: Pipeline, planner: Planner
    ) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.pipeline = pipeline
        self.planner = planner

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer to one request."""
        work = await begin(self.pipeline, scope, receive, self.settings)
        queue, headers = self.pipeline.queue, scope["state"]["headers"]

        def decode() -> DecodedComposition:
            return decode_composition(self.catalogue, work.held.pop(), self.planner)

        def encode(decoded: DecodedComposition, found: Composed) -> Answer:
            return json_answer(composition_parts(decoded, found), headers)

        steps = Steps(
            decode,
            lambda decoded: cost.computing(decoded.asked.plan.work),
            lambda decoded: compose(decoded.asked, queue.compute_part),
            lambda decoded: None,
            encode,
        )
        return await self.pipeline.apart(work, steps)
