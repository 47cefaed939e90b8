"""Face networks that have a name, and the published parameter counts that they reproduce."""

from __future__ import annotations

from facenas.spaces.ir import IRArchitecture

CASIA_IDENTITIES = (
    10_572  # the head that the literature counts in "R-18 29.4M": CASIA-WebFace, 512 each
)

NAMED = {
    "ir18": IRArchitecture.uniform(64, (2, 2, 2, 2)),
    "ir34": IRArchitecture.uniform(64, (3, 4, 6, 3)),
    "ir50": IRArchitecture.uniform(64, (3, 4, 14, 3)),
    "ir101": IRArchitecture.uniform(64, (3, 13, 30, 3)),
    "irse50": IRArchitecture.uniform(64, (3, 4, 14, 3), se=True),
    "r34_512": IRArchitecture.uniform(64, (2, 4, 8, 2)),
    "r58_256": IRArchitecture.uniform(32, (3, 7, 15, 3)),
}

# Sources: `mk-minchul/AdaFace:net.py`, counted; the tables of "Efficient Global Neural Architecture Search".
# Of r34_512 and r58_256 only depth, last width and the count are published: the stages are ours.
REPRODUCES = {
    "ir18": "AdaFace IR-18: 24,020,352; paper R-18-512: 29.4M with head",
    "ir34": "AdaFace IR-34: 34,134,080",
    "ir50": "AdaFace IR-50: 43,585,600; paper R-50-512: 49.0M with head",
    "ir101": "AdaFace IR-101: 65,150,912",
    "irse50": "AdaFace IR-SE-50: 43,808,320",
    "r34_512": "paper R-34-512: 37.1M with head",
    "r58_256": "paper R-58-256: 14.6M without head",
}
