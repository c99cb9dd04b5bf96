"""What pages are made of: goods and figures."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.registry import load
from rediffuse.serving.pages.goods import PER_PAGE, Goods
from rediffuse.serving.pages.ops import age
from rediffuse.serving.pages.render import _PAGES
from rediffuse.serving.pages.watch import Watch, quantile
from rediffuse.serving.telemetry import Metrics
from tests.serving.pages import HOSTILE, Html
from tests.serving.shop import Shop, opened


@pytest.fixture
def shop(models: Path, tmp_path: Path) -> Generator[Shop]:
    with opened(models, tmp_path) as found:
        yield found


def test_hostile_titles_are_only_titles(models: Path) -> None:
    model = load(models / "one", device="cpu")
    goods = Goods(replace(model, titles=(HOSTILE,) * len(model.titles)))
    page = Html(str(_PAGES.get_template("_cards.html").module.offer(goods.card("A00001"), 1, "m", True)))
    assert not page.all("script")
    assert HOSTILE in "".join(page.words)


def test_goods_are_found_by_words_and_category(shop: Shop, tiny: Dataset) -> None:
    goods = Goods(load(shop.service.versions._folder / "one", device="cpu"))
    rows = tiny.catalog.attributes
    whole = goods.find("", "", 1)
    assert (whole.total, whole.pages, len(whole.cards)) == (240, 10, PER_PAGE)
    assert goods.find("", "", 999).page == 10
    assert [c.item for page in range(1, 11) for c in goods.find("", "", page).cards] == list(tiny.catalog.items.ids)
    assert (
        goods.find("LINEN shirt", "", 1).total
        == rows.filter(pl.col("title").str.contains("linen") & pl.col("title").str.contains("shirt")).height
    )
    boots = goods.find("", "boots", 1)
    assert boots.total == rows.filter(pl.col("category") == "boots").height > 0
    assert {card.category for card in boots.cards} == {"boots"}
    assert goods.find("a.*b(", "", 1) == goods.find("", "no such", 1)
    assert goods.find("A00007", "", 1).cards[0].item == "A00007"
    first = whole.cards[0]
    assert (first.title, first.price, first.brand) == (rows["title"][0], f"{rows['price'][0]:,.2f}", rows["brand"][0])
    stranger = goods.card("stranger")
    assert (stranger.title, stranger.price, stranger.initials) == ("stranger", "", "S")


def test_what_is_gone_from_the_shelf_says_so(shop: Shop) -> None:
    shop.client.put("/v1/items/A00001", json={"available": False, "attributes": {"price": 3.5, "currency": "EUR"}})
    text = shop.client.get("/shop", params={"user": "ann", "words": "A00001"}).text
    goods = text.partition('id="goods"')[2]
    assert "not available" in goods
    assert "3.50 EUR" in goods
    assert "cart" not in goods


def test_attributes_of_other_feeds(models: Path) -> None:
    model = load(models / "one", device="cpu")
    ids = model.items.ids
    table = pl.DataFrame({
        "item": ids,
        "category_path": [["Shoes", "Boots"]] * len(ids),
        "price": pl.Series(["12.5", "free"] * (len(ids) // 2)),
        "vendor": [None] * len(ids),
    })  # fmt: skip
    goods = Goods(model.knowing(table))
    first, second = goods.find("", "Shoes", 1).cards[:2]
    assert (first.category, first.price, first.brand) == ("Shoes", "12.50", "")
    assert second.price == ""
    bare = Goods(model.knowing(pl.DataFrame({"item": ids})))
    assert bare.categories == []
    assert bare.card(ids[0]).tone in range(8)


def test_quantiles_lie_between_limits() -> None:
    steps = [(0.1, 50.0), (0.2, 90.0), (float("inf"), 100.0)]
    assert quantile(steps, 0.5) == pytest.approx(0.1)
    assert quantile(steps, 0.25) == pytest.approx(0.05)
    assert quantile(steps, 0.7) == pytest.approx(0.15)
    assert quantile(steps, 0.99) == pytest.approx(0.2)
    assert quantile([], 0.5) is None
    assert quantile([(0.1, 0.0)], 0.5) is None


def test_the_watch_sees_a_minute() -> None:
    now, metrics = [0.0], Metrics()
    watch = Watch(metrics, lambda: now[0])
    metrics.requests.labels("POST", "/v1/events", "200").inc(100)
    metrics.requests.labels("GET", "/ops/live", "200").inc(100)
    now[0] = 10.0
    assert [r.route for r in watch.look().routes] == ["/v1/events"]
    for second in range(11, 101):
        now[0] = float(second)
        metrics.requests.labels("POST", "/v1/events", "429").inc(3)
        sight = watch.look()
    assert 60 <= sight.span_s <= 62
    assert sight.routes[0].per_s == pytest.approx(3)
    assert sight.routes[0].failed == pytest.approx(3 * sight.span_s)
    assert sight.curve == pytest.approx([3.0] * len(sight.curve))


@pytest.mark.parametrize(
    ("us", "words"), [(None, "not known"), (-5, "0 s"), (119e6, "119 s"), (120e6, "2 min"), (3 * 86_400e6, "3 days")]
)
def test_ages_in_words(us: float | None, words: str) -> None:
    assert age(None if us is None else int(us)) == words
