"""`python -m nettailor.search`: search for small networks without pretrained weights."""

from nettailor.cli.door import Training

main = Training(
    "search",
    "Search for small networks without pretrained weights: macro F1 up, parameters and latency "
    "down. All are trained a little, the better half of each band of cost goes on, the last ones "
    "all the way, as runs beside the teacher.",
    own={},
    sections=("search",),
    alone=True,
)
