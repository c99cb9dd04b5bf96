"""Trainings that are interrupted, small, strange or in the layout of the authors."""

import json
from pathlib import Path

import numpy as np
import pytest

from rediffuse.cli import quickstart
from rediffuse.cli.console import show_table, tell, training_progress
from rediffuse.protocols import Progress
from rediffuse.training.checkpoint import FolderCheckpoint
from tests.cli.conftest import SMALL, Command, files

LONGER = ("--set", "hidden=[16]", "--set", "epochs=8", "--set", "validate_every=2", "--threads", "1")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_training_goes_on_as_if_it_had_never_stopped(
    shop: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    whole, torn = (tmp_path / name / "model" for name in ("whole", "torn"))
    train = ("train", "t-diffrec", "--data", shop, *LONGER)
    assert command(*train, "--to", whole).code == 0
    save, saved = FolderCheckpoint.save, []

    def torn_save(self: FolderCheckpoint, *args: object) -> None:
        saved.append(self)
        if when == "before" and len(saved) == 2:
            raise KeyboardInterrupt
        save(self, *args)  # pyright: ignore[reportArgumentType]
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FolderCheckpoint, "save", torn_save)
        said = command(*train, "--to", torn)
    assert said.code == 130
    assert said.out == "Interrupted. The same command goes on from the last checkpoint.\n"
    assert [path.name for path in torn.parent.iterdir()] == [".model.training"]
    other = command(*train, "--set", "levels=3", "--to", torn)
    assert other.code == 2
    assert "keeps an interrupted training with other data or settings" in other.err
    assert command(*train, "--to", torn).code == 0
    assert [path.name for path in torn.parent.iterdir()] == ["model"]
    weights = "weights.safetensors"
    assert (torn / weights).read_bytes() == (whole / weights).read_bytes()
    assert (torn / "vocabulary.parquet").read_bytes() == (whole / "vocabulary.parquet").read_bytes()


def test_an_interruption_before_anything_is_kept_promises_nothing(
    shop: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rediffuse.registry.fit", interrupt)
    said = command("train", "ease", "--data", shop, "--to", tmp_path / "m")
    assert (said.code, said.out) == (130, "")
    assert not files(tmp_path)


def made_pairs(folder: Path) -> Path:
    """30 users, 25 items, in the layout of the DiffRec authors."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = np.array([[user, item] for user in range(30) for item in rng.permutation(25)[:14]])
    place = np.tile(np.arange(14), 30)
    for part, inside in (("train", place < 10), ("test", (place >= 10) & (place < 12)), ("valid", place >= 12)):
        np.save(folder / f"{part}_list.npy", rows[inside])
    return folder


@pytest.mark.parametrize(
    ("protocol", "relevant", "history"),
    [(None, "test", ["train"]), ("as-shipped", "test", ["train"]), ("in-time-order", "valid", ["train", "test"])],
)
def test_the_layout_of_the_authors_from_end_to_end(
    tmp_path: Path, command: Command, protocol: str | None, relevant: str, history: list[str]
) -> None:
    shop, model = tmp_path / "shop", tmp_path / "model"
    said = command("import", "auto", made_pairs(tmp_path / "npy"), "--to", shop)
    assert said.code == 0, said
    assert f"Next: rediffuse train diffrec --data {shop} --to models/diffrec" in said.out
    assert "as-shipped, in-time-order" in said.out
    chosen = ("--protocol", protocol) if protocol else ()
    assert command("train", "diffrec", "--data", shop, "--to", model, *chosen, *SMALL).code == 0
    said = command("evaluate", model, "--data", shop, *chosen, "--json", tmp_path / "e.json")
    assert said.code == 0, said
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["protocol"]["name"] == (protocol or "as-shipped")
    assert found["protocol"]["report"]["relevant"] == relevant
    assert found["protocol"]["report"]["history"] == history
    assert found["protocol"]["leak"] == []
    assert found["users"] == 30


def table(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    path.write_text("user\titem\ttime\n" + "".join(f"{u}\t{i}\t{10**9 + t}\n" for u, i, t in rows), encoding="utf-8")
    return path


def test_strange_ids_pass_through_everything(tmp_path: Path, command: Command) -> None:
    items = [f"red dress [{n}]" if n % 2 else f"[/b] Größe:smile: {n} ☃" for n in range(24)]
    users = ["Zoë von [bold]", "名前", "a b"] * 8
    rows = [(user, items[(7 * n + place) % 24], 24 * place + n) for n, user in enumerate(users) for place in range(3)]
    source = table(tmp_path / "events.tsv", rows)
    assert command("import", "table", source, "--to", tmp_path / "raw", "--name", "Ünïcode [x]").code == 0
    assert "Ünïcode [x]" in command("describe", tmp_path / "raw").out
    shop, model = tmp_path / "shop", tmp_path / "model"
    assert command("split", tmp_path / "raw", "user-order", "--to", shop).code == 0
    assert command("train", "diffrec", "--data", shop, "--to", model, *SMALL).code == 0
    asked = f"{items[1]}, {items[2]} ,[/gone]"
    said = command("recommend", model, "--items", asked, "-k", 30, "--json", tmp_path / "r.json")
    assert said.code == 0, said
    assert "Unknown to the model and left out: [/gone]" in said.out
    assert items[3] in said.out
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert {place["item"] for place in found["items"]} == set(items) - {items[1], items[2]}
    said = command("recommend", model, "--data", shop, "--user", users[0], "-k", 1)
    assert said.code == 0, said
    assert command("recommend", model, "--data", shop, "--user", "[/").code == 2


def test_one_user_is_a_dataset(tmp_path: Path, command: Command) -> None:
    source = table(tmp_path / "one.tsv", [("me", f"i{n:02}", n) for n in range(30)])
    shop = tmp_path / "shop"
    assert command("import", "table", source, "--to", tmp_path / "raw").code == 0
    assert command("split", tmp_path / "raw", "user-order", "--to", shop).code == 0
    for method in ("popularity", "ease", "diffrec"):
        sets = SMALL if method == "diffrec" else ()
        assert command("train", method, "--data", shop, "--to", tmp_path / method, *sets).code == 0
        assert command("evaluate", tmp_path / method, "--data", shop).code == 0
    where = ("--json", tmp_path / "c.json")
    said = command("compare", "--data", shop, "--methods", "popularity,diffrec", *SMALL, *where)
    assert said.code == 0, said
    assert [pair["p_holm"] for pair in json.loads((tmp_path / "c.json").read_text())["pairs"]] == [1.0]


def test_one_item_is_a_dataset(tmp_path: Path, command: Command) -> None:
    source = table(tmp_path / "one.tsv", [(user, "it", n) for user in "abc" for n in range(4)])
    shop, protocol = tmp_path / "shop", tmp_path / "p.toml"
    assert command("import", "table", source, "--to", tmp_path / "raw").code == 0
    assert command("split", tmp_path / "raw", "leave-last-out", "--to", shop).code == 0
    protocol.write_text('ks = [1]\nselect_by = "recall@1"\n')
    where = ("--data", shop, "--protocol", protocol)
    for method in ("popularity", "ease", "diffrec"):
        sets = SMALL if method == "diffrec" else ()
        said = command("train", method, *where, "--to", tmp_path / method, *sets)
        assert said.code == 0, said
        assert "nothing to find on 'valid'" in said.out
        assert command("evaluate", tmp_path / method, *where, "--json", tmp_path / "e.json").code == 0
        found = json.loads((tmp_path / "e.json").read_text())
        assert (found["users"], found["undefined"]) == (0, 3)
        assert found["metrics"]["recall@1"] == {"mean": None, "low": None, "high": None}
        said = command("recommend", tmp_path / method, "--items", "it", "-k", 3)
        assert f"{method}: 0 of 3 asked, after 1 events" in said.out
    repeats = '[selection]\nrelevant="valid"\nhistory=["train"]\nmask=[]\n[report]\nrelevant="test"\nhistory=["train"]\nmask=[]\n'
    protocol.write_text(protocol.read_text() + repeats)
    said = command("evaluate", tmp_path / "popularity", *where, "--json", tmp_path / "e.json")
    assert said.code == 0, said
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["metrics"]["recall@1"]["mean"] == 1.0
    assert found["protocol"]["repeats"] is True


def test_nothing_to_find_can_be_compared(tmp_path: Path, command: Command) -> None:
    source = table(tmp_path / "one.tsv", [(user, "it", n) for user in "abc" for n in range(4)])
    shop, protocol = tmp_path / "shop", tmp_path / "p.toml"
    command("import", "table", source, "--to", tmp_path / "raw")
    command("split", tmp_path / "raw", "leave-last-out", "--to", shop)
    protocol.write_text('ks = [1]\nselect_by = "recall@1"\n')
    where = ("--json", tmp_path / "c.json", "--report", tmp_path / "r.html")
    said = command("compare", "--data", shop, "--protocol", protocol, "--methods", "popularity,diffrec", *SMALL, *where)
    assert said.code == 0, said
    assert json.loads((tmp_path / "c.json").read_text())["results"][0]["users"] == 0


def test_events_without_order_are_not_sent_to_a_split_that_needs_one(tmp_path: Path, command: Command) -> None:
    (tmp_path / "t.csv").write_text("user,item\na,b\n")
    assert "Next:" not in command("import", "table", tmp_path / "t.csv", "--to", tmp_path / "shop").out


def test_a_narrow_terminal_wraps_sentences_and_numbers_nowhere(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command("--version")
    tell("rediffuse " + "x" * 200)
    show_table("A", ("method", "mean", "share"), [("name " * 30, "+0.1234 ± 0.0056", "<0.001")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rediffuse " + "x" * 200
    assert any("+0.1234 ± 0.0056" in line and "<0.001" in line for line in lines)
    assert max(map(len, lines[1:])) <= 100


def test_a_table_that_no_narrow_terminal_holds_loses_no_cell(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command("--version")
    head = ("method", *(f"{n} events of the history" for n in range(8)))
    show_table("A", head, [("popularity", *["−0.1234 (−0.2 to +0.3)"] * 7, "–")])
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if "popularity" in line)
    assert row.count("−0.1234 (−0.2 to +0.3)") == 7
    assert all(str(n) in " ".join(lines[1:6]) for n in range(8))
    assert all("method" not in line or "history" in line or "events" in line for line in lines)


def test_progress_is_drawn_only_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress("Training x") as report:
        report(Progress(1, 2, 0.5, 0.1))
        report(Progress(2, 2, 0.4, 0.2, validation=0.3, best=True))
    assert capsys.readouterr().out == ""


def test_the_shown_methods_exist() -> None:
    from rediffuse.cli.compare import recipes

    assert [chosen.label for chosen in recipes(quickstart.METHODS, {})] == list(quickstart.METHODS)
