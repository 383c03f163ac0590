"""Whether a model may become the champion: by a decision of the ledger, a verdict, or a person."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sentiment import paths
from sentiment.comparison import compare, fetch_model
from sentiment.errors import UserError, translated_errors
from sentiment.files import compute_file_md5
from sentiment.ledger import LedgerEntry, find_promotion, read_ledger
from sentiment.registry.git_tags import (
    ARTIFACT_MD5,
    CHAMPION,
    LEDGER_ID,
)
from sentiment.registry.revision import (
    CommittedModel,
    read_committed_outputs,
    read_registered_model,
)
from sentiment.registry.state import (
    FIRST_CHAMPION,
    Assignment,
    Registry,
)


@dataclass(frozen=True)
class Decision:
    """Whether a model may become the champion.

    Attributes:
        verdict: a verdict on the model and the champion; `first champion`, `same model` or `not compared`.
        explanation: the verdict with its numbers.
        objections: why the promotion must be forced; empty if it need not.
        entry: the decision of the model gate that takes the place of a comparison; None if there is none.
    """

    verdict: str
    explanation: str
    objections: tuple[str, ...]
    entry: LedgerEntry | None = None

    def describe_source(self) -> dict[str, str]:
        """Return the details of the tag's message that identify the decision of the model gate."""
        return {LEDGER_ID: self.entry.id, "Test-MD5": self.entry.test} if self.entry else {}


def find_entry(registry: Registry, model: CommittedModel) -> LedgerEntry | None:
    """Return the ledger's decision to promote a model in place of the champion; None if there is none.

    A decision counts once. If the model has been the champion since, it was rolled back or replaced, and the
    next commit with the same model must not undo that. `assign-champion.sh` has the same rule.
    """
    champion = registry.champion
    champion_md5 = read_registered_model(champion.tag).artifact_md5 if champion else None
    entry = find_promotion(read_ledger(), champion_md5, model.artifact_md5)
    return None if entry is None or _is_used(entry, registry) else entry


def _is_used(entry: LedgerEntry, registry: Registry) -> bool:
    """Return whether the model of a decision has become the champion by it, or later by other means."""
    return any(
        tag.details.get(LEDGER_ID) == entry.id
        or (
            tag.details.get(ARTIFACT_MD5) == entry.challenger
            and f"{tag.created:%Y-%m-%dT%H:%M:%S}" >= entry.created[:19]  # both in UTC, without fractions
        )
        for tag in registry.tags
        if tag.stage == CHAMPION and not tag.is_cancellation
    )


def decide(
    model: CommittedModel, champion: Assignment | None, entry: LedgerEntry | None, *, force: bool
) -> Decision:
    """Take the decision of the ledger, or compare on the holdout split; check the limits."""
    objections: list[str] = []
    if champion is None or entry is not None:
        with tempfile.TemporaryDirectory() as temporary:  # `dvc artifacts get` must find the model
            fetch_model(model.commit, Path(temporary) / "model")
    if entry is not None:
        verdict, explanation = entry.verdict or "not compared", entry.reason
    elif champion is None:
        verdict = explanation = FIRST_CHAMPION
    elif read_registered_model(champion.tag).artifact_md5 == model.artifact_md5:
        verdict, explanation = "same model", f"the same model as {champion.registration.name}"
        objections = [explanation]
    else:
        try:
            with translated_errors():
                _require_committed_holdout()
                comparison = compare(model.commit, champion.tag.commit, "holdout").comparison
        except UserError as error:
            if not force:
                raise
            verdict, explanation = "not compared", f"not compared with {champion.registration.name}: {error}"
            objections = [explanation]
        else:
            verdict = comparison.verdict
            explanation = f"compared with {champion.registration.name} on the holdout split: {comparison}"
            objections = [] if comparison.is_better else [explanation]
    if model.violated_limits:
        objections.append(f"it violates limits: {', '.join(model.violated_limits)}")
    return Decision(verdict, explanation, tuple(objections), entry)


def _require_committed_holdout() -> None:
    """Raise UserError unless the holdout split on disk, on which models are compared, is that of HEAD."""
    path = paths.reviews("holdout")
    md5 = read_committed_outputs("HEAD", [path])[path]
    if not path.is_file() or compute_file_md5(path) != md5:
        raise UserError(
            f"{path} is not the one in the committed {paths.LOCK}, and the verdict depends on it: "
            f"`git checkout {paths.LOCK}` and `dvc checkout {path}` restore it"
        )
