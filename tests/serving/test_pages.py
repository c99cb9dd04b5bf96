"""The pages without a browser: what they hold, what they escape, and what a click does."""

import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.serving.service import Given
from tests.docs.pages import ROOT, Page, blocks
from tests.serving.pages import HOSTILE, Html, act_form, listed
from tests.serving.shop import Shop, opened


@pytest.fixture
def shop(models: Path, tmp_path: Path) -> Generator[Shop]:
    with opened(models, tmp_path) as found:
        yield found


def test_every_page_is_whole_named_and_labelled(shop: Shop) -> None:
    pages = ("/shop?user=ann", "/shop?visitor=v&words=shirt", "/ops", "/pages/sign-in", "/shop?user=ann&draws=900")
    for path in pages:
        answer = shop.client.get(path)
        page = Html(answer.text)
        assert page.all("html", lang="en"), path
        assert page.all("meta", name="viewport")
        assert page.found.index(("a", {"class": "skip", "href": "#main"})) < [t for t, _ in page.found].index("header")
        assert len(page.all("h1")) == 1
        named = {a.get("for") for a in page.all("label")}
        for tag, field in page.found:
            if tag in ("input", "select") and field.get("type") != "hidden":
                assert field["id"] in named, field
        marks = [a["id"] for _, a in page.found if "id" in a]
        assert len(marks) == len(set(marks)), path
        referred = [a[name] for _, a in page.found for name in ("aria-labelledby", "form") if name in a]
        assert set(referred) <= set(marks), path


def test_nothing_comes_from_elsewhere_and_nothing_is_inline(shop: Shop) -> None:
    for path in ("/shop?user=ann", "/ops", "/pages/sign-in", "/shop?user=p:x"):
        answer = shop.client.get(path)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        page = Html(answer.text)
        for tag, attributes in page.found:
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith(("on", "hx-on"))]
            assert tag != "style"
            for name in ("src", "href", "action", "hx-get", "hx-post"):
                assert str(attributes.get(name, "/")).startswith(("/", "#")), (tag, attributes)
        for script in page.all("script"):
            assert shop.client.get(str(script["src"])).headers["content-type"].startswith("text/javascript")
    assert shop.client.get("/pages/static/htmx.LICENSE.txt").status_code == 404
    assert shop.client.get("/pages/static/..%2frender.py").status_code == 404
    kept = (files("rediffuse.serving.pages") / "static" / "htmx.LICENSE.txt").read_text(encoding="utf-8")
    assert "Zero-Clause BSD" in kept
    config = Html(shop.client.get("/ops").text).all("meta", name="htmx-config")[0]["content"]
    assert '"allowEval": false' in str(config)


def test_who_comes_without_a_name_is_a_new_visitor(shop: Shop) -> None:
    assert shop.client.get("/", follow_redirects=False).headers["location"] == "/shop"
    places = {shop.client.get("/shop", follow_redirects=False).headers["location"] for _ in range(2)}
    assert len(places) == 2
    assert all(len(parse_qs(urlsplit(place).query)["visitor"][0]) == 16 for place in places)
    page = shop.client.get("/shop")
    assert page.status_code == 200
    assert "nothing is known of visitor" in page.text


def test_a_user_is_not_the_visitor_before(shop: Shop) -> None:
    answer = shop.client.get("/shop?user=ann&visitor=v&draws=8", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/shop?user=ann&draws=8")


def test_a_click_is_an_event_and_changes_the_list(shop: Shop) -> None:
    before = listed(shop.client.get("/shop?user=ann").text)
    assert before == shop.items(user="ann", k=8)
    fields = act_form(shop)
    answer = shop.client.post("/shop/acts", data={**fields, "view": f"3 {before[2]}"})
    assert answer.status_code == 200
    after = listed(answer.text)
    assert after == shop.items(user="ann", k=8) != before
    assert before[2] not in after
    words = " ".join(Html(answer.text).words)
    changed = sum(item not in before or before.index(item) != place for place, item in enumerate(after))
    assert f"{changed} of 8 recommendations changed" in words
    assert "From 1 event" in words
    assert answer.text.count('class="moved new"') == sum(item not in before for item in after)
    (event,) = shop.service.store.history("ann", 10)
    assert (event.item, event.kind, event.event_id) == (before[2], "view", fields["event_id"])
    assert event.context == {
        "placement": "storefront",
        "recommendation_id": fields["recommendation_id"],
        "list_position": "3",
    }


def test_a_model_that_does_not_draw_says_so(shop: Shop) -> None:
    text = shop.client.get("/shop?user=ann&draws=8").text
    assert "This model does not draw, so it tells no uncertainty." in text
    assert "uncertainty</dt>" not in text
    assert listed(text) == shop.items(user="ann", k=8)


def test_chances_uncertainty_and_what_is_less_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    recommend = shop.service.recommend

    async def drawn(*asked: Any, **more: Any) -> Given:
        given = await recommend(*asked, **more)
        places = tuple(replace(p, p=0.125 / p.rank, spread=0.5 * p.rank) for p in given.answered.items)
        answered = replace(given.answered, items=places, p_of="top_k", degraded="one_draw", because="overload")
        return replace(given, stale=True, answered=replace(answered, fallback=None, unknown=("odd<b>",)))

    monkeypatch.setattr(shop.service, "recommend", drawn)
    page = Html(shop.client.get("/shop?user=ann").text)
    words = re.sub(r"\s+", " ", " ".join(page.words))
    for part in ("in the list 12 % of draws", "in the list 6.2 % of draws", "uncertainty ± 0.5", "uncertainty ± 4"):
        assert part in words
    assert [bar["width"] for bar in page.all("rect")] == ["12", "25", "38", "50", "62", "75", "88", "100"]
    assert "Not known to the model: odd<b>." in words
    assert "This is one draw only: the service is busy." in words
    assert "The newest event is not in this list yet." in words
    assert "Less than the whole method" in words


def test_a_form_sent_twice_counts_once_and_what_was_browsed_names_no_list(shop: Shop) -> None:
    fields = {**act_form(shop), "cart": "0 A00001"}
    for _ in range(2):
        assert shop.client.post("/shop/acts", data=fields).status_code == 200
    (event,) = shop.service.store.history("ann", 10)
    assert (event.kind, event.context) == ("cart", {"placement": "storefront"})
    counted = shop.client.get("/metrics").text
    assert 'rediffuse_events_total{status="stored"} 1.0' in counted
    assert 'rediffuse_events_total{status="known"} 1.0' in counted
    assert shop.client.get("/shop/acts", follow_redirects=False).headers["location"] == "/shop"


def test_a_visitor_is_kept_apart_from_a_user_of_the_same_name(shop: Shop) -> None:
    fields = act_form(shop, "/shop?visitor=ann")
    shop.client.post("/shop/acts", data={**fields, "view": "0 A00001"})
    assert "From 1 event" in shop.client.get("/shop?visitor=ann").text
    assert "nothing is known of ann yet" in shop.client.get("/shop?user=ann").text


def test_who_was_erased_stays_so(shop: Shop) -> None:
    fields = act_form(shop)
    shop.client.post("/shop/acts", data={**fields, "view": "0 A00001"})
    shop.client.delete("/v1/users/ann")
    answer = shop.client.post("/shop/acts", data={**act_form(shop), "view": "0 A00001"})
    assert "The user of this event was erased." in answer.text
    assert shop.service.store.history("ann", 10) == []


def test_hostile_names_are_only_names(shop: Shop, tiny: Dataset) -> None:
    answer = shop.client.get("/shop", params={"user": HOSTILE, "words": HOSTILE, "category": HOSTILE})
    assert answer.status_code == 200
    page = Html(answer.text)
    assert not [a for a in page.all("script") if "src" not in a]
    assert page.all("input", name="user", id="user")[0]["value"] == HOSTILE
    fields = act_form(shop)
    answer = shop.client.post("/shop/acts", data={**fields, "view": f"0 {HOSTILE}"})
    page = Html(answer.text)
    assert f"Viewed {HOSTILE}" in "".join(page.words)
    assert not [a for a in page.all("script") if "src" not in a]
    answer = shop.client.get("/shop", params={"user": "p:someone"})
    assert answer.status_code == 422
    assert "possible" in answer.text


def test_models_are_promoted_and_rolled_back(shop: Shop) -> None:
    token = act_form(shop)["token"]

    def change(**fields: str) -> httpx.Response:
        return shop.client.post("/ops/models", data={"token": token, **fields})

    answer = change(promote="two")
    assert answer.status_code == 200
    assert "two answers now." in answer.text
    assert shop.ask()["model"]["name"] == "two"
    bad = change(promote="not-finite")
    assert bad.status_code == 409
    assert "is not finite" in bad.text
    assert shop.ask()["model"]["name"] == "two"
    assert "one answers now." in change(rollback="1").text
    assert shop.ask()["model"]["name"] == "one"
    assert change(rollback="1").status_code == 409
    assert [change(promote="../one").status_code, change().status_code] == [422, 422]
    assert shop.client.get("/ops/models", follow_redirects=False).headers["location"] == "/ops"


def test_the_view_tells_what_happens(shop: Shop) -> None:
    page = Html(shop.client.get("/ops").text)
    assert page.all("section", id="live")[0]["hx-trigger"] == "every 2s"
    assert "hx-get" not in Html(shop.client.get("/ops?live=off").text).all("section", id="live")[0]
    shop.hands.seconds = 10.0
    shop.post({"item": "A00001", "user": "ann"}, {"item": "A00002", "user": "ann"})
    for _ in range(5):
        shop.ask(user="ann")
    words = re.sub(r"\s+", " ", " ".join(Html(shop.client.get("/ops/live").text).words))
    assert "over the last 10 s" in words
    assert "Lists 0.5 /s" in words
    assert "Events stored 0.2 /s" in words
    assert re.search(r"/v1/recommendations 0\.50 \d+ ms \d+ ms \d+ ms 0 ", words)
    assert "/v1/events 0.10" in words
    assert "/ops" not in words
    assert "Newest event 0 s ago" in words
    assert "Events kept 2" in words
    assert "Method ease" in words


@pytest.mark.slow
def test_the_documented_command_shows_the_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Page(ROOT / "docs" / "pages.md", monkeypatch).run()
    (line,) = [text.strip() for said, text in blocks(ROOT / "docs" / "pages.md") if said == "bash serve"]
    words = [*shlex.split(line)[1:-1], "0"]
    program = [sys.executable, "-c", "from rediffuse.cli.main import run; run()", *words]
    with subprocess.Popen(program, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            told = next(line for line in serving.stdout if line.startswith("Pages: "))
            answer = httpx.get(told.split()[1] + "?visitor=v", timeout=30)
        finally:
            serving.terminate()
    assert (answer.status_code, len(listed(answer.text))) == (200, 8)
