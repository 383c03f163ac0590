"""Learn the vocabulary on the training split; turn the reviews of all splits but test into token ids."""

from typing import Any

from sentiment import paths
from sentiment.data.parquet import stream_reviews
from sentiment.errors import exits_cleanly
from sentiment.files import atomic_write, write_json
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.tokens.encoding import encode_to, texts_of
from sentiment.tokens.vocabulary import learn_tokenizer


@exits_cleanly
def main() -> None:
    """Write the tokenizer, the token arrays, and what is in them."""
    require_incoming_in_copy()
    params = load_params().tokenize
    reviews = {split: stream_reviews(paths.reviews(split)) for split in paths.LEARNING_SPLITS}
    unlabelled = stream_reviews(paths.reviews("unlabelled"), labelled=False)
    tokenizer = learn_tokenizer(texts_of(reviews["train"], "learn the vocabulary"), params)
    with atomic_write(paths.TOKENIZER) as temporary:
        temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    figures: dict[str, Any] = {
        split: encode_to(paths.tokens(split), tokenizer, stream, f"tokenize {split}", params.oov_rate)
        for split, stream in reviews.items()
    }
    figures["unlabelled"] = encode_to(
        paths.tokens("unlabelled"), tokenizer, unlabelled, "tokenize unlabelled"
    )
    write_json(paths.metrics("tokenize"), {"vocabulary_size": tokenizer.get_vocab_size(), **figures})


if __name__ == "__main__":
    main()
