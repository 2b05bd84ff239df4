"""What is said of a choice among cuts that its user would find out too late."""

from nettailor.core.judge import error_of_difference, margin
from nettailor.core.run_folder import RunFolder
from nettailor.evidence import right_on
from nettailor.session import Session
from nettailor.tailoring import Tailored, Tailoring


def warn_of_coarse_validation(session: Session, right: bytes) -> None:
    """Say where a cut that differs from the teacher on no image is not within tolerance either.

    right: of each validation image, 1 where the teacher is right.
    """
    images, tolerance = len(session.task.val), session.config.prune.tolerance
    least = margin(right, right)
    if tolerance < least and session.config.budget.given is None:
        session.screen.say(
            f"warning: {images} validation images do not resolve a tolerance of {tolerance:g} "
            f"points: where no image differs, {least:.2f} may be chance. A cut is surely within "
            "it only where it is ahead of the teacher; more validation images or a larger "
            "--tolerance let others count"
        )


def warn_of_the_choice(
    work: Tailoring,
    found: Tailored,
    target: float | None,
    *,
    teacher: RunFolder,
) -> None:
    """Say what is doubtful of the first candidate, which was kept and written.

    target: what a cut had to reach on validation, in %; None: tolerance had no say.
    """
    kept, *_ = found.candidates
    if target is not None:
        warn_of_a_lucky_choice(work.session, kept.name, teacher, work.folder)
    if target is not None and not kept.reaches(target):
        tolerance = f"{work.config.prune.tolerance:g} points"
        if kept.as_good_as(work.judge.aim):
            work.say(
                f"warning: {kept.name} is as good as the teacher on validation, and not surely "
                f"within {tolerance} of it: {len(work.session.task.val)} images are few. Give more "
                "validation images, or a larger --tolerance"
            )
        else:
            work.say(
                f"warning: no cut came within {tolerance} of the teacher, chance allowed for; kept "
                f"the best, {kept.name}. Try more --prune.epochs, a smaller --gamma or more "
                "validation images"
            )
    ended = {one.name: one.scores for one in found.candidates if one.ended}
    scores = {**found.before, **ended}
    name, best = max(scores.items(), key=lambda item: item[1].accuracy)
    if work.judge.ahead(best) > 1:
        work.say(
            f"warning: {name} is more accurate than its teacher on validation "
            f"({best.accuracy:.2f} and {work.taught.accuracy:.2f} %), by more than the standard "
            "error: the teacher is under-trained. Give it more --teacher.epochs"
        )
    if kept.lost:
        # a budget is met at whatever γ
        leaner = "a larger budget" if work.config.budget.given else "a smaller --gamma"
        work.say(
            f"warning: {kept.name} loses {kept.lost_in_words}: more than ten points of recall on "
            f"validation, and the standard error. Try --balance loss or {leaner}"
        )


def warn_of_a_lucky_choice(
    session: Session, name: str, teacher: RunFolder, folder: RunFolder
) -> None:
    """Say where the test, which is read once and chooses nothing, is beyond the tolerance."""
    before, after = (right_on(run.path, "test") for run in (teacher, folder))
    if not before or len(before) != len(after):
        return
    behind = 100 * (sum(before) - sum(after)) / len(before)
    tolerance = session.config.prune.tolerance
    if behind > tolerance:
        session.screen.say(
            f"warning: on the test {name} is {behind:.2f} points below its teacher (standard "
            f"error {error_of_difference(before, after):.2f}), and not within {tolerance:g} as on "
            f"{len(session.task.val)} validation images: a choice among many cuts can "
            "be lucky. Validate on more images (--split.val), or keep more (--max-flops)"
        )
