"""`python -m nettailor.scale`: train other sizes of an EfficientNet by compound scaling."""

from nettailor.cli.door import Training

main = Training(
    "scale",
    "Train other sizes of an EfficientNet: depth, width and resolution from one number phi, by the "
    "published coefficients or given ones. phi 0 is the base of the backbone's family, at "
    "image_size; each phi is a run, fine-tuned like the teacher. Members of the family that were "
    "published start from their weights, the others from random ones.",
    own={
        "--phi": {
            "nargs": "+",
            "type": float,
            "metavar": "PHI",
            "help": "the exponents, each a run (default: -2 -1 0)",
        },
    },
    sections=("scale",),
)
