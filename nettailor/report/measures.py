"""The figures that choices and pictures rest on, each of one run."""

from nettailor.report.runs import Run
from nettailor.report.summary import Latency


def accuracy_val(run: Run) -> float:
    """Validation accuracy in %."""
    return run.summary.accuracy.val


def accuracy_test(run: Run) -> float | None:
    """Test accuracy in %."""
    return run.summary.accuracy.test


def flops(run: Run) -> float:
    """Multiply-adds of a forward pass of one image."""
    return run.summary.flops


def flops_ratio(run: Run) -> float:
    """FLOPs over the teacher's."""
    return run.summary.flops / run.teacher.flops


def params(run: Run) -> float:
    """Parameters, universal ones and the task's own."""
    return run.summary.params.total


def params_ratio(run: Run) -> float:
    """Parameters over the teacher's."""
    return run.summary.params.total / run.teacher.params.total


def latency_ratio(run: Run) -> float:
    """Median latency at batch 1 over that of the teacher, measured in turn."""
    return run.summary.latency.single.median / _teacher_latency(run).single.median


def batch_latency_ratio(run: Run) -> float:
    """Median latency at batch 64 over that of the teacher, measured in turn."""
    return run.summary.latency.batch.median / _teacher_latency(run).batch.median


def latency_unrest(run: Run) -> float:
    """Middle half of the latency at batch 1 over its median: the run's, or its teacher's if more.

    Both were measured in turn, so one busy moment spoils their ratio.
    """
    timings = (run.summary.latency.single, _teacher_latency(run).single)
    return max(timing.iqr / timing.median for timing in timings)


def _teacher_latency(run: Run) -> Latency:
    return run.teacher.latency_ms[run.summary.device]


def bytes_ratio(run: Run) -> float:
    """File size over the teacher's."""
    return run.summary.bytes / run.teacher.bytes
