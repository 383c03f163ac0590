"""What a file must hash to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sentiment.errors import UserError

DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Checksum:
    """A hash of a whole file. MD5 notices accidents; against ill will only SHA-256 helps."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "md5:<hex>" or "sha256:<hex>"; raises UserError for anything else."""
        algorithm, _, value = text.strip().lower().partition(":")
        digits = DIGITS.get(algorithm)
        if digits is None or len(value) != digits or not set(value) <= set("0123456789abcdef"):
            raise UserError(
                f"checksum {text!r}: expected md5: and 32 hexadecimal digits, or sha256: and 64 of them"
            )
        return cls(algorithm, value)

    def fault(self, path: Path) -> str | None:
        """Say how the file differs, None where it is the right one."""
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)
            ).hexdigest()
        if found == self.value:
            return None
        return f"wrong checksum: expected {self.algorithm}:{self.value}, found {self.algorithm}:{found}"
