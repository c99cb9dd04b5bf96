"""From the store to the next model; an earlier one that may know who was erased is no beginning."""

from pathlib import Path

from rediffuse.artifacts import read_model
from rediffuse.serving.store import Event, open_store
from tests.cli.conftest import SMALL, Command


def test_after_an_erasure_a_training_begins_anew(command: Command, model: Path, shop: Path, tmp_path: Path) -> None:
    ids, file = read_model(model).items, tmp_path / "events.sqlite"
    store = open_store(str(file))
    store.append([Event(f"e{n}", ids[n], "purchase", 1_900_000_000_000_000 + n, user=f"u{n % 5}") for n in range(50)])

    def ready(name: str, of: Path = file) -> Path:
        for args in (
            ("collect", of, "--data", shop, "--to", tmp_path / f"{name}-all"),
            ("split", tmp_path / f"{name}-all", "global-time", "--to", tmp_path / name),
        ):
            said = command(*args)
            assert said.code == 0, said
        return tmp_path / name

    def trained(name: str, data: Path, *args: object) -> str:
        said = command("train", *args, "--data", data, "--to", tmp_path / name, *SMALL)
        assert (said.code == 0) == (tmp_path / name).is_dir(), said
        return said.err.replace("\n", " ") if said.code else ""

    first = ready("first")
    other = open_store(str(tmp_path / "other.sqlite"))
    moved = ready("moved", tmp_path / "other.sqlite")
    assert trained("a", first, "--from", model) == ""
    assert trained("b", first, "--from", tmp_path / "a") == ""
    said = trained("c", moved, "--from", tmp_path / "a")  # whether somebody was erased or not
    assert "learned from another event store" in said
    assert store.state().name in said
    assert other.state().name in said
    assert "leave --from out" in said
    other.close()
    receipt = store.erase("u1")
    second = ready("second")
    for earlier in (model, tmp_path / "a", tmp_path / "b"):
        said = trained("c", second, "--from", earlier)
        assert "may still know somebody who was erased" in said
        assert f"erasure {receipt.seq}" in said
        assert "leave --from out" in said
    assert "whose erasures this dataset does not tell" in trained("c", shop, "--from", tmp_path / "a")
    assert trained("c", second, "diffrec") == ""
    assert trained("d", second, "--from", tmp_path / "c") == ""
    told = read_model(tmp_path / "d").data["store"]
    assert (told["erased_seq"], told["name"]) == (receipt.seq, store.state().name)
    store.close()
