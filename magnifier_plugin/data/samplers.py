"""torchreid's samplers, made reproducible, exact in length, and shareable by processes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import torchreid
from torch.utils.data import DataLoader, Sampler

from magnifier_plugin.data.seeding import SampleKey, all_seeded, mixed_seed

IDENTITY_SAMPLER = "RandomIdentitySampler"
# Seeds the sampler's construction; epochs are numbered from 0.
_CONSTRUCTION = -1


class SeededSampler(Sampler[SampleKey]):
    """Wraps a sampler so that each epoch's list depends only on (seed, epoch).

    It yields keys instead of indices, with which the data set augments each sample: an epoch has
    the same batches whatever ran before and with any number of workers. Only whole batches are
    yielded, so the length is exact (torchreid's identity sampler reports more than it yields). With
    several processes, each gets a contiguous slice of every batch.

    `set_epoch` chooses the epoch. Iterating again without it moves on to the next epoch, so that
    loops that do not call it, such as torchreid's, do not repeat an epoch.

    Args:
        base: draws indices, from the global generators of Python, numpy or torch.
        seed: the run's seed.
        batch_size: total over all processes.
        num_replicas: number of processes that share a batch.
        rank: number of this process, from 0.
    Raises:
        ValueError: the batch cannot be shared equally, or the rank is out of range.
    """

    def __init__(
        self,
        base: Iterable[int],
        seed: int,
        *,
        batch_size: int,
        num_replicas: int = 1,
        rank: int = 0,
    ):
        if batch_size % num_replicas or not 0 <= rank < num_replicas:
            raise ValueError(
                f"a batch of {batch_size} (train.batch_size) for {num_replicas} processes, rank "
                f"{rank}: expected a multiple of the number of processes, and a rank below it"
            )
        self.base, self.seed, self.batch_size = base, seed, batch_size
        self.num_replicas, self.rank = num_replicas, rank
        self.epoch = 0
        self._first_batch = 0
        self._begun = False
        self._drawn: tuple[int, list[SampleKey]] | None = None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch, and its first batch, of the next iteration; both count from 0.

        `len` stays that of a whole epoch.
        """
        self.epoch, self._first_batch, self._begun = epoch, first_batch, False

    def __iter__(self) -> Iterator[SampleKey]:
        if self._begun:
            self.epoch += 1
            self._first_batch = 0
        self._begun = True
        return iter(self._share()[self._first_batch * self.batch_size // self.num_replicas :])

    def __len__(self) -> int:
        return len(self._share())

    def order(self) -> str:
        """A digest of the epoch's sample keys of all processes, and of the batch size."""
        text = repr([self.batch_size, *self._keys()])
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def _share(self) -> list[SampleKey]:
        """This process's share of the epoch."""
        keys = self._keys()
        size = self.batch_size // self.num_replicas
        starts = range(self.rank * size, len(keys), self.batch_size)
        return list(chain.from_iterable(keys[start : start + size] for start in starts))

    def _keys(self) -> list[SampleKey]:
        """The epoch's keys of all processes, in whole batches; drawn once per epoch."""
        if self._drawn is None or self._drawn[0] != self.epoch:
            with all_seeded(mixed_seed(self.seed, self.epoch)):
                indices = [int(index) for index in self.base]
            seen: Counter[int] = Counter()
            keys = []
            for index in indices[: len(indices) // self.batch_size * self.batch_size]:
                keys.append(SampleKey(index, self.seed, self.epoch, nth=seen[index]))
                seen[index] += 1
            self._drawn = self.epoch, keys
        return self._drawn[1]


def order_of_epoch(loader: DataLoader[Any]) -> str:
    """A text that identifies a loader's batches in the current epoch.

    For loaders that draw from global generators it is only the number of batches.
    """
    sampler = loader.sampler
    return sampler.order() if isinstance(sampler, SeededSampler) else f"{len(loader)} batches"


def build_sampler(
    train: Sequence[tuple],
    name: str,
    *,
    seed: int,
    batch_size: int,
    num_instances: int = 4,
    num_cams: int = 1,
    num_datasets: int = 1,
    num_replicas: int = 1,
    rank: int = 0,
) -> SeededSampler:
    """One of torchreid's training samplers, seeded.

    Args:
        train: torchreid's list of (path, identity, camera, number of the data set).
        name: torchreid's name of the sampler.
        seed: the run's seed.
        batch_size: total over all processes.
        num_instances: images per identity in a batch (RandomIdentitySampler).
        num_cams: cameras in a batch (RandomDomainSampler); 0 for all.
        num_datasets: data sets in a batch (RandomDatasetSampler); 0 for all.
        num_replicas: number of processes that share a batch; with RandomIdentitySampler each gets
            all images of its identities.
        rank: number of this process, from 0.
    Raises:
        ValueError: the name is unknown, batch_size or num_instances is below 1, or the data cannot
            fill a batch.
    """
    _check_positive(batch_size=batch_size, num_instances=num_instances)
    if name == IDENTITY_SAMPLER:
        _check_identities(train, batch_size, num_instances, num_replicas)
    base = _torchreids(
        train,
        name,
        seed,
        batch_size=batch_size,
        num_instances=num_instances,
        num_cams=num_cams,
        num_datasets=num_datasets,
    )
    return SeededSampler(base, seed, batch_size=batch_size, num_replicas=num_replicas, rank=rank)


def _torchreids(
    train: Sequence[tuple], name: str, seed: int, *, batch_size: int, **options: int
) -> Iterable[int]:
    """torchreid's sampler by name, with its bare assertions turned into helpful errors."""
    known = torchreid.data.sampler.AVAI_SAMPLERS
    if name not in known:
        raise ValueError(f"train_sampler: unknown {name!r}, expected one of {', '.join(known)}")
    if len(train) < batch_size and name != IDENTITY_SAMPLER:
        raise ValueError(
            f"{len(train)} training images do not fill a batch of {batch_size}; lower "
            "batch_size_train (train.batch_size)"
        )
    try:
        with all_seeded(mixed_seed(seed, _CONSTRUCTION)):
            return torchreid.data.sampler.build_train_sampler(
                train, name, batch_size=batch_size, **options
            )
    except (AssertionError, ValueError) as error:
        cameras, sources = _sizes(train, 2), _sizes(train, 3)
        raise ValueError(
            f"{name} cannot fill a batch of {batch_size} evenly with "
            f"num_cams={options['num_cams']}, num_datasets={options['num_datasets']}: found "
            f"{len(cameras)} cameras with at least {min(cameras)} images, {len(sources)} data sets "
            f"with at least {min(sources)} images"
        ) from error


def _sizes(train: Sequence[tuple], column: int) -> list[int]:
    return list(Counter(record[column] for record in train).values())


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")


def _check_identities(
    train: Sequence[tuple], batch_size: int, num_instances: int, num_replicas: int
) -> None:
    """Reject batches that the identity sampler cannot fill or that contain no triplet."""
    batch = f"batch_size_train={batch_size}, num_instances={num_instances}"
    wanted, rest = divmod(batch_size, num_instances)
    if rest or wanted % num_replicas:
        raise ValueError(
            f"{batch}: expected batches of whole identities, a multiple of num_instances"
            + (f" for each of {num_replicas} processes" if num_replicas > 1 else "")
            + "; change train.batch_size or sampler.num_instances"
        )
    found = len({pid for _, pid, *_ in train})
    if found < 2 or wanted < 2:
        raise ValueError(
            f"{batch}: {found} identities found, {wanted} per batch; a triplet needs two, the "
            "anchor's and another one"
        )
    if wanted > found:
        largest = found // num_replicas * num_replicas * num_instances
        limit = f" to at most {largest}" if largest else ""
        raise ValueError(
            f"{batch}: a batch has {wanted} identities, but the training set has {found}; lower "
            f"batch_size_train (train.batch_size){limit} or raise num_instances "
            "(sampler.num_instances)"
        )
