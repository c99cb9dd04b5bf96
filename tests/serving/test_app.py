"""The service over HTTP: an event changes the next list, and every error has one shape."""

import json
import logging
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rediffuse import registry
from rediffuse.data.dataset import Dataset
from rediffuse.errors import StorageError
from rediffuse.serving.batcher import Closing, DeadlinePassed, Overloaded
from rediffuse.serving.engine import Ask, Engine
from rediffuse.serving.ladder import Rung
from rediffuse.serving.past import Known, Past, joined, telling
from rediffuse.serving.store import Event
from rediffuse.serving.telemetry import JsonLines
from tests.serving.shop import NOW_US, Shop, opened

DAY_US = 86_400_000_000


@pytest.fixture
def shop(models: Path, tmp_path: Path) -> Generator[Shop]:
    with opened(models, tmp_path) as found:
        yield found


def event(item: str, user: str = "ann", **more: object) -> dict[str, object]:
    return {"item": item, "user": user, **more}


def test_an_event_changes_the_next_list(shop: Shop, models: Path) -> None:
    before = shop.ask(user="ann", k=5)
    assert (before["fallback"], before["history"]) == ("empty_history", 0)
    told = shop.post(event("A00001", event_id="e1"), event("A00002"))
    assert (told["durable"], told["stored"], [e["status"] for e in told["events"]]) == (True, 2, [201, 201])
    after = shop.ask(user="ann", k=5, min_seq=told["seq"])
    assert (after["fallback"], after["history"], after["stale"]) == (None, 2, False)
    offline = registry.load(models / "one", device="cpu").recommend(["A00001", "A00002"], 5)
    assert [place["item"] for place in after["items"]] == [r.item for r in offline.items]
    assert [place["score"] for place in after["items"]] == pytest.approx([r.score for r in offline.items], rel=1e-5)
    assert after["model"]["name"] == "one"
    assert len(after["recommendation_id"]) == 32
    assert after["recommendation_id"] != before["recommendation_id"]
    assert shop.items(history=["A00001", "A00002"], k=5) == [r.item for r in offline.items]


def test_the_same_event_counts_once(shop: Shop) -> None:
    assert shop.post(event("A00001", event_id="e1"))["stored"] == 1
    again = shop.post(event("A00001", event_id="e1"), event("A00002", event_id="e2"))
    assert [e["status"] for e in again["events"]] == [200, 201]
    assert shop.ask(user="ann")["history"] == 2


def test_events_are_judged_one_by_one(shop: Shop) -> None:
    bad = [5, {"item": "A00001"}, event("A\u0001"), event("A00001", time_us=1_760_000_000), event("A1", extra=1)]
    answer = shop.client.post("/v1/events", json=[event("A00001", event_id="good"), *bad])
    assert answer.status_code == 207
    told = answer.json()
    assert (told["stored"], told["refused"]) == (1, 5)
    assert [e["status"] for e in told["events"]] == [201, *[422] * 5]
    words = [e["message"] for e in told["events"][1:]]
    for word, part in zip(words, ("dictionary", "user", "A\\x01", "time_us = 1760000000", "'extra'"), strict=True):
        assert part in word
    for body in bad:
        answer = shop.client.post("/v1/events", json=body)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "invalid")


def test_a_stream_of_lines(shop: Shop) -> None:
    lines = [json.dumps(event(f"A{n % 40:05}", user=f"u{n % 7}", event_id=f"e{n}")) for n in range(2500)]
    body = "\n".join([*lines[:1200], "", "nonsense", *lines[1200:]])
    pieces = (body[at : at + 999].encode() for at in range(0, len(body), 999))
    head = {"content-type": "application/x-ndjson"}
    answer = shop.client.post("/v1/events", content=pieces, headers=head)
    told = answer.json()
    assert (answer.status_code, told["stored"], told["refused"]) == (207, 2500, 1)
    assert [n for n, e in enumerate(told["events"]) if e["status"] == 422] == [1200]
    assert told["seq"] == shop.service.store.state().seq
    assert shop.client.post("/v1/events", content="", headers=head).json()["events"] == []
    long = shop.client.post("/v1/events", content=b'{"item": "' + b"x" * 70_000, headers=head)
    assert (long.status_code, long.json()["error"]["kind"]) == (413, "too_large")


def test_a_visitor_becomes_a_user(shop: Shop) -> None:
    shop.post({"item": "A00001", "anonymous": "cookie"}, {"item": "A00002", "anonymous": "cookie"})
    assert shop.ask(anonymous="cookie")["history"] == 2
    assert shop.ask(user="ann")["history"] == 0
    shop.post(event("A00003", anonymous="cookie"))
    assert shop.ask(user="ann")["history"] == shop.ask(anonymous="cookie")["history"] == 3
    shop.post(event("A00004", user="bob", anonymous="cookie"))
    assert (shop.ask(user="bob")["history"], shop.ask(user="ann")["history"]) == (1, 3)


def test_who_is_erased_is_nobody_to_a_model_that_knows_them(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a vector of them until the next training, also when their history is posted."""
    answer, users = shop.service.shelf.answer, list[str | None]()

    def seen(engine: Engine, asks: Sequence[Ask], rung: Rung) -> Any:
        users.extend(ask.user for ask in asks)
        return answer(engine, asks, rung)

    monkeypatch.setattr(shop.service.shelf, "answer", seen)
    shop.ask(user="gone", history=["A00001"])
    shop.client.delete("/v1/users/gone").raise_for_status()
    for question in ({"history": ["A00001"]}, {}):
        shop.ask(user="gone", **question)
    shop.ask(user="here", history=["A00001"])
    assert users == ["gone", None, None, "here"]


def test_who_is_erased_is_gone(shop: Shop, tiny: Dataset) -> None:
    shop.service.past = lambda user: [Known("A00009")] if user == "ann" else []
    shop.post(event("A00001"), event("A00002", user="bob"))
    assert shop.ask(user="ann")["history"] == 2
    receipt = shop.client.delete("/v1/users/ann").json()
    assert (receipt["events"], receipt["durable"], len(receipt["sha256"])) == (1, True, 64)
    assert "ann" not in json.dumps(receipt)
    assert shop.ask(user="ann")["history"] == 0
    answer = shop.client.post("/v1/events", json=[event("A00001"), event("A00001", user="bob")])
    assert (answer.status_code, [e["status"] for e in answer.json()["events"]]) == (207, [410, 201])
    assert shop.ask(user="bob")["history"] == 2


def test_ids_are_only_ids(shop: Shop) -> None:
    """Slashes, dots and letters of any script are part of a name and lead nowhere."""
    for user in ("../../etc/passwd", "a/b", "ä 日本", "x" * 256, "p"):
        shop.post(event("A00001", user=user))
        assert shop.ask(user=user)["history"] == 1
        path = "/v1/users/" + "".join(f"%{byte:02x}" for byte in user.encode())
        assert shop.client.delete(path).json()["events"] == 1, user
        assert shop.ask(user=user)["history"] == 0
    for name in ("..%2fone", "%2e%2e", "ONE", "a" * 65):
        assert shop.client.post(f"/v1/models/{name}/promote").status_code in (404, 405, 422)


def test_a_question_is_passed_on_whole(shop: Shop, tiny: Dataset) -> None:
    whole = shop.items(history=["A00001"], k=20)
    assert shop.items(history=["A00001"], k=20, exclude=whole[:3])[:5] == whole[3:8]
    assert "A00001" not in shop.items(history=["A00001"], k=500, exclude=whole[:1])
    assert sorted(shop.items(history=["A00001"], candidates=whole[5:8])) == sorted(whole[5:8])
    slot = dict(zip(tiny.catalog.items.ids, tiny.catalog.attributes["slot"], strict=True))
    shoes = shop.items(history=["A00001"], where=["slot=shoes"], k=5)
    assert {slot[item] for item in shoes} == {"shoes"}
    one = shop.items(history=["A00001"], one_per="slot", k=3)
    assert len({slot[item] for item in one}) == len(one)
    beside = shop.ask(item="A00001", reasons=True)
    assert beside["history"] == 1
    assert "A00001" not in [place["item"] for place in beside["items"]]
    timed = [{"item": "A00001", "time_us": NOW_US - DAY_US}]
    assert shop.items(history=timed, k=20) == whole
    assert shop.items(history=["A00001"], k=20.0) == whole
    assert shop.ask(history=["no such item"])["unknown"] == ["no such item"]
    drawn = shop.ask(history=["A00001"], k=5, explore={"seed": 3})
    assert (drawn["policy"], drawn["explore_seed"]) == ("plackett_luce", 3)
    assert all(0 < place["propensity"] < 1 for place in drawn["items"])
    again = shop.ask(history=["A00001"], k=5, explore={"seed": 3})
    assert [p["item"] for p in again["items"]] == [p["item"] for p in drawn["items"]]
    assert shop.ask(history=["A00001"], explore={})["explore_seed"] is not None


def test_today_s_items(shop: Shop) -> None:
    """Stock, prices and groups count from the next list on."""
    best = shop.items(history=["A00001"], k=4)
    assert shop.client.put(f"/v1/items/{best[0]}", json={"available": False}).status_code == 200
    assert shop.items(history=["A00001"], k=3) == best[1:]
    batch = [{"item": best[1], "attributes": {"price": 1.5, "fit": "slim", "tags": ["new"]}}, {"item": "stranger"}]
    assert shop.client.post("/v1/items", json={"items": batch}).json()["items"] == 2
    assert shop.items(history=["A00001"], where=["price<=1.5"]) == [best[1]]
    assert shop.items(history=["A00001"], where=["fit=slim"]) == [best[1]]
    assert shop.items(history=["A00001"], where=["tags=new"]) == [best[1]]
    grouped = [{"item": item, "group": "shirt"} for item in best[1:3]]
    shop.client.post("/v1/items", json={"items": grouped})
    assert [i for i in shop.items(history=["A00001"], one_per="group", k=4) if i in best] == [best[1], best[3]]
    shop.client.put(f"/v1/items/{best[0]}", json={})
    assert shop.items(history=["A00001"], k=1) == best[:1]
    assert shop.client.post("/v1/items", json={"items": []}).status_code == 422


def test_models_are_changed_and_bad_ones_are_not(shop: Shop) -> None:
    first = shop.ask(history=["A00001"])
    changed = shop.client.post("/v1/models/two/promote").json()
    assert changed["models"][0]["name"] == "two"
    assert changed["models"][0]["state"] == "current"
    second = shop.ask(history=["A00001"])
    assert second["model"]["name"] == "two"
    assert second["model"]["sha256"] != first["model"]["sha256"]
    for bad in ("flipped", "not-finite", "other-schema"):
        answer = shop.client.post(f"/v1/models/{bad}/promote")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "not_possible")
    assert shop.ask(history=["A00001"])["model"] == second["model"]
    assert shop.client.post("/v1/models/none/promote").status_code == 404
    assert shop.client.post("/v1/models/rollback").json()["models"][0]["name"] == "one"
    assert shop.items(history=["A00001"]) == [place["item"] for place in first["items"]]
    assert shop.client.post("/v1/models/rollback").status_code == 409


@pytest.mark.parametrize(
    ("error", "status", "kind", "wait"),
    [
        (Overloaded("no room", 2.5), 429, "too_many", "3"),
        (Closing("stopping", 1.0), 503, "unavailable", "1"),
        (DeadlinePassed("late"), 503, "unavailable", "1"),
        (StorageError("disk full"), 503, "unavailable", "1"),
        (ZeroDivisionError("secret of ann"), 500, "internal", None),
    ],
)
def test_every_failure_has_its_status(shop: Shop, monkeypatch, error, status, kind, wait) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(shop.service.batcher, "ask", fail)
    answer = shop.client.post("/v1/recommendations", json={})
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, wait)
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]["kind"] == kind
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("question", "status", "part"),
    [
        ({"k": 0}, 422, "k = 0 is not possible"),
        ({"k": "5"}, 422, "valid integer"),
        ({"k": 5.5}, 422, "k = 5.5"),
        ({"k": True}, 422, "k = True"),
        ({"steps": 0}, 422, "steps = 0"),
        ({"kk": 5}, 422, "Nearest known key: 'k'"),
        ({"user": "a\nb"}, 422, "user"),
        ({"user": ""}, 422, "user"),
        ({"user": "p:ann"}, 422, "user"),
        ({"user": "x" * 257}, 422, "user"),
        ({"history": ["x"] * 2001}, 422, "2000"),
        ({"where": ["slott=shoes"]}, 409, "Nearest known attribute of items: 'slot'"),
        ({"history": ["A00001"], "diversity": 0.5, "steps": 3}, 409, "steps"),
        ({"history": ["A00001"], "context": {"season": "winter"}}, 409, "condition"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(shop: Shop, question, status, part) -> None:
    answer = shop.client.post("/v1/recommendations", json=question)
    assert answer.status_code == status, answer.text
    assert part in answer.json()["error"]["message"]
    assert len(answer.text) < 1000


@pytest.mark.parametrize(
    ("method", "route", "body", "message"),
    [
        ("POST", "/v1/recommendations", {"query": "shoes"}, "Unknown key 'query'. Nearest known key: 'user'."),
        ("POST", "/v1/recommendations", {"body": 1}, "Unknown key 'body'. Known: anonymous,"),
        ("PUT", "/v1/items/x", {"availability": True}, "Unknown key 'availability'. Nearest known key: 'available'."),
        (
            "POST",
            "/v1/recommendations",
            {"explore": {"path": 1}},
            "Unknown key 'path'. Known: seed, temperature.",
        ),
        (
            "POST",
            "/v1/recommendations",
            {"history": [{"item": "a", "time_us": NOW_US, "query": 1}]},
            "Unknown key 'query'. Known: item, time_us.",
        ),
        ("PUT", "/v1/items/x", {"path": 1}, "Unknown key 'path'. Known: attributes, available, group."),
        (
            "POST",
            "/v1/items",
            {"items": [{"item": "x", "body": 1}]},
            "Unknown key 'body'. Known: attributes, available, group, item.",
        ),
        ("POST", "/aws/recommendations", {"query": 1}, "Unknown key 'query'. Nearest known key: 'userId'."),
        ("POST", "/aws/recommendations", {"userID": "ann"}, "Unknown key 'userID'. Nearest known key: 'userId'."),
        (
            "POST",
            "/aws/events",
            {
                "trackingId": "t",
                "sessionId": "s",
                "eventList": [{"eventType": "view", "sentAt": 1, "itemID": "A00001"}],
            },
            "Unknown key 'itemID'. Nearest known key: 'itemId'.",
        ),
    ],
)
def test_an_unknown_key_is_told_those_of_its_place(shop: Shop, method, route, body, message) -> None:
    answer = shop.client.request(method, route, json=body)
    assert answer.status_code == 422
    said = answer.json()
    assert (said["message"] if "__type" in said else said["error"]["message"]).startswith(message)


@pytest.mark.parametrize("name", ["query", "body", "path"])
def test_an_event_with_an_unknown_key_costs_the_others_nothing(shop: Shop, name: str) -> None:
    answer = shop.client.post(
        "/v1/events", json=[event("A00001", user="ann"), event("A00002", user="ann", **{name: 1})]
    )
    assert answer.status_code == 207
    good, wrong = answer.json()["events"]
    assert good["status"] == 201
    assert wrong["status"] == 422
    assert wrong["message"].startswith(f"Unknown key '{name}'. ")
    assert [kept.item for kept in shop.service.store.history("ann", 9)] == ["A00001"]


def test_other_routes_methods_and_types(shop: Shop) -> None:
    assert shop.client.get("/nothing").json()["error"]["kind"] == "not_found"
    wrong = shop.client.patch("/v1/models")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["error"]["kind"]) == (405, "GET", "no_such_method")
    post = shop.client.post
    assert post("/v1/recommendations", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    zipped = {"content-type": "application/json", "content-encoding": "gzip"}
    assert post("/v1/recommendations", content="{}", headers=zipped).status_code == 415
    for body in ("{", "[" * 100_000, "{" * 5, '{"k": NaN}', '{"seed": ' + "1" * 9000 + "}", "\xff", '"\\ud800"'):
        for route in ("/v1/recommendations", "/v1/events", "/v1/items"):
            answer = post(route, content=body.encode("latin-1"), headers={"content-type": "application/json"})
            assert answer.status_code in (400, 422), (route, body[:20], answer.text)
            assert set(answer.json()["error"]) == {"kind", "message"}


def test_what_is_not_seen_in_time_is_said(shop: Shop) -> None:
    seconds = iter(range(0, 1000, 3))
    shop.service.clock = type(shop.service.clock)(lambda: NOW_US, lambda: float(next(seconds)))
    found = shop.ask(history=["A00001"], min_seq=99)
    assert found["stale"] is True
    assert found["items"]


def test_health_and_metrics(shop: Shop, monkeypatch) -> None:
    assert shop.client.get("/health/live").json()["status"] == "ok"
    assert shop.client.get("/health/ready").json()["checks"] == {"model": True, "store": True}
    shop.post(event("A00001"))
    shop.ask(user="ann")
    text = shop.client.get("/metrics").text
    assert 'rediffuse_requests_total{method="POST",route="/v1/recommendations",status="200"} 1.0' in text
    assert 'rediffuse_events_total{status="stored"} 1.0' in text
    assert "rediffuse_queue 0.0" in text
    assert "ann" not in text

    def broken() -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(shop.service.store, "state", broken)
    answer = shop.client.get("/health/ready")
    assert (answer.status_code, answer.json()["checks"]["store"]) == (503, False)


def test_logs_hold_no_id_of_a_user(shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    caplog.set_level(logging.INFO)
    who = "ann-who-must-not-be-named"
    shop.post(event("A00001", user=who))
    given = shop.ask(user=who)
    shop.client.delete(f"/v1/users/{who}")
    shop.client.get(f"/v1/users/{who}")
    monkeypatch.setattr(shop.service.store, "owner", lambda name: {}[name])
    assert shop.client.post("/v1/recommendations", json={"user": who}).status_code == 500
    caplog.records.append(failure(who))
    lines = [JsonLines().format(record) for record in caplog.records if not record.name.startswith("httpx")]
    told = [json.loads(line) for line in lines]
    assert not [line for line in lines if who in line]
    assert [line["recommendation_id"] for line in told if line["event"] == "recommendation"] == [
        given["recommendation_id"]
    ]
    routes = {(line["route"], line["status"]) for line in told if line["event"] == "request"}
    assert ("/v1/users/{user:path}", 200) in routes
    assert ("/v1/recommendations", 500) in routes
    assert told[-1]["error"] == "KeyError"
    assert "in failure" not in told[-1]["event"]


def failure(who: str) -> logging.LogRecord:
    try:
        {}[who]
    except KeyError as error:
        at = (KeyError, error, error.__traceback__)
        return logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, "Exception in ASGI application", (), at)


def test_a_request_keeps_its_id(shop: Shop, monkeypatch) -> None:
    assert shop.client.get("/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    other = shop.client.get("/health/live", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert len(other) == 32
    monkeypatch.setattr(shop.service.batcher, "ask", lambda *_: {}["secret"])
    answer = shop.client.post("/v1/recommendations", json={}, headers={"x-request-id": "mine-2"})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (500, "internal")
    assert answer.headers["x-request-id"] == "mine-2"


def happened(kind: str, item: str, at: int) -> Event:
    return Event(f"{kind}{item}{at}", item, kind, at, user="ann")


def test_what_counts_as_interest() -> None:
    events = [
        happened("impression", "a", 10**15),
        happened("view", "b", 10**15 + 1),
        happened("purchase", "c", 10**15 + 2),
        happened("purchase", "c", 10**15 + 3),
        happened("refund", "c", 10**15 + 4),
        happened("cart", "d", 10**15 + 5),
        happened("cart_remove", "d", 10**15 + 6),
        happened("refund", "b", 10**15 + 7),
        happened("view", "e", NOW_US + DAY_US),
    ]
    found, left = telling(events, NOW_US)
    assert [(one.item, one.time_us) for one in found] == [("b", 10**15 + 1), ("c", 10**15 + 2)]
    assert [(one.item, one.kind) for one in left] == [("b", "refund")]


def test_two_pasts_are_one() -> None:
    before = [Known("a", 1), Known("b", 5)]
    after = [happened("view", "c", 3), happened("view", "b", 5), happened("view", "b", 6)]
    assert joined(before, after, NOW_US, 10) == [("a", 1), ("c", 3), ("b", 5), ("b", 6)]
    assert joined(before, after, NOW_US, 2) == [("b", 5), ("b", 6)]
    assert joined([Known("z")], after, NOW_US, 10) == [("z", None), ("c", 3), ("b", 5), ("b", 6)]


def test_a_return_takes_back_what_was_bought_before_the_store() -> None:
    refund = happened("refund", "a", 7)
    twice = [Known("a", 1), Known("b", 2), Known("a", 5), Known("a", 9)]
    assert joined(twice, [refund], NOW_US, 10) == [("a", 1), ("b", 2), ("a", 9)]
    assert joined([Known("a"), Known("b")], [refund], NOW_US, 10) == [("b", None)]
    collected = [Known("a", 1), Known("a", 5, counts=False), Known("a", 7, counts=False)]
    assert joined(collected, [refund], NOW_US, 10) == [("a", 1)]  # the dataset has seen that return
    bought = happened("purchase", "a", 5)
    assert joined([Known("a", 5), Known("b", 6)], [bought, refund], NOW_US, 10) == [("b", 6)]
    assert joined([Known("a", 5)], [happened("cart_remove", "a", 7)], NOW_US, 10) == [("a", 5)]


def test_a_dataset_is_the_past(tiny: Dataset, models: Path, tmp_path: Path) -> None:
    past, user = Past(tiny), tiny.users.items.ids[3]
    row = tiny.events.frame.filter(tiny.events.frame["user"] == 3).sort("position")
    assert [one.item for one in past(user)] == tiny.catalog.items.decode(row["item"].to_list())
    assert past("stranger") == []
    with opened(models, tmp_path, past=past) as shop:
        known = shop.ask(user=user)["history"]
        assert known == row.height
        shop.post(event("A00001", user=user))
        assert shop.ask(user=user)["history"] == known + 1
        shop.client.delete(f"/v1/users/{user}")
        assert shop.ask(user=user)["history"] == 0
