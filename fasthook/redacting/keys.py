"""What a key says of its value: "email", "phone", "name" … or nothing.

Lists of words, as senders use them. Where a word is doubtful, the value is replaced: a pseudonym
too many costs a `--keep`, one too few may cost a person.
"""

import re
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[0-9]+|[^\W\d_]+")

_WORDS: Final = {
    "secret": "secret secrets password passwords passwd pwd passphrase passcode token jwt "
    "apikey credential credentials authorization bearer cookie cookies otp pin "
    "cvc cvv cvn csc signature hmac",
    "secrets": "tokens pass",
    "email": "email emails mail mailto",
    "phone": "phone phones telephone tel mobile fax msisdn cellphone phonenumber whatsapp",
    "ip": "ip ips ipv4 ipv6 ipaddress",
    "address": "address addresses addr street streets city town zip zipcode postcode postal suburb "
    "line1 line2 line3 address1 address2 lat latitude lng lon longitude coordinates geo",
    "name": "username login nickname nick surname firstname lastname fullname middlename givenname "
    "familyname displayname screenname realname payee cardholder",
    "person": "author authors recipient recipients attendee attendees assignee signer reviewer",
    "number": "ssn nino passport iban pan ccnumber cardnumber last4 taxid dob birthday birthdate "
    "accountnumber routingnumber",
}
_KIND_BY_WORD: Final = {word: kind for kind, words in _WORDS.items() for word in words.split()}
#: Several words that only mean something together.
_COMPOUNDS: Final = {
    "secret": "api_key access_key private_key account_key signing_key encryption_key ssh_key "
    "license_key session_id session_key security_code auth_code access_code verification_code",
    "email": "e_mail",
    "ip": "remote_addr ip_address",
    "address": "line_1 line_2 line_3 address_1 address_2",
    "number": "card_number account_number routing_number sort_code tax_id vat_id tax_number "
    "vat_number national_id identity_number social_security date_of_birth birth_date last_4 "
    "last_four",
}
_KIND_BY_COMPOUND: Final = {
    compound: kind for kind, compounds in _COMPOUNDS.items() for compound in compounds.split()
}
#: A key that ends in one of these speaks about the thing, and is not the thing.
_ABOUT_WORDS: Final = (
    "type types kind status state count counts total max min limit length size version format "
    "enabled disabled verified valid required optional confirmed at expires expiry expiration "
    "created updated changed url uri method provider scheme brand policy check"
)
_ABOUT: Final = frozenset(_ABOUT_WORDS.split())
#: Things that have a name which is no person's: as the key of an object, or before "name".
_THING_WORDS: Final = (
    "repository repo product plan price label branch workflow project event field column file "
    "tag category channel app application service package release job step check metric "
    "environment cluster host domain bucket database table board milestone queue currency "
    "country language item property attribute variant sku feature rule policy zone region "
    "template list form action type class role permission topic schema function runner"
)
_THINGS: Final = frozenset(_THING_WORDS.split())
#: What stays below an address or a secret, where all else is replaced.
_NEUTRAL: Final = frozenset(("id", "ids", "object"))
_NEUTRAL_ANYWHERE: Final = frozenset(("country", "currency", "locale"))


@lru_cache(maxsize=4096)
def words_of(key: str) -> tuple[str, ...]:
    """`firstName`, `first_name` and `first-name` are the same two words."""
    return tuple(word.lower() for word in _WORD.findall(key))


@lru_cache(maxsize=4096)
def kind_of(key: str, parent: str = "") -> str:
    """Of what kind the value of this key is; "" where the key does not say.

    `parent`: the key of the object that it stands in.
    """
    words = words_of(key)
    if not words or words[-1] in _ABOUT:
        return ""
    if words[-1] in ("name", "names"):
        before = words[-2:-1] or words_of(parent)[-1:]
        whose = (*before, *words_of(parent)[-1:])
        return "" if any(map(_is_thing, whose)) else "name"
    joined = "_".join(words)
    for compound, kind in _KIND_BY_COMPOUND.items():
        if f"_{compound}_" in f"_{joined}_":
            return kind
    if words == ("number",) and words_of(parent)[-1:] == ("card",):
        return "number"
    if words[-1] in ("id", "ids"):
        return ""  # of a resource, whatever it is called
    kinds = [_KIND_BY_WORD[word] for word in (*words, "".join(words)) if word in _KIND_BY_WORD]
    # "email_address" and "ip_address" are no street.
    return next((kind for kind in kinds if kind != "address"), kinds[0] if kinds else "")


def is_neutral(key: str) -> bool:
    """Whether a value stays though all else in the same object is replaced."""
    words = words_of(key)
    last = words[-1:]
    return (
        not _NEUTRAL.isdisjoint(last)
        or not _ABOUT.isdisjoint(last)
        or (not _NEUTRAL_ANYWHERE.isdisjoint(words))
    )


def _is_thing(word: str) -> bool:
    return not _THINGS.isdisjoint((word, word.removesuffix("s"), f"{word.removesuffix('ies')}y"))
