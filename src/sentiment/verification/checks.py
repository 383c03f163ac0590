"""Results of a verification: one check for each link between a model and what it was made from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["agrees", "differs", "not known"]

MAX_NAMED = 5
"""Maximum number of differences that a message names."""


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: what is checked.
        status: whether it agrees; `not known` if what it would be compared with is missing.
        message: one sentence for the user.
    """

    name: str
    status: Status
    message: str

    def __str__(self) -> str:
        return f"{self.status:9}  {self.name}: {self.message}"


def report_differences(name: str, differences: Iterable[str], agreement: str) -> Check:
    """Return a check that differs if there are differences, with a message that names the first ones."""
    found = list(differences)
    if not found:
        return Check(name, "agrees", agreement)
    omitted = [f"and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return Check(name, "differs", "; ".join(found[:MAX_NAMED] + omitted))


@dataclass(frozen=True)
class Verification:
    """Result of `verify`.

    Attributes:
        subject: what was verified.
        checks: results, in the order in which they are printed.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def agrees(self) -> bool:
        """Whether all checks agree."""
        return all(check.status == "agrees" for check in self.checks)

    def __str__(self) -> str:
        verdict = "all checks agree" if self.agrees else self._count_others()
        return "\n".join([*map(str, self.checks), f"{self.subject}: {verdict}"])

    def _count_others(self) -> str:
        counts = {
            status: sum(check.status == status for check in self.checks)
            for status in ("differs", "not known")
        }
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it is printed in JSON."""
        return {
            "subject": self.subject,
            "agrees": self.agrees,
            "checks": [vars(check) for check in self.checks],
        }
