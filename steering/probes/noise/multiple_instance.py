"""Multiple-instance probes: tokens are scored, items are labelled. A torch module.

max: an item's log odds are its best token's (Andrews et al. 2003, MI-SVM's bag score). attention:
a weighted sum of the tokens' log odds, with weights that are learned (Ilse et al. 2018, eq. 8, with
a linear attention). Weight decay and the number of epochs are chosen on validation items.
Shape suffixes: T = tokens of a batch, D = columns, I = items of a batch, L = labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from steering.errors import BadSteeringInput
from steering.probes.imbalance import ImbalanceMode, ImbalanceSpec, positive_weight
from steering.probes.matrices import Array, Bags, Scaling
from steering.probes.method import unlearnable
from steering.probes.noise.scaled_rows import Rows, scaled_rows, times_weight
from steering.probes.noise.token_bags import TokenBags
from steering.probes.parts import macro_auroc
from steering.probes.scorers import BagLinear, BagPooling

__all__ = ["FittedBagProbe", "MultipleInstanceSpec", "fit_bags", "trained_nets"]

Progress = Callable[[int, int, float], None]
"""Epochs done over all settings, epochs at most, macro AUROC of the validation items."""


class MultipleInstanceSpec(BaseModel):
    """How items are read off their tokens, and how long it is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    pooling: BagPooling = "max"
    """max: the best token decides; attention: learned weights over the item's tokens."""
    weight_decay: tuple[float, ...] = Field(default=(1e-1, 1e-2, 1e-4), min_length=1)
    """Of AdamW, to choose from on validation items."""
    learning_rate: float = Field(default=1e-2, gt=0)
    epochs: int = Field(default=60, gt=0)
    """Most passes over the items for each weight decay."""
    patience: int = Field(default=15, gt=0)
    """Passes without a better validation AUROC until training ends."""
    items_per_step: int = Field(default=32, gt=0)
    standardize: bool = True
    """Columns by mean and spread of the training tokens; sparse ones by their spread alone."""


class _BagNet(nn.Module):
    """Linear token scores, pooled."""

    def __init__(self, width: int, labels: int, *, attention: bool) -> None:
        super().__init__()
        self.score = nn.Linear(width, labels)
        nn.init.normal_(self.score.weight, std=1e-2)
        nn.init.zeros_(self.score.bias)
        self.attend = nn.Linear(width, labels, bias=False) if attention else None
        if self.attend is not None:
            nn.init.normal_(self.attend.weight, std=1e-2)

    def token_scores(self, value_TD: Rows) -> Tensor:
        """Log odds of tokens, [T, L]."""
        return times_weight(value_TD, self.score.weight.T) + self.score.bias

    def forward(self, value_TD: Rows, item_T: Tensor, items: int) -> Tensor:
        """Log odds of items, [I, L]."""
        score_TL = self.token_scores(value_TD)
        index_TL = item_T[:, None].expand_as(score_TL)
        low_IL = score_TL.new_full((items, score_TL.shape[1]), -torch.inf)
        if self.attend is None:
            return low_IL.scatter_reduce(0, index_TL, score_TL, "amax")
        weight_TL = times_weight(value_TD, self.attend.weight.T)
        top_IL = low_IL.scatter_reduce(0, index_TL, weight_TL.detach(), "amax")
        power_TL = (weight_TL - top_IL[item_T]).exp()
        zero_IL = torch.zeros_like(low_IL)
        total_IL = zero_IL.scatter_add(0, index_TL, power_TL)
        return zero_IL.scatter_add(0, index_TL, power_TL * score_TL) / total_IL

    def scorer(self, scaling: Scaling) -> BagLinear:
        """The first label's, over raw columns."""
        weight_D, bias = (
            t.detach().double().numpy() for t in (self.score.weight[0], self.score.bias)
        )
        attend_D = None
        if self.attend is not None:
            attend_D = self.attend.weight[0].detach().double().numpy() / scaling.scale_D
        return BagLinear(*scaling.unscaled(weight_D, float(bias[0])), attend_D)


@dataclass(frozen=True)
class FittedBagProbe:
    """Scores items and tokens."""

    spec: MultipleInstanceSpec
    scaling: Scaling
    net: _BagNet
    chosen: dict[str, float | int]
    """`weight_decay` and `epochs`."""
    validation_auroc: float
    tried: tuple[tuple[dict[str, float | int], float], ...]
    """Each weight decay with its best epoch's validation AUROC."""

    def scores(self, bags: TokenBags) -> Array:
        """Log odds of items, float64 [I, L]."""
        return _item_scores(self.net, self.scaling, bags)

    def token_scores(self, bags: TokenBags) -> Array:
        """Log odds of each token alone, float64 [T, L]; attention is not in them."""
        out = []
        with torch.no_grad():
            for numbers in bags.batches():
                value_TD, _ = _tensors(bags, numbers, self.scaling)
                out.append(self.net.token_scores(value_TD).double().numpy())
        return np.concatenate(out)

    def weights(self) -> Array:
        """Token score weights of the raw columns, [L, D]."""
        weight_LD = self.net.score.weight.detach().double().numpy()
        return np.asarray(weight_LD / self.scaling.scale_D)


def fit_bags(
    train: TokenBags,
    validation: TokenBags,
    spec: MultipleInstanceSpec,
    *,
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    seed: int = 0,
    on_epoch: Progress | None = None,
) -> FittedBagProbe:
    """Train on the labels of items; weight decay and epochs by the validation items' AUROC.

    Raises:
        BadSteeringInput: other widths, or a label with one class only.
    """
    _check(train, validation)
    scaling = Scaling.of(train.values_TD, standardize=spec.standardize)
    weight_L = _positive_weights(train.y_IL, imbalance)
    best: tuple[float, _BagNet, dict[str, float | int]] | None = None
    tried = []
    for number, weight_decay in enumerate(sorted(spec.weight_decay, reverse=True)):
        done = number * spec.epochs
        net, value, epoch = _train(
            train, validation, scaling, spec, weight_decay, weight_L, seed,
            None if on_epoch is None else _counted(on_epoch, done, spec),
        )  # fmt: skip
        setting: dict[str, float | int] = {"weight_decay": weight_decay, "epochs": epoch}
        tried.append((setting, value))
        if best is None or value > best[0]:
            best = (value, net, setting)
    assert best is not None, "a grid has at least one setting"
    return FittedBagProbe(spec, scaling, best[1], best[2], best[0], tuple(tried))


def _counted(on_epoch: Progress, done: int, spec: MultipleInstanceSpec) -> Progress:
    whole = spec.epochs * len(spec.weight_decay)
    return lambda epoch, _, value: on_epoch(done + epoch, whole, value)


def _train(
    train: TokenBags,
    validation: TokenBags,
    scaling: Scaling,
    spec: MultipleInstanceSpec,
    weight_decay: float,
    weight_L: Tensor,
    seed: int,
    on_epoch: Progress | None,
) -> tuple[_BagNet, float, int]:
    """The net of the best epoch, its validation AUROC, that epoch."""
    y_IL = torch.from_numpy(train.y_IL.astype(np.float32))
    weight_IL = torch.where(y_IL > 0, weight_L, torch.ones(()))
    best: tuple[_BagNet, float, int] | None = None
    nets = trained_nets(train, y_IL, weight_IL, scaling, spec, weight_decay, seed)
    for epoch, net in enumerate(islice(nets, spec.epochs), start=1):
        value = macro_auroc(_item_scores(net, scaling, validation), validation.y_IL)
        if on_epoch is not None:
            on_epoch(epoch, spec.epochs, value)
        if best is None or value > best[1]:
            best = (copy.deepcopy(net), value, epoch)
        elif epoch - best[2] >= spec.patience:
            break
    assert best is not None, "there is at least one epoch"
    return best


def trained_nets(
    bags: Bags,
    y_IL: Tensor,
    weight_IL: Tensor,
    scaling: Scaling,
    spec: MultipleInstanceSpec,
    weight_decay: float,
    seed: int,
) -> Iterator[_BagNet]:
    """The net after each epoch, without end. It is one net: what is kept has to be copied.

    Args:
        y_IL: labels of the bags, float32.
        weight_IL: of each bag's loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _BagNet(bags.shape[1], y_IL.shape[1], attention=spec.pooling == "attention")
    _turn(net.score, _mean_difference(bags, y_IL, scaling))
    optimizer = torch.optim.AdamW(net.parameters(), spec.learning_rate, weight_decay=weight_decay)
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(bags))
        for start in range(0, len(order), spec.items_per_step):
            chosen = order[start : start + spec.items_per_step]
            _step(net, optimizer, bags, y_IL, weight_IL, chosen, scaling)
        yield net


def _mean_difference(bags: Bags, y_IL: Tensor, scaling: Scaling) -> Tensor:
    """Mean of the positive bags' means less that of the others', scaled, float32 [L, D]."""
    positive_L = y_IL.sum(dim=0).clamp(min=1)
    negative_L = (len(bags) - y_IL.sum(dim=0)).clamp(min=1)
    part_IL = (y_IL / positive_L - (1 - y_IL) / negative_L).numpy()
    part_IL /= np.diff(bags.offsets_I1)[:, None]
    out_LD = np.zeros((y_IL.shape[1], bags.shape[1]))
    for numbers in bags.batches():
        rows, _ = bags.token_rows(numbers)
        part_TL = part_IL[bags.item_of_token_T[rows]]
        out_LD += np.asarray((bags.values_TD[rows].T @ part_TL).T)
    return torch.from_numpy((out_LD / scaling.scale_D).astype(np.float32))


def _turn(layer: nn.Linear, way_LD: Tensor) -> None:
    """Point the weights along directions and keep their lengths.

    The best token is no convex criterion: of trainings begun at random some ended with their backs
    to the label. Andrews et al. 2003 begin with the bags' means, too.
    """
    with torch.no_grad():
        length_L = way_LD.norm(dim=1, keepdim=True)
        turned_LD = way_LD * layer.weight.norm(dim=1, keepdim=True) / length_L.clamp(min=1e-12)
        layer.weight.copy_(torch.where(length_L > 0, turned_LD, layer.weight))


def _step(
    net: _BagNet,
    optimizer: torch.optim.Optimizer,
    bags: Bags,
    y_IL: Tensor,
    weight_IL: Tensor,
    numbers: Array,
    scaling: Scaling,
) -> None:
    """One step over these items; pieces of them at a time where their tokens are many."""
    optimizer.zero_grad()
    for piece in bags.batches(numbers):
        value_TD, item_T = _tensors(bags, piece, scaling)
        logit_IL = net(value_TD, item_T, len(piece))
        loss = F.binary_cross_entropy_with_logits(
            logit_IL, y_IL[piece], weight=weight_IL[piece], reduction="sum"
        )
        (loss / (len(numbers) * y_IL.shape[1])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _tensors(bags: Bags, numbers: Array, scaling: Scaling) -> tuple[Rows, Tensor]:
    """Scaled values of these items' tokens, [T, D], and the place of each token's item, [T]."""
    own = bags[numbers]
    return scaled_rows(own.values_TD, scaling), torch.from_numpy(own.item_of_token_T)


def _item_scores(net: _BagNet, scaling: Scaling, bags: TokenBags) -> Array:
    with torch.no_grad():
        pieces = [
            net(*_tensors(bags, numbers, scaling), len(numbers)).double().numpy()
            for numbers in bags.batches()
        ]
    return np.concatenate(pieces)


def _positive_weights(y_IL: Array, imbalance: ImbalanceSpec | ImbalanceMode) -> Tensor:
    """Of each label; oversampling is its weight in expectation."""
    spec = imbalance if isinstance(imbalance, ImbalanceSpec) else ImbalanceSpec(mode=imbalance)
    weights = [positive_weight(int(y.sum()), int((~y).sum()), spec) for y in y_IL.T]
    return torch.tensor(weights, dtype=torch.float32)


def _check(train: TokenBags, validation: TokenBags) -> None:
    if train.values_TD.shape[1] != validation.values_TD.shape[1]:
        raise BadSteeringInput(
            f"training tokens have {train.values_TD.shape[1]} columns, validation tokens "
            f"{validation.values_TD.shape[1]}; both must come from the same features"
        )
    names = [f"label {number}" for number in range(train.y_IL.shape[1])]
    for where, bags in (("training", train), ("validation", validation)):
        if single := unlearnable(bags.y_IL, names):
            raise BadSteeringInput(
                f"{', '.join(single)}: only one class among the {len(bags)} {where} items; drop "
                "the label or gather more data"
            )
