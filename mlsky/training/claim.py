"""The folder of a training run, used by one process at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

from mlsky.errors import MlskyError
from mlsky.io import locks
from mlsky.training.checkpoints import BEST, CHECKPOINT
from mlsky.training.run import Run, save_checkpoint

__all__ = ["Claim"]


class Claim:
    """A run folder, locked until the end of the ``with`` block.

    A new folder is made and locked by `begin`, after all other checks.

    Parameters
    ----------
    folder
        Of the run.

    Raises
    ------
    ValueError
        If another process, or another run of this one, trains in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock, self._taken = folder, None, False
        if folder.is_dir():
            self._take()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        locks.release(self._lock)
        self._lock = None

    def begin(self, run: Run, seed: int, fresh: bool) -> None:
        """Make the run folder; for a fresh run, with a first state to come back to.

        Raises
        ------
        ValueError
            If another process began a run in it meanwhile.
        MlskyError
            If it cannot be written.
        """
        folder = self.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._take()
            if fresh and (folder / CHECKPOINT).exists():
                raise ValueError(self._busy())
            (folder / "recipe.json").write_text(json.dumps(run.recipe.to_dict(), indent=1))
            (folder / "log.jsonl").touch()
        except OSError as error:
            raise MlskyError(f"{folder}: cannot be written ({error.strerror})") from None
        if fresh:
            (folder / BEST).unlink(missing_ok=True)  # of a run whose checkpoint is gone
            save_checkpoint(run, folder, seed)

    def _take(self) -> None:
        if self._taken:
            return
        try:
            self._lock = locks.take(self.folder, "trains in it")
        except BlockingIOError:
            raise ValueError(self._busy()) from None
        self._taken = True

    def _busy(self) -> str:
        return (
            f"{self.folder}: another process trains in it; wait for it, or name another folder for "
            "this run"
        )
