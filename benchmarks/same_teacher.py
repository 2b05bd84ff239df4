"""One teacher for runs in several `out` folders."""

import os
import shutil
from pathlib import Path

from nettailor.core.architecture import WEIGHTS_FILE
from nettailor.core.errors import UserError
from nettailor.core.files import sha256_of
from nettailor.session import Session
from nettailor.teach import ready_teacher, teacher_folder


def share_teacher(session: Session, there: Session) -> None:
    """Give the `out` of a session the finished teacher of another one, once.

    Raises UserError where it holds another teacher: what stands beside it was made with that one.
    """
    teacher = ready_teacher(session).folder.path
    copy = teacher_folder(there).path
    if not copy.exists():
        part: Path = copy.with_name(f"{copy.name}.part")  # a copy that was cut short is none
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(teacher, part)
        os.replace(part, copy)
    elif sha256_of(copy / WEIGHTS_FILE) != sha256_of(teacher / WEIGHTS_FILE):
        raise UserError(
            f"{copy}: is another teacher than {teacher}; remove {there.config.out} or give another "
            "--out"
        )
