"""Models and adapters on the Hugging Face Hub: found there, and shared there, with no other file beside theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

from serein.errors import ModelError, UsageError
from serein.model import ATTRIBUTES_FILE, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, load_config, load_model

SHARED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, ATTRIBUTES_FILE)
"""All that leaves this machine, and all that is fetched."""

Answer = TypeVar("Answer")


def find_model(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a model or an adapter: on disk, else from the Hub, in its cache.

    ``config.json`` comes first and is read, so that the weights of what is no serein model are not fetched. Where the
    Hub is out of reach, or with ``HF_HUB_OFFLINE=1``, what the cache has is taken.

    Args:
        name: a folder, or ``user/name`` on the Hub.
        revision: branch, tag or commit on the Hub; a folder has none.
        token: for a private model; None takes the one of ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        ModelError: neither a folder here nor a model that the Hub or its cache gives, or no model of serein's.
        UsageError: a revision of a folder that is here.
    """
    path = Path(name)
    if path.is_dir():
        if revision is not None:
            raise UsageError(f"{name}: is a folder here, which has no revision {revision!r}; leave the revision out")
        return path
    if path.exists():
        reads = "; only `serein predict` reads .onnx" if path.suffix == ".onnx" else ""
        raise ModelError(f"{name}: is a file; give the model's folder, or user/name on the Hub{reads}")
    repo_id = path.as_posix()
    if repo_id.count("/") != 1:
        raise ModelError(
            f"{name}: is no folder here, and no user/name on the Hub; `serein train` makes a model folder, "
            "`serein adapt` an adapter's"
        )

    def fetch(commit: str | None, *files: str) -> Path:
        return Path(snapshot_download(repo_id, revision=commit, token=token, allow_patterns=list(files)))

    failed = f"{name}: is no folder here, and the Hub does not give it"
    folder = _ask_hub(lambda: fetch(revision, CONFIG_FILE), failed)
    load_config(folder)
    # of the same commit, whatever is pushed meanwhile
    return _ask_hub(lambda: fetch(folder.name, *SHARED_FILES), failed)


def push_model(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload a serein model",
) -> str:
    """Share a model or an adapter: one commit with its :data:`SHARED_FILES`, whatever else the folder holds.

    The repository is made where there is none. An encoder that was a folder of this machine is named by its last part
    only, and who loads the model says where theirs is.

    Args:
        folder: what ``serein train`` or ``serein adapt`` wrote.
        repo_id: ``user/name`` on the Hub.
        private: make the repository private.
        token: with the right to write; None takes the one of ``hf auth login`` or ``HF_TOKEN``.
        revision: the branch, made from the main one where there is none; None is the main one.
        message: of the commit.

    Returns:
        the address of the commit.

    Raises:
        ModelError: the folder is no model of serein's, the repository is public but was to be private, or the Hub
            refuses.
    """
    folder = Path(folder)
    _, config = load_model(folder)
    config = config.model_copy(update={"encoder": config.encoder.without_folder()})
    contents: dict[str, Path | bytes] = {
        name: folder / name for name in SHARED_FILES if name != CONFIG_FILE and (folder / name).is_file()
    }
    contents[CONFIG_FILE] = (config.model_dump_json(indent=2) + "\n").encode()
    additions = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
    hub = HfApi(token=token)

    def push() -> str:
        hub.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not hub.model_info(repo_id).private:
            raise ModelError(f"{repo_id}: exists on the Hub and is public; nothing was pushed. Make it private there")
        if revision is not None:
            hub.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = hub.create_commit(repo_id, additions, commit_message=message, revision=revision)
        return str(commit.commit_url)

    return _ask_hub(push, f"{repo_id}: the Hub does not take {folder}")


def _ask_hub(question: Callable[[], Answer], failed: str) -> Answer:
    try:
        return question()
    except ModelError:
        raise
    except Exception as error:  # the Hub client and the HTTP libraries below it share no base class
        said = " ".join(str(error).split())
        raise ModelError(
            f"{failed} ({type(error).__name__}: {said}). Check the name, the revision, the network and "
            "HF_HUB_OFFLINE, and HF_TOKEN where it is private or yours to write"
        ) from error
