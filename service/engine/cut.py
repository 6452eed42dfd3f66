"""Cut diagnostics whose last axis is as long as the largest of some counts: stacked calls have them at full length."""

from service.engine.call import Call, Evaluation


def cut(call: Call, found: Evaluation) -> Evaluation:
    """Return the results of a call without what lies beyond its counts."""
    if not call.loss.cuts:
        return found
    ends = {
        name: found.aux[name][..., : int(call.inputs[counts].max())]
        for name, counts in call.loss.cuts.items()
    }
    return found._replace(aux={**found.aux, **ends})
