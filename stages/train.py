"""Train the LSTM that params.yaml describes."""

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.lineage import log_configuration, tag_model
from sentiment.model.files import save_model
from sentiment.outputs import write_csv, write_json
from sentiment.params import load_params
from sentiment.progress import say
from sentiment.tokens.store import TokenizedReviews
from sentiment.tokens.vocabulary import load_tokenizer
from sentiment.tracking import open_store, start_run
from sentiment.training.figures import Epoch
from sentiment.training.history import health_table, history_table, training_metrics
from sentiment.training.loop import fit


@exits_cleanly
def main() -> None:
    """Write the baseline model, its metrics and its history; log all of it to a run."""
    params = load_params()
    vocabulary_size = load_tokenizer(paths.TOKENIZER).get_vocab_size()
    train, validation = (TokenizedReviews.open(paths.tokens(split)) for split in paths.LEARNING_SPLITS)
    with start_run(open_store(), "train", "train") as run:
        log_configuration(run, params, train, validation)

        def on_epoch(epoch: Epoch) -> None:
            run.log_epoch(epoch)
            say(str(epoch))

        fitted = fit(params.model, params.train, vocabulary_size, train, validation, on_epoch)
        save_model(paths.model("baseline"), fitted.model)
        run.log_best(fitted.best)
        tag_model(run, paths.model("baseline"))
    write_csv(paths.PLOTS / "train.csv", history_table(fitted))
    write_csv(
        paths.PLOTS / "health.csv", health_table(fitted), numbers="%.4g"
    )  # so that a small norm is no zero
    write_json(paths.metrics("train"), training_metrics(fitted))


if __name__ == "__main__":
    main()
