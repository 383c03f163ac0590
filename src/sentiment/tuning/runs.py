"""Which MLflow runs belong to a search: found by tags that they have from their first moment."""

from sentiment.lineage import STUDY_TAG, TRIAL_TAG
from sentiment.tracking import Run, Store, find_tagged_run, reopen_run, start_run
from sentiment.tuning.study import IDENTITY, Search

STAGE = "tune"
IDENTITY_TAG = "tune.study.id"
"""What distinguishes the study from one of the same name in another storage."""
KEY_TAG = "training.key"
"""On the run of a trial: the `training_key` that its epochs were logged under."""


def open_search_run(store: Store, search: Search) -> Run:
    """Go on in the search's own run, where the store has it; else start it."""
    study = search.study()
    identity = {IDENTITY_TAG: study.user_attrs[IDENTITY]}
    with search.claims:  # two that start at once share one
        found = find_tagged_run(store, identity)
        reopened = reopen_run(store, found.id) if found else None
        return reopened or start_run(store, STAGE, STAGE, tags={STUDY_TAG: search.name, **identity})


def open_trial_run(parent: Run, search: Search, number: int, key: str | None = None) -> Run:
    """Reopen a trial's run, where the store has it; else start it. Only who runs the trial may.

    Args:
        parent: the run of the search.
        search: the search.
        number: of the trial.
        key: of the training that starts or resumes. A run with epochs of another one, such as on another
            processor, is moved to the trash and a new one started: that training does not resume.
    """
    found = find_trial_run(parent, number)
    reopened = reopen_run(parent.store, found.id) if found else None
    if reopened is not None and key is not None:
        if reopened.has_epochs and reopened.tags().get(KEY_TAG) != key:
            parent.store.client.delete_run(reopened.id)
            reopened = None
        else:
            reopened.tag({KEY_TAG: key})
    tags = {STUDY_TAG: search.name, TRIAL_TAG: str(number)} | ({KEY_TAG: key} if key else {})
    return reopened or parent.nested(f"trial {number}", STAGE, tags)


def find_trial_run(parent: Run, number: int) -> Run | None:
    """Return a trial's run, as it is; None where the store does not have it."""
    return parent.find_nested({TRIAL_TAG: str(number)})
