"""A few rendered people in memory, for trying out a network."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.plan import make_plan
from magnifier_plugin.synthetic.renderer import render

OPTIONS = SyntheticOptions(identities=8, cameras=2, images=1)


def rendered_people(size: tuple[int, int]) -> Tensor:
    """Photos of 16 rendered people: uint8 [16, 3, *size], RGB."""
    plan = make_plan(OPTIONS)
    photos = []
    for shot in plan.shots:
        wardrobe = plan.identities[shot.pid - 1].wardrobe
        scene_size = (OPTIONS.height, OPTIONS.width)
        photo = render(shot.scene, wardrobe, plan.cameras[shot.camera - 1], scene_size).photo
        resized = Image.fromarray(photo).resize(size[::-1], Image.Resampling.BILINEAR)
        photos.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1))
    return torch.stack(photos)
