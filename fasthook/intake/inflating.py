"""Bodies that come compressed (RFC 9110 §8.4): what they hold, within bounds.

Only verified bytes come here: what is signed, and what is stored, are the bytes as received.
"""

from typing import Final, Literal

from isal import igzip_lib, isal_zlib

from fasthook.errors import BadPayload, BodyTooLarge

Encoding = Literal["gzip"]

#: An endpoint's body, unpacked, may have so many times its `max_body`. Beyond: 413.
MAX_GROWTH: Final = 4
#: Nor may it have more than so many times the bytes that were received, once it is not small: text
#: shrinks to a tenth or so, and what shrinks to a thousandth is made to.
MAX_RATIO: Final = 100
_SMALL_BYTES: Final = 64 * 1024

_GZIP_WINDOW_BITS: Final = 31  # 15, and 16 for gzip's own head and trailer


def gunzipped(body: bytes, max_body_bytes: int) -> bytes:
    """The body unpacked. Raises `BadPayload` and `BodyTooLarge`."""
    limit_bytes = min(max_body_bytes * MAX_GROWTH, max(_SMALL_BYTES, len(body) * MAX_RATIO))
    unpack = isal_zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        plain: bytes = unpack.decompress(body, limit_bytes + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # a class, not what its stub says
        raise BadPayload(f"the body is not gzip: {error}") from None
    if len(plain) > limit_bytes:
        what = f"{len(body)} bytes of gzip hold more than {limit_bytes}"
        raise BodyTooLarge(f"{what}; the limit is {MAX_GROWTH} x max_body and {MAX_RATIO} x sent")
    if not unpack.eof:
        raise BadPayload("the body is gzip that ends before its end")
    if unpack.unused_data:
        raise BadPayload("the body is gzip with other bytes behind it")
    return plain
