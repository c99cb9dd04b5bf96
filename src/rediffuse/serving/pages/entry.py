"""How a person enters: the key is kept in a cookie that scripts cannot read, and forms prove that they are ours."""

import hmac
import re
import secrets
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser

COOKIE, FORM, TOKEN = "rediffuse_key", "application/x-www-form-urlencoded", "token"
LOCKED = re.compile(r"/|/(shop|ops)(/.*)?", re.DOTALL)
"""Paths of pages that need a key, once there are keys."""
KEYLESS = re.compile(r"/pages/.*", re.DOTALL)
"""What signing in itself needs."""
_FIELDS = 32
_OURS = secrets.token_bytes(32)
"""What tokens are made of where there are no keys."""


def secret_of(headers: Headers) -> str:
    """The key in the cookie, empty where there is none."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def token_of(headers: Headers) -> str:
    """What a form must carry: made of the key, which no other site can read, so every replica makes the same."""
    return hmac.digest(secret_of(headers).encode() or _OURS, b"rediffuse form", "sha256").hex()


async def fields_of(request: Request, *, signed: bool = True) -> dict[str, str]:
    """The fields of a form. Args: signed: whether it must carry its token; none is made before signing in.

    Raises: HTTPException 403 for a form of another site or without its token, 400 for one that cannot be read.
    """
    if not _same_site(request.headers):
        raise HTTPException(403, "This form was sent by another site.")
    try:
        body = (await request.body()).decode()
        fields = dict(parse_qsl(body, keep_blank_values=True, max_num_fields=_FIELDS, errors="strict"))
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    if signed and not hmac.compare_digest(fields.get(TOKEN, "").encode(), token_of(request.headers).encode()):
        raise HTTPException(403, "This form is out of date: load the page anew and try again.")
    return fields


def place_after(wanted: str) -> str:
    """Where signing in leads: a page of ours, whatever was asked for."""
    parts = urlsplit(wanted)
    ours = not parts.scheme and not parts.netloc and LOCKED.fullmatch(parts.path) and wanted.isprintable()
    return wanted if ours and "\\" not in wanted else "/shop"


def _same_site(headers: Headers) -> bool:
    """Whether a browser says that the form is one of ours; what is no browser says nothing."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or urlsplit(origin).netloc == headers.get("host")
