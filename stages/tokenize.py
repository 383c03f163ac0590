"""Train the tokenizer on the training split and tokenize all splits except test."""

from typing import Any

from sentiment import paths
from sentiment.data.parquet import ReviewStream, stream_reviews
from sentiment.environment import require_locked_packages
from sentiment.errors import exits_cleanly
from sentiment.files import atomic_write, write_json
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.settings import load_settings
from sentiment.shards.choice import open_shard_maps
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
    with open_shard_maps(load_settings(), "the tokenization of a shard") as shards:
        train = reviews["train"]
        tokenizer = train_tokenizer(iter_texts(train, "train tokenizer"), params, shards(train.num_rows))
        with atomic_write(paths.TOKENIZER) as temporary:
            temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")

        def tokenize(split: paths.Split, stream: ReviewStream, oov_rate: float) -> dict[str, Any]:
            folder, description = paths.tokens(split), f"tokenize {split}"
            return encode_to_folder(folder, tokenizer, stream, description, shards(stream.num_rows), oov_rate)

        metrics: dict[str, Any] = {
            split: tokenize(split, stream, params.oov_rate) for split, stream in reviews.items()
        }
        metrics["unlabelled"] = tokenize("unlabelled", unlabelled, 1.0)
    write_json(paths.metrics("tokenize"), {"vocabulary_size": tokenizer.get_vocab_size(), **metrics})


if __name__ == "__main__":
    main()
