"""`python -m nettailor.eliminate`: fixed removal of the top, the yardstick."""

from nettailor.cli.door import Training

main = Training(
    "eliminate",
    "Cut the top 1, 2, 3 … stages off the pretrained network, put a new head on what is left and "
    "fine-tune it: the yardstick for tailored networks (ELimNet).",
    sections=("eliminate",),
)
