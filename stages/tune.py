"""Search around the configuration in params.yaml for a better one."""

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.lineage import tag_model
from sentiment.model.files import save_model
from sentiment.outputs import write_csv, write_json
from sentiment.params import load_params
from sentiment.tokens.learning import LearningReviews
from sentiment.tracking import BEST_VALIDATION_AUC, open_store
from sentiment.tuning.kept import find_winner
from sentiment.tuning.runs import open_search_run
from sentiment.tuning.search import run_search
from sentiment.tuning.study import open_search
from sentiment.tuning.summary import summary, trials_table


@exits_cleanly
def main() -> None:
    """Write the best trial's model, a row per trial and what the search gained; log a run per trial.

    Stopped at any moment and started again, it goes on where it was, in the same runs.
    """
    params = load_params()
    reviews = LearningReviews.open()
    search = open_search(params, reviews)
    with open_search_run(open_store(), search) as run:
        run_search(search, run)
        with search.outputs:
            study = search.results()
            winner = find_winner(search, run)
            save_model(paths.model("tuned"), winner.model)
            tag_model(winner.run, paths.model("tuned"))
            figures = summary(study)
            run.log_metrics({BEST_VALIDATION_AUC: winner.validation_auc, "best_trial": winner.number})
            run.tag({f"best.{name}": str(value) for name, value in figures["best"]["params"].items()})
            write_csv(paths.REPORTS / "tune.csv", trials_table(study))
            write_json(paths.metrics("tune"), figures)


if __name__ == "__main__":
    main()
