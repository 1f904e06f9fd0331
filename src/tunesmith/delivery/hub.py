"""The whole model, or its adapter, in a repository of Hugging Face's or ModelScope's hub."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BadEnvironment, RecipeError
from .adapter import Adapter
from .base import Way, way
from .merged import Merged

if TYPE_CHECKING:
    from .source import Source

MESSAGE = "A model tuned by Tunesmith"


@way("hub")
class Hub(Way):
    """A folder as `adapter` or `merged` writes it, sent to a hub once it is proven; the folder stays."""

    repo: str = ""
    """owner/name of the repository, which is made if it is not there."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Where; the token comes from HF_TOKEN or MODELSCOPE_API_TOKEN."""
    private: bool = True
    """Whether nobody else sees the repository."""
    whole: bool = False
    """Whether the whole model is sent, and not its adapter alone."""

    @property
    def form(self) -> Way:
        return Merged() if self.whole else Adapter()

    def check(self, source: Source) -> None:
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", self.repo):
            raise RecipeError(f"repo: must be owner/name, such as repo=me/reviews-lora (got '{self.repo}')")
        package = {"huggingface": "huggingface_hub", "modelscope": "modelscope"}[self.hub]
        if find_spec(package) is None:
            raise BadEnvironment(f"hub={self.hub}: needs the package {package}; pip install {package}")
        self.form.check(source)

    def write(self, source: Source, folder: Path) -> None:
        self.form.write(source, folder)

    def apart(self) -> float:
        return self.form.apart()

    def finish(self, folder: Path) -> str:
        """Send the folder. Raises BadEnvironment where the hub cannot be reached, or does not let one in."""
        try:
            return self.send(folder)
        except Exception as error:  # noqa: BLE001 - the hubs' libraries and those below them fail in many ways
            said = str(error).strip().split("\n")[0] or type(error).__name__
            raise BadEnvironment(
                f"repo={self.repo}: could not be sent to {self.hub} ({said}); {folder} is whole and can be sent later"
            ) from None

    def send(self, folder: Path) -> str:
        """The address under which it is then to be found."""
        if self.hub == "modelscope":
            from modelscope.hub.api import HubApi  # pyright: ignore[reportMissingImports]

            api: Any = HubApi()
            api.create_repo(self.repo, visibility="private" if self.private else "public", exist_ok=True)
            api.upload_folder(repo_id=self.repo, folder_path=str(folder), commit_message=MESSAGE)
            return f"{self.hub}: {self.repo}"
        from huggingface_hub import HfApi

        HfApi().create_repo(self.repo, private=self.private, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=self.repo, folder_path=folder, commit_message=MESSAGE))
