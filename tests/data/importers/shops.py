"""Small hand-written exports of shops, one of each format, and what every importer of them must keep."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from rediffuse.data.dataset import Dataset

TSV = """\
id\ttitle\tdescription\tlink\timage link\tadditional_image_link\tavailability\tprice\tsale_price\tbrand\titem_group_id\tcolor\tsize\tproduct_type\tgoogle_product_category\tavailability_date\tcustom_label_0\tgtin
007\tLinen shirt\t<p>Cool &amp; light<br>linen</p>\thttps://s/7\thttps://s/7.jpg\thttps://s/7b.jpg,https://s/7c.jpg\tin stock\t49.90 EUR\t39.90 EUR\tAhoy\tSHIRT\tblue\tM\tTops > Shirts\tApparel > Tops\t2024-01-31T10:00:00+02:00\tsummer\t4006381333931
7\tLinen shirt\tCool\thttps://s/7\thttps://s/8.jpg\t\tout_of_stock\t49.90 EUR\t\tAhoy\tSHIRT\tred\tL\tTops > Shirts\t\t\tsummer\t
H1\tHat\tFelt\thttps://s/h\thttps://s/h.jpg\t\tPreorder\t1299.00 eur\t\tAhoy\t\t\t\t\tApparel > Hats\t\t\t
"""
_FIELDS = [line.split("\t") for line in TSV.splitlines()]


def _csv_line(values: Sequence[str]) -> str:
    return ",".join(f'"{value}"' if "," in value else value for value in values) + "\n"


def _xml_item(values: Sequence[str]) -> str:
    escaped = [value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for value in values]
    named = [(name.replace(" ", "_"), value) for name, value in zip(_FIELDS[0], escaped, strict=True) if value]
    text = "".join(f"<g:{name}>{value}</g:{name}>" for name, value in named)
    return f"<item><title>other</title>{text}<g:shipping><g:price>1 EUR</g:price></g:shipping></item>\n"


CSV = "".join(map(_csv_line, _FIELDS))
XML = (
    '<?xml version="1.0"?>\n<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>\n'
    + "".join(map(_xml_item, _FIELDS[1:]))
    + "</channel></rss>\n"
)
ORDERS = """\
Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Cancelled at
#1,Ann@Example.com,paid,2024-01-31 10:00:00 +0200,1,Linen shirt - blue,49.90,007,
#1,,,,2,Hat,20.00,H1,
#2,ben@example.com,paid,2024-02-01 10:00:00 +0000,1,Gift wrap,5.00,,
#3,ann@example.com ,refunded,2024-02-02 10:00:00 +0000,1,Linen shirt - red,49.90,7,2024-02-03 10:00:00 +0000
"""
_ROW = {
    "Handle": "URL handle",
    "Body (HTML)": "Description",
    "Variant SKU": "SKU",
    "Variant Price": "Price",
    "Variant Compare At Price": "Compare-at price",
    "Variant Inventory Qty": "Inventory quantity",
    "Image Src": "Product image URL",
    "Option1 Name": "Option1 name",
    "Option1 Value": "Option1 value",
    "Option2 Name": "Option2 name",
    "Option2 Value": "Option2 value",
    "Product Category": "Product category",
    "Image Position": "Image position",
}
OLD_SHOPIFY = """\
Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,Variant Price,Variant Compare At Price,Variant Inventory Qty,Image Src,Image Position,Status,Cost
shirt,Linen shirt,<p>Cool &amp; light</p>,Ahoy,Apparel > Tops,Shirts,"summer, linen",Color,blue,Size,M,007,39.90,49.90,3,https://s/7.jpg,1,active,11.5
shirt,,,,,,,,red,,L,7,49.90,,0,https://s/8.jpg,2,,12
shirt,,,,,,,,,,,,,,,https://s/9.jpg,3,,
hat,Hat,,Ahoy,,Hats,,Size,one,,,,20,10,,,,active,
"""
NEW_SHOPIFY = (
    ",".join(_ROW.get(name, name) for name in OLD_SHOPIFY.splitlines()[0].split(","))
    + "\n"
    + "\n".join(OLD_SHOPIFY.splitlines()[1:])
    + "\n"
)

PERSONALIZE = """\
USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,IMPRESSION
ann,007,1706700000,View,,007|7
ann,007,1706700060,Purchase,49.9,
ben,7,1706700120,add-to-cart,null,
ben,H1,1706700180,click,,
"""
PERSONALIZE_ITEMS = """\
ITEM_ID,PRICE,CATEGORY_L1,CATEGORY_L2,CREATION_TIMESTAMP,COLOUR,PRODUCT_DESCRIPTION
007,49.90,Tops,Shirts,1706600000,blue|white,<b>Cool</b>
7,49.90,Tops,Shirts,,red,
H1,20,Hats,,1706600000,,
"""


def lines(*rows: dict[str, object]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def ga4(name: str, time: object, pseudo: str | None, *items: dict[str, object], **more: object) -> dict[str, object]:
    """A row of the export: what BigQuery writes, as far as it is read, and a little that is not."""
    session = {"key": "ga_session_id", "value": {"string_value": None, "int_value": "11"}}
    page = {"key": "page", "value": {"string_value": "/", "int_value": None}}
    return {
        "event_date": "20240131",
        "event_timestamp": time,
        "event_name": name,
        "event_params": [page, session],
        "user_pseudo_id": pseudo,
        "device": {"category": "mobile", "language": "de"},
        "geo": {"country": "Germany"},
        "items": [{"item_name": f"Thing {item['item_id']}", "quantity": "1", **item} for item in items],
        **more,
    }


T = 1_706_700_000_000_000
_SHIRT, _RED, _HAT = {"item_id": "007", "price": 49.9}, {"item_id": "7", "price": 49.9}, {"item_id": "H1"}
GA4_ROWS = [
    ga4("page_view", str(T), "v1"),
    ga4("view_item_list", str(T + 1), "v1", _SHIRT, _RED),
    ga4("view_item", str(T + 2), "v1", _SHIRT),
    ga4("view_item", T + 5, "v2", _HAT, batch_event_index="2"),
    ga4("add_to_cart", T + 5, "v2", _RED, batch_event_index="10"),
    ga4("login", str(T + 6), "v1", user_id="ann"),
    ga4("purchase", str(T + 9), "v1", _SHIRT, _HAT, user_id="ann", ecommerce={"transaction_id": "t1"}),
    ga4("purchase", str(T + 19), "v1", _SHIRT, user_id="ann", ecommerce={"transaction_id": "t1"}),
    ga4("view_item", str(T + 20), "v2", {"item_id": "(not set)"}),
    ga4("refund", str(T + 30), "v1", user_id="ann", ecommerce={"transaction_id": "t1"}),
]
GA4 = lines(*GA4_ROWS)


def track(
    event: str, n: int, *, user: str | None = None, visitor: str | None = "v1", **properties: object
) -> dict[str, object]:
    """A call of Segment's."""
    who = {name: value for name, value in (("userId", user), ("anonymousId", visitor)) if value}
    when = f"2024-01-31T10:00:{n:02}.000Z"
    return {"type": "track", "event": event, **who, "timestamp": when, "messageId": f"m{n}", "properties": properties}


_BLUE = {"product_id": "SHIRT", "sku": "007", "name": "Linen shirt", "brand": "Ahoy", "category": "Tops", "price": 49.9}
SEGMENT_ROWS = [
    track("Product Viewed", 1, **_BLUE),
    track("Product Added", 2, **_BLUE, quantity=2),
    track("Products Searched", 3, query="hat"),
    {**track("x", 4, user="ann"), "type": "identify", "event": None},
    track("Order Completed", 5, user="ann", order_id="o1", products=[_BLUE, {"product_id": "HAT", "price": "20"}]),
    track("Viewed Product", 6, visitor="v2", product_id="HAT"),
    track("Product Reviewed", 7, visitor="v2", product_id="HAT", rating=4),
    track("Order Refunded", 8, user="ann", order_id="o1"),
]
SEGMENT = lines(*SEGMENT_ROWS)


def retail(event: str, n: int, *ids: str, **more: object) -> dict[str, object]:
    """A user event."""
    details = [{"product": {"id": one}, "quantity": 1} for one in ids]
    when = f"2024-01-31T10:00:{n:02}Z"
    return {
        "eventType": event,
        "visitorId": "v1",
        "eventTime": when,
        "productDetails": details,
        "uri": "https://s",
        **more,
    }


RETAIL_ROWS = [
    retail("home-page-view", 1),
    retail("detail-page-view", 2, "007", userInfo={"userId": "ann", "ipAddress": "1.2.3.4", "userAgent": "X"}),
    retail("add-to-cart", 3, "7"),
    retail("purchase-complete", 4, "007", "H1", purchaseTransaction={"id": "t1", "revenue": 70, "currencyCode": "EUR"}),
    retail("detail-page-view", 5, "SHIRT", visitorId="v2"),
    retail("search", 6, searchQuery="hat"),
]
RETAIL = lines(*RETAIL_ROWS)
_COMMON = {"title": "Linen shirt", "categories": ["Tops > Shirts"], "brands": ["Ahoy"]}
_PRICED = {"priceInfo": {"currencyCode": "EUR", "price": 39.9, "originalPrice": 49.9}}
RETAIL_PRODUCTS = lines(
    {"id": "SHIRT", "type": "PRIMARY", **_COMMON, "description": "<p>Cool</p>"},
    {"id": "007", "type": "VARIANT", "primaryProductId": "SHIRT", **_COMMON, **_PRICED, "availability": "IN_STOCK"},
    {"id": "7", "type": "VARIANT", "primaryProductId": "SHIRT", **_COMMON, "colorInfo": {"colors": ["red"]}},
    {
        "id": "H1",
        "title": "Hat",
        "categories": ["Hats"],
        "images": [{"uri": "https://s/h.jpg"}],
        "expireTime": "2025-01-01T00:00:00Z",
    },
    {"id": "C", "type": "COLLECTION", "title": "Summer", "categories": ["Sets"], "collectionMemberIds": ["007"]},
)


def _gid(kind: str, n: int) -> str:
    return f"gid://shopify/{kind}/{n}"


_P1, _P2, _O1, _O2 = _gid("Product", 1), _gid("Product", 2), _gid("Order", 1), _gid("Order", 2)
BULK_PRODUCTS = lines(
    {
        "id": _P1,
        "handle": "shirt",
        "title": "Linen shirt",
        "descriptionHtml": "<p>Cool &amp; light</p>",
        "vendor": "Ahoy",
        "productType": "Shirts",
        "category": {"fullName": "Apparel > Tops"},
        "tags": ["summer"],
        "createdAt": "2024-01-31T10:00:00Z",
    },
    {
        "id": _gid("ProductVariant", 11),
        "sku": "007",
        "price": "39.90",
        "compareAtPrice": "49.90",
        "inventoryQuantity": 3,
        "selectedOptions": [{"name": "Color", "value": "blue"}, {"name": "Size", "value": "M"}],
        "__parentId": _P1,
    },
    {"id": _gid("ProductVariant", 12), "sku": "7", "price": "49.90", "inventoryQuantity": 0, "__parentId": _P1},
    {"id": _gid("MediaImage", 5), "image": {"url": "https://s/7.jpg"}, "__parentId": _P1},
    {"id": _P2, "title": "Hat", "vendor": "Ahoy", "tags": []},
)
BULK_ORDERS = lines(
    {
        "id": _O1,
        "createdAt": "2024-01-31T10:00:00Z",
        "customer": {"id": _gid("Customer", 1)},
        "email": "ann@example.com",
    },
    {
        "id": _gid("LineItem", 1),
        "quantity": 1,
        "product": {"id": _P1},
        "variant": {"id": _gid("ProductVariant", 11)},
        "discountedTotalSet": {"shopMoney": {"amount": "39.9"}},
        "__parentId": _O1,
    },
    {"id": _gid("LineItem", 2), "title": "Gift wrap", "product": None, "variant": None, "__parentId": _O1},
    {
        "id": _O2,
        "createdAt": "2024-02-01T10:00:00Z",
        "cancelledAt": "2024-02-02T10:00:00Z",
        "customer": None,
        "email": "ben@example.com",
    },
    {"id": _gid("LineItem", 3), "quantity": 2, "product": {"id": _P2}, "variant": None, "__parentId": _O2},
)
FILES: dict[str, tuple[str, str]] = {
    "feed.tsv": ("merchant", TSV),
    "feed.csv": ("merchant", CSV),
    "feed.xml": ("merchant", XML),
    "old.csv": ("shopify", OLD_SHOPIFY),
    "new.csv": ("shopify", NEW_SHOPIFY),
    "orders.csv": ("shopify", ORDERS),
    "bulk_products.jsonl": ("shopify", BULK_PRODUCTS),
    "bulk_orders.jsonl": ("shopify", BULK_ORDERS),
    "interactions.csv": ("personalize", PERSONALIZE),
    "items.csv": ("personalize", PERSONALIZE_ITEMS),
    "events.jsonl": ("ga4", GA4),
    "calls.jsonl": ("segment", SEGMENT),
    "user_events.jsonl": ("retail_v2", RETAIL),
    "products.jsonl": ("retail_v2", RETAIL_PRODUCTS),
}
"""File name -> its format, its content."""


def put(folder: Path, name: str, content: str | bytes | None = None) -> Path:
    """Write one of FILES, or other content under its name."""
    path = folder / name
    content = FILES[name][1] if content is None else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def told(data: Dataset) -> list[tuple[str, str, str]]:
    """User, item and kind of every event, by user and time, on record only or not."""
    frame = data.events.frame
    kinds = frame["kind"].cast(pl.String).to_list() if "kind" in frame.columns else [""] * len(frame)
    users = [data.users.items.ids[user] for user in frame["user"]]
    return [(u, data.catalog.items.ids[i], k) for u, i, k in zip(users, frame["item"], kinds, strict=True)]


def turned(text: str, header: int) -> str:
    """The lines below the header in another order."""
    rows = text.splitlines(keepends=True)
    return "".join(rows[:header] + rows[header:][::-1])


def doubled(text: str, header: int) -> str:
    """The lines below the header twice."""
    rows = text.splitlines(keepends=True)
    return "".join(rows + rows[header:])


def keeps_to_its_content(folder: Path, name: str, load: Callable[[Path], Dataset], header: int) -> None:
    """Twice is once, and any order of rows is the same."""
    digest = load(put(folder, name)).digest()
    for change in (turned, doubled):
        assert load(put(folder, name, change(FILES[name][1], header))).digest() == digest, change.__name__
