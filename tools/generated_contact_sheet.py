"""Draws the contact sheet of generated faces in the docs: a row an identity, a column an image.

python tools/generated_contact_sheet.py docs/images/generated_faces.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from facenas.data.faces.generated import generated_image
from facenas.data.faces.store import decode_jpeg

SEED, IDENTITIES, IMAGES = 0, (8, 11, 9, 17, 25, 15), range(9)


def main() -> None:
    """Write the sheet to the file named on the command line."""
    rows = [[decode_jpeg(generated_image(SEED, who, n)) for n in IMAGES] for who in IDENTITIES]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
