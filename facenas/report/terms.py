"""What a page calls things: runs of image classes and runs of faces differ in these words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """unit: what an architecture is a chain of. usual: the units of the networks of macro search.

    accuracy: that of a candidate. judged: what it is told of. facts: of the data, under another name
    than in `run.yaml`. tries: what a trial of a phase changes.
    """

    faces: bool
    unit: str
    usual: str
    accuracy: str
    judged: str
    parameters: str
    output: str
    facts: dict[str, str]
    tries: dict[str, str]


CLASSIFICATION = Terms(
    faces=False,
    unit="layer",
    usual="separable 3×3",
    accuracy="selection accuracy",
    judged="images",
    parameters="parameters",
    output="classifier",
    facts={},
    tries={
        "depth": "one layer more a trial",
        "width": "fewer channels a trial",
        "ops": "a plain convolution for one layer",
        "kernels": "a 5×5 kernel for one layer",
    },
)
FACES = Terms(
    faces=True,
    unit="block",
    usual="plain 3×3",
    accuracy="verification accuracy",
    judged="pairs",
    parameters="backbone parameters",
    output="output layer",
    facts={"train_images": "images"},  # with those of the identities held out
    tries={
        "depth": "one block more a trial",
        "width": "fewer channels a trial",
        "ops": "separable convolutions for one block",
        "kernels": "5×5 kernels for one block",
    },
)
TERMS = {"classification": CLASSIFICATION, "faces": FACES}  # by the recipe's kind
