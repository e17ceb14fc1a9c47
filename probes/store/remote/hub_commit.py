"""A folder in a repository of the Hugging Face hub: what is sent together is one commit, there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from probes.progress import Progress, Report, silent
from probes.store.atomic import replacing
from probes.store.remote.bucket import Bucket
from probes.store.remote.refusals import in_sentences, no_such_bucket


class HubFolder(Bucket):
    """As `Bucket`. The hub refuses a commit on another parent than the one that was read, so no lock is needed."""

    seconds_between = 60.0  # the hub takes a limited number of commits an hour
    at_a_time = 1  # its client's memory of folders is not made for threads
    has_lock = False

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._parent: str | None = None

    def read(self, name: str) -> bytes | None:
        """As `Bucket.read`; what is sent next is a commit on the state that was read here."""
        from huggingface_hub import HfApi

        with self._asking() as files:
            try:
                place = files.resolve_path(self._root)
            except FileNotFoundError:
                return None
            about = HfApi().repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision)
            self._parent = about.sha
        return super().read(name)

    def get(self, name: str, target: Path) -> None:
        """As `Bucket.get`; its folder is not listed again for each file."""
        with in_sentences(self.url), replacing(target) as beside:
            self._files.get_file(self._at(name), str(beside))

    def put(self, files: Mapping[str, Path | bytes], report: Report = silent) -> None:
        """Send all of them in one commit."""
        from huggingface_hub import CommitOperationAdd

        report(Progress(f"Sending to {self.url}", 0, 1, f"{len(files)} files"))
        self._commit([CommitOperationAdd(self._inside(name), _source(source)) for name, source in files.items()])

    def delete(self, names: Iterable[str]) -> None:
        """Delete files in one commit."""
        from huggingface_hub import CommitOperationDelete

        operations = [CommitOperationDelete(self._inside(name)) for name in names]
        if operations:
            self._commit(operations)

    def check(self) -> None:
        """Refuse a repository that is not there."""
        try:
            with self._asking() as files:
                files.resolve_path(self._root)
        except FileNotFoundError as error:
            raise no_such_bucket(self.url, str(error)) from error

    def _inside(self, name: str) -> str:
        folder = self._files.resolve_path(self._root).path_in_repo
        return f"{folder}/{name}" if folder else name

    def _commit(self, operations: list) -> None:
        from huggingface_hub import HfApi

        with in_sentences(self.url):
            place = self._files.resolve_path(self._root)
            commit = HfApi().create_commit(
                place.repo_id,
                operations,
                commit_message="gravity-probe",
                repo_type=place.repo_type,
                revision=place.revision,
                parent_commit=self._parent,
            )
            self._parent = commit.oid


def _source(source: Path | bytes) -> str | bytes:
    return source if isinstance(source, bytes) else str(source)


def open_bucket(url: str) -> Bucket:
    """The folder behind a URL: in a repository of the hub, or in any other store."""
    in_repository = url.startswith("hf:") and not url.startswith("hf://buckets/")
    return HubFolder(url) if in_repository else Bucket(url)
