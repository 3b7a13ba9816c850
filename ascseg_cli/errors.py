"""Every error that a user can cause, so that no one ever meets a traceback for it.

One class for each kind of mistake; the command line maps kinds to exit codes (`cli/__init__.py`).
"""

from __future__ import annotations


class AscsegError(Exception):
    """A mistake that the user can mend: what we got and which rule it broke, and how to go on.

    message  one line: what, and which rule
    hint     one line: what to do next; empty where the message says it
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AscsegError):
    """Arguments that exclude each other, or that name nothing."""


class ShapeError(AscsegError):
    """A tensor of the wrong shape, dtype or device."""


class BackendError(AscsegError):
    """A backend or device that was asked for and can't run here."""


class WeightsError(AscsegError):
    """Weights that are missing, damaged, of another network, or not to be trusted."""


class DeviceMemoryError(AscsegError):
    """A pass of the network that its device has no memory for."""


class UnknownBackendError(BackendError, UsageError):
    """A backend or device of a name that doesn't exist."""


# What helps where neither torch nor onnxruntime can run weights.
AN_ENGINE = "install torch; or, to predict and evaluate: pip install onnx onnxruntime (extra `export`)"


class MissingTorchError(BackendError):
    """torch can't be imported, and `what` was asked for needs it."""

    def __init__(
        self,
        reason: ImportError | OSError,
        what: str = "this",
        hint: str = AN_ENGINE,
    ) -> None:
        super().__init__(f"{what} needs torch, which can't be imported: {reason}", hint)


class UnknownWeightsError(WeightsError, UsageError):
    """A data set, variant or weights file of a name that doesn't exist."""


class DownloadError(WeightsError):
    """Weights that no mirror delivered."""


class InputError(AscsegError):
    """One file that can't be read as an image or a mask."""


class DataError(AscsegError):
    """A folder that holds no usable data."""


class TrainingError(AscsegError):
    """A training run that can't go on: its numbers are no longer finite, or memory doesn't hold it."""


class OutputError(AscsegError):
    """An output that can't be written, or would overwrite another."""


class StoreError(OutputError):
    """An object store that can't be reached or won't have us: no other object would fare better."""


class ExportError(AscsegError):
    """An exported file that can't be run, or gives other results than the weights that it was made from."""


class MissingExtraError(AscsegError):
    """A feature whose optional packages aren't installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra `{extra}`, which isn't installed",
            f'run: pip install "ascseg[{extra}]"',
        )


class GateError(AscsegError):
    """A check that the user asked for was not met."""
