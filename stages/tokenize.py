"""Learn the vocabulary on the training split; turn training and validation reviews into token ids."""

from typing import Any

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.outputs import replacing, write_json
from sentiment.params import load_params
from sentiment.reviews.storage import read_reviews
from sentiment.tokens.encoding import encode
from sentiment.tokens.vocabulary import learn_tokenizer


@exits_cleanly
def main() -> None:
    """Write the tokenizer, the token arrays, and what is in them."""
    params = load_params().tokenize
    reviews = {split: read_reviews(paths.reviews(split)) for split in paths.LEARNING_SPLITS}
    tokenizer = learn_tokenizer(reviews["train"]["text"].to_pylist(), params)
    with replacing(paths.TOKENIZER) as temporary:
        tokenizer.save(str(temporary))
    figures: dict[str, Any] = {}
    for split, table in reviews.items():
        tokenized = encode(tokenizer, table, f"tokenize {split}")
        tokenized.save(paths.tokens(split))
        figures[split] = tokenized.describe()
    write_json(paths.metrics("tokenize"), {"vocabulary_size": tokenizer.get_vocab_size(), **figures})


if __name__ == "__main__":
    main()
