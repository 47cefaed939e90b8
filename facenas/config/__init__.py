"""What a user can set: frozen pydantic models, YAML presets, and `--set a.b=c`.

A preset is a YAML file in `configs/presets`, a recipe one in `configs/recipes`; both are shipped in the
wheel and found from any working directory. Unknown keys are refused, so a typing error never passes.
"""

from facenas.config.base import Config, read_yaml, shipped, validate
from facenas.config.cells import CellSpaceConfig
from facenas.config.graph import GraphSpaceConfig
from facenas.config.loading import load_run_config, preset_names
from facenas.config.recipes import DataConfig, FaceRecipe, HeadConfig, Optimisation, Recipe
from facenas.config.runs import ExecutionConfig, RunConfig
from facenas.config.searches import MultiObjectiveConfig, SearchConfig, SupernetConfig
from facenas.config.spaces import Bounds, IRSpaceConfig, SpaceConfig

__all__ = [
    "Bounds",
    "CellSpaceConfig",
    "Config",
    "DataConfig",
    "ExecutionConfig",
    "FaceRecipe",
    "GraphSpaceConfig",
    "HeadConfig",
    "IRSpaceConfig",
    "MultiObjectiveConfig",
    "Optimisation",
    "Recipe",
    "RunConfig",
    "SearchConfig",
    "SpaceConfig",
    "SupernetConfig",
    "load_run_config",
    "preset_names",
    "read_yaml",
    "shipped",
    "validate",
]
