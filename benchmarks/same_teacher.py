"""One teacher for runs in several `out` folders."""

import os
import shutil
from pathlib import Path

from nettailor.commands.teach import teacher_folder
from nettailor.core.architecture import WEIGHTS_FILE
from nettailor.core.errors import UserError
from nettailor.core.files import sha256_of
from nettailor.core.run_folder import RunFolder
from nettailor.session import Session


def share_teacher(teacher: RunFolder, there: Session) -> None:
    """Give the `out` of a session a teacher that is finished in another one, once.

    Raises UserError where it holds another teacher: what stands beside it was made with that one.
    """
    copy = teacher_folder(there).path
    if not copy.exists():
        part: Path = copy.with_name(f"{copy.name}.part")  # a copy that was cut short is none
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(teacher.path, part)
        os.replace(part, copy)
    elif sha256_of(copy / WEIGHTS_FILE) != sha256_of(teacher.path / WEIGHTS_FILE):
        raise UserError(
            f"{copy}: is another teacher than {teacher.path}; remove {there.config.out} or give "
            "another --out"
        )
