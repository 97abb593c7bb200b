"""MagnifierNet and DSA-reID for torchreid.

Importing this package registers its models, data sets, engines and losses in torchreid.
"""

import warnings

with warnings.catch_warnings():
    # torchreid recommends a compiled evaluator that its PyPI package lacks; ours replaces it.
    warnings.filterwarnings("ignore", message="Cython evaluation")
    import torchreid  # noqa: F401

from magnifier_plugin.models.build import build_model
from magnifier_plugin.registry import register, register_dataset

__version__ = "0.1.0"
__all__ = ["build_model", "register", "register_dataset"]

register()
