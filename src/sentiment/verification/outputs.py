"""Outputs on disk or in DVC's cache against `dvc.lock`, and the selected model against its candidates."""

import configparser
import io
import json
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentiment import paths
from sentiment.data.removal import RemovalList, format_key
from sentiment.files import compute_file_md5, compute_md5
from sentiment.model.model_config import CONFIG_FILE, SEEN_TEXTS_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from sentiment.paths import Candidate
from sentiment.stage_inputs import Tree, WorkingTree
from sentiment.verification.checks import Check, report_differences
from sentiment.verification.lock import Project

logger = logging.getLogger(__name__)


def find_cache() -> Path:
    """Return the folder of DVC's cache, as the configuration of system, user and repository sets it."""
    from dvc.dirs import global_config_dir, system_config_dir

    configurations = (
        Path(system_config_dir(), "config"),
        Path(global_config_dir(), "config"),
        Path(".dvc/config"),
        Path(".dvc/config.local"),
    )
    folder = Path(".dvc/cache")
    for file in configurations:  # a later one takes precedence
        parser = configparser.ConfigParser(interpolation=None)  # a path may contain %
        parser.read(file)
        if location := parser.get("cache", "dir", fallback=None):
            folder = file.parent / Path(location.strip("\"'")).expanduser()
    return folder


def find_cached(md5: str) -> Path | None:
    """Return the object of an output in DVC's cache; None if it, or a file in it, is missing or corrupt."""
    path = find_cache() / "files" / "md5" / md5[:2] / md5[2:]
    if not path.is_file():
        return None
    status = path.stat()
    if not _is_intact(path, md5, status.st_mtime_ns, status.st_size):
        return None
    if md5.endswith(".dir"):
        listing = _read_listing(path)
        if listing is None or not all(map(find_cached, listing.values())):
            return None
    return path


@cache
def _is_intact(path: Path, md5: str, _modified_ns: int, _size: int) -> bool:
    """Return whether a cached object has the content of its name; it is read again only if it changed."""
    if compute_file_md5(path) == md5.removesuffix(".dir"):
        return True
    logger.warning("%s is corrupt; delete it, then `dvc fetch` downloads it from a remote", path)
    return False


def _read_listing(path: Path) -> dict[str, str] | None:
    """Return the MD5s of the files in a cached folder, by path; None if the listing is corrupt."""
    try:
        return {item["relpath"]: item["md5"] for item in json.loads(path.read_bytes())}
    except (ValueError, KeyError, TypeError):
        return None


class OutputTree:
    """Outputs of a `dvc.lock`: from disk where they are the same, otherwise from DVC's cache or git.

    Args:
        project: project with the lock.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._disk = WorkingTree()
        self._md5s = {path: md5 for name in project.lock for path, md5 in project.list_outputs(name).items()}

    def read(self, path: str) -> bytes | None:
        """Return the content of an output or of a file in one; None if it is nowhere on this machine."""
        file = self._locate(path)
        if file is not None:
            return file.read_bytes()
        content = self._project.tree.read(path)  # git has metrics and the model card
        return content if content is not None and compute_md5(content) == self._md5s.get(path) else None

    def hash(self, path: str) -> str | None:
        """Return the MD5 of an output or of a file in one; None if it is nowhere on this machine."""
        file = self._locate(path)
        if file is None:
            content = self.read(path)
            return None if content is None else compute_md5(content)
        return self._md5s.get(path) or compute_file_md5(file)

    def _locate(self, path: str) -> Path | None:
        """Return where an output is, or a file in an output that is a folder."""
        if path in self._md5s:
            on_disk = self._disk.hash(path) == self._md5s[path]
            return Path(path) if on_disk else find_cached(self._md5s[path])
        folder = next(
            (str(parent) for parent in PurePosixPath(path).parents if str(parent) in self._md5s), None
        )
        found = self._locate(folder) if folder else None
        if folder is None or found is None:
            return None
        name = PurePosixPath(path).relative_to(folder).as_posix()
        if found.is_dir():
            return found / name if (found / name).is_file() else None
        md5 = (_read_listing(found) or {}).get(name)
        return find_cached(md5) if md5 else None

    def list_files(self, path: str) -> dict[str, str] | None:
        """Return the MD5 of each file of an output by its path; None if it is nowhere on this machine."""
        found = self._locate(path)
        if found is None:
            md5 = self.hash(path)
            return None if md5 is None else {path: md5}
        if found.is_dir():
            files = sorted(file for file in found.rglob("*") if file.is_file())
            return {file.as_posix(): compute_file_md5(file) for file in files}
        if not self._md5s[path].endswith(".dir"):
            return {path: self._md5s[path]}
        listing = _read_listing(found)
        return None if listing is None else {f"{path}/{name}": md5 for name, md5 in listing.items()}


def check_outputs(project: Project) -> Check:
    """Check that the outputs on disk are those in `dvc.lock`; those of a commit may be in DVC's cache."""
    outputs = [
        (stage, path, md5) for stage in project.stages for path, md5 in project.list_outputs(stage).items()
    ]
    if project.is_on_disk:
        differences = [
            _describe_difference(project, stage, path, md5)
            for stage, path, md5 in outputs
            if project.tree.hash(path) != md5
        ]
        return report_differences(
            "outputs", differences, f"all {len(outputs)} outputs are on disk as in dvc.lock"
        )
    tree = OutputTree(project)
    missing = [path for _, path, md5 in outputs if tree.hash(path) != md5]
    if not missing:
        message = f"all {len(outputs)} outputs are on disk, in DVC's cache or in git as in dvc.lock"
        return Check("outputs", "agrees", message)
    others = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return Check(
        "outputs",
        "not known",
        f"{', '.join(missing[:3])}{others}: neither here nor intact in DVC's cache; "
        "`dvc fetch --all-commits` downloads the outputs of all commits from a remote",
    )


def _describe_difference(project: Project, stage: str, path: str, md5: str) -> str:
    if project.tree.hash(path) is None:
        hint = "`dvc checkout` restores it from the cache" if find_cached(md5) else "nor is it in the cache"
        return f"{stage}: {path} is missing, {hint}"
    return f"{stage}: {path} differs from dvc.lock{_describe_run_cache(project, stage, path, md5)}"


def _describe_run_cache(project: Project, stage: str, path: str, md5: str) -> str:
    """Return whether DVC itself recorded another output for the same inputs than `dvc.lock` now has."""
    recorded = {outputs.get(path) for outputs in _find_recorded_outputs(project.lock[stage])}
    if recorded and md5 not in recorded:
        return ", and so does DVC's run cache: dvc.lock was edited manually"
    return ""


def _find_recorded_outputs(entry: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the outputs of the entries of DVC's run cache with the inputs of an entry of `dvc.lock`."""
    for file in (find_cache() / "runs").glob("??/*/*"):
        try:
            recorded = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
            same = all(recorded.get(key) == entry.get(key) for key in ("cmd", "params"))
            if same and _list_md5s(recorded, "deps") == _list_md5s(entry, "deps"):
                yield _list_md5s(recorded, "outs")
        except (OSError, UnicodeDecodeError, YAMLError, KeyError, AttributeError, TypeError):
            continue


def _list_md5s(entry: Mapping[str, Any], key: str) -> dict[str, str]:
    return {item["path"]: str(item.get("md5")) for item in entry.get(key) or ()}


def read_selection(outputs: Tree) -> Candidate | None:
    """Return the candidate that evaluate selected; None if its metrics are missing or invalid."""
    try:
        selected = json.loads(outputs.read(paths.metrics("evaluate").as_posix()) or b"{}").get("selected")
    except (ValueError, AttributeError):
        return None
    return next((candidate for candidate in paths.CANDIDATES if candidate == selected), None)


def check_model(outputs: Tree, candidate: Candidate, folder: Path, *, is_external: bool) -> Check:
    """Check that a model folder has the weights of a candidate, its configuration and its tokenizer.

    A folder that evaluate exported also has a calibration and fingerprints of the seen texts, which are those
    of `models/selected`. For another candidate, no output records them.

    Args:
        outputs: outputs of all stages.
        candidate: model that the folder should have.
        folder: folder of the model.
        is_external: whether the folder is none that the pipeline writes, and is read from disk.
    """
    own, source = WorkingTree() if is_external else outputs, paths.model(candidate)
    expected = {WEIGHTS_FILE: source / WEIGHTS_FILE, TOKENIZER_FILE: paths.TOKENIZER}
    is_exported = is_external and (folder / TOKENIZER_FILE).exists()
    is_selected = candidate == read_selection(outputs)
    if folder == source or (is_external and not is_exported):
        del expected[TOKENIZER_FILE]
    if is_exported and is_selected:
        expected |= {name: paths.SELECTED / name for name in (CONFIG_FILE, SEEN_TEXTS_FILE)}
    differences = []
    for name, original in expected.items():
        content, actual = outputs.hash(original.as_posix()), own.hash((folder / name).as_posix())
        if content is None:
            return Check("model", "not known", f"{original} is neither here nor intact in DVC's cache")
        if actual is None:
            differences.append(f"{folder / name} is missing")
        elif actual != content:
            differences.append(f"{folder / name} is not equal to {original}, from which it was made")
    config, original_config = read_config(own, folder), read_config(outputs, source)
    if config and original_config and config.get("origin") is None:  # the model of a trial
        config, original_config = ({**each, "origin": None} for each in (config, original_config))
    if config != original_config:
        differences.append(
            f"{folder / CONFIG_FILE} has another configuration or origin than {source / CONFIG_FILE}"
        )
    if is_exported and not is_selected and not differences:
        unrecorded = "no output records its calibration and its seen texts, since it was not selected"
        return Check(
            "model", "not known", f"{folder} has the weights of the {candidate} model, but {unrecorded}"
        )
    return report_differences("model", differences, f"{folder} is the {candidate} model, with its tokenizer")


def check_removed(outputs: Tree, tree: Tree) -> Check:
    """Check that no review on the removal list is among those that the pipeline's models have learned from.

    All models of a `dvc.lock` learn from the same reviews, whose fingerprints are in `models/selected`.

    Args:
        outputs: outputs of all stages.
        tree: files of the project, with the removal list.
    """
    listed = RemovalList.parse(tree.read(paths.REMOVED.as_posix()) or b"", paths.REMOVED).fingerprints
    if not len(listed):
        return Check("removed", "agrees", f"{paths.REMOVED} lists no review")
    path = paths.SELECTED / SEEN_TEXTS_FILE
    content = outputs.read(path.as_posix())
    if content is None:
        return Check("removed", "not known", f"{path} is neither here nor intact in DVC's cache")
    try:
        seen_texts = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        return Check("removed", "not known", f"{path}: not an array of fingerprints: {error}")
    learned = listed[np.isin(listed, seen_texts)]
    if len(learned):
        return Check(
            "removed",
            "differs",
            f"{len(learned):,} of the {len(listed):,} reviews in {paths.REMOVED} were learned from, first "
            f"{format_key(learned[0])}; `dvc repro` trains without them",
        )
    return Check("removed", "agrees", f"no review of the {len(listed):,} in {paths.REMOVED} was learned from")


def read_config(tree: Tree, folder: Path) -> dict[str, Any] | None:
    """Return a model's configuration without the calibration that evaluate adds; None if it is invalid."""
    content = tree.read((folder / CONFIG_FILE).as_posix())
    try:
        config = json.loads(content or b"{}")
    except ValueError:
        return None
    if not isinstance(config, dict):
        return None
    return {key: value for key, value in config.items() if key != "calibration"}
