"""What there is no room for is refused before it is read: under a flood, refusals must cost less than answers."""

from collections.abc import Callable, Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rediffuse.errors import RediffuseError


class Room:
    """ASGI middleware: asks whether there is room before a question is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        paths: Collection[str],
        check: Callable[[], None],
        problem: Callable[[RediffuseError], Response],
        count: Callable[[str, int], None],
    ) -> None:
        """Args: paths: of questions.   check: raises where there is no room.   count: is told path and status of a refusal."""
        self.app, self.paths, self.check, self.problem, self.count = app, paths, check, problem, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer when to come again."""
        if scope["type"] == "http" and scope["path"] in self.paths:
            try:
                self.check()
            except RediffuseError as full:
                answer = self.problem(full)
                self.count(scope["path"], answer.status_code)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)
