"""The configurations of bench/gpu/big.yaml, validated."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from sentiment.errors import UserError
from sentiment.params.section import Section

FILE = Path(__file__).parent / "big.yaml"


class Configuration(Section):
    """A name, and its differences from params.yaml by dotted path."""

    name: str
    changes: dict[str, Any]


class Configurations(Section):
    """Configurations in the order of the file."""

    speed: Configuration
    """The configuration whose step speed is measured."""
    labelled: Annotated[list[Configuration], Field(min_length=1)]
    """Trained on the labelled reviews; validation chooses one."""
    students: list[Configuration]
    """Changes to the chosen one, for training on the unlabelled reviews too with its pseudo-labels."""


def load_configurations(file: Path = FILE) -> Configurations:
    """Read the file. Raises UserError with all validation errors."""
    try:
        return Configurations.model_validate(
            YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        )
    except ValidationError as error:
        raise UserError(f"{file}: {error}") from None
