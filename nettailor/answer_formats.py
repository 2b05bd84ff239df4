"""Answers as CSV, as JSON, and as a table."""

import csv
import io
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nettailor.answering import Failed, Predicted
from nettailor.classifier import Classifier
from nettailor.core.printable import printable


def as_csv(predicted: Sequence[Predicted]) -> str:
    """A row for each image and rank: path, rank (from 1), label, probability (0..1), ms."""
    text = io.StringIO(newline="")
    # all text in quotes: to a reader, a bare carriage return in a name would end the row
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    text.write("path,rank,label,probability,ms\n")
    for image in predicted:
        for rank, (label, probability) in enumerate(image.predictions, 1):
            writer.writerow(
                [str(image.path), rank, label, _significant(probability), round(image.ms, 3)]
            )
    return text.getvalue()


def as_json(
    classifier: Classifier, predicted: Sequence[Predicted], failed: Sequence[Failed]
) -> str:
    """{"network", "images": [{"path", "ms", "predictions"}], "failed": [{"path", "reason"}]}."""
    network = {
        **classifier.about,
        "classes": len(classifier.labels),
        "image_size": classifier.preprocessing.image_size,
    }
    images = [
        {
            "path": str(image.path),
            "ms": round(image.ms, 3),
            "predictions": [
                {"label": label, "probability": _significant(probability)}
                for label, probability in image.predictions
            ],
        }
        for image in predicted
    ]
    failures = [{"path": str(image.path), "reason": image.reason} for image in failed]
    return json.dumps({"network": network, "images": images, "failed": failures}, indent=2) + "\n"


def as_table(predicted: Sequence[Predicted], console: Console) -> str:
    """A table as wide as the console allows; longer names go on in the next line."""
    table = Table(header_style="bold")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability %", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for image in predicted:
        name, took = printable(str(image.path)), f"{image.ms:.1f}"
        for label, probability in image.predictions:
            chance = f"{100 * probability:.2f}"
            table.add_row(Text(name), Text(printable(label)), chance, took)
            name = took = ""
        if len(image.predictions) > 1:
            table.add_section()
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _significant(probability: float) -> float:
    """Six digits, which is what float32 holds, however small it is."""
    return float(f"{probability:.6g}")
