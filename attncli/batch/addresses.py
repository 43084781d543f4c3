"""Names of inputs that are addresses: their path, and what they are called where the secrets that they hold must not appear."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote_plus, urlsplit

_HIDDEN = "***"  # what stands for a secret
_JSON_WEB_TOKEN_START = "eyJ"  # {" in base64
_MIN_SECRET_LENGTH = 4  # of what is looked for in messages: anything shorter would hide ordinary text
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^/?#\s]*@")
# A parameter of a query or a fragment: what is before its value, and the value.
_PARAMETER = re.compile(r"""([?&;#]([^?&;#=\s"'<>]*)=)([^&;#\s"'<>]*)""")
# Words in the names of parameters that hold secrets: those of signed addresses (S3, Google, Azure), and the usual ones.
_SECRET_WORDS = frozenset(
    [
        "auth",
        "authorization",
        "bearer",
        "code",
        "credential",
        "credentials",
        "hmac",
        "jwt",
        "otp",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "pin",
        "policy",
        "pwd",
        "sas",
        "secret",
        "session",
        "sessionid",
        "sid",
        "sig",
        "signature",
    ]
)
_SECRET_ENDINGS = ("credential", "key", "keyid", "passwd", "password", "secret", "signature", "token")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of a name in any case: X-Amz-Signature, accessKey, api_key


def is_address(path: str) -> bool:
    """Whether an input is named by an address, such as `s3://…`."""
    return "://" in path


def is_web_address(path: str) -> bool:
    """Whether it is an address of the web: the standard library reads those, and fsspec would need a further package."""
    return path.startswith(("http://", "https://"))


def path_part(path: str) -> str:
    """The path of a file; of a web address the path on its server, which is empty where the address makes no sense."""
    if not is_web_address(path):
        return path
    try:
        return urlsplit(path).path
    except ValueError:
        return ""


def absolute_path(path: str) -> str:
    """The path for a process that runs in another folder; an address is the same everywhere."""
    return path if is_address(path) else os.path.abspath(path)


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────
def without_secrets(path: str) -> str:
    """An input's name for messages and manifests: an address without its password, and `***` for the secrets of its query."""
    if not is_address(path):
        return path
    return _PARAMETER.sub(_hide_value, _USER_AND_PASSWORD.sub("", path))


def _hide_value(match: re.Match[str]) -> str:
    before, name, value = match.groups()
    return before + (_HIDDEN if value and _is_secret(name, value) else value)


def _is_secret(name: str, value: str) -> bool:
    """Whether a parameter holds a secret, by its name, or as an address within the address."""
    words = [word.lower() for word in _WORD.findall(unquote_plus(name))]
    if any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in (*words, "".join(words))):
        return True
    inner = unquote_plus(value)
    return value.startswith(_JSON_WEB_TOKEN_START) or (inner != value and without_secrets(inner) != inner)


def hide_secrets(text: str, address: str) -> str:
    """A message without the secrets of the address that it is about, and of other addresses that it names."""
    if not is_address(address):
        return text
    for secret in sorted(_secrets_of(address), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_LENGTH:
            text = text.replace(secret, _HIDDEN)
    return _PARAMETER.sub(_hide_value, _USER_AND_PASSWORD.sub("", text))


def _secrets_of(address: str) -> Iterator[str]:
    """The secrets in an address, as they stand there and decoded."""
    values = [match[3] for match in _PARAMETER.finditer(address) if _is_secret(match[2], match[3])]
    for match in _USER_AND_PASSWORD.finditer(address):
        values += match[0][:-1].partition(":")[2:]
    for value in values:
        yield from (value, unquote_plus(value))


def lacks_secret(path: str) -> bool:
    """Whether this is the name of an address whose secret was left out, as it stands in a manifest or in failed.txt."""
    return is_address(path) and any(match[3] == _HIDDEN for match in _PARAMETER.finditer(path))
