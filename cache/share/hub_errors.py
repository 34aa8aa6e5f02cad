"""What the Hugging Face hub refuses, in words and with a cure; what is worth another try, and when."""

import random
import re

from huggingface_hub import get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ...errors import InputError

CONFLICTS = (409, 412)
"""Answers to a commit where another one came first."""
_PASSING = (408, 429, 500, 502, 503, 504)
_NETWORK_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""Of the HTTP library that the hub's client happens to use; also the base of the hub's own answers."""
_MAX_WAIT_SECONDS = 310
"""The hub counts requests in windows of five minutes."""
_RATE_LIMIT = re.compile(r"\br=0\s*;\s*t=(\d+)")
_SECRETS = re.compile(r"\b(?:hf_|api_org_|hf_oauth_)\w{8,}|(?<=\?)\S+")
"""Tokens, and the signatures of addresses."""
_LOG_IN = "log in: hf auth login, or set HF_TOKEN (huggingface.co/settings/tokens; to push it needs the right to write)"
_RIGHTS = "check the name, and that your token may use this data set (to push: write to it)"


def is_conflict(error: Exception) -> bool:
    """Whether a commit came too late."""
    return _status(error) in CONFLICTS


def is_passing(error: Exception) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = _status(error)
    return isinstance(error, _NETWORK_ERROR) if status is None else status in _PASSING


def pause_seconds(error: Exception, attempt: int) -> float | None:
    """How long to wait before the next attempt; None where the hub asks for too much.

    Args:
        error: of the attempt that failed.
        attempt: its number, from 1.
    """
    if isinstance(error, HfHubHTTPError):
        found = _RATE_LIMIT.search(error.response.headers.get("ratelimit", ""))
        asked = found[1] if found else error.response.headers.get("retry-after", "")
        if asked.isdigit():
            return int(asked) + 1.0 if int(asked) <= _MAX_WAIT_SECONDS else None
    return float(2**attempt * random.uniform(0.15, 0.3))


def explained(error: Exception, *, url: str) -> InputError:
    """As an error for the user; without tokens, whatever the hub says.

    Args:
        error: of the hub's client.
        url: of the place.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # around that of one upload
        return explained(error.__cause__, url=url)
    cure = _cure(error)
    for kind, what in _KINDS.items():
        if isinstance(error, kind):
            return InputError(f"{url}: {what}", got=_said(error), cure=cure)
    status = _status(error)
    if status is not None:
        return InputError(f"{url}: {_STATUS.get(status, 'the hub refuses')}", got=_said(error), cure=cure)
    return InputError(f"{url}: cannot be reached, or answers oddly", got=_said(error), cure=cure)


_KINDS: dict[type[Exception], str] = {
    OfflineModeIsEnabled: "offline",
    GatedRepoError: "its owner gives access on request only",
    RepositoryNotFoundError: "no such data set, or it is private",
    RevisionNotFoundError: "no such branch, tag or commit",
    DisabledRepoError: "the hub has disabled this data set",
    EntryNotFoundError: "no such file there",
}
_STATUS = {
    401: "not logged in, or the token is not valid",
    403: "no right to do this",
    409: "others write there all the time",
    412: "others write there all the time",
    413: "too large for the hub",
    429: "the hub's limit of requests or commits is reached",
}


def _cure(error: Exception) -> str:
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "unset HF_HUB_OFFLINE"
    if isinstance(error, GatedRepoError):
        return "ask for access on the data set's page" + ("" if get_token() else f", then {_LOG_IN}")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return _RIGHTS if get_token() and status != 401 else _LOG_IN
    if isinstance(error, RevisionNotFoundError):
        return "check what follows the @; a branch is made with: hf repo branch create"
    if status == 429:
        return "wait (commits are counted by the hour), then run the same command again: what has arrived stays"
    return "check address and network; run the same command again: what has arrived stays"


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _said(error: Exception) -> str:
    """The hub's own words, or those of the error, on one line."""
    status = _status(error)
    words = (error.server_message or "") if isinstance(error, HfHubHTTPError) else str(error) or type(error).__name__
    words = _SECRETS.sub("...", " ".join(words.split()))
    token = get_token()
    return (f"HTTP {status}: " * (status is not None) + words.replace(token or "\0", "..."))[:300].removesuffix(": ")
