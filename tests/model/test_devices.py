"""The forward and backward pass on a device that is not the CPU.

The meta device represents it: it computes only shapes, rejects tensors of another device, and has no values.
A pass that runs there moves all tensors that it needs, and never synchronizes with a GPU.
"""

from typing import Any

import pytest
import torch

from sentiment.model.classifier import SentimentClassifier
from sentiment.model.ngram_branch import NGramBranch
from tests.model.small_model import model_params

META = torch.device("meta")
NGRAMS = {"order": 2, "min_reviews": 1, "smoothing": 0.01, "weight": 0.5}
LENGTHS = torch.tensor([3, 40, 17])
DROPOUT = {"words": 0.1, "embeddings": 0.1, "layers": 0.1, "head": 0.1}


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize("layers", [1, 2])
def test_training_pass_moves_all_tensors_and_never_synchronizes(
    pooling: str, chunk: int | None, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it does not support the meta device
    changes: dict[str, Any] = {
        "pooling": pooling,
        "chunk_tokens": chunk,
        "layers": layers,
        "dropout": DROPOUT,
    }
    model = SentimentClassifier(model_params(**changes, ngrams=NGRAMS), 50, NGramBranch(2, 30)).to(META)
    ids = torch.zeros(3, 40, dtype=torch.int64, device=META)
    ngrams = (
        torch.zeros(9, dtype=torch.int32, device=META),
        torch.zeros(4, dtype=torch.int64, device=META),
    )
    logits = model.train().compute_branch_logits(ids, LENGTHS, ngrams)
    assert (logits.device, logits.shape) == (META, (2, 3))
    logits.sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []
