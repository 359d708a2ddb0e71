"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EpicFile = Annotated[Path, typer.Argument(help="The epic: YAML, or Markdown as BMAD and TappsCodingAgents write it.")]
EpicName = Annotated[str, typer.Argument(metavar="EPIC", help="Id of the epic.")]
StoryName = Annotated[str, typer.Argument(metavar="STORY", help="Id of the story.")]
OneOrAll = Annotated[str | None, typer.Argument(metavar="[EPIC]", help="Id of an epic; leave out for all.")]
Repo = Annotated[Path, typer.Option("--repo", help="A folder of the git repository.")]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output and nothing else.")]
Redo = Annotated[bool, typer.Option("--redo", help="Run stories that the file marks as done, too.")]
