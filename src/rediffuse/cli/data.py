"""`import`, `describe`, `split`: from foreign files to a dataset that is ready to learn from."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rediffuse.cli.console import (
    JsonOption,
    SetOption,
    line,
    settings,
    show_table,
    tell,
    transfer_progress,
    write_result,
)
from rediffuse.config import parse_value
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import IMPORTERS, SHOPS, child, format_of, holds_products, options_of
from rediffuse.data.rules import EventRules
from rediffuse.data.splits import recipe_of
from rediffuse.errors import InvalidInput, refuse_options, say
from rediffuse.evaluation import wording
from rediffuse.files import new_file

_SHOWN = ("events", "duplicates", "density", "first time", "last time")  # in the table of facts
_STYLES = {"warning": "yellow", "note": None}


def import_(
    format: Annotated[  # noqa: A002
        str,
        typer.Argument(
            help="auto, table, merchant, ga4, shopify, retail_v2, personalize, segment, movielens, recbole, lightgcn, s3rec, diffrec or atelier."
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="File or folder; for movielens also a name such as ml-1m; for atelier the size: tiny, small or large."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Dataset folder to make; for a feed alone a parquet file of items.")],
    events: Annotated[
        Path | None,
        typer.Argument(help="Events to join with SOURCE, which then is a feed of products in FORMAT."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OURS=THEIRS", help="table, recbole: user=customer_id, item=sku, time=..."),
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="table, recbole: time, sequence (rows stand in order) or none.")
    ] = None,
    time_unit: Annotated[str, typer.Option(help="table, recbole: s, ms, us or auto.")] = "auto",
    items: Annotated[Path | None, typer.Option(help="table: a file with attributes of items.")] = None,
    users: Annotated[Path | None, typer.Option(help="table: a file with attributes of users.")] = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="NAME[=COLUMN]",
            help="table: a column of words that tell of the moment of an event (device, channel); may be repeated.",
        ),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="table: the shop's, for seasons, as in Europe/Berlin; times without one stay UTC."),
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(help="Weight of each kind, others are left out: purchase=1,view=.2", metavar="KIND=WEIGHT,.."),
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Leave out events whose value is below.")] = None,
    returns: Annotated[
        str | None,
        typer.Option(
            help="Kinds that cancel an earlier purchase (return,refund,cancel); '' for none.", metavar="KIND,.."
        ),
    ] = None,
    repeats: Annotated[
        str | None, typer.Option(help="Whether what somebody has had may be recommended again: allow or mask.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the dataset.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="atelier: which world.")] = None,
    valid: Annotated[
        float | None,
        typer.Option(min=0, help="lightgcn: share of each user's training items that selects; 0: as shipped."),
    ] = None,
    cut: Annotated[
        str | None, typer.Option(help="lightgcn: which of a user's training items select: drawn or tail (the last).")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            help="Shops' formats, or with a feed: recommend products (group_id, the default) or variants (item_id)."
        ),
    ] = None,
    event_types: Annotated[
        list[str] | None,
        typer.Option(
            "--event-type", metavar="THEIRS=KIND", help="personalize: what an EVENT_TYPE is; may be repeated."
        ),
    ] = None,
    bad_rows: Annotated[
        float | None,
        typer.Option(
            "--bad-rows",
            min=0,
            max=1,
            help="Shops' formats: share of rows that may be left out because they cannot stand; .01.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Read foreign events, or a shop's feed and its events, into a dataset folder.

    Example: `rediffuse import table orders.csv --map user=customer,item=sku --to data/shop`
    """
    given: dict[str, Any] = {
        "columns": _columns(columns or []) or None,
        "order": order,
        "time_unit": None if time_unit == "auto" else time_unit,
        "items": items,
        "users": users,
        "contexts": _contexts(contexts or []) or None,
        "time_zone": time_zone,
        "name": name,
        "seed": seed,
        "valid": valid,
        "cut": cut,
        "level": level,
        "event_types": _columns(event_types or [], "--event-type") or None,
        "bad_rows": bad_rows,
    }
    rules: dict[str, Any] = {
        "kinds": None if kinds is None else _weights(kinds),
        "min_rating": min_rating,
        "returns": None if returns is None else tuple(filter(None, map(str.strip, returns.split(",")))),
        "repeats": repeats,
    }
    known, chosen = ({key: value for key, value in some.items() if value is not None} for some in (given, rules))
    if events is None and format != "atelier" and holds_products(Path(source), format):
        _publish_items(format, Path(source), to, {**known, **chosen}, json)
        return
    dataset = read_source(format, source, events, known, chosen)
    _publish(dataset, to, json)
    if dataset.split is None:
        recipe = {"time": "global-time", "sequence": "user-order"}.get(dataset.events.order)
        if recipe:
            tell(f"Next: {line('rediffuse', 'split', to, recipe, '--to', f'{to}-split')}")
    else:
        tell(f"Next: {line('rediffuse', 'train', 'diffrec', '--data', to, '--to', 'models/diffrec')}")


def describe(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    json: JsonOption = None,
) -> None:
    """Show what a dataset holds: counts, time range, order, split, content hash, and what may mislead a model.

    Example: `rediffuse describe data/shop`
    """
    facts = Dataset.read(dataset).describe(now_us())
    show_facts(facts)
    write_result(json, facts)


def split(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    recipe: Annotated[str, typer.Argument(help="global-time, user-order, leave-last-out, cold-items or cold-users.")],
    to: Annotated[Path, typer.Option("--to", help="Dataset folder to make.")],
    sets: SetOption = None,
    json: JsonOption = None,
) -> None:
    """Part the events into train, valid and test by a recipe, which is recorded.

    Example: `rediffuse split data/shop global-time --set valid=.1 --set test=.1 --to data/shop-split`
    """
    found = Dataset.read(dataset).with_split(recipe_of(recipe, settings(sets)))
    _publish(found, to, json)
    tell(f"Next: {line('rediffuse', 'compare', '--data', to, '--methods', 'popularity,ease,diffrec')}")


def _columns(texts: Sequence[str], flag: str = "--map") -> dict[str, str]:
    """`ours=theirs,..` as a mapping; names are text whatever they look like. Raises: InvalidInput for anything else."""
    out: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        ours, separator, theirs = pair.partition("=")
        if not separator or not ours.strip():
            what, example = ("ours=theirs", "user=customer_id") if flag == "--map" else ("theirs=kind", "Buy=purchase")
            raise InvalidInput(say(f"{flag} takes {what}", got=pair, remedy=f"For example: {flag} {example}"))
        out[ours.strip()] = theirs.strip()
    return out


def _contexts(texts: Sequence[str]) -> dict[str, str]:
    """`name` or `name=column` each, several parted by commas -> name -> column. Raises: InvalidInput for an empty name."""
    out: dict[str, str] = {}
    for text in (text for several in texts for text in several.split(",")):
        ours, _, theirs = (part.strip() for part in text.partition("="))
        if not ours:
            raise InvalidInput(
                say("--context takes a name", got=text, remedy="For example: --context device=device_type")
            )
        out[ours] = theirs or ours
    return out


def _weights(text: str) -> dict[str, Any]:
    """`kind=weight,..` as a mapping. Raises: InvalidInput for anything else."""
    out: dict[str, Any] = {}
    for pair in text.split(","):
        kind, separator, weight = pair.rpartition("=")
        if not separator or not kind.strip():
            remedy = "For example: --kinds purchase=1,view=.2"
            raise InvalidInput(say("--kinds takes kind=weight", got=pair, remedy=remedy))
        out[kind.strip()] = parse_value(weight.strip())
    return out


def read_source(name: str, source: str, events: Path | None, given: dict[str, Any], rules: dict[str, Any]) -> Dataset:
    """Hand the source to its importer, with the options that importer takes; what shops export, to a child."""
    place = Path(source) if events is None else events
    chosen = name if name == "atelier" else format_of(place, name if events is None else "auto")
    importer = IMPORTERS[chosen]
    able = set(options_of(chosen))
    able -= {"level"} if chosen == "table" and events is None else set()
    able |= {"bad_rows"} if chosen in SHOPS or events is not None else set()
    refuse_options(
        f"import {chosen}", [*given, *rules], able | (set(EventRules.model_fields) if "rules" in able else set())
    )
    more: dict[str, Any] = {"rules": EventRules.make(rules)} if rules else {}
    if events is not None:
        return child.read(events, chosen, feed=Path(source), feed_format=name, **given, **more)
    if chosen in SHOPS:
        return child.read(place, chosen, **given, **more)
    if "progress" not in able:
        return importer(source if chosen == "atelier" else place, **given, **more)
    with transfer_progress(f"Fetching {source}") as progress:
        return importer(place, **given, **more, progress=progress)


def _publish_items(name: str, source: Path, to: Path, options: Mapping[str, Any], json: Path | None) -> None:
    """Write a feed alone as a table of items, which an import of events takes."""
    refuse_options("import of a feed without events", options, ["bad_rows"])
    if to.exists():
        raise InvalidInput(say(f"{str(to)!r} exists already", remedy="Choose another place or remove it first"))
    items = child.products(source, name, **options)
    with new_file(to) as place:
        items.write_parquet(place)
    facts = {"items": items.height, "products": items["group_id"].n_unique(), "columns": items.columns}
    rows = [(what, f"{facts[what]:,}") for what in ("items", "products")] + [("columns", ", ".join(items.columns))]
    show_table(source.name, ("fact", "value"), rows)
    write_result(json, facts)
    tell(f"Next: {line('rediffuse', 'import', 'auto', to, 'EVENTS', '--to', 'data/shop')}")


def _publish(dataset: Dataset, to: Path, json: Path | None) -> None:
    facts = dataset.write(to, now_us())
    show_facts(facts)
    write_result(json, facts)


def now_us() -> int:
    """The time of this moment, UTC microseconds."""
    return time.time_ns() // 1000


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print what `dataset.json` records, and the health of the data with a remedy for each finding."""
    rows = [(name, f"{facts[name]:,}") for name in ("users", "items", "events")]
    rows += [("density", f"{facts['density']:.3%}"), ("order", str(facts["order"]))]
    rows += [(name.replace("_", " "), str(facts[name])) for name in ("first_event", "last_event") if name in facts]
    rows += [(f"kind {name}", f"{count:,}") for name, count in facts["kinds"].items()]
    rows += [
        (f"context {name}", wording.counted(count, "word"))
        for name, count in facts["facts"].get("contexts", {}).items()
    ]
    rows += [("duplicates left out", f"{facts['facts'].get('duplicates', 0):,}")]
    rows += [("repeats", facts["repeats"])]
    if facts["split"]:
        rows += [("split", facts["split"]["recipe"]["recipe"])]
        rows += [(f"part {name}", f"{count:,}") for name, count in facts["split"]["parts"].items()]
    rows += [("protocols", ", ".join(facts["protocols"]) or "standard"), ("content", facts["content_sha256"][:16])]
    show_table(facts["name"], ("fact", "value"), rows)
    health = facts["health"]
    show_table(
        "Health of the data",
        ("what", "count"),
        [(name, _count(name, n)) for name, n in health["counts"].items() if name not in _SHOWN],
    )
    for finding in health["findings"]:
        tail = f" {finding['remedy'].rstrip('.')}." if finding["remedy"] else ""
        tell(f"{finding['severity']}: {finding['sentence'].rstrip('.')}.{tail}", _STYLES[finding["severity"]])


def _count(name: str, number: float) -> str:
    """A count or a share."""
    return f"{number:.1%}" if name.startswith("cold ") else f"{number:,.0f}"
