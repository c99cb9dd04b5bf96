"""What a page holds, as tests read it."""

import re
from html.parser import HTMLParser

from tests.serving.shop import Shop

HOSTILE = '"><script>alert(1)</script>&'
VOID = {"meta", "link", "input", "img", "br"}


class Html(HTMLParser):
    """Elements of a page: (tag, attributes), and whether what opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found, self.open, self.words = list[tuple[str, dict[str, str | None]]](), list[str](), list[str]()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.found if t == tag and all(a.get(name) == value for name, value in wanted.items())]


def act_form(shop: Shop, where: str = "/shop?user=ann") -> dict[str, str]:
    """The hidden fields of the form that acts."""
    answer = shop.client.get(where)
    assert answer.status_code == 200, answer.text
    form = re.search(r'<form id="act".*?</form>', answer.text, flags=re.DOTALL)
    assert form is not None
    return {str(a["name"]): str(a["value"]) for a in Html(form[0]).all("input")}


def listed(text: str) -> list[str]:
    """Items of the recommendations on a page."""
    feed = text.partition('<ol class="cards list">')[2].partition("</ol>")[0]
    return re.findall(r'data-item="([^"]*)"', feed)


def signed_in(shop: Shop, name: str) -> None:
    shop.client.cookies.clear()
    answer = shop.client.post(
        "/pages/sign-in", data={"key": shop.secrets[name], "wanted": "/ops"}, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/ops")
