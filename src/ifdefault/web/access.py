"""Who may ask for what: checked before anything is answered.

Rules: a request must name this host in its Host header, so that another site's name that leads
here by DNS (rebinding) reads nothing. One that changes something must come from our own pages, or
from no page at all. The token is compared in constant time, and a wrong one costs time. Every
answer says that nothing of others may be loaded, and names no software. No cookie is set.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from ifdefault.ipc import log
from ifdefault.web.guard import Guard
from ifdefault.web.settings import Settings

METHODS = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST)
MOST_BODY = 4096
_MOST_FIELDS = 16
_NO_HOST = {*"@/?#\\"}
_BODY_S = 5.0
_WRONG_S = 0.5  # how long a wrong token takes
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, the Origin of our own forms were null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """Answered with this status; `why` is for the client."""

    is_logged = False

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers or {}


class Unwelcome(Refused):
    """What no page of ours and no proper program asks for: `why` is logged, too."""

    is_logged = True


class Access:
    """`answer_error(request, status, text)` makes the page or the JSON of an error."""

    def __init__(
        self,
        guard: Guard,
        settings: Callable[[], Settings],
        answer_error: Callable[[web.Request, int, str], web.Response],
    ) -> None:
        self._guard, self._settings, self._answer_error = guard, settings, answer_error

    def middleware(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._guard.begun(request.transport)
            try:
                return await self._answer(request, handler)
            finally:
                self._guard.done(request.transport)

        return check

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            await self._authenticate(request)
            return await handler(request)
        except Refused as refused:
            if refused.is_logged:
                self._guard.refusals.add(f"a request: {refused.why}", request.remote or "")
            response = self._answer_error(request, refused.status, refused.why)
            response.headers.update(refused.headers)
        except web.HTTPException as error:
            response = self._answer_error(request, error.status, error.reason)
            if hdrs.ALLOW in error.headers:
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        except (asyncio.CancelledError, ConnectionError):  # the client has gone
            raise
        except Exception as error:
            resource = request.match_info.route.resource
            where = resource.canonical if resource else ""
            log.exception(error, f"web: {request.method} {where}")
            response = self._answer_error(request, 500, "an internal error; the log has it")
        if request.can_read_body:
            response.force_close()
        return response

    def _check(self, request: web.Request) -> None:
        if request.method not in METHODS:
            raise Unwelcome(405, "its method; use GET, HEAD or POST", _allow(request))
        host = request.headers.getall(hdrs.HOST, [])
        # request.host: that of a whole URL in place of a path, if there is one (RFC 9112, 3.2.2)
        if len(host) != 1 or not all(map(self._is_ours, (host[0], request.host))):
            why = "its Host is none of ours; [web] hosts names further ones"
            raise Unwelcome(421, why)
        if request.method == hdrs.METH_POST:
            _check_origin(request, host[0])
        elif request.headers.get("Sec-Fetch-Site") == "cross-site" and not _is_link(request):
            raise Unwelcome(403, "another site's page loads from this one")
        elif request.can_read_body:
            raise Unwelcome(400, "a body where there is none")
        if (request.content_length or 0) > MOST_BODY:
            raise Unwelcome(413, f"its body is longer than {MOST_BODY} bytes")

    def _is_ours(self, host: str) -> bool:
        name = host_name(host)
        settings = self._settings()
        if name == "localhost" or name in settings.hosts:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        if settings.listen.startswith("/"):
            return address.is_loopback
        own = ip_address(host_name(settings.listen))
        # an address is no name that a stranger's DNS could have led here
        return own.is_unspecified or address == own or (own.is_loopback and address.is_loopback)

    async def _authenticate(self, request: web.Request) -> None:
        token = self._settings().token
        if not token:
            return
        given = _given_token(request.headers.get(hdrs.AUTHORIZATION, ""))
        if given is not None and hmac.compare_digest(given, token.encode()):
            return
        challenge = {"WWW-Authenticate": 'Basic realm="ifdefault", charset="UTF-8"'}
        if given is None:
            raise Refused(401, "no token, which [web] token_file asks for", challenge)
        await asyncio.sleep(_WRONG_S)
        raise Unwelcome(401, "a wrong token", challenge)


async def sign(_: web.BaseRequest, response: web.StreamResponse) -> None:
    """Headers of every answer."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop(hdrs.SERVER, None)


async def body(request: web.Request) -> bytes:
    """The body of a request: short, and soon."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError:
        raise Unwelcome(408, "its body is too slow") from None
    except web.HTTPRequestEntityTooLarge:
        raise Unwelcome(413, f"its body is longer than {MOST_BODY} bytes") from None
    except web.RequestPayloadError:
        raise Unwelcome(400, "its body doesn't have the encoding that it says") from None


async def form(request: web.Request) -> dict[str, str]:
    """The fields of our own forms, which browsers send in this way."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise Unwelcome(415, "its body is no form of the page")
    try:
        return dict(
            parse_qsl((await body(request)).decode("utf-8", "strict"), max_num_fields=_MOST_FIELDS)
        )
    except ValueError:  # also of UTF-8
        raise Unwelcome(400, "its body is no form of the page") from None


def host_name(host: str) -> str:
    """The name or address of a Host header, without a port; "" if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") if not _NO_HOST & {*host} else ""
    except ValueError:
        return ""


def _allow(request: web.Request) -> dict[str, str]:
    """What the resource can be asked by (RFC 9110, 10.2.1)."""
    error = request.match_info.http_exception
    methods = error.allowed_methods if isinstance(error, web.HTTPMethodNotAllowed) else METHODS
    return {"Allow": ", ".join(sorted(methods))}


def _is_link(request: web.Request) -> bool:
    """Whether it is for a page that the user goes to."""
    return request.headers.get("Sec-Fetch-Mode", "") == "navigate"


def _check_origin(request: web.Request, host: str) -> None:
    """What no page sent, a program's request, has neither header."""
    origin = request.headers.getall(hdrs.ORIGIN, [])
    site = request.headers.get("Sec-Fetch-Site", "")
    if origin:
        if len(origin) != 1 or _authority(origin[0]) != host.lower():
            raise Unwelcome(403, "its Origin is another site")
    elif site and site not in ("same-origin", "none"):
        raise Unwelcome(403, "it comes from another site")


def _authority(origin: str) -> str:
    """Host and port; "" if there are none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _given_token(authorization: str) -> bytes | None:
    """Of Basic, the password; of Bearer, the token; None if there is none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest.strip(), validate=True)
        except (binascii.Error, ValueError):
            return b""
        return decoded.partition(b":")[2]
    return None
