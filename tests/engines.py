"""Engines and data managers of a tiny MagnifierNet on a tiny Market-1501."""

import torchreid
from tiny import tiny_model

from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.testing import TestOptions

QUICK = {"lr": 1e-3}


def make_manager(folder, **options):
    return AnnotatedDataManager(
        root=folder.root,
        masks_dir=folder.masks_dir,
        sources="market1501",
        height=32,
        width=16,
        transforms=["random_flip", "random_erase"],
        num_instances=2,
        train_sampler="RandomIdentitySampler",
        **{"batch_size_train": 4, "workers": 0, **options},
    )


def make_engine(folder, stages=None, **options):
    torchreid.utils.set_random_seed(1)
    model = tiny_model()
    stages = stages or two_stages()
    names = set(TestOptions.__dataclass_fields__) - {"amp"}  # the engine's own amp
    test_options = TestOptions(**{key: options.pop(key) for key in names & set(options)})
    engine = torchreid.engine.ImageMagnifierEngine
    manager = make_manager(folder, workers=options.pop("workers", 0))
    options = {"stages": stages, "amp": "off", "test_options": test_options, **options}
    return engine(manager, model, **options)


def two_stages(**second):
    return [
        Stage(max_epoch=2, **QUICK),
        Stage(**{"max_epoch": 2, "loss_weights": {"sd": 0.1}, **QUICK, **second}),
    ]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def weights(engine):
    return {key: value.clone() for key, value in engine.model.state_dict().items()}
