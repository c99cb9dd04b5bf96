"""Questions that every model must be able to answer before it answers anybody."""

import math
from collections.abc import Sequence

import torch

from rediffuse.errors import ArtifactError, say
from rediffuse.facade import Answer, Model

CANARY_K, MANY = 10, 50
"""Places of a canary's list, and items of its longest history."""
CLOSE = 1e-4
"""How far scores of a canary alone and among others may lie apart, relative to the largest."""
GOLDEN = 1e-3
"""How far scores may lie from those of when the model was made, relative to the largest: what is trained on a GPU may
answer on a CPU, whose sums run in another order, step after step."""


def warm_up(model: Model) -> None:
    """Ask what every model must be able to answer: after nothing, one event, many, an unknown item; alone and together.

    Raises: ArtifactError when a score is not finite, a list is too short or too long, holds an item twice or one that was
        excluded, or is another when asked again.
    """
    ids = model.items.ids
    stranger = "unknown"
    while stranger in model.items:
        stranger += "?"
    histories = [[], list(ids[:1]), list(ids[: min(MANY, len(ids) // 2)]), [stranger]]
    until = model.folder.data.get("until_us") or 0
    times = [[until - second * 1_000_000 for second in reversed(range(len(history)))] for history in histories]

    def asked(rows: Sequence[int]) -> list[Answer]:
        """Together, with all that a method may need to know."""
        some = [histories[row] for row in rows]
        return model.recommend_many(some, CANARY_K, exclude=some, times_us=[times[row] for row in rows])

    for row, other in enumerate(asked(range(len(histories)))):
        history, one = histories[row], asked([row])[0]
        room = min(CANARY_K, len(ids) - len(set(history) - {stranger}))
        wrong = _wrong(one, history, room) or _unlike(one, other)
        if wrong is not None:
            what = f"{model.method} after {len(history)} events answers wrongly"
            raise ArtifactError(say(what, got=wrong, remedy="Train the model anew"))
    _check_golden(model)
    tables = {"popularity": model.folder.popularity, "vectors": model.folder.vectors}
    for name, table in tables.items():
        if table is not None and not bool(torch.isfinite(table).all()):
            raise ArtifactError(say(f"The {name} of this model are not finite", remedy="Train the model anew"))


def _check_golden(model: Model) -> None:
    """Ask what was asked when the model was made. Raises: ArtifactError when it answers otherwise."""
    for told in model.folder.golden:
        found = model.recommend(told["history"], len(told["items"]), times_us=told["times_us"]).items
        right = dict(zip(told["items"], told["scores"], strict=True))
        close = GOLDEN * max(map(abs, told["scores"]), default=0.0)
        alike = len(found) == len(right) and all(
            abs(place.score - score) <= close and abs(right.get(place.item, score) - score) <= close
            for place, score in zip(found, told["scores"], strict=True)
        )
        if not alike:
            what = f"{model.method} answers otherwise than when it was made"
            got = f"{[place.item for place in found[:3]]} .. instead of {told['items'][:3]} .."
            raise ArtifactError(say(what, got=got, remedy="Train the model anew with this version"))


def _scores(answer: Answer) -> list[float]:
    return [place.score for place in answer.items]


def _unlike(one: Answer, other: Answer) -> str | None:
    """Whether two answers to the same differ by more than the order of a sum; ties may have changed places."""
    pairs = list(zip(_scores(one), _scores(other), strict=False))
    close = CLOSE * max((abs(score) for score, _ in pairs), default=0.0)
    alike = len(one.items) == len(other.items) and all(abs(a - b) <= close for a, b in pairs)
    return None if alike else "another list among others"


def _wrong(answer: Answer, history: list[str], room: int) -> str | None:
    """What a canary's answer has wrong. Args: room: places it must have."""
    items = [place.item for place in answer.items]
    if not all(math.isfinite(score) for score in _scores(answer)):
        return "a score that is not finite"
    if len(items) != room:
        return f"{len(items)} places for {room}"
    if len(set(items)) != len(items):
        return "an item twice"
    if set(items) & set(history):
        return "an item that was excluded"
    return None
