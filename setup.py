"""Installs magnifier_plugin, and the packages that torchreid 0.2.5 on PyPI needs but omits."""

from pathlib import Path

from setuptools import find_packages, setup

# Packages that this package imports. torch 2.6 and Python 3.10 are the oldest versions with which
# the tests pass: torch 2.4 lacks `safe_globals`, torchvision 0.19 `make_params` and `query_size`.
# PyPI's torch up to 2.10 has kernels for a V100 (compute capability 7.0).
OWN = [
    "torch>=2.6",
    "torchvision>=0.21",
    "torchreid>=0.2.5",
    "filelock>=3.16",
    "gdown>=5.2",
    "scipy>=1.13",
    "numpy>=1.26",
    "matplotlib>=3.9",
    "pillow>=10.4",
    "tqdm>=4.66",
    "yacs>=0.1.8",
    "pyyaml>=6.0",
]
# Packages that torchreid 0.2.5 imports, some only when they are used, and does not declare.
TORCHREID = [
    "h5py>=3.11",
    "imageio>=2.34",
    "opencv-python-headless>=4.10",
    "six>=1.16",
    "tensorboard>=2.17",
]
# scripts/extract.py --faiss
FAISS = ["faiss-cpu>=1.9"]

setup(
    name="magnifier_plugin",
    version="0.1.0",
    description="MagnifierNet and DSA-reID (person re-identification) for torchreid",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["magnifier_plugin", "magnifier_plugin.*"]),
    package_data={"magnifier_plugin": ["**/*.yaml", "**/*.html", "py.typed"]},
    install_requires=OWN + TORCHREID,
    extras_require={
        "faiss": FAISS,
        "onnx": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.22"],
        "test": [
            *FAISS,
            "mutmut==3.8.*",  # other versions have other operators: scripts/mutants.py would differ
            "mypy>=2.4",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.8",
            "websocket-client>=1.8",
        ],
    },
)
