"""Ed25519 keys: the signing key in its file, and public keys as people pass them on."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from synergymesh.domain.audit.forms import key_id, signed_bytes
from synergymesh.errors import AuditKeyError

KEY_FILE_BYTES_MAX = 10_000
"""A key has some hundred bytes; a larger file is something else."""


class SigningKey:
    """Sign with an Ed25519 key.

    Attributes:
        public: the public key, 32 bytes.
        key_id: its short name.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = key_id(self.public)

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new one."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, tag: bytes, content: bytes) -> bytes:
        """Sign content of a kind."""
        return self._private.sign(signed_bytes(tag, content))

    def pem(self) -> bytes:
        """Give the private key as PEM."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature is of this key over this message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- the key file ---------------------------------------------------------------------------------------------------


def load_or_create(path: Path) -> tuple[SigningKey, bool]:
    """Give the key of a file, and whether it was made now.

    A new key is only for its owner (0600), in a directory only for its owner (0700) when that is made too.

    Raises:
        AuditKeyError: others may read the file, it is no key, or it cannot be read or made.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return load(path), False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = SigningKey.generate()
        if not write_key(path, key, replace=False):
            return load(path), False  # somebody else was faster
        return key, True
    except OSError as error:
        raise AuditKeyError(f"the audit key {path} cannot be read or made: {error.strerror or error}.") from None


def load(path: Path) -> SigningKey:
    """Read a key from its file.

    Raises:
        FileNotFoundError: there is none.
        AuditKeyError: others may read it, or it is no Ed25519 key.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AuditKeyError(f"the audit key {path} is not a file. Name a file.")
        if status.st_mode & 0o077:
            raise AuditKeyError(
                f"the audit key {path} may be read or changed by others (mode {stat.S_IMODE(status.st_mode):04o}). "
                f"`chmod 600 {path}`, and if somebody may have read it, `synergymesh audit keys rotate`."
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise AuditKeyError(f"the audit key {path} belongs to another user. Name one of your own.")
        text = os.read(descriptor, KEY_FILE_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditKeyError(f"the audit key {path} is not an Ed25519 private key in PEM without a password.")
    return SigningKey(key)


def write_key(path: Path, key: SigningKey, *, replace: bool) -> bool:
    """Write a key durably, wholly or not at all; without `replace` give False when the file is there already."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(key.pem())
            file.flush()
            os.fsync(file.fileno())
        if replace:
            scratch.replace(path)
        else:
            try:
                path.hardlink_to(scratch)
            except FileExistsError:
                return False
    finally:
        scratch.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make what was made or renamed in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- public keys ----------------------------------------------------------------------------------------------------


def public_pem(public_key: bytes) -> str:
    """Give a public key as PEM."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_public(text: str) -> bytes:
    """Read a public key: 64 hexadecimal digits, a PEM text, or the name of a file with one of them.

    Raises:
        AuditKeyError: it is none of these.
    """
    given = text.strip()
    if "-----BEGIN" not in given and not _is_hex(given):
        try:
            with open(given, "rb") as file:
                given = file.read(KEY_FILE_BYTES_MAX).decode("ascii", "replace").strip()
        except (OSError, ValueError):
            raise AuditKeyError(f"{text!r:.200} is no public key: give a PEM file, or 64 hexadecimal digits.") from None
    if _is_hex(given):
        return bytes.fromhex(given)
    try:
        key = load_pem_public_key(given.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise AuditKeyError(f"{text!r:.200} has no Ed25519 public key. `synergymesh audit keys export` writes one.")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdefABCDEF" for character in text)
