"""Wrong terms of a training step, one at a time, put into sae_lens's own while a block runs.

A comparison that tells the right step from each of these would tell a batched step with the same
fault from the right one; kernels in another language could not be patched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sae_lens.saes import jumprelu_sae, matryoshka_batchtopk_sae, topk_sae
from sae_lens.saes.batchtopk_sae import BatchTopK, BatchTopKTrainingSAE
from sae_lens.saes.gated_sae import GatedTrainingSAE
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE
from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAE
from sae_lens.saes.sae import SAE, TrainingSAE
from sae_lens.saes.standard_sae import StandardTrainingSAE
from sae_lens.saes.topk_sae import TopKTrainingSAE
from sae_lens.training.optim import CoefficientScheduler
from sae_lens.training.sae_trainer import SAETrainer

from tests.sae.batched.wrong_terms import (
    Apply,
    after_init,
    alive_latents,
    around,
    aux_loss,
    bandwidth,
    clip_each,
    config,
    constant_division,
    constant_norms,
    correct_bias_once,
    counts_pre_activations,
    dead_at,
    detached_bias,
    detached_decoder,
    fewer_aux_latents,
    groups,
    half_error,
    inner_levels_lost,
    int_k_per_token,
    late,
    late_coefficient,
    mse,
    no_threshold_factor,
    part_times,
    start_adam_late,
    static,
    ste_flipped,
    swap_betas,
    times,
    uncentred,
    unclamped,
    without_norms,
)


@dataclass(frozen=True)
class Mutation:
    """One wrong term."""

    case: str
    """Where it must show; at least one member of the case differs."""
    apply: Apply


_TOP = "topk-mixed"
_CLIP = (torch.nn.utils, "clip_grad_norm_")
_MATRYOSHKA = MatryoshkaBatchTopKTrainingSAE

MUTATIONS: dict[str, Mutation] = {
    "auxiliary loss dropped": Mutation(
        "topk", times(TopKTrainingSAE, "calculate_topk_aux_loss", 0.0)
    ),
    "auxiliary loss not scaled by the dead": Mutation("topk", aux_loss(scaled=False)),
    "auxiliary latents through a ReLU": Mutation("topk", aux_loss(relu=True)),
    "residual not detached": Mutation("topk", aux_loss(detached=False)),
    "auxiliary decode with the bias": Mutation("topk", aux_loss(biased=True)),
    "an auxiliary latent too few": Mutation(
        "topk", around(topk_sae, "calculate_topk_aux_acts", fewer_aux_latents)
    ),
    "auxiliary loss of live latents": Mutation(
        "topk", around(topk_sae, "calculate_topk_aux_acts", alive_latents)
    ),
    "auxiliary coefficient ignored": Mutation(
        "topk", config("aux_loss_coefficient", lambda _: 1.0)
    ),
    "dead a step too early": Mutation("topk", dead_at(torch.ge)),
    "dead a step too late": Mutation("topk", dead_at(lambda counts, window: counts > window + 1)),
    "nobody is dead": Mutation(
        "jumprelu-mixed", dead_at(lambda counts, _: torch.zeros_like(counts).bool())
    ),
    "firing counted by pre-activations": Mutation(
        "topk", around(TrainingSAE, "training_forward_pass", counts_pre_activations)
    ),
    "gradients not clipped": Mutation(_TOP, around(*_CLIP, lambda *_: None)),
    "gradients clipped at two": Mutation(
        _TOP, around(*_CLIP, lambda original, parameters, _: original(parameters, 2.0))
    ),
    "gradients clipped tensor by tensor": Mutation(_TOP, around(*_CLIP, clip_each)),
    "betas swapped": Mutation("topk", groups(swap_betas)),
    "epsilon of 1e-6": Mutation("topk", groups(lambda group: group.update(eps=1e-6))),
    "weight decay": Mutation("topk", groups(lambda group: group.update(weight_decay=1e-4))),
    "bias correction a step late": Mutation("topk", after_init(start_adam_late)),
    "bias correction by another's steps": Mutation(
        "topk", around(SAETrainer, "step", correct_bias_once)
    ),
    "learning rate a step late": Mutation("topk", late("lr_scheduler")),
    "coefficient a step late": Mutation(
        "standard", around(CoefficientScheduler, "step", late_coefficient)
    ),
    "coefficient without warm-up": Mutation(
        "standard",
        lambda patch: patch.setattr(
            CoefficientScheduler, "value", property(lambda scheduler: scheduler.final_value)
        ),
    ),
    "decoder norm left out of the ranking": Mutation(
        "topk", config("rescale_acts_by_decoder_norm", lambda _: False)
    ),
    "no gradient through the decoder norm": Mutation(
        "topk", around(topk_sae, "act_times_W_dec", constant_division)
    ),
    "half the squared error": Mutation("standard", mse(half_error)),
    "input not centred": Mutation("topk", around(SAE, "process_sae_in", uncentred)),
    "no bias gradient through the input": Mutation(
        "topk", around(SAE, "process_sae_in", detached_bias)
    ),
    "k a token": Mutation("batchtopk", around(BatchTopK, "forward", int_k_per_token)),
    "threshold not followed": Mutation(
        "batchtopk", around(BatchTopKTrainingSAE, "update_topk_threshold", lambda *_: None)
    ),
    "threshold followed at another rate": Mutation(
        "batchtopk", config("topk_threshold_lr", lambda lr: 1.01 * lr)
    ),
    "an inner level lost": Mutation(
        "matryoshka", around(_MATRYOSHKA, "_iterable_decode", inner_levels_lost)
    ),
    "levels' auxiliary losses weighted": Mutation(
        "matryoshka-aux-by-level", times(_MATRYOSHKA, "calculate_matryoshka_aux_loss", 1.01)
    ),
    "a level's auxiliary latent too few": Mutation(
        "matryoshka-aux-by-level",
        around(matryoshka_batchtopk_sae, "calculate_topk_aux_acts", fewer_aux_latents),
    ),
    "auxiliary loss of the whole instead of levels": Mutation(
        "matryoshka-aux-by-level", config("use_matryoshka_aux_loss", lambda _: False)
    ),
    "sparsity price dropped": Mutation("standard", part_times(StandardTrainingSAE, "l1_loss", 0.0)),
    "decoder norm left out of the price": Mutation("standard", without_norms(StandardTrainingSAE)),
    "no gradient of the price to the decoder": Mutation(
        "standard", around(StandardTrainingSAE, "calculate_aux_loss", constant_norms)
    ),
    "another p-norm": Mutation("standard-l2", config("lp_norm", lambda _: 1.0)),
    "firing price dropped": Mutation("jumprelu", part_times(JumpReLUTrainingSAE, "l0_loss", 0.0)),
    "tanh price dropped": Mutation(
        "jumprelu-tanh", part_times(JumpReLUTrainingSAE, "l0_loss", 0.0)
    ),
    "tanh of another scale": Mutation("jumprelu-tanh", config("jumprelu_tanh_scale", lambda _: 5)),
    "decoder norm left out of the tanh": Mutation(
        "jumprelu-tanh", without_norms(JumpReLUTrainingSAE)
    ),
    "another target L0": Mutation("jumprelu-quadratic", config("target_l0", lambda _: 7.0)),
    "another bandwidth": Mutation("jumprelu", after_init(bandwidth)),
    "threshold gradient without its factor": Mutation(
        "jumprelu", static(jumprelu_sae.JumpReLU, "backward", no_threshold_factor)
    ),
    "estimator of the activation to the input": Mutation(
        "jumprelu", ste_flipped(jumprelu_sae.JumpReLU)
    ),
    "estimator of the step to the input": Mutation("jumprelu", ste_flipped(jumprelu_sae.Step)),
    "threshold not kept positive": Mutation(
        "jumprelu", around(JumpReLUTrainingSAE, "training_forward_pass", unclamped)
    ),
    "pre-activation price dropped": Mutation(
        "jumprelu-mixed",
        lambda patch: patch.setattr(
            jumprelu_sae, "calculate_pre_act_loss", lambda *_: torch.zeros(())
        ),
    ),
    "gate price dropped": Mutation("gated", part_times(GatedTrainingSAE, "l1_loss", 0.0)),
    "decoder norm left out of the gate price": Mutation("gated", without_norms(GatedTrainingSAE)),
    "gate reconstruction dropped": Mutation(
        "gated", part_times(GatedTrainingSAE, "auxiliary_reconstruction_loss", 0.0)
    ),
    "gate reconstruction by a frozen decoder": Mutation(
        "gated", around(GatedTrainingSAE, "calculate_aux_loss", detached_decoder)
    ),
}
