"""The routes in the shapes of AWS Personalize, asked by AWS's own client over a socket."""

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from rediffuse.serving.aws import conditions
from rediffuse.serving.store import Event
from tests.docs.pages import ROOT, Page
from tests.serving.shop import NOW_US, Shop, built, listening, opened
from tests.serving.test_security import bearer

ARN = "arn:aws:personalize:eu-central-1:123456789012:campaign/shop"
WHERE = "arn:aws:personalize:eu-central-1:123456789012:filter/where"
SENT = datetime.fromtimestamp(NOW_US // 10**6, UTC)
KEYS = {"shop": "read,write", "reader": "read", "boss": "admin"}
Client = Callable[..., Any]


@pytest.fixture(scope="module")
def shop(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return built(models, tmp_path_factory.mktemp("aws"), scopes=KEYS)


@pytest.fixture(scope="module")
def address(shop: Shop) -> Generator[str]:
    with listening(shop) as found:
        yield found


@pytest.fixture(scope="module")
def own(shop: Shop, address: str) -> Callable[..., list[dict[str, Any]]]:
    """Asks our own route."""

    def ask(**question: Any) -> list[dict[str, Any]]:
        answer = httpx.post(f"{address}/v1/recommendations", json=question, headers=bearer(shop.secrets["shop"]))
        return answer.json()["items"]

    return ask


@pytest.fixture(scope="module")
def client(shop: Shop, address: str) -> Client:
    """Makes a client of a service, with a key or none."""

    def made(service: str, key: str = "shop") -> Any:
        config = Config(signature_version=UNSIGNED, retries={"max_attempts": 0})
        found = boto3.client(service, region_name="eu-central-1", endpoint_url=f"{address}/aws", config=config)

        def carry(request: Any, **_: object) -> None:
            request.headers["Authorization"] = f"Bearer {shop.secrets.get(key, key)}"

        found.meta.events.register(f"before-send.{service}", carry)
        return found

    return made


@pytest.fixture(scope="module")
def runtime(client: Client) -> Any:
    return client("personalize-runtime")


@pytest.fixture(scope="module")
def events(client: Client) -> Any:
    return client("personalize-events")


def put(events: Any, session: str, *told: dict[str, Any], user: str | None = None) -> None:
    known = {} if user is None else {"userId": user}
    shaped = [{"eventType": "View", "sentAt": SENT, **one} for one in told]
    events.put_events(trackingId="t", sessionId=session, eventList=shaped, **known)


def test_a_list_is_that_of_our_own_route(own: Client, runtime: Any) -> None:
    theirs = runtime.get_recommendations(campaignArn=ARN, userId="nobody")
    assert [(p["itemId"], p["score"]) for p in theirs["itemList"]] == [(p["item"], p["score"]) for p in own(k=25)]
    assert theirs["itemList"][0]["reason"] == ["empty_history"]
    assert len(theirs["recommendationId"]) == 32
    beside = runtime.get_recommendations(recommenderArn=ARN, itemId="A00001", numResults=3)["itemList"]
    assert len(beside) == 3
    assert "A00001" not in [place["itemId"] for place in beside]
    assert all("reason" not in place for place in beside)


def test_an_event_is_on_disk_before_its_answer_and_counts_at_once(shop: Shop, runtime: Any, events: Any) -> None:
    def of_amy() -> list[Event]:
        return [event for _, event in shop.service.store.since(0, 1000) if event.user == "amy"]

    before = runtime.get_recommendations(campaignArn=ARN, userId="amy")["itemList"]
    one = {"eventId": "bought-1", "itemId": "A00003", "eventType": "Purchase", "eventValue": 9.5}
    more = {"recommendationId": "r1", "properties": '{"device": "phone", "n": 2}', "impression": ["A00004", "A00005"]}
    put(events, "s1", {**one, **more}, user="amy")
    held = of_amy()
    assert [(e.item, e.kind) for e in held] == [
        ("A00003", "purchase"),
        ("A00004", "impression"),
        ("A00005", "impression"),
    ]
    assert (held[0].event_id, held[0].value, held[0].session) == ("bought-1", 9.5, "s1")
    assert held[0].time_us == NOW_US
    assert held[0].context == {"device": "phone", "n": "2", "recommendation_id": "r1"}
    assert held[2].context["list_position"] == "1"
    after = runtime.get_recommendations(campaignArn=ARN, userId="amy")["itemList"]
    assert before != after
    assert "A00003" not in [place["itemId"] for place in after]
    put(events, "s1", {**one, **more}, user="amy")
    assert of_amy() == held


def test_a_visitor_is_asked_for_by_the_session_and_becomes_a_user(shop: Shop, runtime: Any, events: Any) -> None:
    put(events, "s2", {"itemId": "A00007", "eventType": "Add_To_Cart"}, {"properties": '{"itemId": "A00008"}'})
    asked = runtime.get_recommendations(campaignArn=ARN, userId="s2")["itemList"]
    assert all("reason" not in place for place in asked)
    assert {"A00007", "A00008"}.isdisjoint(place["itemId"] for place in asked)
    put(events, "s2", {"itemId": "A00009"}, user="ben")
    assert [e.item for e in shop.service.store.history("ben", 9)] == ["A00007", "A00008", "A00009"]
    assert [e.kind for e in shop.service.store.history("ben", 9)] == ["cart", "view", "view"]
    known = runtime.get_recommendations(campaignArn=ARN, userId="ben")
    assert known["itemList"] == runtime.get_recommendations(campaignArn=ARN, userId="s2")["itemList"]


def test_given_items_come_back_in_a_users_order(runtime: Any, events: Any) -> None:
    put(events, "s3", {"itemId": "A00010"}, user="cleo")
    given = ["A00010", "no such item", "A00001", "A00002", "A00001"]
    ranked = runtime.get_personalized_ranking(campaignArn=ARN, userId="cleo", inputList=given)
    found = ranked["personalizedRanking"]
    assert sorted(place["itemId"] for place in found) == sorted({*given})
    assert found[-1] == {"itemId": "no such item"}
    scores = [place["score"] for place in found[:-1]]
    assert scores == sorted(scores, reverse=True)
    unknown = runtime.get_personalized_ranking(campaignArn=ARN, userId="cleo", inputList=["x", "y"])
    assert unknown["personalizedRanking"] == [{"itemId": "x"}, {"itemId": "y"}]


def test_the_one_filter_takes_attributes(own: Client, runtime: Any) -> None:
    found = own(where=["category=dress"], k=25)
    values = {"category": '"dress"'}
    theirs = runtime.get_recommendations(campaignArn=ARN, filterArn=WHERE, filterValues=values)
    assert [p["itemId"] for p in theirs["itemList"]] == [p["item"] for p in found]
    assert found
    several = {"category": '"dress", "a b"', "price": "50"}
    assert conditions(WHERE, several) == ("category=dress|a b", "price=50")


def test_errors_are_those_that_the_client_knows(client: Client, runtime: Any, events: Any) -> None:
    with pytest.raises(runtime.exceptions.ResourceNotFoundException, match="There is one filter"):
        runtime.get_recommendations(campaignArn=ARN, filterArn=ARN)
    with pytest.raises(runtime.exceptions.InvalidInputException, match="numResults = 501 is not possible"):
        runtime.get_recommendations(campaignArn=ARN, numResults=501)
    with pytest.raises(runtime.exceptions.InvalidInputException, match="promotions"):
        runtime.get_recommendations(campaignArn=ARN, promotions=[{"name": "p", "percentPromotedItems": 50}])
    with pytest.raises(runtime.exceptions.InvalidInputException, match="nowhere"):
        runtime.get_recommendations(campaignArn=ARN, context={"nowhere": "x"})
    for wrong, why in (({}, "needs an item"), ({"itemId": "A1", "eventType": "50 % seen"}, "no plain word")):
        with pytest.raises(events.exceptions.InvalidInputException, match=why):
            put(events, "s4", {"itemId": "A00001"}, wrong, user="dora")
    with pytest.raises(events.exceptions.InvalidInputException, match="JSON object"):
        put(events, "s4", {"itemId": "A00001", "properties": "[1]"}, user="dora")
    with pytest.raises(ClientError) as refused:
        client("personalize-runtime", "wrong").get_recommendations(campaignArn=ARN)
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    assert "A key is needed" in str(refused.value)
    with pytest.raises(ClientError, match=r"AccessDeniedException.*scope write"):
        put(client("personalize-events", "reader"), "s4", {"itemId": "A00001"}, user="dora")


def test_what_fails_here_is_an_internal_error(
    shop: Shop, runtime: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.service, "recommend", lambda *_, **__: {}["secret"])
    with pytest.raises(ClientError) as failed:
        runtime.get_recommendations(campaignArn=ARN, userId="amy")
    assert failed.value.response["Error"]["Code"] == "InternalServerException"
    assert "the log of the service tells where" in str(failed.value)
    head = {**bearer(shop.secrets["shop"]), "x-request-id": "mine-3"}
    answer = httpx.post(f"{address}/aws/recommendations", json={}, headers=head)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-3")
    assert answer.headers["x-amzn-errortype"] == answer.json()["__type"] == "InternalServerException"
    assert "secret" not in answer.text


def test_limits_are_theirs(runtime: Any) -> None:
    usual = runtime.get_recommendations(campaignArn=ARN)["itemList"]
    assert len(usual) == 25
    assert runtime.get_recommendations(campaignArn=ARN, numResults=0)["itemList"] == usual
    many = {f"N{n}": "" for n in range(150)}
    assert runtime.get_recommendations(campaignArn=ARN, context=many)["itemList"] == usual
    ranked = runtime.get_personalized_ranking(campaignArn=ARN, userId="flo", inputList=["A00001"], context=many)
    assert ranked["personalizedRanking"][0]["itemId"] == "A00001"
    with pytest.raises(runtime.exceptions.InvalidInputException, match="at most 150"):
        runtime.get_recommendations(campaignArn=ARN, context={**many, "one": ""})
    with pytest.raises(runtime.exceptions.InvalidInputException, match="nowhere"):
        runtime.get_recommendations(campaignArn=ARN, context={**dict(list(many.items())[:149]), "nowhere": "x"})


def test_all_events_of_a_call_are_kept_or_none(shop: Shop, events: Any) -> None:
    with pytest.raises(events.exceptions.InvalidInputException):
        put(events, "s5", {"itemId": "A00001"}, {}, user="emil")
    assert shop.service.store.history("emil", 9) == []
    shop.service.store.erase("emil")
    with pytest.raises(events.exceptions.InvalidInputException, match="was erased"):
        put(events, "s5", {"itemId": "A00001"}, user="emil")


def test_an_overload_is_a_throttling_exception(models: Path, tmp_path: Path) -> None:
    with opened(models, tmp_path, scopes={"shop": "read"}, requests_per_s=1, burst=1) as slow:
        head = bearer(slow.secrets["shop"])
        answers = [slow.client.post("/aws/recommendations", json={}, headers=head) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["x-amzn-errortype"] == answers[1].json()["__type"] == "ThrottlingException"
    assert answers[1].headers["retry-after"] == "1"


def test_the_page_is_true(shop: Shop, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIFFUSE_KEY", shop.secrets["shop"])
    page = Page(ROOT / "docs/aws.md", monkeypatch, lambda text: text.replace("http://127.0.0.1:8000", address))
    page.run("service")
    assert page.names["answer"]["itemList"]
