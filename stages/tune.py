"""Search around the configuration in params.yaml for a better one."""

from sentiment import paths
from sentiment.errors import exits_cleanly
from sentiment.lineage import tag_model
from sentiment.model.files import save_model
from sentiment.outputs import write_csv, write_json
from sentiment.params import load_params
from sentiment.tokens.learning import LearningReviews
from sentiment.tracking import BEST_VALIDATION_AUC, open_store, start_run
from sentiment.tuning.confirm import confirm_figures, with_confirmation
from sentiment.tuning.study import search
from sentiment.tuning.summary import summary, trials_table


@exits_cleanly
def main() -> None:
    """Write the best trial's model, a row per trial and what the search gained; log a run per trial."""
    params = load_params()
    reviews = LearningReviews.open()
    with start_run(open_store(), "tune", "tune") as run:
        space = {name: str(dimension) for name, dimension in params.tune.space.items()}
        run.log_params({"tune": {**params.tune.model_dump(), "space": space}})
        found = search(params, reviews, run)
        winner, study = found.winner, found.study
        save_model(paths.model("tuned"), winner.fitted.model)
        tag_model(winner.run, paths.model("tuned"))
        figures = {**summary(study), "confirm": confirm_figures(found.confirmed)}
        run.log_metrics({BEST_VALIDATION_AUC: winner.fitted.best.validation_auc, "best_trial": winner.number})
        run.log_params({"best": study.trials[winner.number].params})
    write_csv(paths.REPORTS / "tune.csv", with_confirmation(trials_table(study), found.confirmed))
    write_json(paths.metrics("tune"), figures)


if __name__ == "__main__":
    main()
