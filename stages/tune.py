"""Search around the configuration in params.yaml for a better one."""

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.lineage import tag_model
from sentiment.model.files import save_model
from sentiment.outputs import write_json
from sentiment.params import load_params
from sentiment.tokens.learning import LearningReviews
from sentiment.tracking import BEST_VALIDATION_AUC, open_store, start_run
from sentiment.tuning.page import search_page
from sentiment.tuning.plots import write_tables
from sentiment.tuning.study import search
from sentiment.tuning.summary import search_metrics, summary


@exits_cleanly
def main() -> None:
    """Write the best trial's model, tables of all trials and what the search gained; log a run per trial."""
    params = load_params()
    reviews = LearningReviews.open()
    with start_run(open_store(), "tune", "tune") as run:
        space = {name: str(dimension) for name, dimension in params.tune.space.items()}
        run.log_params({"tune": {**params.tune.model_dump(), "space": space}})
        winner, study = search(params, reviews, run)
        save_model(paths.model("tuned"), winner.fitted.model)
        tag_model(winner.run, paths.model("tuned"))
        figures = summary(study, winner.gain)
        run.log_metrics({BEST_VALIDATION_AUC: winner.fitted.best.validation_auc, "best_trial": winner.number})
        run.log_metrics(search_metrics(study))
        run.log_params({"best": figures["best"]["params"]})
        run.log_page("tune.html", search_page(study, params))
    write_tables(paths.REPORTS, study, params)
    write_json(paths.metrics("tune"), figures)


if __name__ == "__main__":
    main()
