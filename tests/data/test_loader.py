"""The loader: each sample once, in an order that replicas and restarts do not change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medscale.base.errors import MedscaleError
from medscale.data.augment import normalize
from medscale.data.loader import Loader
from medscale.data.shards import Shards
from medscale.engine.plan import Augment

LARGEST = 70
Make = Callable[..., Path]


@pytest.fixture
def shards(make_shards: Make) -> Shards:
    return Shards.open(make_shards(train=37, val=11, test=9))


def test_a_restart_at_the_end_of_an_epoch_has_nothing_left(shards: Shards) -> None:
    for device in ("cpu", "cuda"):  # where nothing is left, nothing is read, and no GPU is needed
        loader = Loader(
            shards, "train", global_batch=8, replicas=1, replica=0, device=device, resident=False
        )
        assert list(loader.epoch(0, start=loader.steps())) == []


@pytest.fixture(scope="module")
def shards_of_size(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Shards]:
    """Return shard sets of up to LARGEST images: the first images of one large set."""
    import pandas as pd

    from medscale.data.shards import seal, write_chunk

    sets: dict[int, Shards] = {}

    def of(size: int) -> Shards:
        if size not in sets:
            folder = tmp_path_factory.mktemp(f"shards{size}")
            write_chunk(folder, 0, np.arange(size * 12, dtype=np.uint8).reshape(size, 2, 2, 3))
            ids = np.arange(size) * 3 + 5
            rows = pd.DataFrame(
                {"id": ids, "label": ids % 2, "split": "test", "group": ids.astype(str)}
            )
            seal(folder, rows, ["a", "b"], {"preprocess": {}})
            sets[size] = Shards.open(folder)
        return sets[size]

    return of


def ids(loader: Loader, epoch: int = 1, start: int = 0) -> list[list[int]]:
    """Sample ids of each step of one replica."""
    return [
        [int(i) for batch in step.batches for i in batch.ids] for step in loader.epoch(epoch, start)
    ]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(1, LARGEST),
    replicas=st.integers(1, 9),
    extra=st.integers(0, 30),
    accumulate=st.integers(1, 4),
    training=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_each_sample_once_for_any_size_and_world_size(
    shards_of_size: Callable[[int], Shards],
    size: int,
    replicas: int,
    extra: int,
    accumulate: int,
    training: bool,
    epoch: int,
) -> None:
    shards, batch = shards_of_size(size), replicas + extra
    loaders = [
        Loader(
            shards,
            "test",
            global_batch=batch,
            replicas=replicas,
            replica=r,
            accumulate=accumulate,
            training=training,
        )
        for r in range(replicas)
    ]
    steps = [list(loader.epoch(epoch)) for loader in loaders]
    sample_ids = [
        int(i) for rank_steps in steps for step in rank_steps for b in step.batches for i in b.ids
    ]
    assert sorted(sample_ids) == sorted(shards.ids)  # none twice, none left out, none padded
    for number, step in enumerate(zip(*steps, strict=True)):
        counts = [sum(len(b.ids) for b in rank_step.batches) for rank_step in step]
        assert sum(counts) == step[0].size <= batch
        assert min(counts) >= loaders[0].smallest_share
        assert max(counts) - min(counts) <= 1
        assert all(len(rank_step.batches) == accumulate for rank_step in step), number
    alone = ids(
        Loader(shards, "test", global_batch=batch, replicas=1, replica=0, training=training), epoch
    )
    together = [
        [i for rank_step in step for b in rank_step.batches for i in b.ids.tolist()]
        for step in zip(*steps, strict=True)
    ]
    assert together == alone


def test_labels_and_images_belong_to_their_ids(shards: Shards) -> None:
    loader = Loader(shards, "train", global_batch=10, replicas=2, replica=1, training=True, seed=4)
    for step in loader.epoch(3):
        for batch in step.batches:
            positions = batch.ids.numpy()  # ids of this set are positions
            assert batch.labels.tolist() == shards.labels[positions].tolist()
            pixels = torch.from_numpy(shards.gather(positions)).permute(0, 3, 1, 2).float() / 255
            torch.testing.assert_close(batch.images, normalize(pixels))


def test_an_epoch_goes_on_from_any_step(shards: Shards) -> None:
    loader = Loader(
        shards,
        "train",
        global_batch=5,
        replicas=1,
        replica=0,
        training=True,
        augment=Augment(rotate=20),
    )
    whole, rest = list(loader.epoch(2)), list(loader.epoch(2, start=3))
    assert len(whole) == loader.steps() == 8
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.batches[0].images, b.batches[0].images)


def test_epochs_and_seeds_differ_and_repeat(shards: Shards) -> None:
    def order(epoch: int, seed: int) -> list[list[int]]:
        return ids(
            Loader(
                shards, "train", global_batch=37, replicas=1, replica=0, training=True, seed=seed
            ),
            epoch,
        )

    assert order(1, 1) == order(1, 1)
    assert len({str(order(epoch, seed)) for epoch in (1, 2) for seed in (1, 2)}) == 4


def test_augmentation_is_the_samples_own(shards: Shards) -> None:
    """A sample looks the same whichever replica, batch or micro-batch it comes in."""
    augment = Augment(rotate=25, hflip=0.5, vflip=0.5, brightness=0.3, contrast=0.3, minority=1.5)

    def images(replicas: int, batch: int, accumulate: int) -> torch.Tensor:
        augmented = {}
        for replica in range(replicas):
            loader = Loader(
                shards, "train", global_batch=batch, replicas=replicas, replica=replica,
                accumulate=accumulate, training=True, augment=augment,
            )  # fmt: skip
            for step in loader.epoch(1):
                for b in step.batches:
                    augmented.update(zip(b.ids.tolist(), b.images, strict=True))
        return torch.stack([augmented[i] for i in sorted(augmented)])

    alone = images(1, 37, 1)
    for replicas, batch, accumulate in ((2, 20, 1), (4, 9, 2), (3, 37, 3)):
        torch.testing.assert_close(images(replicas, batch, accumulate), alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("augment", [None, Augment(hflip=0.5)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_resident_split_gives_the_same(
    shards: Shards, augment: Augment | None, channels_last: bool
) -> None:
    batches = [
        [
            b.images
            for s in _loader(shards, augment, channels_last, resident).epoch(1)
            for b in s.batches
        ]
        for resident in (False, True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert all(images.is_contiguous(memory_format=form) for images in batches[0])


def _loader(shards: Shards, augment: Augment | None, channels_last: bool, resident: bool) -> Loader:
    return Loader(
        shards, "train", global_batch=8, replicas=1, replica=0, training=True, augment=augment,
        channels_last=channels_last, resident=resident,
    )  # fmt: skip


def test_what_cannot_be_shared_is_reported(shards: Shards) -> None:
    with pytest.raises(MedscaleError, match="a global batch of 3 cannot be shared by 4 replicas"):
        Loader(shards, "train", global_batch=3, replicas=4, replica=0)


def test_an_empty_split_is_reported(make_shards: Make) -> None:
    shards = Shards.open(make_shards(train=8, val=0, test=2, seed=1))
    with pytest.raises(
        MedscaleError, match=r"the split 'val' has no images; change `split` in config.yaml"
    ):
        Loader(shards, "val", global_batch=4, replicas=1, replica=0)
