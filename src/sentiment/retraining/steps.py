"""The steps of a retraining: refresh the data, gate them, run the pipeline, and decide on the new model."""

import logging
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment import paths
from sentiment.errors import UserError
from sentiment.ledger import LedgerEntry, Outcome, append, count_looks, read_ledger
from sentiment.params import Params
from sentiment.registry.git_tags import ARTIFACT_MD5, CHAMPION
from sentiment.registry.revision import read_registered_model
from sentiment.registry.state import open_registry, require_complete
from sentiment.retraining.changes import (
    compute_inputs_digest,
    compute_test_digest,
    find_changes,
    have_review_files_changed,
    read_selected_md5,
)
from sentiment.retraining.pipeline import NOTHING_RAN, PipelineRun, StageMistakeError
from sentiment.retraining.refresh import refresh_data, run_other_stages
from sentiment.retraining.result import RetrainingResult
from sentiment.stage_inputs import CommitTree, read_yaml

# The gates import torch and take seconds to import: they are imported where there is something to decide.
if TYPE_CHECKING:
    from sentiment.comparison import ModelComparison
    from sentiment.retraining.data_gate import DataGateResult
    from sentiment.retraining.gate_result import GateResult

logger = logging.getLogger(__name__)

CHALLENGER = str(paths.SELECTED)
"""The new model, as comparisons name it."""


class Cycle:
    """The steps of one retraining, in order."""

    def __init__(self, params: Params, commit: str) -> None:
        self._params = params
        self._commit = commit
        self._registry = open_registry()
        self._champion = self._registry.champion
        self._ledger = read_ledger()
        require_complete(self._ledger, self._champion)

    def run(self) -> RetrainingResult:
        """Run the steps until the outcome is known."""
        try:
            pipeline = refresh_data(self._params.download)
        except StageMistakeError as error:
            if gate := self._check_stopped_download(error):
                entry = self._record("data_stopped", gate.reason, gate=gate)
                return self._finish(NOTHING_RAN, gate, entry=entry)
            raise
        gate = self._check_data()
        if gate is not None and gate.is_stopped:
            entry = self._record("data_stopped", gate.reason, gate=gate)
            return self._finish(pipeline, gate, entry=entry)
        pipeline += run_other_stages()
        if reason := self._find_nothing_new():
            return self._finish(pipeline, gate, reason=reason)
        if earlier := self._find_earlier_decision():
            return self._finish(pipeline, gate, entry=earlier, is_repeated=True)
        decision = self._decide_on_model(gate)
        entry = self._record(decision.outcome, decision.reason, gate=gate, decision=decision)
        return self._finish(pipeline, gate, entry=entry)

    def _decide_on_model(self, gate: "DataGateResult | None") -> "GateResult":
        """Decide on the selected model of the working tree."""
        from sentiment.retraining.model_gate import decide_on_model, find_anchor

        return decide_on_model(
            CHALLENGER,
            self._champion,
            find_anchor(self._registry),
            data_changed=gate is not None and gate.has_changed,
            looks=count_looks(self._ledger, self._test_digest),
            params=self._params,
        )

    @property
    def _have_files_changed(self) -> bool:
        """Whether the files with the reviews that models learn from are others than the champion's."""
        return self._champion is not None and have_review_files_changed(self._champion.tag.commit)

    @cached_property
    def _champion_md5(self) -> str | None:
        return read_registered_model(self._champion.tag).artifact_md5 if self._champion else None

    @cached_property
    def _test_digest(self) -> str:
        """Digest of the test split that download has written."""
        return compute_test_digest()

    def _check_stopped_download(self, error: StageMistakeError) -> "DataGateResult | None":
        """Return the data gate's result where download stopped because of the data.

        None if the cause is another one, or if there is no champion, without which data are wrong before they
        are new.
        """
        if self._champion is None:
            return None
        from sentiment.retraining.stopped_download import check_stopped_download

        return check_stopped_download(error.lines, self._params.download)

    def _check_data(self) -> "DataGateResult | None":
        """Check the new rows against the champion; None for the same reviews, or without a champion."""
        if self._champion is None or not self._have_files_changed:
            return None
        from sentiment.comparison import fetch_model
        from sentiment.retraining.data_gate import ChampionData, check_new_rows

        commit = self._champion.tag.commit
        with tempfile.TemporaryDirectory() as temporary:
            champion = ChampionData(fetch_model(commit, Path(temporary) / "model"), commit)
            params = self._params.retrain.model_copy(update={"accept": _read_committed_accept()})
            return check_new_rows(
                champion,
                params,
                find_previous_rows(self._ledger),
                learns_unlabelled=self._params.train.unlabelled != "ignore",
            )

    def _find_nothing_new(self) -> str | None:
        """Return why there is no new model; None if there is one."""
        if self._champion is None:
            return None
        name, selected = self._champion.registration.name, read_selected_md5()
        if selected == self._champion_md5:
            return f"the selected model is the champion {name}"
        for tag in self._registry.tags:
            if (
                tag.stage == CHAMPION
                and not tag.is_cancellation
                and tag.details.get(ARTIFACT_MD5) == selected
            ):
                return (
                    f"the selected model was the champion before {name} ({tag.name}), and was rolled back or "
                    "replaced; `sentiment promote --force --reason TEXT` would return to it"
                )
        if compute_inputs_digest() == compute_inputs_digest(self._champion.tag.commit):
            return (
                f"code, parameters, packages and data are those of the champion {name}: the selected model "
                "differs from it by the rounding of another processor only"
            )
        return None

    def _find_earlier_decision(self) -> LedgerEntry | None:
        """Return the comparison of this model, or of one that another machine trained from equal inputs.

        One that was promoted there is compared again, since its files may not be here. Decisions without a
        comparison are made again, since they depend on limits in params.yaml.
        """
        challenger, inputs = read_selected_md5(), compute_inputs_digest()
        for entry in self._ledger:
            if (entry.test, entry.champion, entry.is_look) == (
                self._test_digest,
                self._champion_md5,
                True,
            ) and (
                entry.challenger == challenger
                or (entry.details.get("inputs") == inputs and entry.outcome != "promote")
            ):
                return entry
        return None

    def _record(
        self,
        outcome: Outcome,
        reason: str,
        *,
        gate: "DataGateResult | None",
        decision: "GateResult | None" = None,
    ) -> LedgerEntry:
        """Append a decision to the ledger; return the one that counts, perhaps that of another process."""
        recent = self._compare_on_recent() if decision and decision.is_look else None
        entry = LedgerEntry(
            outcome=outcome,
            reason=reason,
            test=self._test_digest if gate is None or gate.has_downloaded else "",
            champion=self._champion_md5,
            challenger=read_selected_md5() if decision else None,
            batch=gate.batch.digest if gate and gate.batch else None,
            commit=self._commit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            is_look=decision is not None and decision.is_look,
            verdict=decision.verdict if decision else None,
            details={
                **({"inputs": compute_inputs_digest(), "model_gate": decision.to_dict()} if decision else {}),
                **({"recent": recent.to_dict()} if recent else {}),
                **({"data_gate": gate.to_dict()} if gate else {}),
            },
        )
        if append(entry):
            return entry
        return next(other for other in read_ledger() if other.id == entry.id)

    def _finish(
        self,
        pipeline: PipelineRun,
        gate: "DataGateResult | None",
        *,
        entry: LedgerEntry | None = None,
        reason: str = "",
        is_repeated: bool = False,
    ) -> RetrainingResult:
        return RetrainingResult(
            outcome=entry.outcome if entry else "nothing_new",
            reason=entry.reason if entry else reason,
            commit=self._commit,
            champions=self._registry.champions,
            entry=entry,
            is_repeated=is_repeated,
            # After a download that stopped, its metrics are gone.
            changes=find_changes(self._champion.tag.commit)
            if self._champion and paths.metrics("download").is_file()
            else None,
            pipeline=pipeline,
            data_gate=gate,
            last_decision=max((other.created for other in self._ledger), default=None),
        )

    def _compare_on_recent(self) -> "ModelComparison | None":
        """Compare challenger and champion on the fresh rows that neither has learned from."""
        import numpy as np
        import pyarrow.parquet as pq

        from sentiment.comparison import compare
        from sentiment.evaluation.verdict import MIN_CLASS_SIZE

        labels = pq.read_table(paths.reviews("recent"), columns=["label"])["label"].to_numpy()
        if self._champion is None or min(np.bincount(labels, minlength=2)) < MIN_CLASS_SIZE:
            return None
        try:
            return compare(CHALLENGER, self._champion.tag.commit, "recent")
        except UserError as error:  # the models have learned from most of these rows
            logger.warning("the models are not compared on fresh rows: %s", error)
            return None


def find_previous_rows(ledger: Sequence[LedgerEntry]) -> int | None:
    """Return the number of new rows of the last retraining that had some and was not stopped, if any.

    Args:
        ledger: the decisions, by time.
    """
    batches = [
        entry.details["data_gate"]["batch"]
        for entry in ledger
        if entry.outcome != "data_stopped" and entry.details.get("data_gate")
    ]
    return next((batch["rows"] for batch in reversed(batches) if batch and batch["rows"]), None)


def _read_committed_accept() -> tuple[str, ...]:
    """Return `retrain.accept` as it is committed: with the reason in the history."""
    section = read_yaml(CommitTree("HEAD"), paths.PARAMS.as_posix()).get("retrain") or {}
    return tuple(map(str, section.get("accept") or ()))
