"""Search hyperparameters around the configuration in params.yaml."""

from sentiment import paths
from sentiment.environment import require_locked_packages
from sentiment.errors import exits_cleanly
from sentiment.files import write_json
from sentiment.lineage import tag_run_with_model
from sentiment.model.model_files import save_model
from sentiment.params import load_params
from sentiment.repository import require_incoming_in_copy
from sentiment.tokens.batches import TrainingData
from sentiment.tracking import VALIDATION_AUC, open_store
from sentiment.tuning.executors.selection import open_executor
from sentiment.tuning.report_page import render_search_page
from sentiment.tuning.report_tables import write_tables
from sentiment.tuning.run_search import run_search
from sentiment.tuning.study import open_search
from sentiment.tuning.trial_records import open_search_run
from sentiment.tuning.winner import build_search_metrics, find_winner, summarize_search


@exits_cleanly
def main() -> None:
    """Write the best model, tables of all trials and the metrics of the search; log one MLflow run per trial.

    The stage is crash-safe: if it is killed, the next start resumes the search in the same MLflow runs.
    """
    require_locked_packages("tune")
    require_incoming_in_copy()
    params = load_params()
    with open_executor(params) as executor:
        search = open_search(params, TrainingData.open())
        with open_search_run(open_store(), search) as run:
            run_search(search, run, executor)
            with search.output_lock:
                study, winner = search.load_results(), find_winner(search, run)
                save_model(paths.model("tuned"), winner.model, winner.origin)
                tag_run_with_model(winner.run, paths.model("tuned"))
                metrics = summarize_search(study, winner.number, winner.gain)
                run.log_metrics(
                    {
                        "best_trial": winner.number,
                        VALIDATION_AUC: metrics["best"]["validation_auc"],
                        **build_search_metrics(study),
                    }
                )
                run.replace_tags(
                    "best.", {name: str(value) for name, value in metrics["best"]["params"].items()}
                )
                run.log_text("tune.html", render_search_page(study, params, winner.number))
                write_tables(paths.REPORTS, study, params)
                write_json(paths.metrics("tune"), metrics)


if __name__ == "__main__":
    main()
