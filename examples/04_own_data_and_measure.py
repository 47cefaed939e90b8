"""Images and a measure of one's own: any Dataset or arrays to search on, any function to search for.

python examples/04_own_data_and_measure.py
"""

import numpy as np

import facenas

# Images in memory, (n, height, width, channels) uint8, and labels; a torch Dataset or a folder do as well.
rng = np.random.default_rng(0)
labels = np.arange(600) % 3
images = rng.integers(0, 80, (600, 16, 16, 3), dtype=np.uint8)
images[np.arange(600), :, :, labels] += 120  # class 0 is reddish, 1 greenish, 2 bluish

small = facenas.spaces.Plain(min_depth=3, max_depth=4, min_width=4, max_width=6)
brief = facenas.strategies.MacroMicro(min_epochs=1, width_epoch_step=0, micro=False)
found = facenas.search(space=small, strategy=brief, data=(images, labels), run="runs/colors")
print(f"own images: {found.accuracy:.1f} % with {found.parameters:,} parameters")


def evaluate(candidate, seed, on_epoch):
    """Instead of a training: anything that gives an accuracy in percent, and other numbers to be made small."""
    network = candidate.architecture.build(seed)
    weights = sum(parameter.numel() for parameter in network.parameters())
    on_epoch({"train_loss": 1 / weights})  # the report draws what is told here
    return {"accuracy": 100 - 1e5 / weights, "energy": weights * 1e-6}


cells = facenas.spaces.Cells(max_cells=2, base_widths=(8, 16))
evolution = facenas.strategies.NSGA2(population=6, generations=3, objectives=("energy",))
front = facenas.search(space=cells, strategy=evolution, evaluate=evaluate, run="runs/energy").front
for member in front:
    print(f"own measure: accuracy {member['accuracy']:.1f} %, energy {member['energy']:.3f}")
