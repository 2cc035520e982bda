"""A server of keys as senders have one: real TLS, with a certificate of a CA made here."""

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
DAY = datetime.timedelta(days=1)


def private_pem(key) -> bytes:
    """PKCS #8, without a password."""
    none = serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, none)


class Authority:
    """A root, and certificates that it issues."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fasthook test root")])
        self.root = self._build(self.key.public_key(), self.name, 30, is_ca=True)
        self.root_pem = self.root.public_bytes(PEM)

    def _build(self, public, subject, days: float, *, names=(), is_ca=False, began: float = -1):
        now = datetime.datetime.now(datetime.UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key
        builder = (
            x509.CertificateBuilder(self.name, subject, public, x509.random_serial_number())
            .not_valid_before(now + began * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
            )
        )
        if is_ca:
            usage = [n in ("key_cert_sign", "crl_sign") for n in _USAGES]
            builder = builder.add_extension(x509.KeyUsage(*usage), critical=True)
            builder = builder.add_extension(identifier(public), critical=False)
        else:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            builder = builder.add_extension(alternative, False).add_extension(server, False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names: str, key=None, days: float = 10, began: float = -1):
        """A key, RSA unless given, and its certificate in PEM."""
        key = key or rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        made = self._build(key.public_key(), subject, days, names=names, began=began)
        return key, made.public_bytes(PEM)

    def write_root(self, folder: Path) -> Path:
        """The root as a file."""
        path = folder / "root.pem"
        path.write_bytes(self.root_pem)
        return path


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def ok(body: bytes, *fields: str) -> bytes:
    """A whole answer."""
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class KeyServer:
    """Answers GETs by path, and notes them.

    An answer is bytes, or a function that is given the socket.
    """

    def __init__(self, authority: Authority, *names: str, folder: Path, **issued) -> None:
        key, certificate = authority.issue(
            *names, key=ec.generate_private_key(ec.SECP256R1()), **issued
        )
        chain = folder / f"server-{threading.get_ident()}-{id(self)}.pem"
        chain.write_bytes(private_pem(key) + certificate)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain)
        self.answers: dict[str, bytes | Callable[[socket.socket], None]] = {}
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.released = threading.Event()  # what hangs ends then
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                opened, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(opened,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, opened: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), opened:
            opened.settimeout(10)
            with self._context.wrap_socket(opened, server_side=True) as secured:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = secured.recv(4096)
                    if not piece:
                        return
                    head += piece
                path = head.split()[1].decode()
                self.asked.append(path)
                self.heads.append(head)
                answer = self.answers.get(path, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
                if callable(answer):
                    answer(secured)
                else:
                    secured.sendall(answer)

    def hang(self, secured: socket.socket) -> None:
        """An answer: none."""
        self.released.wait(10)

    def drip(self, text: bytes) -> Callable[[socket.socket], None]:
        """An answer: `text`, and then a byte now and then."""

        def answer(secured: socket.socket) -> None:
            secured.sendall(text)
            while not self.released.wait(0.05):
                secured.sendall(b"x")

        return answer

    def close(self) -> None:
        """Answer no more."""
        self.released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
