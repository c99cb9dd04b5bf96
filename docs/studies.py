"""The part of docs/reference/results.md that tells of studies: uncertainty, guidance, diversity, sparsity, draws, steps, DDRM, the service."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
UNCERTAINTY = {
    "uncertainty-ml-1m-clean-next.json": "diffrec:ml-1m-clean-next, MovieLens-1M in time order",
    "uncertainty-ml-1m-clean-ease.json": "ease:exponential, MovieLens-1M in time order",
    "uncertainty-ml-1m-clean-row.json": "diffrec:ml-1m-clean, MovieLens-1M in time order",
    "uncertainty-atelier-season.json": "diffrec:atelier-season, Atelier small",
    "uncertainty-atelier-next.json": "diffrec:atelier-next, Atelier small",
}
DIVERSITY = {
    "diversity-ml-100k.json": "MovieLens-100K by time",
    "diversity-atelier-next.json": "Atelier small",
}
STEPS = {
    "steps-diffurec-beauty.json": "DiffuRec, Beauty",
    "steps-diffurec-toys.json": "DiffuRec, Toys",
    "steps-dreamrec-beauty.json": "DreamRec, Beauty",
    "steps-dreamrec-toys.json": "DreamRec, Toys",
    "steps-preferdiff-beauty.json": "PreferDiff, Beauty",
    "steps-preferdiff-toys.json": "PreferDiff, Toys",
}
USERS = ("beauty-users-preferdiff.json", "beauty-users-preferdiff-published.json", "beauty-users-dreamrec-sasrec.json")
SPARSITY = {"sparsity-atelier-next.json": "atelier-next", "sparsity-atelier.json": "atelier"}


def studies() -> list[str]:
    """Lines of Markdown."""
    parts = (uncertainty(), guidance(), noise(), diversity(), sparsity(), draws(), steps(), users(), ddrm(), service())
    return [line for part in parts for line in ("", *part)]


def uncertainty() -> list[str]:
    """One row for each model."""
    rows: list[Sequence[str]] = []
    for name, title in UNCERTAINTY.items():
        found = _read(name)["studies"]["calibration"]
        targets, risk = found["targets"], found["risk"]
        best = risk["signals"][risk["surest"]]
        excess = 1 - best["e_aurc"] / (risk["random"] - risk["best possible"])
        size = targets["median set over popularity's"]["value"]
        area = targets["risk-coverage area below random"]["value"]
        drawn = risk["signals"].get("draws: entropy")
        rows.append(
            (
                title,
                f"{targets['ece']['value']:.4f}",
                _interval(targets["brier skill over popularity"]["value"]),
                f"{targets['coverage of 90 % sets']['value']['mean']:.1%}",
                f"{found['sets']['levels']['0.9']['size']:.0f}, {size:.0%}",
                f"{area['mean']:.1%} by {risk['surest']}; at best {risk['best possible below random']:.1%}; excess {excess:.0%} less",
                "no draws" if drawn is None else _interval(drawn["over"]["history length"]),
                f"{found['shift over time']['probabilities']['ece']:.4f}" if found.get("shift over time") else "-",
            )
        )
    head = (
        "model",
        "ECE of the first 20",
        "Brier skill over popularity",
        "90 % sets hold",
        "median set, of popularity's",
        "risk-coverage area below random",
        "draws' entropy less history length",
        "ECE when fitted on the earlier part",
    )
    return [
        "## How sure, and how rightly so",
        "",
        "`rediffuse evaluate MODEL --data DATA --calibration --draws 32`. Calibrated and tested on disjoint halves of the users of one",
        "period; wanted: ECE at most .02, skill above 0, 88 to 92 % held, sets at most 50 % of popularity's, an area at least 10 %",
        "below that of a random order. The area cannot fall far where few lists are hit at all: what the best order of all would",
        'reach stands beside it, and "excess" is the distance to that order. Where the interval of draws less history length holds 0',
        "or lies above, draws tell no more of who will be served badly than the length of a history, which is free. The figures of",
        "draws of `diffrec:ml-1m-clean` were read before the thinned history was mended for short histories. On Atelier sets of 50 %",
        "are out of reach: the order by the true probabilities itself needs 50 to 54 %.",
        "",
        *_table(head, rows),
    ]


def guidance() -> list[str]:
    """Season on Atelier, scale by scale."""
    found = _read("guidance-atelier-season.json")["studies"]["guidance"]["scales"]
    names = ("ndcg@10", "season auroc", "opposite season auroc", "share of the season", "share before")
    rows = [(scale, *(_interval(values[name]) for name in names)) for scale, values in found.items()]
    return [
        "## Asking for another season",
        "",
        "`rediffuse evaluate MODEL --data DATA --guidance`, diffrec:atelier-season of seed 1 on Atelier small. AUROC: the chance that",
        "asking for a season raises an item of it by more than one of another season, over all seasons that were not on and for the",
        "opposite one alone (wanted: .8; the term of the season in the world's own formula reaches .89 over all). Share: places among",
        "the first 10 with items of the season asked for, and with the season as it is.",
        "",
        *_table(("guidance scale", *names), rows),
    ]


def noise() -> list[str]:
    """What a condition that means nothing costs."""
    found = _read("conditions.json")
    told = {
        name: _interval(value, "+.2%") for name, value in found.items() if isinstance(value, dict) and "change" in name
    }
    lines = [f"- {name}: {value}" for name, value in told.items()]
    return [
        "## A condition of pure noise",
        "",
        f"A random word for each user as a condition of diffrec:ml-1m-clean, seeds {', '.join(map(str, found['seeds']))}: ndcg@10 changes by",
        "less than 2 %, as it does when only the seeds of training are others.",
        "",
        *lines,
        "",
        "```",
        found["command"],
        "```",
    ]


def diversity() -> list[str]:
    """The setting chosen on the selection part, read on the report part."""
    rows: list[Sequence[str]] = []
    for name, title in DIVERSITY.items():
        for model, chosen in _read(name)["studies"]["diversity-front"]["chosen"].items():
            read = chosen["report"]
            rows.append(
                (
                    title,
                    model if model == "diffrec" else "ease",
                    f"{chosen['reranker']} {read['diversity']}",
                    _interval(read["gain"], "+.1%"),
                    _interval(read["kept"], ".1%"),
                    f"{read['coverage']:.3f}",
                    f"{read['gini']:.3f}",
                )
            )
    head = ("data", "model", "setting", "intra-list distance", "ndcg@10 kept", "coverage@10", "gini@10")
    return [
        "## What more diverse lists cost",
        "",
        "`rediffuse evaluate MODEL --data DATA --diversity-front --rival EASE`: the most accurate setting of all re-rankers that gives +20 %",
        "distance at 97 % of ndcg@10 on the selection part, else the one that gains most there; figures are of the report part. On",
        "MovieLens-1M and Atelier no setting gives +20 %: their lists are far apart to begin with (.67 and .80 of at most 1).",
        "",
        *_table(head, rows),
    ]


def sparsity() -> list[str]:
    """Accuracy after training on part of the events, and from short histories."""
    out = [
        "## When little is known",
        "",
        "recall@20 on Atelier small after training on a share of the events (one seed):",
        "",
    ]
    rows: list[Sequence[str]] = []
    for name, preset in SPARSITY.items():
        shares = _read(name)["shares"]
        wanted = [m for m in next(iter(shares.values()))["methods"] if m.startswith("diffrec") or preset == "atelier"]
        rows += [(m, *(_interval(s["methods"][m]["recall@20"]) for s in shares.values())) for m in wanted]
    out += _table(("method", *_read("sparsity-atelier.json")["shares"]), rows)
    posted = _read("guidance-atelier-season.json")["studies"]["by-history"]["posted"]
    rows = []
    for method in next(iter(posted.values()))["methods"]:
        label = "diffrec:atelier-season" if method == "diffrec" else method
        rows.append((label, *(_interval(p["methods"][method]["ndcg@20"]) for p in posted.values())))
    out += ["", "ndcg@20 there when only the newest events of every user are posted (`evaluate --by-history`):", ""]
    return [*out, *_table(("method", *posted), rows)]


def draws() -> list[str]:
    """What 64 draws of one user cost."""
    found = _read("draws.json")
    rows = [
        (
            str(r["hidden"]),
            f"{r['plain_ms']:.1f} ms",
            f"{r['together_ms']:.0f} ms",
            f"{r['of_plain']:.1f}x",
            f"{r['of_separate']:.2f}",
        )
        for r in found["rows"]
    ]
    head = ("H", "one answer", f"{found['draws']} draws", "of one answer", "of as many separate answers")
    title = f"{found['draws']} draws of one user at {found['items']:,} items and T = {found['levels']}, on {found['threads']} threads:"
    return ["## What draws cost", "", f"`python -m benchmarks.draws`. {title}", "", *_table(head, rows)]


def steps() -> list[str]:
    """What models of next items answer in fewer steps."""
    rows: list[Sequence[str]] = []
    asked = (1, 2, 4, 8, 32, 100)
    for name, title in STEPS.items():
        found = _read(name)
        kept = {bound: found[f"one_step_keeps{bound}"] for bound in ("", "_low", "_high")}
        keeps = f"{kept['']:.1%} [{kept['_low']:.1%}, {kept['_high']:.1%}] of {found['best_steps']}"
        by_steps = {row["steps"]: f"{row['report']['mean']:.4f}" for row in found["rows"]}
        rows.append((title, *(by_steps.get(count, "-") for count in asked), keeps))
    head = ("presets `amazon`", *map(str, asked), "one step keeps")
    about = (
        "ndcg@10 by steps, `leave-last-out`, history masked, seed 1, made on a GPU: `python -m benchmarks.steps`. The best of 8 "
        "steps or more is chosen on the selection part. DiffuRec has 32 levels; the others have 100."
    )
    return ["## Next items in fewer steps", "", about, "", *_table(head, rows)]


def users() -> list[str]:
    """Users that were not learned from, as PreferDiff parts them."""
    rows = [
        (row["method"], *(_interval(row["metrics"][name]) for name in ("recall@5", "ndcg@5", "recall@10", "ndcg@10")))
        for name in USERS
        for row in _read(name)["results"]
    ]
    about = (
        "Beauty, split `cold-users` with `asked=1`, `history=10`: users parted 8 : 1 : 1, the newest ten events given, one asked, history "
        "masked; 2,237 users, seed 1, made on a GPU. `preferdiff:beauty` is as the authors have it but for the epochs, chosen on the "
        "selection part (every 10, patience 30). Not to be compared with figures of `leave-last-out`."
    )
    return [
        "## New users, as PreferDiff parts them",
        "",
        about,
        "",
        *_table(("method", "recall@5", "ndcg@5", "recall@10", "ndcg@10"), rows),
    ]


def ddrm() -> list[str]:
    """DDRM beside its controls."""
    found = _read("ddrm-ml-1m-clean.json")
    rows = [
        (
            name,
            f"{row['mean']:.4f}",
            _interval(row["metrics"]["recall@20"]),
            "" if name == "ddrm" else _interval(row["ddrm_minus_this"], "+.4f"),
        )
        for name, row in found["rows"].items()
    ]
    about = (
        "MovieLens-1M, the authors' split as shipped, five seeds, each with a LightGCN of its own; settings chosen from 36 on the "
        "selection part with the first, made on a GPU. Noise costs: the same network trained without it, or asked in one step, is better."
    )
    head = ("", "ndcg@20", "recall@20", "ndcg@20 of ddrm less this")
    return ["## DDRM and its controls", "", about, "", "```", found["command"], "```", "", *_table(head, rows)]


def service() -> list[str]:
    """The running service, loaded, flooded, and with models that change."""
    load, flood, swaps = (_read(f"serving-{name}.json") for name in ("load", "overload", "swaps"))
    rows: list[Sequence[str]] = [
        (f"{name.removeprefix('answers_at_')} questions/s come", *_paced(found))
        for name, found in load.items()
        if name.startswith("answers_at_")
    ]
    rows += [
        ("16 connections that ask again at once", *_paced(load["answers_closed"])),
        ("events in batches of 1,000", f"{load['batches']['events_per_s']:,} events/s", *_paced(load["batches"])[1:]),
        ("single events over 32 connections", *_paced(load["singles"])),
    ]
    about = (
        f"A DiffRec of the default size over {load['items']:,} items, live histories of 30 events, nothing cached; the driver on the "
        f"same 2 cores: `python -m benchmarks.serving.load`. Ready {load['ready_s']} s after the start of the process."
    )
    told = flood["flood"]
    full = (
        f"Ten times what 16 connections get ({flood['capacity_per_s']}/s), by clients that do not wait for each other "
        f"(`python -m benchmarks.serving.overload`): {told['answered_per_s']} lists/s, {flood['goodput']:.0%} of that; p99 of lists "
        f"{told['p99_ms']} ms within 500, of refusals {flood['p99_refused_ms']} ms; statuses "
        f"{', '.join(told['statuses'])}; memory {flood['rss_mb']['growth']:+.1%}."
    )
    changed = (
        f"{swaps['swaps']} changes of the model under {swaps['questions']['answered_per_s']} questions/s, {swaps['rollbacks']} of them "
        f"back, {swaps['refused']} refused because the folder was bad (`python -m benchmarks.serving.swaps`): {swaps['failed']} failed, "
        f"{swaps['unlike_offline']} unlike the offline answers of their version; memory {swaps['growth']:+.1%} after the third."
    )
    head = ("what comes", "answered", "p50", "p99")
    return ["## The service", "", about, "", *_table(head, rows), "", full, "", changed]


def _paced(found: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{found['answered_per_s']:,}/s", f"{found['p50_ms']:.0f} ms", f"{found['p99_ms']:.0f} ms"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _interval(value: Mapping[str, float] | float, form: str = ".4f") -> str:
    if isinstance(value, Mapping):
        return f"{value['mean']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"
    return f"{value:{form}}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
