"""Faces from a folder to an answer: import, search, train, say who is who. Five minutes on two cores.

    python examples/05_faces.py [FOLDER]

FOLDER holds `<person>/<image>`, aligned crops of 112 x 112 pixels (`facenas align` makes them). Without one,
faces are drawn, which show nobody.
"""

import sys
from pathlib import Path

import facenas
from facenas.data.faces.importing import import_faces
from facenas.evaluation.identify import enroll, identify

work = Path("runs/faces-example")
if len(sys.argv) > 1:
    store = work / "own.zarr"
    told = import_faces(Path(sys.argv[1]), store, overwrite=True)
    print(f"{told['images']} images of {told['identities']} people, {told['skipped']} skipped")
    people = Path(sys.argv[1])
else:
    store, people = "demo", None  # 120 identities, drawn on first use

# A network that tells people apart whom it has never seen: candidates are verified on identities held out.
found = facenas.search("demo", data=store, run=work / "search")
trained = facenas.train(found)
print(f"verification of people held out: {trained.verification:.1f} %; the page is {trained.report}")

# An nn.Module with its preprocessing: aligned crops, uint8 RGB, to embeddings of length 1.
net = facenas.load(trained)
if people:
    gallery = enroll(found.run, people, work / "people.gallery", overwrite=True)
    for match in identify(found.run, people, gallery)[:5]:
        print(f"{match.image}: {match.identity or 'unknown'}")
    # One file that other programs read; `facenas.load` and `facenas.evaluate` read it as well.
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters: facenas export {found.run}")
