"""One training in a process that may be killed and restarted."""

import hashlib
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu.packed import TOKENIZER, Pack, fewer
from sentiment.files import write_json
from sentiment.model.classifier import SentimentClassifier
from sentiment.model.model_files import save_model
from sentiment.training.checkpoint import open_checkpoint
from sentiment.training.fingerprint import compute_fingerprint
from sentiment.training.self_training import fit_with_self_training

logger = logging.getLogger(__name__)


def train(job: dict[str, Any]) -> None:
    """Train, and write the digest of the weights, the validation AUC and the seconds to the job's `out`.

    The job's `checkpoints` is the folder that a training which was killed resumes from, its `model` the one
    that `Predictor.load` can read afterwards; None goes without. Its output goes to `log`.
    """
    with Path(job["log"]).open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    torch.set_num_threads(job["threads"])
    pack = Pack.open(Path(job["pack"]), smoke=job["smoke"])
    model, params = pack.configuration(job["changes"], device=job["device"])
    learning = fewer(pack.learning(), job["reviews"], job["validation"])
    started = time.perf_counter()
    with open_checkpoint(
        Path(job["checkpoints"]), compute_fingerprint(model, params, learning), job["minutes"]
    ) as kept:
        resumed = kept is not None and kept.has_state
        fitted = fit_with_self_training(
            model, params, learning, lambda epoch: logger.info(str(epoch)), checkpoint=kept
        )
    if job["model"]:
        save_model(Path(job["model"]), fitted.model)
        shutil.copyfile(pack.folder / TOKENIZER, Path(job["model"]) / TOKENIZER)
    write_json(
        Path(job["out"]),
        {
            "digest": weights_digest(fitted.model),
            "validation_auc": fitted.best.validation_auc,
            "seconds": time.perf_counter() - started,
            "tokens_per_second": [epoch.tokens_per_second for epoch in fitted.epochs],
            "resumed": resumed,
            "torch": torch.__version__,
        },
    )


def weights_digest(model: SentimentClassifier) -> str:
    """Return a digest that is equal for two models if every weight has the same bits."""
    digest = hashlib.md5(usedforsecurity=False)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
