"""One family of exceptions. Each message says what was expected, what came instead and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "BadData",
    "BadInput",
    "CorruptFile",
    "DiskFull",
    "FormatTooNew",
    "GatedRepository",
    "InvalidConfig",
    "InvalidIndex",
    "KeyMismatch",
    "MissingClient",
    "MissingExtra",
    "NetworkUnavailable",
    "NotFinite",
    "NotOnHub",
    "NotWritable",
    "OutOfMemory",
    "PrivateWeights",
    "RepositoryChanged",
    "RepositoryNotFound",
    "RevisionNotFound",
    "ShadowedPackage",
    "ShapeMismatch",
    "TooFewSamples",
    "TruncatedFile",
    "Unauthorized",
    "UnknownName",
    "UnsafeFile",
    "ZooError",
    "nearest",
    "require",
]


class ZooError(Exception):
    """Base class of every error the zoo raises on purpose."""


class UnknownName(ZooError, LookupError):
    """No model, tag, task, flag or file format of that name; the message lists the nearest ones."""


class InvalidIndex(ZooError):
    """The index (`checkpoints.yaml` or a third party's) breaks its schema."""


class InvalidConfig(ZooError):
    """A `config.json`, recipe or hyper-parameter is not what the constructor accepts."""


class BadInput(ZooError, ValueError):
    """An argument of a public function is unusable."""


class NotFinite(BadInput):
    """A loss, weights or a client's update hold NaN or infinity.

    Args:
        message: what it is, where, and what to do.
        of_all_ranks: whether every rank of the run raises it in the same step.
    """

    def __init__(self, message: str, *, of_all_ranks: bool = False) -> None:
        super().__init__(message)
        self.of_all_ranks = of_all_ranks


class BadData(ZooError):
    """A user's data folder or file is broken; lists every problem."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)

    @classmethod
    def listing(
        cls,
        where: object,
        problems: Sequence[str],
        advice: str = "Correct or remove these entries and run again.",
        shown: int = 20,
    ) -> BadData:
        """One error about several problems.

        Args:
            where: the folder or file as the user knows it.
            problems: one line each.
            advice: what to do about them.
            shown: how many the message spells out; all are in `problems`.
        """
        count = len(problems)
        lines = [f"{count} problem{'s' if count > 1 else ''} in {where}:", *(f"  {line}" for line in problems[:shown])]
        if count > shown:
            lines.append(f"  ... and {count - shown} more")
        return cls("\n".join([*lines, advice]), problems)


class TooFewSamples(ZooError):
    """Fewer samples than processes: some rank would have nothing to do."""


class NetworkUnavailable(ZooError, ConnectionError):
    """The Hub cannot be reached (or offline mode is on) and the file is not in the cache."""


class Unauthorized(ZooError, PermissionError):
    """The Hub answered 401: no token, or one without access."""


class GatedRepository(ZooError, PermissionError):
    """The Hub answered 403: the conditions of a gated repository were not accepted."""


class RepositoryNotFound(ZooError, FileNotFoundError):
    """No such repository, folder or file."""


class RepositoryChanged(ZooError):
    """Somebody else committed to the repository, or it holds other weights under a name that never moves."""


class RevisionNotFound(ZooError, FileNotFoundError):
    """The repository exists, the revision does not."""


class NotOnHub(ZooError):
    """The checkpoint has not been published: no repository is recorded in the index."""


class CorruptFile(ZooError):
    """The sha256 of a file differs from the pinned one."""


class TruncatedFile(CorruptFile):
    """A file is shorter than its header or the index says."""


class UnsafeFile(ZooError):
    """A file that could harm: a pickle, lying offsets, a path out of its folder, NaN weights."""


class DiskFull(ZooError, OSError):
    """No room left on the device of the cache or of the output folder."""


class NotWritable(ZooError, PermissionError):
    """The cache or the output folder is read-only for this user."""


class OutOfMemory(ZooError, MemoryError):
    """The memory of the machine or of its device does not suffice."""


class FormatTooNew(ZooError):
    """The file was written by a newer zoo."""


class KeyMismatch(ZooError):
    """State-dict keys are missing or unexpected beyond the declared roles."""


class ShapeMismatch(KeyMismatch):
    """A tensor's shape differs from the module's."""


class PrivateWeights(ZooError):
    """The module holds parameters whose role forbids sharing."""


class MissingClient(ZooError, FileNotFoundError):
    """A program that fetches packages (pip, npm, apt-get) is not installed."""


class MissingExtra(ZooError, ImportError):
    """An optional dependency is absent; the message holds the pip command."""


class ShadowedPackage(ZooError, ImportError):
    """A package of the user's hides ours (another folder called `datamodules` or `zoo`)."""


def nearest(name: str, known: Iterable[str], *, n: int = 3) -> str:
    """Return `" Did you mean 'a' or 'b'?"`, or an empty string when nothing is close.

    Half of a name counts more than letters that are the same here and there: `yolov8` is near a name with `yolo`.
    """
    from difflib import SequenceMatcher, get_close_matches  # each start would pay for it

    names, texts = [], [str(k) for k in known]
    if not get_close_matches(str(name), texts, n=1, cutoff=0.6):
        least = max(4, (len(str(name)) + 1) // 2)
        names = [text for text in texts if SequenceMatcher(None, str(name), text).find_longest_match().size >= least]
    names = names[:n] or get_close_matches(str(name), texts, n=n, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(f) for f in names)}?" if names else ""


def require(module: str, extra: str) -> object:
    """Import an optional module, or say which extra brings it.

    Raises:
        MissingExtra: if it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != top:
            raise
        raise MissingExtra(
            f"This needs the package {top!r}, which is not installed. "
            f'Install it with: pip install "lightning-method-zoo[{extra}]"'
        ) from error
