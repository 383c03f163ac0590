"""Parameters of the evaluation: intervals, the verdict on two models, decision threshold, limits."""

from typing import Annotated, Literal

from pydantic import Field

from sentiment.params.section import Section

BehaviourTest = Literal[
    "minimum_functionality", "negation", "names", "case", "html", "typos", "unusual_inputs"
]
"""Name of a group of behavioural tests."""


class FixedThreshold(Section):
    """A decision threshold that is the same for every model."""

    kind: Literal["fixed"]
    value: Annotated[float, Field(gt=0, lt=1)]
    """Minimum predicted probability for a review to be classified as positive."""


class BestF1Threshold(Section):
    """The decision threshold with the highest F1 on the validation split."""

    kind: Literal["best_f1"]


class PrecisionThreshold(Section):
    """The lowest decision threshold whose precision on the validation split reaches a value."""

    kind: Literal["precision"]
    precision: Annotated[float, Field(gt=0, lt=1)]
    """Minimum precision."""


Threshold = Annotated[FixedThreshold | BestF1Threshold | PrecisionThreshold, Field(discriminator="kind")]
"""How the decision threshold of a model is chosen."""


class EvaluationLimits(Section):
    """Requirements that a model must meet to be promoted; evaluate reports them and does not fail."""

    behaviour: dict[BehaviourTest, Annotated[float, Field(ge=0, le=1)]]
    """Minimum pass rate by group of behavioural tests; groups that are not listed have no limit."""


class EvaluateParams(Section):
    """Evaluation of the models, and selection of one."""

    confidence_level: Annotated[float, Field(gt=0, lt=1)]
    """Confidence level of the intervals."""
    margin: Annotated[float, Field(gt=0, lt=0.5)]
    """AUC by which a model may be lower than another and still count as no worse."""
    threshold: Threshold
    """How the minimum predicted probability of a positive review is chosen."""
    limits: EvaluationLimits
    """Requirements for promotion."""
