"""Train ``tiny-reg`` on ``shapes``: ``python -m cachetool.embedded.train_tiny_reg --output DIR``.

The state is saved regularly and atomically; the same command continues from it, and may then change any option: the
total of steps, the length of the decay, the patches kept, the start of the supervision. Every step draws its images and
views from a generator keyed by the seed and the step, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from cachetool.embedded.architecture import IMAGE_SIZE, PATCH_SIZE
from cachetool.embedded.augment import random_geometry, recolour, to_float, warp
from cachetool.embedded.probe_tiny_reg import quick_probe
from cachetool.embedded.rendered import Rendered, render
from cachetool.embedded.self_distillation import CLASSES, PROTOTYPES, Network, Views, encode, follow, losses, teacher_of

PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2


def parse() -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the checkpoint and the exported weights")
    add("--cache", type=Path, help="folder that keeps the drawn scenes between runs")
    add("--scenes", type=int, default=30_000, help="training scenes")
    add("--probe-scenes", type=int, default=3_000, help="held-out scenes that the quick probe is fitted and scored on")
    add("--seed", type=int, default=0)
    add("--batch", type=int, default=64, help="images a step")
    add("--steps", type=int, default=8_000, help="steps in all, those before a resumption included")
    add("--warm-up", type=int, default=300, help="steps over which the learning rate rises")
    add("--decay", type=int, default=2_500, help="last steps, over which the learning rate falls to zero")
    add("--minutes", type=float, default=float("inf"), help="end after this time in all, even before the last step")
    add(
        "--decay-minutes", type=float, default=18.0, help="last minutes of --minutes, over which the rate falls to zero"
    )
    add("--learning-rate", type=float, default=1e-3)
    add("--weight-decay", type=float, default=0.05)
    add("--keep", type=int, default=PATCHES // 2, help="patches that the student sees")
    add("--geometry", type=float, default=1.0, help="strength of the random zoom, shift and rotation")
    add("--distillation", type=float, default=1.0, help="weight of the two self-distillation losses")
    add("--supervise-from", type=int, default=1_800, help="step from which labels and masks are used as well")
    add("--threads", type=int, default=2)
    add("--save-every", type=int, default=200, help="steps between two checkpoints")
    add("--probe-every", type=int, default=500, help="steps between two quick probes")
    add("--compile", action=argparse.BooleanOptionalAction, default=True, help="needs a C++ compiler; a fifth faster")
    return parser.parse_args()


def learning_rate(options: argparse.Namespace, step: int, minutes: float) -> float:
    """Warm-up, plateau, linear decay by steps or by time: the plateau lets the end be decided late."""
    rise = (step + 1) / options.warm_up
    fall = min((options.steps - step) / options.decay, (options.minutes - minutes) / options.decay_minutes)
    return float(options.learning_rate * max(0.0, min(1.0, rise, fall)))


def draw_views(scenes: Rendered, options: argparse.Namespace, step: int) -> Views:
    """Draw the batch of one step: two views of random scenes, half of them with the same geometry."""
    random = torch.Generator().manual_seed(options.seed * 1_000_000_007 + step)
    chosen = torch.randint(len(scenes.images), (options.batch,), generator=random).numpy()
    images = to_float(torch.from_numpy(scenes.images[chosen]))
    shared = options.batch // 2
    geometry = random_geometry(options.batch, random, options.geometry)
    other = torch.cat([geometry[:shared], random_geometry(options.batch - shared, random, options.geometry)])
    masks = warp(torch.from_numpy(scenes.masks[chosen])[:, None].to(torch.float32), geometry, mode="nearest")
    return Views(
        student=recolour(warp(images, geometry), random),
        teacher=recolour(warp(images, other), random),
        kept=torch.rand(options.batch, PATCHES, generator=random).argsort(1)[:, : options.keep].sort(1).values,
        shared=shared,
        labels=torch.from_numpy(scenes.labels[chosen]),
        patch_shares=class_shares(masks[:, 0].to(torch.int64)),
    )


def class_shares(masks: Tensor) -> Tensor:
    """Share of each class, background first, in each patch (image, patch, class + 1) of masks (image, row, column)."""
    side = IMAGE_SIZE // PATCH_SIZE
    blocks = masks.reshape(-1, side, PATCH_SIZE, side, PATCH_SIZE).transpose(2, 3).reshape(-1, PATCHES, PATCH_SIZE**2)
    return functional.one_hot(blocks, CLASSES + 1).to(torch.float32).mean(2)


def make_optimizer(student: Network, options: argparse.Namespace) -> torch.optim.AdamW:
    """Build the optimizer of the student's parameters."""
    # Biases, norms and embeddings are not decayed: only matrices profit from being small.
    matrices = [p for name, p in student.named_parameters() if p.ndim == 2 or name.endswith("proj.weight")]
    chosen = {id(p) for p in matrices}
    rest = [p for p in student.parameters() if id(p) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98))


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that an interruption leaves either the old or the new one."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def export(network: Network, path: Path) -> None:
    """Write the backbone as float16 under timm's names, replacing an older file at once."""
    state = network.backbone.state_dict()
    weights = {name: value.detach().to(torch.float16).contiguous() for name, value in state.items()}
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise ValueError("a weight is not finite in float16; the training has diverged")
    partial = path.with_suffix(".partial")
    save_file(weights, partial, metadata={"format": "pt", "architecture": "tiny-reg"})
    partial.chmod(0o644)
    partial.replace(path)


def main() -> None:
    """Train, from the checkpoint where there is one, and export the teacher."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    scenes = render("train", options.scenes, seed=options.seed, cache=options.cache, workers=options.threads)
    held_out = render("val", options.probe_scenes, seed=options.seed, cache=options.cache, workers=options.threads)

    student = Network()
    teacher = teacher_of(student)
    optimizer = make_optimizer(student, options)
    queue, first, seconds = torch.zeros(0, PROTOTYPES), 0, 0.0
    history: list[dict[str, Any]] = []
    checkpoint = options.output / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(state["student"])
        teacher.load_state_dict(state["teacher"])
        optimizer.load_state_dict(state["optimizer"])
        queue, first, seconds, history = state["queue"], state["step"], state["seconds"], state["history"]
        print(f"continue from step {first}, after {seconds / 60:.1f} min", flush=True)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    history.append({"step": first, "settings": {k: v for k, v in settings.items() if k not in ("output", "cache")}})
    encoder = torch.compile(encode) if options.compile else encode

    started = time.monotonic() - seconds
    for step in range(first, options.steps):
        seconds = time.monotonic() - started
        rate = learning_rate(options, step, seconds / 60)
        views = draw_views(scenes, options, step)
        parts, queue = losses(student, teacher, views, queue, encoder, supervised=step >= options.supervise_from)
        weights = {"cls": options.distillation, "dense": options.distillation}
        loss = torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        follow(teacher, student, step)

        done = step + 1
        ended = done == options.steps or seconds >= 60 * options.minutes
        if done % 50 == 0:
            figures = "  ".join(f"{name} {float(value):.3f}" for name, value in parts.items())
            print(f"step {done}  {seconds / 60:.1f} min  lr {rate:.2e}  {figures}", flush=True)
        if done % options.probe_every == 0 or ended:
            accuracy = quick_probe(teacher.backbone, held_out)
            history.append({"step": done, "minutes": seconds / 60, "probe": accuracy})
            print(f"step {done}  quick probe of the teacher's [CLS]: {accuracy:.3f}", flush=True)
        if done % options.save_every == 0 or ended:
            progress = {"queue": queue, "step": done, "seconds": seconds, "history": history}
            parameters = {"student": student.state_dict(), "teacher": teacher.state_dict()}
            save(checkpoint, parameters | progress | {"optimizer": optimizer.state_dict()})
            export(teacher, options.output / "tiny-reg.safetensors")
        if ended:
            break


if __name__ == "__main__":
    main()
