"""The right format is named for each layout, and what was seen when none fits or several do."""

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.importers import IMPORTERS, detect
from rediffuse.errors import InvalidInput

FILES: dict[str, dict[str, str]] = {
    "diffrec": {"train_list.npy": "", "valid_list.npy": ""},
    "movielens": {"ratings.csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "README.txt": "1 2\n"},
    "recbole": {"a.inter": "user_id:token\titem_id:token\n1\t2\n", "a.item": "item_id:token\n2\n"},
    "lightgcn": {"train.txt": "0 1 2\n", "test.txt": "0 3\n", "user_list.txt": "org_id remap_id\n1 2\n"},
    "s3rec": {"Beauty.txt": "1 2 3\n2 3 4\n", "Beauty_sample.txt": "1 4 5\n"},
}


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def folder(place: Path, *files: dict[str, str]) -> Path:
    place.mkdir()
    for name, content in (pair for one in files for pair in one.items()):
        (place / name).write_text(content)
    return place


@pytest.mark.parametrize("name", FILES)
def test_folders_are_known_by_their_files(name: str, tmp_path: Path) -> None:
    assert detect(folder(tmp_path / "d", FILES[name])) == name
    assert name in IMPORTERS


def test_files_and_names_are_known_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path / "d", FILES["recbole"], FILES["s3rec"], {"log.txt": "user,item\n1,2\n"}))
    with zipfile.ZipFile("ml.zip", "w") as archive:
        archive.writestr("ml-x/ratings.dat", "1::2::3::4\n")
    known = {
        "a.inter": "recbole",
        "Beauty.txt": "s3rec",
        "log.txt": "table",
        "ml.zip": "movielens",
        "ml-1m": "movielens",
    }
    assert {name: detect(Path(name)) for name in known} == known


def test_the_last_fm_layout_and_the_older_movielens_are_known(tmp_path: Path) -> None:
    assert detect(folder(tmp_path / "a", {"data1.txt": "1\t2\t3\n", "test1.txt": "1\t3\t3\n"})) == "lightgcn"
    assert detect(folder(tmp_path / "b", {"u.data": "1\t2\t3\t4\n"})) == "movielens"


def test_what_was_seen_is_said_when_unsure(tmp_path: Path) -> None:
    with refused("holds no files of a known format. Got 'a.xml, b.xml'. Allowed: a file (table: CSV"):
        detect(folder(tmp_path / "a", {"a.xml": "", "b.xml": ""}))
    with refused("holds no files of a known format. Got 'nothing'."):
        detect(folder(tmp_path / "b"))
    with refused("may be recbole or s3rec. Got 'Beauty.txt, Beauty_sample.txt, a.inter, a.item'. Name the format: rec"):
        detect(folder(tmp_path / "c", FILES["recbole"], FILES["s3rec"]))
    with refused("is not there. Allowed: a file (table"):
        detect(tmp_path / "none")
    many = folder(tmp_path / "d", {f"{n:02}.xml": "" for n in range(20)})
    with refused("10.xml, 11.xml, ..'"):
        detect(many)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "")
    with refused("holds no files of a known format. Allowed"):
        detect(tmp_path / "x.zip")


@pytest.mark.realdata
def test_real_folders(real: Path) -> None:
    names = {
        "ml-100k": "recbole",
        "gowalla": "lightgcn",
        "lastfm-hetrec": "lightgcn",
        "amazon-beauty": "s3rec",
        "amazon-toys": "s3rec",
        "ml-1m_clean": "diffrec",
    }
    assert {name: detect(real / name) for name in names} == names
    with refused("Got 'README.md, categories.json, history.npz"):
        detect(real / "polyvore-u")
