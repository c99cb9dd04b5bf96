"""Who may see the pages, and which forms are taken."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.serving.pages.entry import COOKIE, place_after
from rediffuse.serving.past import Past
from tests.serving.pages import Html, act_form, signed_in
from tests.serving.shop import Shop, opened

SCOPES = {"reader": "read", "writer": "write", "boss": "admin", "shop": "read,write", "all": "read,write,admin"}


@pytest.fixture
def shop(models: Path, tmp_path: Path) -> Generator[Shop]:
    with opened(models, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def locked(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    with opened(models, tmp_path_factory.mktemp("locked"), scopes=SCOPES) as found:
        yield found


@pytest.mark.parametrize(
    ("wrong", "status", "why"),
    [
        ({"token": "x"}, 403, "out of date"),
        ({"token": "ü"}, 403, "out of date"),
        ({"token": None}, 403, "out of date"),
        ({"view": None}, 422, "names nothing that is done"),
        ({"view": "0 "}, 422, "not possible"),
        ({"draws": "many"}, 422, "number of draws"),
        ({"draws": "65"}, 422, "draws"),
        ({"user": "p:x"}, 422, "user"),
        ({"event_id": ""}, 422, "event_id"),
    ],
)
def test_a_wrong_form_says_why_and_does_nothing(shop: Shop, wrong: dict[str, Any], status: int, why: str) -> None:
    fields = {**act_form(shop), "view": "0 A00001", **wrong}
    answer = shop.client.post("/shop/acts", data={k: v for k, v in fields.items() if v is not None})
    assert answer.status_code == status
    (at,) = [n for n, (_, a) in enumerate(Html(answer.text).found) if "data-problem" in a]
    assert at
    assert why in answer.text
    assert shop.service.store.state().events == 0


def test_forms_of_other_sites_are_not_taken(shop: Shop, locked: Shop) -> None:
    signed_in(locked, "all")
    for place in (shop, locked):
        fields, before = {**act_form(place), "view": "0 A00001"}, place.service.store.state().seq
        for head in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert place.client.post("/shop/acts", data=fields, headers=head).status_code == 403
            assert place.client.post("/ops/models", data={**fields, "promote": "two"}, headers=head).status_code == 403
            assert place.client.post("/pages/sign-in", data={"key": "x"}, headers=head).status_code == 403
        assert place.service.store.state().seq == before
        assert place.service.models()[0].name == "one"
        body = {"content": b"\xff=1", "headers": {"content-type": "application/x-www-form-urlencoded"}}
        assert place.client.post("/shop/acts", **body).status_code in (400, 403)
        assert place.client.post("/shop/acts", json={}).status_code == 415


@pytest.mark.parametrize("path", ["/", "/shop", "/shop?user=ann", "/ops", "/ops/live", "/shop/nothing", "/ops/models"])
def test_without_a_key_there_is_only_the_form_for_it(locked: Shop, path: str) -> None:
    locked.client.cookies.clear()
    for head in ({}, {"authorization": f"Bearer {locked.secrets['all']}"}, {"cookie": f"{COOKIE}=rd_x"}):
        answer = locked.client.get(path, headers=head, follow_redirects=False)
        assert (answer.status_code, answer.headers["hx-refresh"]) == (401, "true")
        page = Html(answer.text)
        assert page.all("input", name="wanted")[0]["value"] == path
        assert page.all("nav") == []
    assert locked.client.post("/shop/acts", data={"view": "0 A00001"}).status_code == 401
    assert locked.client.post("/ops/models", data={"promote": "two"}).status_code == 401


def test_signing_in_and_out(locked: Shop) -> None:
    locked.client.cookies.clear()
    wrong = locked.client.post("/pages/sign-in", data={"key": "rd_wrong", "wanted": "/ops"})
    assert wrong.status_code == 401
    assert "This is no key of the service" in wrong.text
    assert "rd_wrong" not in wrong.text
    answer = locked.client.post("/pages/sign-in", data={"key": locked.secrets["all"]}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/shop")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie
    text = locked.client.get("/ops").text
    assert locked.secrets["all"] not in text
    assert "Sign out" in text
    assert locked.client.post("/v1/recommendations", json={}).status_code == 401, "cookies open no route of the API"
    token = str(Html(text).all("input", name="token")[0]["value"])
    assert locked.client.post("/pages/sign-out", data={"token": "x"}).status_code == 403
    assert locked.client.post("/pages/sign-out", data={"token": token}).status_code == 200
    assert locked.client.get("/ops").status_code == 401


def test_over_tls_the_cookie_is_kept_to_it(locked: Shop) -> None:
    locked.client.cookies.clear()
    data = {"key": locked.secrets["all"]}
    answer = locked.client.post("https://127.0.0.1:8000/pages/sign-in", data=data, follow_redirects=False)
    assert "secure" in answer.headers["set-cookie"].lower()
    locked.client.cookies.clear()


def test_each_page_needs_its_scope(locked: Shop) -> None:
    signed_in(locked, "writer")
    assert locked.client.get("/shop?user=ann").status_code == 403
    assert locked.client.get("/ops").status_code == 403
    signed_in(locked, "reader")
    page = locked.client.get("/shop?user=ann")
    assert "This key may look but not act" in page.text
    assert all("disabled" in a for a in Html(page.text).all("button", form="act"))
    assert locked.client.post("/shop/acts", data={**act_form(locked), "view": "0 A00001"}).status_code == 403
    assert "Models are listed and changed with a key of scope" in locked.client.get("/ops").text
    signed_in(locked, "shop")
    assert locked.client.post("/shop/acts", data={**act_form(locked), "view": "0 A00001"}).status_code == 200
    fields = act_form(locked)
    assert locked.client.post("/ops/models", data={"token": fields["token"], "promote": "two"}).status_code == 403
    assert locked.service.models()[0].name == "one"
    locked.client.cookies.clear()


def test_the_form_of_another_key_is_not_taken(locked: Shop) -> None:
    signed_in(locked, "shop")
    fields = act_form(locked)
    signed_in(locked, "all")
    assert locked.client.post("/shop/acts", data={**fields, "view": "0 A00001"}).status_code == 403
    locked.client.cookies.clear()


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/ops?live=off", "/ops?live=off"),
        ("/shop?user=a%20b", "/shop?user=a%20b"),
        ("//evil.example/shop", "/shop"),
        ("https://evil.example/shop", "/shop"),
        ("/shop\\@evil", "/shop"),
        ("/shop\r\nSet-Cookie: x", "/shop"),
        ("/v1/models", "/shop"),
        ("javascript:alert(1)", "/shop"),
        ("", "/shop"),
    ],
)
def test_signing_in_leads_to_a_page_of_ours(wanted: str, place: str) -> None:
    assert place_after(wanted) == place


def test_known_users_are_offered_to_who_may_see_them(models: Path, tiny: Dataset, tmp_path: Path) -> None:
    with opened(models, tmp_path, past=Past(tiny), scopes=SCOPES) as shop:
        signed_in(shop, "reader")
        assert Html(shop.client.get("/shop?user=ann").text).all("option", value=tiny.users.items.ids[0]) == []
        signed_in(shop, "all")
        page = Html(shop.client.get("/shop", params={"user": tiny.users.items.ids[0]}).text)
        assert page.all("option", value=tiny.users.items.ids[0])
        assert "Last seen" in " ".join(page.words)
