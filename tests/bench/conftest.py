from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bench.training.task import Task, taken
from sentiment.params import load_params
from sentiment.params.data import TokenizeParams
from sentiment.params.train import TrainParams
from sentiment.tokens.batches import TrainingData
from sentiment.tokens.encoding import encode
from sentiment.tokens.vocabulary import train_tokenizer
from tests.model.small_model import model_params
from tests.training.test_loop import TRAIN

VOCABULARY = 1000
TOKENIZE: dict[str, Any] = {"kind": "word", "vocabulary_size": VOCABULARY, "min_frequency": 1}


@pytest.fixture(scope="session")
def task(reviews: pa.Table) -> Task:
    """Real reviews, most of them longer than the model reads: 150 to learn from, 50 to choose with."""
    tokenize = TokenizeParams(**TOKENIZE, lowercase=True, oov_rate=1.0)
    encoded = encode(train_tokenizer(reviews["text"].to_pylist(), tokenize), reviews)
    sections = {"model": model_params(max_tokens=100), "train": TrainParams.model_validate(TRAIN)}
    rows = np.arange(200)
    return Task(
        load_params().model_copy(update=sections),
        TrainingData(VOCABULARY, taken(encoded, rows[rows % 4 != 0]), taken(encoded, rows[rows % 4 == 0])),
    )
