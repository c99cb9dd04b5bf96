"""The card of a model: README.md of its folder, written from what model.json says.

What `made` may hold for it: `summary` (one sentence on the method), `preset`, `changed` (names of settings that differ
from the defaults), `course` (an epoch each: epoch, loss, validation, seconds, best), `controls` (name -> metrics on the
same part), `command`, `from`, seconds and versions. All of it may be missing.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rediffuse.evaluation.markdown import details, escape, fenced, table
from rediffuse.evaluation.wording import counted, listed, mean, meaning, protocol_words, score, short, words

FOLDER = "path/to/this/folder"
SHOWN_EPOCHS = 10
_TOLD = ("summary", "changed", "course", "controls", "command", "preset")
"""Keys of `made` that the card tells elsewhere than among the facts."""


def card(facts: Mapping[str, Any], *, items: Sequence[str], numbers: int) -> str:
    """The card as Markdown; whatever comes from data is escaped.

    Args: facts: the content of model.json.   items: ids of the catalog.   numbers: how many were learned.
    """
    made = facts.get("made", {})
    parts = [
        _head(facts, made, len(items), numbers),
        ("Intended use and limits", _limits(facts)),
        ("How to load", _load(items)),
        ("What it reached", _metrics(facts, made)),
        ("How it was trained", _training(facts, made)),
        ("Data", _data(facts, len(items))),
        ("Protocol", "\n".join(f"- {escape(said)}" for said in protocol_words(facts["protocol"])) or "None recorded."),
        ("How it was made", _made(facts, made)),
        ("Licence", _licence(facts)),
    ]
    shown = [part if isinstance(part, str) else f"## {part[0]}\n\n{part[1]}" for part in parts]
    raw = {key: value for key, value in facts.items() if key not in ("made", "calibrator", "golden")}
    raw["made"] = {key: value for key, value in made.items() if key != "course"}
    block = fenced(json.dumps(raw, indent=1, ensure_ascii=False), "json")
    return (
        "\n\n".join([*shown, details("model.json, without learning curve, calibrator and golden answers", block)])
        + "\n"
    )


def _head(facts: Mapping[str, Any], made: Mapping[str, Any], items: int, numbers: int) -> str:
    name = f"{facts['method']}:{made['preset']}" if made.get("preset") else facts["method"]
    about = f"{escape(made['summary'].rstrip('.'))}. " if made.get("summary") else ""
    learned = f"{counted(numbers, 'number')} learned"
    return (
        f"# {escape(name)}\n\n{about}Trained by rediffuse on {escape(str(facts['data'].get('name')))}: it ranks "
        f"{counted(items, 'item')}; {learned}. A model folder of format version {facts.get('format_version')}: data, no code."
    )


def _limits(facts: Mapping[str, Any]) -> str:
    protocol = facts["protocol"]
    repeats = (protocol.get("report") or {}).get("mask")
    out = [
        "For ranking the items of this catalog for a person with a history of them; it knows no other item.",
        "Measured offline, on what people did without its suggestions; what they do with them is not known.",
        f"It learned from one dataset, {facts['data'].get('name')}, at one time: measure again before it meets others.",
        "It may carry on what its data favours: what was shown often was taken often.",
        "Not for decisions about people: credit, work, housing, insurance.",
    ]
    if repeats:
        out.append("Measured on new items only: where repeats are wanted, measure again.")
    out.append(_promise(facts))
    out += [f"Its figures are a leak: {leak}." for leak in protocol.get("leak") or ()]
    return "\n".join(f"- {escape(line)}" for line in out)


def _promise(facts: Mapping[str, Any]) -> str:
    """What its probabilities are of, and how long they hold."""
    if not facts.get("calibrator"):
        return "It tells no probability of being taken: none was fitted, or too little was taken to fit one."
    part = (facts["protocol"].get("selection") or {}).get("relevant", "the selection part")
    return (
        f"A probability of being taken is for a time as long as {part}, where it was fitted, and for people who take "
        "anything new in it. It drifts: for EASE on ml-1m_clean it was wrong by .006 on average in the same period, by .025 "
        "in the later, longer one."
    )


def _load(items: Sequence[str]) -> str:
    """Python and a command, with items that it knows."""
    history = list(items[:2])
    python = (
        f"import rediffuse\n\nmodel = rediffuse.load({FOLDER!r})\nanswer = model.recommend(history={history!r}, k=10)"
    )
    command = ["rediffuse", "recommend", FOLDER, "--items", ",".join(items[:2]), "-k", "10"]
    return f"{fenced(python, 'python')}\n\n{fenced(shlex.join(command), 'bash')}"


def _metrics(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Metrics with intervals, beside those of controls where they are known; the selection metric first."""
    own, protocol = facts["metrics"], facts["protocol"]
    controls: Mapping[str, Mapping[str, Any]] = made.get("controls") or {}
    if not own:
        return "Nothing was measured."
    chosen = protocol.get("select_by")
    names = sorted(own, key=lambda name: name != chosen)
    columns = [(facts["method"], own), *controls.items()]
    head = ["metric", *(escape(str(title)) for title, _ in columns)]
    rows = [[escape(name), *(_interval(values.get(name)) for _, values in columns)] for name in names]
    part = (protocol.get("selection") or {}).get("relevant", "the selection part")
    parts = protocol.get("refit")
    refit = f", before it learned anew from {listed(parts)}" if parts else ""
    said = (
        f"On {part}, where settings and epochs were chosen{refit}: such figures flatter. Mean over users with its 95 % "
        "interval."
    )
    explained = f" {chosen} is {text}." if chosen and (text := meaning(chosen)) else ""
    beside = "" if controls else " No control was measured beside it."
    return f"{escape(said + explained + beside)}\n\n{table(head, rows)}"


def _interval(value: Any) -> str:
    if not isinstance(value, Mapping):
        return mean(value) if isinstance(value, int | float) else "–"
    middle, low, high = (_or_nan(value.get(name)) for name in ("mean", "low", "high"))
    return f"{mean(middle)} ({mean(low)}–{mean(high)})" if math.isfinite(low) else mean(middle)


def _training(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Every setting, those that differ from the defaults marked, and the learning curve."""
    changed = made.get("changed")
    settings = {**facts["config"], **facts["training"]}
    blocks: list[str] = []
    if settings:
        rows = [[_setting(name, changed or ()), escape(words(value))] for name, value in settings.items()]
        note = "Bold: not the default." if changed else "All are defaults." if changed is not None else ""
        preset = f" Preset {made['preset']}." if made.get("preset") else ""
        blocks += [escape(f"{note}{preset}".strip())] if note or preset else []
        blocks.append(table(["setting", "value"], rows, left=(0, 1)))
    if made.get("course"):
        blocks.append(_course(made["course"], facts["protocol"].get("select_by") or "validation"))
    return "\n\n".join(blocks) or "It has no settings and no epochs."


def _setting(name: str, changed: Sequence[str]) -> str:
    return f"**{escape(name)}**" if name in changed else escape(name)


def _course(course: Sequence[Mapping[str, Any]], metric: str) -> str:
    """A few epochs of the learning curve, the kept one marked."""
    kept = max((point["epoch"] for point in course if point.get("best")), default=None)
    validated = [point for point in course if point.get("validation") is not None] or list(course)
    step = max(-(-len(validated) // (SHOWN_EPOCHS - 1)), 1)
    shown = [
        point
        for place, point in enumerate(validated)
        if place % step == 0 or place == len(validated) - 1 or point["epoch"] == kept
    ]
    rows = [
        [
            f"**{point['epoch']}** (kept)" if point["epoch"] == kept else str(point["epoch"]),
            score(_or_nan(point.get("loss"))),
            mean(_or_nan(point.get("validation"))),
            short(_or_nan(point.get("seconds"))),
        ]
        for point in shown
    ]
    last = course[-1]["epoch"]
    return f"Learning curve, {counted(last, 'epoch')}:\n\n{table(['epoch', 'loss', escape(metric), 'seconds'], rows)}"


def _data(facts: Mapping[str, Any], items: int) -> str:
    """Name, hash, parts and counts."""
    data = {**facts["data"]}
    rows = [["name", escape(str(data.pop("name", None)))]]
    rows.append(["content SHA-256", escape(str(data.pop("content_sha256", None)))])
    rows.append(["learned from", escape(listed(data.pop("fit", ())))])
    rows.append(["items", f"{items:,}"])
    rows += [[escape(key), escape(words(value))] for key, value in data.items() if key not in ("items", "licence")]
    return table(["what", "value"], rows, left=(0, 1))


def _made(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    run = facts["run"]
    rows = [[escape(key), escape(words(run[key]))] for key in ("seed", "device", "precision", "threads") if key in run]
    rows += [[escape(key), escape(words(value))] for key, value in made.items() if key not in _TOLD]
    command = fenced(made["command"], "bash") if made.get("command") else "The command was not recorded."
    return f"{command}\n\n{table(['what', 'value'], rows, left=(0, 1))}"


def _licence(facts: Mapping[str, Any]) -> str:
    data = facts["data"].get("licence")
    of_data = f"licence of the data: {data}" if data else "the licence of the data was not recorded"
    return escape(f"rediffuse is Apache-2.0. The weights were learned from data and stand under its terms: {of_data}.")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
