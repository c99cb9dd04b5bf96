"""What there is no room for is refused before it is read: under a flood, refusals must cost less than answers."""

from collections.abc import Callable, Collection

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
        problem: Callable[[RediffuseError], ASGIApp],
    ) -> None:
        """Args: paths: of questions.   check: raises where there is no room."""
        self.app, self.paths, self.check, self.problem = app, paths, check, problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer when to come again."""
        if scope["type"] == "http" and scope["path"] in self.paths:
            try:
                self.check()
            except RediffuseError as full:
                await self.problem(full)(scope, receive, send)
                return
        await self.app(scope, receive, send)
