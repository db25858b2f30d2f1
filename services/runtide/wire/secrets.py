"""Secrets in text: known by the name that they are given, by their shape, or by the file that they lie in.

Pure. Numbers are never hidden (max_tokens). In source code only what is written out is a secret: `token = "abc"` is
one and `token = os.environ["TOKEN"]` is not, since code that is kept has to run again.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

MASK = "***"

_NAME = re.compile(r"passw(or)?d|passphrase|secret|api_?key|access_?key|private_?key|credential|authorization")
_TOKENIZER = frozenset(["pad", "eos", "bos", "unk", "mask", "cls", "sep", "special", "image", "video", "audio", "type"])

# Every pattern begins at the edge of a word and has bounded parts, so that no text makes it slow; and it is tried only
# where one of its words is there at all, since most texts hold none.
_SHAPES = tuple(
    (tuple(words.split()), re.compile(pattern, re.DOTALL))
    for words, pattern in (
        ("PRIVATE", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"),
        ("earer", r"(?<=\bBearer )[\w.~+/=-]{6,}|(?<=\bbearer )[\w.~+/=-]{16,}"),
        ("Basic", r"(?<=\bBasic )(?=[a-z]*[A-Z\d=])[\w+/=-]{12,}"),
        ("AKIA ASIA", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat-", r"\b(?:gh[pousr]_|github_pat_|glpat-)[\w-]{16,}"),
        ("hf_ sk- xox npm_ pypi- AIza", r"\b(?:hf_|sk-|xox[abeprs]-|npm_|pypi-|AIza)[\w-]{16,}"),
        ("runtide_", r"\bruntide_[0-9a-f]{12}_[\w-]{20,}"),
        ("eyJ", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"),
    )
)
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s/@]{1,1000})@")
_WORDS = r"passw|passphrase|secret|key|credential|authorization|token"
_SECRET_WORDS, _SECRET_WORDS_ANY_CASE = re.compile(_WORDS), re.compile(_WORDS, re.IGNORECASE)
"""One of these is in every name that `is_secret` knows."""
_NAME_CHARS = re.compile(r"[\w.-]*")
_SAID = re.compile(r"""(?<![\w.-])([\w.-]{1,100})\\?["']?\s{0,4}[=:]\s{0,4}\\?["']?""")
"""A name that a value follows: password=x, "api_key": "x", ?token=x. In a text within JSON quotes have backslashes."""
_VALUE = re.compile(r"""(?:[^\s&;,'"\\]|\\(?!["']))+""")
_WRITTEN = re.compile(
    r"""(?<![\w.-])([\w.-]{1,100})\\?["']?\]?(?:\s{0,4}:\s{0,4}[\w.\[\]| ]{1,60})?"""
    r"""\s{0,4}[=:]\s{0,4}[rbuf]{0,2}(?:(?:\\?["']){3}|\\?["'](?!\\?["']))"""
)
"""A name that a text follows: password = "x", env["API_KEY"] = 'x', password: str = "x"."""
_OPTION = re.compile(r"\b(?:add_argument|add_option|option)\(")
_OPTION_NAME = re.compile(r"""["']-{0,2}([\w.-]{1,100})\\?["']""")
_DEFAULT = re.compile(r"""\bdefault\s{0,4}=\s{0,4}[rbuf]{0,2}(?:(?:\\?["']){3}|\\?["'](?!\\?["']))""")
_OPTION_CHARS = 1000
"""So far behind its beginning the default of an option is looked for: add_argument("--api-key", default="x")."""
_ELSE = re.compile(
    r"""(?:(?<=env\(["'])|(?<=env\(\\["'])|(?<=environ\.get\(["'])|(?<=environ\.get\(\\["']))([\w.-]{1,100})\\?["']"""
    r"""\s{0,4},\s{0,4}[rbuf]{0,2}(?:(?:\\?["']){3}|\\?["'](?!\\?["']))"""
)
"""A variable, and the text that stands in for it: os.getenv("API_KEY", "x")."""
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
        text = _without_said(_without_shapes(text), _WRITTEN, _TEXT)
        text = _without_defaults(text)
        return _without_said(text, _ELSE, _TEXT) if "env" in text else text
    return mask_text(text)


def without_user(url: str) -> str:
    """A URL without the user and password before its host."""
    return mask_text(_USERINFO.sub(r"\1", url))


def _without_shapes(text: str) -> str:
    for words, shape in _SHAPES:
        if any(word in text for word in words):
            text = shape.sub(MASK, text)
    return _USERINFO.sub(_without_password, text) if "://" in text and "@" in text else text


def _without_said(text: str, said: re.Pattern[str], value: re.Pattern[str]) -> str:
    parts, at = [], 0
    for start in _names(text):
        if start < at or (found := said.match(text, start)) is None or not is_secret(found[1]):
            continue
        of = _LONG if found[0].endswith(('"""', "'''")) else value
        if (hidden := of.match(text, found.end())) is not None:
            parts += [text[at : found.end()], MASK]
            at = hidden.end()
    return "".join([*parts, text[at:]])


def _without_defaults(text: str) -> str:
    parts, at = [], 0
    edges = [found.end() for found in _OPTION.finditer(text)]
    for start, following in itertools.pairwise([*edges, len(text)]):
        default = _DEFAULT.search(text, start, min(following, start + _OPTION_CHARS))
        if default and any(is_secret(name) for name in _OPTION_NAME.findall(text, start, default.start())):
            of = _LONG if default[0].endswith(('"""', "'''")) else _TEXT
            if (hidden := of.match(text, default.end())) is not None:
                parts += [text[at : default.end()], MASK]
                at = hidden.end()
    return "".join([*parts, text[at:]])


def _names(text: str) -> Iterator[int]:
    """Where the names begin that hold a word of secrets, in order."""
    low = text.lower()
    words = _SECRET_WORDS.finditer(low) if len(low) == len(text) else _SECRET_WORDS_ANY_CASE.finditer(text)
    last = -1
    for word in words:
        before = _NAME_CHARS.match(text[max(0, word.start() - 100) : word.start()][::-1])
        start = word.start() - (before.end() if before else 0)
        if start != last:
            yield start
        last = start


def _without_password(found: re.Match[str]) -> str:
    """Over http a user alone is a token; elsewhere, as in ssh://git@host, it is a name."""
    if ":" in found[2] or found[1].lower().startswith("http"):
        return f"{found[1]}{MASK}@"
    return found[0]
