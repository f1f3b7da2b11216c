"""Send a notification to a web address: one POST with the facts as JSON."""

from __future__ import annotations

import string
import urllib.error
import urllib.request
from base64 import b64encode
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from queuectl.errors import NotSent, NotSentNow
from queuectl.fast_start import fast_json
from queuectl.job.redact import one_line
from queuectl.notify import delivery

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage
    from typing import IO

    from queuectl.notify.message import Message

_LATER = frozenset({408, 425, 429})
"""Answers of the class 4xx after which another try may succeed: RFC 9110 and RFC 6585."""

_READ = 500
"""Bytes of an answer that are read, for the message about a refusal."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without its content: the notification would be lost with a success."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow none. The answer is then an error like others."""


def post(message: Message, url: str, headers: Mapping[str, str], key: str | None) -> None:
    """Send a notification.

    Args:
        headers: more header fields, which replace those of the same name.
        key: the value of the header field Idempotency-Key.

    Raises:
        NotSent: no host can have this name, or the server refuses it, as the address or a header field is wrong.
        NotSentNow: the server cannot be reached, or may take it later.
    """
    import queuectl

    url, host, login = _taken_apart(url)
    fields = {
        "Content-Type": "application/json",
        "User-Agent": f"queuectl/{queuectl.__version__}",
        **({"Idempotency-Key": key} if key is not None else {}),
        **({"Authorization": login} if login is not None else {}),
        **headers,
    }
    content = fast_json.dumps(_without_surrogates(message.as_json()))
    request = urllib.request.Request(url, content, fields, method="POST")  # noqa: S310 (see _opener)
    delivery.within(delivery.LONGEST, lambda: _send(request, host), host)


def _taken_apart(url: str) -> tuple[str, str, str | None]:
    """Return an address as it can be asked for, its host and port, and the header field for a name and password in it.

    HTTP knows ASCII only. A name of a host is written in Punycode then, and other characters as percent signs with numbers.

    Raises:
        NotSent: no host can have this name.
    """
    parts = urlsplit(url)
    login, is_given, typed = parts.netloc.rpartition("@")
    try:
        host = typed.encode("idna").decode()
    except UnicodeError:
        raise NotSent(f"no host can be called {one_line(typed)}") from None
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    given = f"Basic {b64encode(unquote_to_bytes(login)).decode()}" if is_given else None
    return urlunsplit((parts.scheme, host, path, query, "")), host, given


def _send(request: urllib.request.Request, host: str) -> None:
    try:
        with _opener().open(request, timeout=delivery.LONGEST) as answer:
            answer.read(_READ)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(host, error) from None
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, OSError) else error
        raise NotSentNow(f"{host}: {delivery.reason_of(reason)}") from None
    except (OSError, HTTPException) as error:
        raise NotSentNow(f"{host}: {delivery.reason_of(error)}") from None


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses of http and https, through the proxies of the environment, and no others."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _NoRedirect,
    ):
        opener.add_handler(handler())
    return opener


def _refusal(host: str, error: urllib.error.HTTPError) -> NotSent:
    if 300 <= error.code < 400:
        return NotSent(
            f"{host} answers {error.code}: it is at {one_line(error.headers.get('Location', 'another address'))}"
        )
    said = one_line(error.read(_READ).decode(errors="replace").strip()) or one_line(str(error.reason))
    later = error.code >= 500 or error.code in _LATER
    return (NotSentNow if later else NotSent)(f"{host} answers {error.code}: {said}")


def _without_surrogates(value: Any) -> Any:
    """Replace what UTF-8 cannot say, such as bytes of a file name that is no text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {name: _without_surrogates(part) for name, part in value.items()}
    return [_without_surrogates(part) for part in value] if isinstance(value, list) else value
