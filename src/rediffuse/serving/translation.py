"""Bodies of the API -> what engine and store are asked, and their answers -> bodies."""

from rediffuse.serving.engine import Ask, Exploration, Place
from rediffuse.serving.problems import invalid
from rediffuse.serving.schemas import (
    ItemBody,
    ModelSaid,
    PlaceSaid,
    Question,
    ReasonSaid,
    Recommendation,
    Seen,
    Uncertainty,
)
from rediffuse.serving.service import Given
from rediffuse.serving.store import Item
from rediffuse.types import Options


def ask_of(question: Question, fresh: int) -> Ask:
    """What is asked of the engine. Args: fresh: seed of a list that is drawn, where none is named."""
    posted = None if question.history is None else tuple(question.history)
    times = [seen.time_us for seen in posted or () if isinstance(seen, Seen)]
    explore = question.explore
    return Ask(
        user=question.user,
        history=None if posted is None else tuple(seen.item if isinstance(seen, Seen) else seen for seen in posted),
        times_us=tuple(times) if posted and len(times) == len(posted) else None,
        item=question.item,
        k=question.k,
        where=tuple(question.where),
        one_per=question.one_per,
        candidates=None if question.candidates is None else tuple(question.candidates),
        context=question.context,
        options=Options(
            steps=question.steps,
            draws=question.draws,
            temperature=question.temperature,
            guidance_scale=question.guidance_scale,
            diversity=question.diversity,
        ),
        seed=question.seed,
        explore=explore and Exploration(explore.temperature, fresh if explore.seed is None else explore.seed),
        reasons=question.reasons,
    )


def recommendation_of(given: Given) -> Recommendation:
    """What is said of an answer."""
    ask, answered = given.ask, given.answered
    return Recommendation(
        recommendation_id=given.recommendation_id,
        model=ModelSaid(name=answered.model, version=answered.version, sha256=answered.sha256),
        policy=answered.policy,
        seed=ask.seed,
        explore_seed=ask.explore and ask.explore.seed,
        fallback=answered.fallback,
        degraded=answered.degraded,
        stale=given.stale,
        unknown=list(answered.unknown),
        history=len(ask.told),
        p_of=answered.p_of,
        items=[_place(place) for place in answered.items],
        latency_ms=round(1000 * given.seconds, 3),
    )


def _place(place: Place) -> PlaceSaid:
    return PlaceSaid(
        item=place.item_id,
        rank=place.rank,
        title=place.title,
        score=place.score,
        p=place.p,
        uncertainty=None if place.spread is None else Uncertainty(std=place.spread),
        propensity=place.propensity,
        reasons=[ReasonSaid(kind=r.kind, item=r.item_id, similarity=r.similarity) for r in place.reasons],
    )


def item_of(name: str, body: ItemBody) -> Item:
    """What is told of an item, as the store keeps it. Raises: HTTPException 422 for what it would not keep."""
    attributes = {key: tuple(value) if isinstance(value, list) else value for key, value in body.attributes.items()}
    with invalid():
        return Item(name, body.group, body.available, attributes)
