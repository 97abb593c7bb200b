"""DSA-reID's losses (section 3.2.4) and their weights (section 4.2)."""

from collections.abc import Mapping

from torch import Tensor, nn

from magnifier_plugin.losses.classification import accuracy, identity_loss
from magnifier_plugin.losses.functional import batch_hard_triplet
from magnifier_plugin.losses.gathering import Gathering
from magnifier_plugin.losses.terms import CriterionOutput, Term, override_weights
from magnifier_plugin.models.dsa import DSAOutput


class DSACriterion(nn.Module):
    """Identity losses on f and z, batch-hard triplet losses on z.

    Its terms are `cls_f_G`, `cls_f_L` (the sum over the 8 parts), `cls_z_G`, `cls_z_L`, `tri_z_G`
    and `tri_z_L`; `weights` holds their default weights. Terms of branches or streams that are not
    built are left out.

    Args:
        weight_f: weight of the identity losses on f_G and on each f_L,i.
        weight_z: weight of the identity losses on z_G and z_L.
        weight_t: weight of the triplet losses on z_G and z_L.
        label_smoothing: 0 for none; the paper gives no value.
        margin: margin of the triplet loss.
        gathering: access to the batch of all processes; None for one process.
    """

    def __init__(
        self,
        *,
        weight_f: float = 0.5,
        weight_z: float = 1.0,
        weight_t: float = 1.5,
        label_smoothing: float = 0.1,
        margin: float = 0.3,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__()
        by_kind = {"cls_f": weight_f, "cls_z": weight_z, "tri_z": weight_t}
        self.weights: dict[str, float] = {
            f"{kind}_{branch}": weight for kind, weight in by_kind.items() for branch in "GL"
        }
        self.label_smoothing, self.margin = label_smoothing, margin
        self.gathering = gathering or Gathering()

    def forward(
        self,
        outputs: DSAOutput,
        pids: Tensor,
        targets: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> CriterionOutput:
        """Compute the batch's terms, and the metric `acc`.

        Args:
            outputs: the outputs of a `DSAReID` in training.
            pids: integer [B].
            targets: not used; DSA-reID's textures are inputs, not targets.
            weights: weights by term, which override the defaults; 0 leaves a term out.
        Returns:
            The terms of the branches and streams that are built, and `acc`: the accuracy in % of
            the first classifier that exists: f_G's, z_G's or z_L's.
        Raises:
            ValueError: `weights` has an unknown term.
        """
        terms, rows = {}, self.gathering.rows
        for name, weight in override_weights(self.weights, weights).items():
            kind, feature, branch = name.split("_")
            built = outputs.f_logits if feature == "f" else outputs.z_logits
            if weight == 0 or branch not in built:
                continue
            if kind == "cls":
                loss = self._identity_loss(built[branch], pids)
            else:
                loss = batch_hard_triplet(rows(outputs.z[branch]), rows(pids), self.margin)
            terms[name] = Term(loss, weight)
        whole = [outputs.f_logits.get("G"), *outputs.z_logits.values()]
        logits = next(x for x in whole if x is not None)
        return CriterionOutput(terms, {"acc": accuracy(logits, pids)})

    def _identity_loss(self, logits: Tensor, pids: Tensor) -> Tensor:
        """The identity loss of logits [B, N]; for logits [B, P, N] the sum over the P parts."""
        parts = logits.shape[1] if logits.ndim == 3 else 1
        mean = identity_loss(
            logits.reshape(-1, logits.shape[-1]),
            pids.repeat_interleave(parts),
            self.label_smoothing,
        )
        return parts * mean
