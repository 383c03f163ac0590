"""Which MLflow runs belong to a search: found by tags that they have from their first moment."""

from sentiment.tracking import Run, Store, find_tagged_run, reopen_run, start_run
from sentiment.tuning.study import IDENTITY, Search

STAGE = "tune"
STUDY_TAG, IDENTITY_TAG, TRIAL_TAG = "tune.study", "tune.study.id", "tune.trial"
"""Name of the study; what tells it from one of the same name in another storage; number of the trial."""


def open_search_run(store: Store, search: Search) -> Run:
    """Go on in the search's own run, where the store has it; else start it."""
    study = search.study()
    identity = {IDENTITY_TAG: study.user_attrs[IDENTITY]}
    with search.claims:  # two that start at once share one
        found = find_tagged_run(store, identity)
        reopened = reopen_run(store, found.id) if found else None
        return reopened or start_run(store, STAGE, STAGE, tags={STUDY_TAG: search.name, **identity})


def open_trial_run(parent: Run, search: Search, number: int) -> Run:
    """Go on in a trial's run, where the store has it; else start it. Only who runs the trial may."""
    found = find_trial_run(parent, number)
    reopened = reopen_run(parent.store, found.id) if found else None
    tags = {STUDY_TAG: search.name, TRIAL_TAG: str(number)}
    return reopened or parent.nested(f"trial {number}", STAGE, tags)


def find_trial_run(parent: Run, number: int) -> Run | None:
    """Return a trial's run, as it is; None where the store does not have it."""
    return parent.find_nested({TRIAL_TAG: str(number)})
