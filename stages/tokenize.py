"""Train the tokenizer on the training split and tokenize all splits except test."""

from typing import Any

from sentiment import paths
from sentiment.data.parquet import stream_reviews
from sentiment.environment import require_locked_packages
from sentiment.errors import exits_cleanly
from sentiment.files import atomic_write, write_json
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.tokens.encoding import encode_to_folder, iter_texts
from sentiment.tokens.vocabulary import train_tokenizer


@exits_cleanly
def main() -> None:
    """Write the tokenizer, the token arrays and their metrics."""
    require_locked_packages("tokenize")
    require_incoming_in_copy()
    params = load_params().tokenize
    splits: tuple[paths.Split, ...] = (*paths.LEARNING_SPLITS, "holdout")
    reviews = {split: stream_reviews(paths.reviews(split)) for split in splits}
    unlabelled = stream_reviews(paths.reviews("unlabelled"), labelled=False)
    tokenizer = train_tokenizer(iter_texts(reviews["train"], "train tokenizer"), params)
    with atomic_write(paths.TOKENIZER) as temporary:
        temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    metrics: dict[str, Any] = {
        split: encode_to_folder(paths.tokens(split), tokenizer, stream, f"tokenize {split}", params.oov_rate)
        for split, stream in reviews.items()
    }
    metrics["unlabelled"] = encode_to_folder(
        paths.tokens("unlabelled"), tokenizer, unlabelled, "tokenize unlabelled"
    )
    write_json(paths.metrics("tokenize"), {"vocabulary_size": tokenizer.get_vocab_size(), **metrics})


if __name__ == "__main__":
    main()
