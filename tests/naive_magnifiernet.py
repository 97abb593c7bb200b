"""MagnifierNet and its criterion as plain loops, equation by equation, in float64, tiny size.

Weights are read from a state dict by their keys. Only convolutions that have no loop here
(kernel 3) are torch's.
"""

import itertools

import torch
from naive import cosine_of_pairs, farthest_minus_nearest, pixel_entropies
from torch.nn import functional as F

REGIONS = range(8)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def gru_cell(x, h, w_ih, w_hh, b_ih, b_hh):
    """Cho et al., 2014, in the form of cuDNN: reset, update, new."""
    i_r, i_z, i_n = (w_ih @ x + b_ih).chunk(3)
    h_r, h_z, h_n = (w_hh @ h + b_hh).chunk(3)
    reset, update = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
    return (1 - update) * torch.tanh(i_n + reset * h_n) + update * h


def lstm_cell(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """Hochreiter and Schmidhuber, 1997, with a forget gate: input, forget, cell, output."""
    i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
    c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
    return sigmoid(o) * torch.tanh(c), c


class NaiveMagnifierNet:
    """A forward pass of the network on `tiny.TinyBackbone`.

    Args:
        state: tensors by key; running statistics of a training pass are written to it.
        training: use batch statistics, label maps and `kept`; else running statistics, predictions.
        fusion, rescaling: as in `MagnifierNet`.
        kept: regions that SAB keeps.
    """

    def __init__(self, state, *, training, fusion="gru", rescaling="bilinear", kept=()):
        self.state, self.training, self.kept = state, training, kept
        self.fusion, self.rescaling = fusion, rescaling

    def __call__(self, images, labels=None):
        state = self.state
        layer3 = F.conv2d(
            images, state["backbone.conv1.weight"], state["backbone.conv1.bias"], stride=16
        ).clamp(min=0)
        layer4 = self.conv1x1("backbone.layer4", layer3).clamp(min=0)
        mask_logits = self.mask_logits(layer4)
        masks = self.masks(mask_logits, labels)
        feature = {
            "G": torch.stack(
                [channels.flatten(1).sum(1) / channels[0].numel() for channels in layer4]
            ),
            "SAB": self.adversarial(layer3, masks),
        }
        pooled = self.pooled(self.bottleneck("branches.SFB.bottleneck", layer3), masks)
        feature["SFB"], regions = self.fused(pooled)
        embedding = {name: self.neck(f"branches.{name}.head", x) for name, x in feature.items()}
        if not self.training:
            return torch.cat(list(embedding.values()), dim=1)
        region_logits = [
            self.logits(f"branches.SFB.region_heads.{k}", regions[:, k]) for k in REGIONS
        ]
        return {
            "feature": feature,
            "logits": {n: self.classified(f"branches.{n}.head", x) for n, x in embedding.items()},
            "regions": regions,
            "region_logits": region_logits,
            "mask_logits": mask_logits,
        }

    def batch_norm(self, name, x, shift=True):
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.training:
            count = x.numel() / x.shape[1]
            batch_mean = x.sum(axes) / count
            batch_var = (x - batch_mean.view(shape)).square().sum(axes) / count
            unbiased = batch_var.detach() * count / (count - 1)
            self.state[f"{name}.running_mean"] = 0.9 * mean + 0.1 * batch_mean.detach()
            self.state[f"{name}.running_var"] = 0.9 * var + 0.1 * unbiased
            mean, var = batch_mean, batch_var
        x = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5)
        x = x * self.state[f"{name}.weight"].view(shape)
        return x + self.state[f"{name}.bias"].view(shape) if shift else x

    def conv1x1(self, name, x):
        weight, bias = self.state[f"{name}.weight"].flatten(1), self.state.get(f"{name}.bias")
        x = torch.einsum("oc,bc...->bo...", weight, x)
        return x if bias is None else x + bias.view([1, -1] + [1] * (x.ndim - 2))

    def bottleneck(self, name, x):
        y = self.batch_norm(f"{name}.bn1", self.conv1x1(f"{name}.conv1", x)).clamp(min=0)
        y = F.conv2d(y, self.state[f"{name}.conv2.weight"], padding=1)
        y = self.batch_norm(f"{name}.bn2", y).clamp(min=0)
        y = self.batch_norm(f"{name}.bn3", self.conv1x1(f"{name}.conv3", y))
        return (x + y).clamp(min=0)

    def mask_logits(self, layer4):
        name = "mask_module.head"
        y = F.conv_transpose2d(
            layer4,
            self.state[f"{name}.upsample.weight"],
            self.state.get(f"{name}.upsample.bias"),
            stride=2,
            padding=1,
            output_padding=1,
        )
        y = self.batch_norm(f"{name}.norm", y).clamp(min=0)
        return self.conv1x1(f"{name}.predict", y)

    def masks(self, logits, labels):
        """R_k, [B, 8, h, w], from maps of 2h × 2w: an average of 2 × 2, or one of its pixels."""
        batch, _, height, width = logits.shape
        scaled = logits.argmax(1)
        if self.training and labels is not None:
            step_y, step_x = labels.shape[1] // height, labels.shape[2] // width
            centres = labels[:, step_y // 2 :: step_y, step_x // 2 :: step_x].long()
            scaled = torch.where(centres == 255, scaled, centres)
        masks = torch.zeros(batch, 8, height // 2, width // 2, dtype=torch.float64)
        for b, k, y, x in itertools.product(*map(range, masks.shape)):
            block = (scaled[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] == k).double()
            masks[b, k, y, x] = {
                "bilinear": block.mean(),
                "nearest": block[1, 1],
                "nearest-corner": block[0, 0],
            }[self.rescaling]
        return masks

    def adversarial(self, layer3, masks):
        features = self.bottleneck("branches.SAB.bottleneck", layer3)
        if self.training:
            dropped = [k for k in REGIONS if k not in self.kept]
            features = features * (1 - sum(masks[:, k : k + 1] for k in dropped))
        return self.conv1x1("branches.SAB.reduction", features.flatten(2).max(2).values)

    def pooled(self, features, masks):
        """p(x_k), Eq. 1: [B, 8, C]."""
        rows = []
        for image, maps in zip(features, masks, strict=True):
            rows.append(torch.stack([(image * maps[k]).flatten(1).max(1).values for k in REGIONS]))
        return torch.stack(rows)

    def fused(self, pooled):
        """The fused feature, and the features that the region heads act on."""
        if self.fusion.startswith("concat"):
            name, width = "branches.SFB.fusion.reductions", pooled.shape[2] // 8
            weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
            parts = []
            for k in REGIONS:
                rows = slice(k * width, (k + 1) * width)
                part = pooled[:, k] @ weight[rows, :, 0].T
                parts.append(part if bias is None else part + bias[rows])
            reduced = self.fusion == "concat-reduced"
            return torch.cat(parts, 1), torch.stack(parts, 1) if reduced else pooled
        name = "branches.SFB.fusion.cell"
        weights = [
            self.state[f"{name}.{kind}_l0"]
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        rows = []
        for image in pooled:
            h = c = torch.zeros_like(image[0])
            for k in REGIONS:
                if self.fusion == "gru":
                    h = gru_cell(image[k], h, *weights)
                else:
                    h, c = lstm_cell(image[k], h, c, *weights)
            rows.append(h)
        return torch.stack(rows), pooled

    def neck(self, name, feature):
        return self.batch_norm(f"{name}.neck", feature, shift=False)

    def classified(self, name, embedding):
        return self.conv1x1(f"{name}.classifier", embedding)

    def logits(self, name, feature):
        return self.classified(name, self.neck(name, feature))


def smoothed_cross_entropy(logits, pids, smoothing=0.1):
    total = 0
    for row, pid in zip(logits, pids.tolist(), strict=True):
        log_sum = torch.log(torch.exp(row).sum())
        for n in range(len(row)):
            share = smoothing / len(row) + (1 - smoothing) * (n == pid)
            total = total + share * (log_sum - row[n])
    return total / len(logits)


def criterion(output, pids, labels, margin=0.3, gamma=0.0):
    """The losses by name, and their total with the paper's weights (Eq. 4)."""
    losses = {}
    for name in ("G", "SAB", "SFB"):
        losses[f"cls_{name}"] = smoothed_cross_entropy(output["logits"][name], pids)
        gaps = farthest_minus_nearest(output["feature"][name], pids.tolist())
        losses[f"tri_{name}"] = sum((gap + margin).clamp(min=0) for gap in gaps) / len(gaps)
    total = sum(losses.values())
    losses["cls_regions"] = sum(smoothed_cross_entropy(x, pids) for x in output["region_logits"])
    cosines = [x for image in output["regions"] for x in cosine_of_pairs(image, 1e-6)]
    losses["sd"] = sum(cosines) / len(cosines)
    step = labels.shape[1] // output["mask_logits"].shape[2]
    centres = labels[:, step // 2 :: step, step // 2 :: step]
    of_region = pixel_entropies(output["mask_logits"], centres)
    losses["mask"] = sum(sum(x) / len(x) for x in of_region.values()) / len(of_region)
    total = total + 0.0125 * losses["cls_regions"] + gamma * losses["sd"] + 2 * losses["mask"]
    return losses, total
