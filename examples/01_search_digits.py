"""A first search: a network for 1,797 handwritten digits, searched, trained, used. A minute on two cores.

python examples/01_search_digits.py
"""

import numpy as np
from sklearn.datasets import load_digits

import facenas

# Grow the depth, then prune the width: the preset says how far and how long. With micro search, operations and
# kernels would be swapped layer by layer afterwards.
settings = {"search.micro": False, "data.data_fraction": 0.5}  # candidates see half of the training images
found = facenas.search("demo-digits", settings=settings, run="runs/digits")
print(f"found {found.architecture.summary()}: {found.parameters:,} parameters after {found.trials} trials")

# Train what was found on all training images, and look at the test images once.
trained = facenas.train(found, epochs=3)
print(f"test accuracy {trained.test_accuracy:.2f} %; the page is {trained.report}")

# Use it: images as they come, 8 x 8 grey, 0..255.
digits = load_digits()
images = (digits.images[:10] * (255 / 16)).astype(np.uint8)
labels, probabilities = facenas.load(found.run).predict(images)
for label, probability, truth in zip(labels, probabilities, digits.target, strict=False):
    print(f"a {truth} is read as {label} ({probability.max():.0%})")
