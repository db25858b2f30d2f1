"""Secrets in text: known by the name that they are given, by their shape, or by the file that they lie in.

Pure. Numbers are never hidden (max_tokens). In source code only what is written out is a secret: `token = "abc"` is
one and `token = os.environ["TOKEN"]` is not, since code that is kept has to run again.
"""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

MASK = "***"

_NAME = re.compile(r"passw(or)?d|passphrase|secret|api_?key|access_?key|private_?key|credential|authorization")
_TOKENIZER = frozenset(["pad", "eos", "bos", "unk", "mask", "cls", "sep", "special", "image", "video", "audio", "type"])

# Every pattern begins at the edge of a word and has bounded parts, so that no text makes it slow.
_SHAPES = (
    re.compile(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abeprs]-|npm_|pypi-|AIza)[\w-]{16,}"),
    re.compile(r"\bruntide_[0-9a-f]{12}_[\w-]{20,}"),
    re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"),
)
_HEADER = re.compile(
    r"(?<=\bBearer )[\w.~+/=-]{6,}|(?<=\bbearer )[\w.~+/=-]{16,}|(?<=\bBasic )(?=[a-z]*[A-Z\d=])[\w+/=-]{12,}"
)
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s/@]{1,1000})@")
_SAID = re.compile(r"""(?<![\w.-])([\w.-]{1,100})\\?["']?\s{0,4}[=:]\s{0,4}\\?["']?""")
"""A name that a value follows: password=x, "api_key": "x", ?token=x. In a text within JSON quotes have backslashes."""
_VALUE = re.compile(r"""(?:[^\s&;,'"\\]|\\(?!["']))+""")
_WRITTEN = re.compile(
    r"""(?<![\w.-])([\w.-]{1,100})\\?["']?\]?(?:\s{0,4}:\s{0,4}[\w.\[\]| ]{1,60})?"""
    r"""\s{0,4}[=:]\s{0,4}[rbuf]{0,2}(?:\\?["']){1,3}"""
)
"""A name that a text follows: password = "x", env["API_KEY"] = 'x', password: str = "x"."""
_TEXT = re.compile(r"""(?:[^"'\n\\]|\\(?!["']))+""")
_LONG = re.compile(r"""(?:(?!\"{3}|'{3}).)+""", re.DOTALL)

_CODE = frozenset(
    [".py", ".pyi", ".pyx", ".ipynb", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".go", ".rs", ".jl"]
)
_HOLDERS = (
    *(
        ".env",
        ".env.*",
        "*.env",
        ".envrc",
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.keystore",
        "*.kdbx",
        "*.ppk",
    ),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.gpg", "*.asc", "*.ovpn", ".htpasswd", ".netrc", "_netrc"),
    *(".pgpass", ".my.cnf", ".npmrc", ".pypirc", ".git-credentials", ".dockercfg", ".dockerconfigjson", "kubeconfig"),
    *("credentials", "credentials.*", "secret.*", "secrets.*", "*.secret", "*.secrets", "*.tfvars", "*.tfstate"),
    *("service-account*.json", "service_account*.json", "client_secret*.json", "application_default_credentials.json"),
)
_HOLDING_FOLDERS = frozenset([".ssh", ".gnupg", ".aws", ".kube", ".docker", "secrets", ".secrets"])


@functools.lru_cache(4096)
def is_secret(name: str) -> bool:
    """Whether a name is that of a secret. A tokenizer's pad_token and its like are none."""
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(" ", "_")
    if _NAME.search(spread):
        return True
    words = re.split(r"[._/]", spread)
    return ("token" in words or "apitoken" in words) and not _TOKENIZER.intersection(words)


def holds_secrets(path: str) -> bool:
    """Whether a file is one of those that are made to hold secrets, by its name: .env, *.pem, id_rsa, .aws/ ..."""
    parts = [part.lower() for part in PurePosixPath(path).parts]
    if not parts or parts[-1] in {".env.example", ".env.sample", ".env.template"}:
        return False
    return not _HOLDING_FOLDERS.isdisjoint(parts[:-1]) or any(fnmatchcase(parts[-1], holder) for holder in _HOLDERS)


def mask_text(text: str) -> str:
    """Hide what looks like a secret in a text."""
    return _without_said(_without_shapes(text), _SAID, _VALUE)


def mask_source(path: str, text: str) -> str:
    """Hide what looks like a secret in a file: in code what is written out, in other files all that a name is given."""
    if PurePosixPath(path).suffix.lower() in _CODE:
        return _without_said(_without_shapes(text), _WRITTEN, _TEXT)
    return mask_text(text)


def without_user(url: str) -> str:
    """A URL without the user and password before its host."""
    return mask_text(_USERINFO.sub(r"\1", url))


def _without_shapes(text: str) -> str:
    if "earer " in text or "Basic " in text:  # half of the time that all shapes take together
        text = _HEADER.sub(MASK, text)
    for shape in _SHAPES:
        text = shape.sub(MASK, text)
    return _USERINFO.sub(_without_password, text)


def _without_said(text: str, said: re.Pattern[str], value: re.Pattern[str]) -> str:
    parts, at = [], 0
    for found in said.finditer(text):
        of = _LONG if found[0].endswith(('"""', "'''")) else value
        if found.start() >= at and is_secret(found[1]) and (hidden := of.match(text, found.end())):
            parts += [text[at : found.end()], MASK]
            at = hidden.end()
    return "".join([*parts, text[at:]])


def _without_password(found: re.Match[str]) -> str:
    """Over http a user alone is a token; elsewhere, as in ssh://git@host, it is a name."""
    if ":" in found[2] or found[1].lower().startswith("http"):
        return f"{found[1]}{MASK}@"
    return found[0]
