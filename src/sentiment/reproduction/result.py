"""Results of `sentiment reproduce`: what each stage wrote again, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sentiment.reproduction.differences import Difference
from sentiment.reproduction.scores import ScoreComparison

Verdict = Literal["equal", "other hardware", "different"]


@dataclass(frozen=True)
class StageResult:
    """What a stage wrote when it ran again, compared with `dvc.lock`.

    Attributes:
        stage: name of the stage.
        outputs: number of its outputs.
        differences: outputs that differ, in the order of `dvc.lock`.
    """

    stage: str
    outputs: int
    differences: tuple[Difference, ...]

    @property
    def first_difference(self) -> Difference | None:
        """The first output that differs by more than the digest of the code."""
        return next((each for each in self.differences if not each.is_digest_only), None)

    def __str__(self) -> str:
        if self.first_difference is None:
            digests = f", {len(self.differences)} of them but for the digest of the code"
            return f"{self.stage}: {self.outputs} outputs are equal{digests if self.differences else ''}"
        return f"{self.stage}: {len(self.differences)} of {self.outputs} outputs differ"


@dataclass(frozen=True)
class Reproduction:
    """Result of `reproduce`.

    Attributes:
        revision: revision that was made again.
        commit: its commit.
        verdict: `equal` bytes; `other hardware`, which explains the differences; or `different`.
        stages: results by stage, in the order of the pipeline.
        lock: how `dvc.lock` differs from the code, parameters, packages and data of its commit.
        machine: how this machine differs from the one on which the first stage that differs ran; None if
            that is not known, or nothing differs.
        scores: comparisons of the models that were compared, by the model's name below `models`.
        reasons: why a difference is not explained by other hardware.
    """

    revision: str
    commit: str
    verdict: Verdict
    stages: tuple[StageResult, ...]
    lock: tuple[str, ...] = ()
    machine: tuple[str, ...] | None = None
    scores: Mapping[str, ScoreComparison] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def is_reproduced(self) -> bool:
        """Whether the outputs are equal, or other hardware explains the differences."""
        return self.verdict != "different"

    @property
    def first_difference(self) -> tuple[str, Difference] | None:
        """The first stage and output that differ by more than the digest of the code."""
        return next(
            ((each.stage, each.first_difference) for each in self.stages if each.first_difference), None
        )

    def __str__(self) -> str:
        lines = [*map(str, self.stages), *self.lock]
        if self.first_difference:
            stage, difference = self.first_difference
            lines.append(f"first difference: {stage}: {difference}")
        if self.machine:
            lines.append(f"this machine: {'; '.join(self.machine)}")
        lines += [f"{name}: {comparison}" for name, comparison in self.scores.items()]
        lines += self.reasons
        conclusion = {
            "equal": "equal bytes",
            "other hardware": "equal within what other hardware explains",
            "different": "different",
        }[self.verdict]
        return "\n".join([*lines, f"{self.revision} ({self.commit[:7]}): {conclusion}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it is printed in JSON."""
        first = self.first_difference
        return {
            "revision": self.revision,
            "commit": self.commit,
            "verdict": self.verdict,
            "first_difference": {"stage": first[0], **vars(first[1])} if first else None,
            "stages": [
                {**vars(stage), "differences": [vars(each) for each in stage.differences]}
                for stage in self.stages
            ],
            "lock": self.lock,
            "machine": self.machine,
            "scores": {name: comparison.to_dict() for name, comparison in self.scores.items()},
            "reasons": self.reasons,
        }
