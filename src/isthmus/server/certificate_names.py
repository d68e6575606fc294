"""Whom a client's certificate names: the part of it that counts, then rules that rename.

The rules are those of Kafka's `ssl.principal.mapping.rules`: the first whose pattern is the
whole name decides; `DEFAULT` leaves the name as it is. A certificate that was checked but names
nobody must not make its owner anonymous, so it is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.errors import ConfigError, NotAuthorized

if TYPE_CHECKING:
    from isthmus.config_listeners import TlsOptions

ATTRIBUTES: Final = {  # [RFC 4514, 3]; others keep OpenSSL's long name
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
RULE: Final = re.compile(r"RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?)")
GROUP: Final = re.compile(r"\$(\d)|\\(.)", re.DOTALL)  # of a replacement, as Java writes it


class MappingRule(NamedTuple):
    """One rule: names that are wholly `pattern` become `template`; None: they stay."""

    pattern: re.Pattern[str]
    template: str | None
    case: str = ""  # L: in lower case then, U: in upper case

    def apply(self, name: str) -> str | None:
        """Return the user's name; None: this rule is not about it."""
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        if self.template is None:
            return name
        user = GROUP.sub(
            lambda found: (match[int(found[1])] or "") if found[1] else found[2], self.template
        )
        return {"L": user.lower(), "U": user.upper()}.get(self.case, user)


class CertificateNames:
    """How the certificates of one listener's clients name users."""

    def __init__(self, options: TlsOptions, listener: str) -> None:
        """Raises ConfigError for what is no rule."""
        self._user_from = options.user_from
        self._rules = [parse_rule(text, listener) for text in options.user_mapping]

    def take(self, fresh: CertificateNames) -> None:
        """Name users as other settings have it, from now on."""
        self._user_from, self._rules = fresh._user_from, fresh._rules

    @property
    def are_asked(self) -> bool:
        """Whether certificates name users here."""
        return self._user_from != "none"

    def user_of(self, certificate: dict[str, Any]) -> str:
        """Return whom a verified certificate names, as ssl's `getpeercert` decodes it.

        Raises NotAuthorized if it names nobody, or no rule is about the name.
        """
        name = name_in(certificate, self._user_from)
        if not name:
            raise NotAuthorized("its certificate names no user")
        if not self._rules:
            return name
        user = next(filter(None, (rule.apply(name) for rule in self._rules)), None)
        if user is None:
            raise NotAuthorized("no rule of user_mapping makes a user of its certificate")
        return user


def parse_rule(text: str, listener: str) -> MappingRule:
    """Read a rule. Raises ConfigError."""
    if text == "DEFAULT":
        return MappingRule(re.compile(".*", re.DOTALL), None)
    parts = RULE.fullmatch(text)
    where = f"the listener {listener}: user_mapping has {text!r}"
    if parts is None:
        raise ConfigError(f"{where}, and takes RULE:pattern/replacement/[LU] or DEFAULT")
    try:
        pattern = re.compile(parts[1])
    except re.error as error:
        raise ConfigError(f"{where}, whose pattern is wrong: {error}") from None
    named = [int(group) for group, _ in GROUP.findall(parts[2]) if group]
    if max(named, default=0) > pattern.groups:
        raise ConfigError(f"{where}, whose pattern has {pattern.groups} groups only")
    return MappingRule(pattern, parts[2], parts[3])


def name_in(certificate: dict[str, Any], user_from: str) -> str:
    """Return what `user_from` of the settings means in a certificate; the first of several.

    The empty string: the certificate has no such name.
    """
    subject = [pair for relative in certificate.get("subject", ()) for pair in relative]
    if user_from == "subject":  # the most particular name first [RFC 4514, 2.1]
        return ",".join(
            f"{ATTRIBUTES.get(kind, kind)}={escaped(name)}" for kind, name in reversed(subject)
        )
    if user_from == "cn":
        names = [name for kind, name in subject if kind == "commonName"]
    else:
        wanted = {"san-dns": "DNS", "san-email": "email"}[user_from]
        alternatives = certificate.get("subjectAltName", ())
        names = [name for kind, name in alternatives if kind == wanted]
    return names[0] if names else ""


def escaped(name: str) -> str:
    """Return an attribute's value as it stands in a distinguished name [RFC 4514, 2.4]."""
    text = "".join(f"\\{each}" if each in ',+"\\<>;' else each for each in name)
    if text[:1] in {" ", "#"}:
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if len(name) > 1 and name.endswith(" ") else text
