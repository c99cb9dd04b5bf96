"""A shop's own exports, made up: a feed for Merchant Center and the calls of Segment."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

FEED_HEAD = ("id", "title", "link", "image_link", "availability", "price", "product_type")


def write_feed(path: Path, items: int = 40) -> Path:
    """A feed of products with four categories."""
    rows = [
        (f"P{n:02}", f"Thing {n}", f"https://s/{n}", f"https://s/{n}.jpg", "in_stock", "9.90 EUR", f"Part {n % 4}")
        for n in range(items)
    ]
    path.write_text("".join("\t".join(row) + "\n" for row in (FEED_HEAD, *rows)))
    return path


def write_events(path: Path, users: int = 60, each: int = 12, items: int = 40) -> Path:
    """Calls of customers who each keep mostly to one category, over some months."""
    draw, start, calls = Random(1), datetime(2025, 1, 1, 9, tzinfo=UTC), list[str]()
    for n in range(users):
        when = start + timedelta(days=draw.randrange(40))
        for turn in range(each):
            taste = n % 4 if draw.random() < 0.8 else draw.randrange(4)
            when += timedelta(hours=draw.randrange(1, 120))
            item = f"P{4 * draw.randrange(items // 4) + taste:02}"
            call = {"type": "track", "event": "Product Viewed", "userId": f"ann-{n}", "messageId": f"m{n}-{turn}"}
            calls.append(json.dumps({**call, "timestamp": f"{when:%Y-%m-%dT%H:%M:%SZ}", "properties": {"sku": item}}))
    path.write_text("\n".join(calls) + "\n")
    return path
