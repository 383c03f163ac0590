"""Tags that identify the training and the model of a run."""

from sentiment.model.model_config import Origin

MODEL_TAG = "model.md5"
PARAMS_TAG = "params.digest"
DATA_TAG = "data.digest"
CODE_TAG = "code.digest"
STUDY_TAG, TRIAL_TAG = "tune.study", "tune.trial"
"""Tags of a trial's run: name of the study and number of the trial."""

UNKNOWN = "unknown"
MODEL_COMMIT_TAG = "git.commit_of_model"
"""Tag with the value UNKNOWN on a run that was created for an existing model, whose commit is not known."""


def build_origin_tags(origin: Origin | None) -> dict[str, str]:
    """Return the tags of a run that trained a model with an origin."""
    if origin is None:
        return dict.fromkeys((PARAMS_TAG, DATA_TAG, CODE_TAG), UNKNOWN)
    tags = {PARAMS_TAG: origin.params, DATA_TAG: origin.data, CODE_TAG: origin.code}
    if origin.study is not None:
        tags |= {STUDY_TAG: origin.study, TRIAL_TAG: str(origin.trial)}
    return tags
