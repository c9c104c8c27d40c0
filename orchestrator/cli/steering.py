"""The command steer: a model's answer as it is beside the one it gives when it is steered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.doing import Say, told_what_is_done
from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import JsonOption, StoreOption
from orchestrator.cli.printing import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.cli.steering_request import LatentChange, VectorRequest
    from sae.language_model import LanguageModel
    from sae.stream_spec import ModelSpec
    from steering.edits import AnyEdit
    from steering.generation.spec import GenerationSpec

BUILTINS = ("smollm2-135m",)

Operation = Literal["add", "add_preserving_norm", "project_out", "clamp"]
PositionName = Literal["all", "prompt", "generated", "last"]


@dataclass(frozen=True)
class _Asked:
    """What was asked for, checked as far as it can be without the model."""

    model: ModelSpec
    vectors: Sequence[VectorRequest]
    latents: Sequence[LatentChange]
    layer: int | None
    operation: Operation
    positions: PositionName
    other_model: bool
    sae_check: bool
    spec: GenerationSpec


Prompt = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="What to ask; - or nothing reads it from stdin."),
]
Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="smollm2-135m, a hub id, or a folder.")
]
Vectors = Annotated[
    list[str] | None,
    typer.Option("--vector", metavar="VECTORS", help="An artefact's id or a folder; repeatable."),
]
Strengths = Annotated[
    list[float] | None,
    typer.Option(
        "--strength",
        metavar="X",
        help="Fraction of the residual norm, once or for each vector; else what it suggests.",
    ),
]
Latents = Annotated[
    list[str] | None,
    typer.Option(
        "--latent",
        metavar="SAE:N=V",
        help="Set latent N of an SAE to V, =xF to scale it; repeatable.",
    ),
]
Layer = Annotated[
    int | None,
    typer.Option("--layer", min=0, help="Steer behind this block, not where they say."),
]
OperationOption = Annotated[
    Operation, typer.Option("--operation", help="What is done with vectors.")
]
PositionsOption = Annotated[
    PositionName, typer.Option("--positions", help="Which tokens are changed.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens of an answer.")]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of sampling, for both.")]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System message.")]
Chat = Annotated[
    bool, typer.Option("--chat/--no-chat", help="Use the chat template, or continue the text.")
]
OtherModel = Annotated[
    bool, typer.Option("--other-model", help="Allow vectors and SAEs made of another model.")
]

SaeCheck = Annotated[
    bool,
    typer.Option(
        "--sae-check/--no-sae-check",
        help="Refuse SAEs that do not explain the prompt, or only warn of them.",
    ),
]


def steer(
    prompt: Prompt = None,
    model: Model = "",
    vector: Vectors = None,
    strength: Strengths = None,
    latent: Latents = None,
    layer: Layer = None,
    operation: OperationOption = "add",
    positions: PositionsOption = "all",
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.7,
    seed: Seed = 0,
    system: System = None,
    chat: Chat = True,
    other_model: OtherModel = False,
    sae_check: SaeCheck = True,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A model's answer as it is beside the one it gives when it is steered.

    Both are sampled with the same seed. Vectors come from `job: steer` sweeps (`saeq artefacts
    --kind vectors`), SAEs from anywhere that sae_lens reads; SAE is an artefact, a folder, or
    RELEASE/ID.

        saeq steer --model smollm2-135m --vector steer-t0003 "What makes a good neighbour?"
        saeq steer --model smollm2-135m --vector steer-t0003 --strength 0.4 "How are you?"
        saeq steer --model smollm2-135m --latent demo-t0001:123=0 "Tell me about rivers."
        echo "What is time?" | saeq steer --model smollm2-135m --vector ./vectors --json
    """
    from orchestrator.cli.steering_request import check_asked, latent_change, vector_requests
    from orchestrator.store import Store
    from steering.generation.spec import GenerationSpec

    check_asked(vector, latent, strength, sae_check=sae_check)
    text = _prompt(prompt)
    opened = Store.open(store)
    spec = GenerationSpec(
        max_new_tokens=max_tokens, temperature=temperature, seed=seed, system=system, chat=chat
    )
    named = _model(model)
    vectors = vector_requests(opened, vector or [], strength or [])
    latents = [latent_change(opened, one) for one in latent or []]
    asked = _Asked(
        named, vectors, latents, layer, operation, positions, other_model, sae_check, spec
    )
    with told_what_is_done(f"reading {named.label}", wanted=not as_json) as say:
        found = _answers(asked, text, say)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _prompt(prompt: str | None) -> str:
    if prompt in (None, "-"):
        if sys.stdin.isatty():
            raise RequestError('no prompt; write it behind the options, as in "How are you?"')
        prompt = sys.stdin.read()
    assert prompt is not None
    if not prompt.strip():
        raise RequestError("the prompt is empty; give some text")
    return prompt.strip()


def _model(name: str) -> ModelSpec:
    from sae.stream_spec import ModelSpec

    if not name:
        raise RequestError(
            f"--model is missing: {', '.join(BUILTINS)}, a hub id, or a folder; the same that the "
            "vectors or the SAE were made of"
        )
    return ModelSpec(builtin="smollm2-135m") if name in BUILTINS else ModelSpec(name=name)


def _answers(asked: _Asked, prompt: str, say: Say) -> dict[str, Any]:
    """All that imports torch."""
    from sae.language_model import LanguageModel
    from steering.generation import generate
    from steering.measures import fluency

    with _quietly():
        lm = LanguageModel.load(asked.model, "auto")
        edits, labels = _edits(lm, asked, prompt, say)
        say("answering as it is")
        (plain,) = generate(lm, [prompt], asked.spec)
        say("answering steered")
        (steered,) = generate(lm, [prompt], asked.spec, edits=edits)
        say("measuring both answers")
        fluent = fluency(
            lm,
            [prompt, prompt],
            [plain, steered],
            chat=asked.spec.chat,
            system=asked.spec.system,
        )
    answers = {}
    for row, (name, one) in enumerate((("unsteered", plain), ("steered", steered))):
        means = fluent.take([row]).mean()
        answers[name] = {
            "text": one.text.strip(),
            "tokens": len(one.tokens),
            "ended": one.ended,
            "perplexity": means.perplexity if one.tokens else None,
            "repeated_3grams": means.repeated_3grams,
        }
    return {
        "prompt": prompt,
        "model": asked.model.label,
        "steering": labels,
        "generation": asked.spec.model_dump(mode="json"),
        **answers,
    }


def _edits(
    lm: LanguageModel, asked: _Asked, prompt: str, say: Say
) -> tuple[list[AnyEdit], list[str]]:
    edits: list[AnyEdit] = []
    labels = []
    for vector in asked.vectors:
        edit, label = _vector_edit(lm, asked, vector)
        edits.append(edit)
        labels.append(label)
    for latent in asked.latents:
        say(f"checking the SAE {latent.name}")
        edits.append(_latent_edit(lm, asked, latent, prompt))
        labels.append(latent.label)
    return edits, labels


def _vector_edit(lm: LanguageModel, asked: _Asked, request: VectorRequest) -> tuple[AnyEdit, str]:
    from steering.steerers import VectorSteerer
    from steering.vectors import load_vectors

    vectors = load_vectors(request.folder)
    hook = vectors.about.suggested_hook or vectors.hooks[0]
    if asked.layer is not None:
        hook = f"resid_post.{asked.layer}"
    vectors = vectors.only(hook)
    vectors.check_model(lm, other_weights=asked.other_model)
    steerer = VectorSteerer(vectors, hook, asked.operation, asked.positions)
    how = "" if asked.operation == "add" else f", {asked.operation}"
    return steerer.edit([request.strength]), (
        f"{request.name} at {hook}, strength {request.strength:g}{how}"
    )


def _latent_edit(lm: LanguageModel, asked: _Asked, latent: LatentChange, prompt: str) -> AnyEdit:
    from sae.trained_sae import load_sae
    from steering.edits import SaeLatents
    from steering.sae_check import check_model_name, check_sae

    sae = load_sae(latent.sae, lm.device, label=latent.name)
    check_model_name(
        sae, asked.model, other_model=asked.other_model, way_out="allow it with --other-model"
    )
    hook = None if asked.layer is None else f"resid_post.{asked.layer}"
    checked = check_sae(
        lm,
        sae,
        [prompt],
        asked.spec,
        hook=hook,
        refuse=asked.sae_check,
        way_out="steer all the same with --no-sae-check",
    )
    changes: Any = {latent.latent: (latent.change, latent.value)}
    return SaeLatents(checked.hook, checked.sae, changes, positions=asked.positions)


@contextmanager
def _quietly() -> Iterator[None]:
    from sae.model_files import quiet_transformers

    with quiet_transformers():
        yield


def _print(found: dict[str, Any]) -> None:
    """Columns side by side on a terminal; one below the other where lines do not end."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    steering = "; ".join(found["steering"])
    heads = {"unsteered": "unsteered", "steered": f"steered: {steering}"}
    if not console.is_terminal:
        for name, head in heads.items():
            sys.stdout.write(
                f"--- {head}\n{found[name]['text'] or '(empty)'}\n{_foot(found[name])}\n\n"
            )
        return
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), title_justify="left")
    for head in heads.values():
        table.add_column(Text(head, style="bold"), ratio=1, overflow="fold")
    table.add_row(*(Text(found[name]["text"] or "(empty)") for name in heads))
    table.add_row(*(Text(_foot(found[name]), style="dim") for name in heads))
    console.print(table)


def _foot(answer: dict[str, Any]) -> str:
    said = [f"{answer['tokens']} tokens" + ("" if answer["ended"] else ", cut")]
    if answer["perplexity"] is not None:
        said.append(f"perplexity {answer['perplexity']:.1f}")
    if answer["repeated_3grams"] > 0:
        said.append(f"{answer['repeated_3grams']:.0%} repeats")
    return f"({'; '.join(said)})"
