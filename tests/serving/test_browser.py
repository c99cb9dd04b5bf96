"""The pages in Chromium, against a running server: clicks, keys, a phone, the dark, and nothing refused or fetched elsewhere."""

import shutil
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tests.serving.shop import Shop, built

pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SCOPES = {"all": "read,write,admin"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: install Debian's package chromium"),
]
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def visit(browser: Browser) -> Generator[Opened]:
    """Opens a page; what its console says, what fails and what is asked of others is an error in the end."""
    contexts, wrong = list[Any](), list[str]()

    def visiting(home: str, path: str, **how: Any) -> Page:
        context = browser.new_context(base_url=home, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(home) else wrong.append(asked.url))
        page.goto(path)
        return page

    yield visiting
    for context in contexts:
        context.close()
    assert [line for line in wrong if "401 (Unauthorized)" not in line] == []


@pytest.fixture
def home(models: Path, tmp_path: Path) -> Generator[tuple[str, Shop]]:
    with served(built(models, tmp_path)) as found:
        yield found


@contextmanager
def served(shop: Shop) -> Generator[tuple[str, Shop]]:
    """The shop on a port of this machine, which its client speaks to as well."""
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(shop.app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    address = f"http://127.0.0.1:{door.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address) as client:
            yield address, replace(shop, client=client)
    finally:
        server.should_exit = True
        thread.join(30)
        door.close()


def recommended(page: Page) -> list[str | None]:
    return [card.get_attribute("data-item") for card in page.locator("#feed .card").all()]


def test_be_a_user_click_and_see_the_list_change(home: tuple[str, Shop], visit: Opened) -> None:
    address, shop = home
    page = visit(address, "/shop")
    expect(page.get_by_role("heading", level=1)).to_contain_text("For visitor")
    page.get_by_label("You are", exact=True).fill("ann")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("For ann")
    expect(page.locator("#feed")).to_contain_text("nothing is known of ann yet")
    before = recommended(page)
    page.locator("#feed .card").nth(2).get_by_role("button", name="View").click()
    expect(page.locator("#said")).to_contain_text("recommendations changed")
    expect(page.locator("#feed")).to_contain_text("From 1 event")
    after = recommended(page)
    assert before[2] not in after
    assert after == shop.items(user="ann", k=8) != before
    assert page.locator(".moved.new").count() == len(set(after) - set(before))
    assert page.url.endswith("/shop?user=ann"), "only the list was swapped"
    page.locator("#goods .card").nth(4).get_by_role("button", name="Basket").click()
    expect(page.locator("#feed")).to_contain_text("From 2 events")
    page.locator("#goods .card").nth(5).get_by_role("button", name="View").click()
    expect(page.locator("#feed")).to_contain_text("From 3 events")
    kinds = [(event.kind, event.context.get("list_position")) for event in shop.service.store.history("ann", 9)]
    assert kinds == [("view", "3"), ("cart", None), ("view", None)]


def test_search_without_leaving_the_page(home: tuple[str, Shop], visit: Opened) -> None:
    page = visit(home[0], "/shop?user=ann")
    page.get_by_label("Search", exact=True).press_sequentially("linen", delay=20)
    expect(page.locator("#goods .name").first).to_contain_text("linen")
    assert all("linen" in name for name in page.locator("#goods .name").all_inner_texts())
    assert page.evaluate("document.activeElement.id") == "words"
    page.get_by_label("Category", exact=True).select_option("shirt")
    expect(page.locator("#goods .facts").first).to_contain_text("shirt")
    assert "words=linen" in page.url
    page.reload()
    assert page.get_by_label("Search", exact=True).input_value() == "linen"
    page.goto("/shop?user=ann")
    first = page.locator("#goods .card").first.get_attribute("data-item")
    page.get_by_role("link", name="Next").click()
    expect(page.locator("#goods")).to_contain_text("page 2 of")
    assert page.locator("#goods .card").first.get_attribute("data-item") != first


def test_by_keyboard_alone(home: tuple[str, Shop], visit: Opened) -> None:
    page = visit(home[0], "/shop?user=ann")

    def focused() -> str:
        return page.evaluate("document.activeElement.id || document.activeElement.innerText")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the content"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    seen = list[str]()
    for _ in range(5):
        page.keyboard.press("Tab")
        seen.append(focused())
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", seen
    assert seen == ["user", "draws", "Go", "New visitor", "view-1"]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused() == "view-2"
    page.keyboard.press("Enter")
    expect(page.locator("#feed")).to_contain_text("From 1 event")
    assert focused() == "view-2", "focus stays at the place"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#feed")).to_contain_text("From 2 events")
    assert focused() == "view-2-cart"


def test_a_click_at_the_moment_the_list_came_stays_on_the_page(home: tuple[str, Shop], visit: Opened) -> None:
    page = visit(home[0], "/shop?user=ann")
    page.evaluate("""() => {
        window.here = true;
        new MutationObserver((_, watch) => {
            watch.disconnect();
            document.getElementById("view-2-cart").focus();
            document.getElementById("view-2-cart").click();
        }).observe(document.getElementById("main"), { childList: true });
    }""")
    page.locator("#view-2").click()
    expect(page.locator("#feed")).to_contain_text("From 2 events")
    assert page.evaluate("window.here === true"), "no page was loaded"
    assert page.evaluate("document.activeElement.id") == "view-2-cart"


@pytest.mark.parametrize("path", ["/shop?user=ann", "/shop?user=" + "w" * 200, "/ops", "/pages/sign-in"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scroll_and_text_can_be_read(
    home: tuple[str, Shop], visit: Opened, path: str, scheme: str
) -> None:
    page = visit(home[0], path, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    lows = page.evaluate(CONTRASTS)
    assert lows == []
    small = page.evaluate("""[...document.querySelectorAll("button, input, select, a.button")]
        .filter((e) => e.type !== "hidden").map((e) => [e.innerText, e.getBoundingClientRect().height])
        .filter(([, height]) => height < 24)""")
    assert small == []


def test_the_dark_is_dark(home: tuple[str, Shop], visit: Opened) -> None:
    colours = {
        scheme: visit(home[0], "/shop?user=ann", color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
        )
        for scheme in ("light", "dark")
    }
    assert min(colours["light"]) > 200
    assert max(colours["dark"]) < 60


def test_it_works_without_scripts(home: tuple[str, Shop], visit: Opened) -> None:
    page = visit(home[0], "/shop?user=ann", java_script_enabled=False)
    page.locator("#goods .card").nth(1).get_by_role("button", name="View").click()
    assert "From 1 event" in page.locator("#feed").inner_text()
    page.get_by_label("Search", exact=True).fill("wool")
    page.get_by_role("button", name="Find").click()
    assert all("wool" in name for name in page.locator("#goods .name").all_inner_texts())
    page.get_by_role("link", name="Operations").click()
    assert "Events kept" in page.inner_text("main")


def test_the_view_refreshes_and_changes_models(home: tuple[str, Shop], visit: Opened) -> None:
    address, shop = home
    page = visit(address, "/ops")
    shop.post({"item": "A00001", "user": "ann"}, {"item": "A00002", "user": "ann"})
    kept = page.locator("#live div", has=page.get_by_text("Events kept", exact=True)).last
    expect(kept).to_contain_text("2", timeout=6000)
    page.get_by_role("button", name="Promote two", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("two answers now.")
    assert shop.ask()["model"]["name"] == "two"
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status")).to_have_text("one answers now.")
    page.get_by_role("link", name="Stop refreshing").click()
    page.wait_for_load_state("networkidle")
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert asked == []


def test_a_refresh_moves_nothing(home: tuple[str, Shop], visit: Opened) -> None:
    page = visit(home[0], "/shop?user=ann", viewport={"width": 360, "height": 740})
    page.goto("/ops")
    table = page.get_by_role("region", name="Time to answer")
    table.focus()
    table.evaluate("(e) => { e.scrollLeft = 60; e.dataset.old = 'yes'; }")
    expect(page.locator("#times-table:not([data-old])")).to_be_visible(timeout=6000)
    assert table.evaluate("(e) => [e.scrollLeft, e === document.activeElement]") == [60, True]


def test_a_failure_is_said_aloud(home: tuple[str, Shop], visit: Opened, browser: Browser) -> None:
    context = browser.new_context(base_url=home[0])
    page = context.new_page()
    page.goto("/shop?user=ann")
    page.evaluate("document.querySelector('#act [name=token]').value = 'x'")
    page.locator("#feed .look").first.click()
    expect(page.locator("#wrong")).to_contain_text("out of date")
    context.close()


def test_signing_in(models: Path, tmp_path: Path, visit: Opened) -> None:
    with served(built(models, tmp_path, scopes=SCOPES)) as (address, shop):
        page = visit(address, "/ops")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.get_by_label("Key", exact=True).fill("rd_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("no key of the service")
        page.get_by_label("Key", exact=True).fill(shop.secrets["all"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
        assert page.evaluate("document.cookie") == ""
        page.goto("/shop?user=ann")
        page.locator("#feed .look").first.click()
        expect(page.locator("#feed")).to_contain_text("From 1 event")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.goto("/shop")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") return null;
      const found = rgb(style.backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const back = own && !e.closest(".unseen, .skip, :disabled") && e.checkVisibility() ? behind(e) : null;
    if (!back) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(back)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push([e.className, e.textContent.trim().slice(0, 30), (a + 0.05) / (b + 0.05)]);
  }
  return low;
}"""
"""Words whose contrast with what is behind them is below 4.5 : 1 (WCAG 2.2, 1.4.3)."""
