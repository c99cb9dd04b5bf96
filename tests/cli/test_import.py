"""`import` and `describe`: rules given as options, and what the data's health is said to be."""

import json
from pathlib import Path

import pytest

from rediffuse.data.dataset import Dataset
from tests.cli.conftest import Command

EVENTS = "user,item,ts,event_type,rating\n" + "".join(
    f"u{n % 4},i{n % 3},{1_700_000_000 + n},{('view', 'purchase', 'cart', 'refund')[n % 4 if n < 20 else 0]},{n % 5 + 1}\n"
    for n in range(40)
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text(EVENTS)
    return path


def test_rules_reach_the_record(command: Command, source: Path, tmp_path: Path) -> None:
    rules = ("--kinds", "purchase=1, view=.2", "--min-rating", "2", "--returns", "refund", "--repeats", "allow")
    said = command("import", "table", source, "--to", tmp_path / "d", *rules, "--json", tmp_path / "d.json")
    assert said.code == 0, said
    facts = json.loads((tmp_path / "d.json").read_text())
    assert facts["facts"]["rules"]["kinds"] == {"purchase": 1.0, "view": 0.2}
    assert facts["facts"]["left_out"] == {"kind cart": 5, "value below 2": 7}
    assert facts["repeats"] == "allow"
    data = Dataset.read(tmp_path / "d")
    assert data.repeats == "allow"
    assert data.events.frame["weight"].unique().sort().to_list() == pytest.approx([0, 0.2, 1])
    assert "left out: kind cart" in said.out
    assert json.loads((tmp_path / "d" / "dataset.json").read_text()) == facts


def test_health_is_shown_and_described(command: Command, source: Path, tmp_path: Path) -> None:
    said = command("import", "table", source, "--to", tmp_path / "d")
    assert "Health of the data" in said.out
    assert "note: Events of 3 kinds count alike. Weigh them: --kinds cart=1," in said.out
    assert "note: Returns took back 0 purchases; 5 returns found none (kinds refund and purchase)" in said.out
    again = command("describe", tmp_path / "d", "--json", tmp_path / "d.json")
    assert "note: Events of 3 kinds count alike." in again.out
    facts = json.loads((tmp_path / "d.json").read_text())
    assert facts["health"]["counts"]["rows"] == 40
    assert facts["health"]["counts"]["times in the future"] == 0
    assert "warning" not in said.out


def test_times_in_the_future_are_warned_of(command: Command, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,ts\n1,a,2099-01-01\n1,b,2099-01-02T10:00:00Z\n")
    said = command("import", "auto", tmp_path / "e.csv", "--to", tmp_path / "d")
    assert "warning: 2 times lie in the future, the last 2099-01-02T10:00:00+00:00. Check the unit" in said.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--kinds", "purchase"),
            "--kinds takes kind=weight. Got 'purchase'. For example: --kinds purchase=1,view=.2.",
        ),
        (("--kinds", "purchase=much"), "kinds.purchase = 'much' is not possible"),
        (("--kinds", "purchase=-1"), "kinds.purchase = -1 is not possible"),
        (("--kinds", "buy=1"), "Unknown kind 'buy'."),
        (("--kinds", "refund=1"), "kind 'refund' cannot both weigh and cancel. Take it out of returns."),
        (("--min-rating", "9"), "The rules leave no event."),
        (("--repeats", "sometimes"), "repeats = 'sometimes' is not possible"),
    ],
)
def test_wrong_rules_are_refused(refused: Command, source: Path, tmp_path: Path, options: tuple, message: str) -> None:
    assert message in refused("import", "table", source, "--to", tmp_path / "d", *options).err


def test_a_format_without_kinds_refuses_rules(refused: Command, tmp_path: Path) -> None:
    said = refused("import", "atelier", "tiny", "--to", tmp_path / "d", "--kinds", "view=1")
    assert "import atelier cannot use 'kinds'." in said.err


def test_declared_contexts_are_kept_and_told(command: Command, tmp_path: Path) -> None:
    text = "user,item,ts,Device Type,channel\n" + "".join(
        f"u{n % 4},i{n % 3},{1_700_000_000 + n},{('phone', 'desktop')[n % 2]},c{n % 3}\n" for n in range(40)
    )
    (tmp_path / "e.csv").write_text(text)
    words = ("--context", "device=Device Type", "--context", "channel")
    said = command("import", "table", tmp_path / "e.csv", "--to", tmp_path / "d", *words)
    assert said.code == 0, said
    assert "context device" in said.out
    assert "2 words" in said.out
    facts = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert facts["facts"]["contexts"] == {"device": 2, "channel": 3}
    assert Dataset.read(tmp_path / "d").events.contexts["device"] == ("desktop", "phone")
    assert command("split", tmp_path / "d", "user-order", "--to", tmp_path / "s").code == 0
    assert "context device" in command("describe", tmp_path / "s").out


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("colour", "There is no column 'colour' for 'colour'. Columns: 'user', 'item', 'ts', 'event_type', 'rating'."),
        ("season=event_type", "A context cannot take the name of a condition that is known anyway. Got 'season'."),
        ("=event_type", "--context takes a name. Got '=event_type'."),
    ],
)
def test_wrong_contexts_are_refused(refused: Command, source: Path, tmp_path: Path, context: str, message: str) -> None:
    assert message in refused("import", "table", source, "--to", tmp_path / "d", "--context", context).err
