"""The whole of `params.yaml`."""

from typing import Annotated

from pydantic import Field

from sentiment.params.data import DownloadParams, TokenizeParams
from sentiment.params.model import ModelParams
from sentiment.params.section import Section
from sentiment.params.train import TrainParams
from sentiment.params.tune import TuneParams


class EvaluateParams(Section):
    """How the models are judged."""

    confidence_level: Annotated[float, Field(gt=0, lt=1)]
    """Confidence level of the intervals."""
    threshold: Annotated[float, Field(gt=0, lt=1)]
    """Probability from which a review counts as positive."""


class Params(Section):
    """Every knob that changes the result, a section per stage; `model` serves train and tune."""

    download: DownloadParams
    tokenize: TokenizeParams
    model: ModelParams
    train: TrainParams
    tune: TuneParams
    evaluate: EvaluateParams
