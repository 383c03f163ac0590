"""The forward and backward pass on a device that is not the CPU.

The meta device stands for it: it computes shapes alone, refuses tensors of another device, and cannot be
asked for a value. So a pass that runs there moves all it needs, and never waits for what a GPU has computed.
"""

from typing import Any

import pytest
import torch

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import NGramPart
from tests.model.shapes import model_params

META = torch.device("meta")
NGRAMS = {"order": 2, "min_reviews": 1, "smoothing": 0.01, "weight": 0.5}
LENGTHS = torch.tensor([3, 40, 17])
DROPOUT = {"words": 0.1, "embeddings": 0.1, "layers": 0.1, "head": 0.1}


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_training_pass_moves_what_it_needs_and_waits_for_nothing(
    pooling: str, chunk: int | None, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it does not know the meta device
    changes: dict[str, Any] = {
        "pooling": pooling,
        "chunk_tokens": chunk,
        "layers": layers,
        "dropout": DROPOUT,
    }
    model = SentimentClassifier(model_params(**changes, ngrams=NGRAMS), 50, NGramPart(2, 30)).to(META)
    ids = torch.zeros(3, 40, dtype=torch.int64, device=META)
    ngrams = (
        torch.zeros(9, dtype=torch.int32, device=META),
        torch.zeros(4, dtype=torch.int64, device=META),
    )
    parts = model.train().parts(ids, LENGTHS, ngrams)
    assert (parts.device, parts.shape) == (META, (2, 3))
    parts.sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []
