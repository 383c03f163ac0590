"""Write the folder that travels to the GPU machine: wheels, token arrays, parameters, reviews.

The reviews are downloaded, split and tokenized by the project's own code, in a scratch folder.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from bench.gpu import packed
from sentiment import paths
from sentiment.data.build import build_splits
from sentiment.data.parquet import read_reviews
from sentiment.errors import UserError, exits_cleanly
from sentiment.files import atomic_write, write_json
from sentiment.params import Params, load_params
from sentiment.params.data import DownloadParams
from sentiment.settings import set_environment
from sentiment.tokens.encoding import encode
from sentiment.tokens.vocabulary import train_tokenizer

logger = logging.getLogger(__name__)


LARGEST_MB = 60
"""Of the pack, in units of 2**20 bytes: 64 travel, and the working tree is among them."""

TEXTS = 2_000

WHEELS = (
    "annotated-types",
    "pydantic",
    "pydantic-core",
    "pydantic-settings",
    "python-dotenv",
    "ruamel.yaml",
    "typing-extensions",
    "typing-inspection",
)
"""What training and predicting import and the GPU machine may lack, in the versions installed here."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@exits_cleanly
def main(archive: Path | None, limit: int | None, wheels: bool, folder: Path) -> None:
    """Write the pack completely or not at all.

    archive: in the layout of the Large Movie Review Dataset; None takes the sources of params.yaml.
    limit: reviews of each split of a source. wheels: False leaves them out.
    """
    params = load_params()
    reviews = _gathered(_download(params, archive, limit))
    with atomic_write(folder.resolve()) as temporary:
        temporary.mkdir()
        _write_data(temporary, params, reviews)
        if wheels:
            _fetch_wheels(temporary / packed.WHEELS)
        size = sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file()) / 2**20
        if size >= LARGEST_MB:
            raise UserError(f"{folder}: {size:.1f} MiB, but at most {LARGEST_MB} travel; nothing was written")
    counts = ", ".join(f"{table.num_rows:,} {split}" for split, table in reviews.items())
    logger.info(f"{folder}: {size:.1f} MiB ({counts})")


def _write_data(folder: Path, params: Params, reviews: dict[paths.Split, pa.Table]) -> None:
    tokenizer = train_tokenizer(reviews["train"]["text"].to_pylist(), params.tokenize)
    tokens = {split: encode(tokenizer, table, f"tokenize {split}") for split, table in reviews.items()}
    size = tokenizer.get_vocab_size()
    packed.write_arrays(folder, tokens, size)
    packed.write_texts(folder, reviews["validation"]["text"].to_pylist()[:TEXTS])
    tokenizer.save(str(folder / packed.TOKENIZER))
    sections = {"model": params.model, "train": params.train}
    dumped = {name: section.model_dump(mode="json") for name, section in sections.items()}
    write_json(folder / packed.PARAMS, {"vocabulary_size": size, **dumped})


def _download(params: Params, archive: Path | None, limit: int | None) -> DownloadParams:
    changes = {} if limit is None else {"limit": limit}
    if archive:
        source = {"kind": "imdb", "urls": [str(archive.resolve())], "checksum": None}
        changes |= {"sources": [source]}  # type: ignore[dict-item]
    return DownloadParams.model_validate({**params.download.model_dump(), **changes})


def _gathered(download: DownloadParams) -> dict[paths.Split, pa.Table]:
    """Return the splits as the download stage writes them, without changing the data folder.

    The holdout split, which is not needed on the GPU machine, is added to the training split.
    """
    root = Path.cwd()
    with (
        tempfile.TemporaryDirectory(prefix="bench-gpu-") as scratch,
        _working_in(Path(scratch)),
        set_environment(DVC_ROOT=str(root)),  # relative paths of sources start there
    ):
        paths.INCOMING.parent.mkdir()
        paths.INCOMING.symlink_to(root / paths.INCOMING)
        build_splits(download)
        reviews = {
            split: read_reviews(paths.reviews(split), labelled=split != "unlabelled")
            for split in packed.SPLITS
        }
        holdout = read_reviews(paths.reviews("holdout"))
        return {**reviews, "train": pa.concat_tables([reviews["train"], holdout])}


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _fetch_wheels(folder: Path) -> None:
    """Download the wheels for Python 3.12 on x86-64. Raises UserError if pip cannot."""
    names = [f"{name}=={version(name)}" for name in WHEELS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, "--dest", str(folder), *names], check=False)
    if done.returncode:
        raise UserError("pip could not download the wheels; --no-wheels leaves them out")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", type=Path, help="the review archive, or one in its layout")
    parser.add_argument("--limit", type=int, help="reviews of each split of a source, for a try")
    parser.add_argument("--no-wheels", action="store_true", help="where the GPU machine lacks none")
    parser.add_argument("--folder", type=Path, default=packed.FOLDER)
    given = parser.parse_args()
    main(given.archive, given.limit, not given.no_wheels, given.folder)
