"""The data gate: new rows against what the champion has learned from, before anything is trained on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentiment import paths
from sentiment.errors import UserError
from sentiment.model.model_config import SEEN_TEXTS_FILE
from sentiment.model.model_files import load_seen_texts
from sentiment.model.predictor import Predictor
from sentiment.params.retrain import RetrainParams
from sentiment.retraining.data_checks import (
    NOT_KNOWN,
    Checks,
    Violation,
    check_contents,
    check_duplicates,
    check_growth,
    check_known_labels,
    check_lost,
)
from sentiment.retraining.new_rows import find_change, has_other_unlabelled


@dataclass(frozen=True)
class ChampionData:
    """The champion's files.

    Attributes:
        folder: copy of its folder `models/selected`, with what it has learned from.
        commit: its commit.
    """

    folder: Path
    commit: str


@dataclass(frozen=True)
class Batch:
    """What is new since the champion learned.

    Attributes:
        digest: MD5 digest of the new rows and of the lost ones, which `retrain.accept` lists.
        rows: number of new rows.
    """

    digest: str
    rows: int


@dataclass(frozen=True)
class DataGateResult:
    """Result of the data gate.

    Attributes:
        batch: what is new; None if no row is new or lost.
        measurements: what was measured, by name; NOT_KNOWN where it could not be.
        violations: limits that are exceeded, in the order of the checks.
        accepted: whether `retrain.accept` lists the batch.
        has_downloaded: False if download itself stopped, so that there is no batch to accept.
        has_changed: whether a model would learn from other reviews than the champion: see `DataChange`, and
            the unlabelled reviews, if it learns from them.
    """

    batch: Batch | None
    measurements: Mapping[str, Any]
    violations: Sequence[Violation]
    accepted: bool
    has_downloaded: bool = True
    has_changed: bool = False

    @property
    def is_stopped(self) -> bool:
        """Whether nothing may be trained on these rows."""
        return bool(self.violations) and not self.accepted

    @property
    def reason(self) -> str:
        """One sentence for the report: what was found, and how to accept it."""
        if not self.has_downloaded:
            return self.violations[0].message
        if not self.batch and self.violations:
            return (
                f"{self.violations[0].message}; the rows that the champion has learned from are neither in "
                "DVC's cache nor in a remote, so it is not known which labels changed"
            )
        if not self.batch:
            return "no rows are new since the champion was trained"
        rows = f"{self.batch.rows:,} new rows"
        if not self.violations:
            return f"{rows} are within the limits of the data gate"
        others = len(self.violations) - 1
        more = f" (and {others} more limit{'s' if others > 1 else ''})" if others else ""
        if self.accepted:
            return f"{rows} are accepted by retrain.accept, although {self.violations[0].message}{more}"
        return (
            f"{self.violations[0].message}{more}; correct the rows, or accept them: add "
            f"{self.batch.digest} to retrain.accept in {paths.PARAMS} and commit it with the reason"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it is written to `reports/retrain.json` and to the ledger.

        Without the examples: git keeps the ledger for ever, and the texts may be private.
        """
        return {
            "batch": {"digest": self.batch.digest, "rows": self.batch.rows} if self.batch else None,
            "measurements": dict(self.measurements),
            "violations": [
                {"check": violation.check, "message": violation.message} for violation in self.violations
            ],
            "accepted": self.accepted,
            "has_changed": self.has_changed,
            "reason": self.reason,
        }


def check_new_rows(
    champion: ChampionData,
    params: RetrainParams,
    previous_rows: int | None,
    *,
    learns_unlabelled: bool = False,
) -> DataGateResult:
    """Compare the rows that a new model would learn from with those that the champion has learned from.

    Call it after download has written `data/reviews`, `metrics/download.json` and the report of
    near-duplicates. The champion predicts the new rows only, and a sample of the known ones if their
    former labels are not available.

    Args:
        champion: the champion's files.
        params: section `retrain` of params.yaml.
        previous_rows: number of new rows of the last retraining that had some; None if there was none.
        learns_unlabelled: whether a new model would learn from the unlabelled reviews too.

    Raises:
        UserError: a file of the reviews or of the champion is missing or corrupt.
    """
    seen_texts = load_seen_texts(champion.folder)
    if seen_texts is None:
        raise UserError(
            f"the champion has no {SEEN_TEXTS_FILE}, so it is not known which rows are new; promote a model "
            "of this version of the code"
        )
    change = find_change(seen_texts, champion.commit)
    checks = Checks(params.data)
    checks.measurements["new_rows"] = len(change.new)
    checks.measurements["relabelled"] = NOT_KNOWN if change.relabelled is None else change.relabelled
    check_lost(checks, change)
    if previous_rows and len(change.new) >= params.data.min_rows:
        check_growth(checks, len(change.new), previous_rows)
    check_duplicates(checks, change.new, champion.commit)
    if len(change.new) >= params.data.min_rows:
        if len(change.known) >= params.data.min_rows:
            check_contents(checks, change, Predictor.load(champion.folder))
        else:
            checks.measurements["known_rows"] = len(change.known)
    if change.before is None:
        check_known_labels(checks, change.known, Predictor.load(champion.folder))
    digest = change.compute_digest()
    return DataGateResult(
        Batch(digest, len(change.new)) if digest else None,
        checks.measurements,
        checks.violations,
        digest in params.accept,
        has_changed=change.has_changed or (learns_unlabelled and has_other_unlabelled(champion.commit)),
    )
