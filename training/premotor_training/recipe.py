"""The whole way from nothing to a checkpoint, one step after another: demonstrations, autoencoder, latents, three stages.

    python -m premotor_training.recipe OUT [--scale 1.0]

Each step writes below OUT and is left out when its result is there, so the same command goes on where it was stopped; the
trainings themselves go on from their own files. The default is the recipe that the shipped checkpoint's card describes,
in one go. --scale multiplies the minutes of all trainings; OUT/recipe.csv keeps what each step took. Needs premotor built
(npm ci).
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# (name, arguments of `premotor sim collect`). Seeds from 0 belong to the evaluation.
DATASETS = (
    ("stills-buttons", "--task touch --stills --episodes 6000 --seed 3000000"),
    ("stills-block", "--task push --stills --episodes 3000 --seed 3000000"),
    ("touch", "--task touch --episodes 500 --recovery 0.25"),
    ("press-n", "--task press-n --episodes 700 --recovery 0.15"),
    ("push", "--task push --episodes 600"),
    ("sequence", "--task sequence --episodes 700 --recovery 0.15"),
    ("post-touch", "--task touch --episodes 50 --seed 2000000"),
    ("post-press-n", "--task press-n --episodes 50 --seed 2000000"),
    ("post-push", "--task push --episodes 50 --seed 2000000"),
    ("post-sequence", "--task sequence --episodes 50 --seed 2000000"),
)
VAE_DATASETS = ("stills-buttons", "stills-block", "touch", "push")
MINUTES = {"vae": 16.0, "ground": 5.0, "pretrain": 50.0, "post": 2.0}


@dataclass(frozen=True)
class Step:
    name: str
    result: Path  # exists when the step is done
    command: list[str]
    alone: bool = True  # uses all threads; the others run beside each other


def python_step(name: str, result: Path, module: str, *arguments: object) -> Step:
    return Step(name, result, [sys.executable, "-m", f"premotor_training.{module}", *map(str, arguments)])


def steps(out: Path, scale: float, threads: int) -> list[Step]:
    data, vae, latents, policy = (out / name for name in ("data", "vae", "latents", "policy"))
    planned = []
    for name, arguments in DATASETS:
        cli = ["node", str(REPOSITORY / "bin" / "premotor.js"), "sim", "collect", "--cameras", "front"]
        command = [*cli, *arguments.split(), "--force", "--out", str(data / name)]
        planned.append(Step(f"collect {name}", data / name / "meta" / "info.json", command, alone=False))
    pictures = [data / name for name in VAE_DATASETS]
    shared = ("--threads", threads)
    minutes = {name: value * scale for name, value in MINUTES.items()}
    result = vae / "vae" / "config.json"
    planned.append(python_step("vae", result, "train_vae", vae, *pictures, "--minutes", minutes["vae"], *shared))
    for name, _ in DATASETS:
        file = latents / f"{name}.pt"
        planned.append(python_step(f"encode {name}", file, "encode_latents", vae, latents, data / name, "--bf16", *shared))
    files = {name: latents / f"{name}.pt" for name, _ in DATASETS}
    base = [file for name, file in files.items() if not name.startswith("post-")]
    post = [file for name, file in files.items() if name.startswith(("post-", "stills-"))]
    for stage, chosen in (("ground", base), ("pretrain", base), ("post", post)):
        arguments = (policy, *chosen, "--stage", stage, "--minutes", minutes[stage], *shared)
        planned.append(python_step(stage, policy / f"{stage}_curves.png", "train_policy", *arguments))
    target = out / "checkpoint"
    planned.append(python_step("export", target / "job.json", "export", policy, vae, target))
    return planned


def run(step: Step, log: Path) -> None:
    """Errors: SystemExit when the step's command fails."""
    began_s = time.monotonic()
    finished = subprocess.run(step.command, cwd=Path(__file__).resolve().parents[1], check=False)
    if finished.returncode != 0:
        raise SystemExit(f"{step.name} failed with code {finished.returncode}; the same command goes on from here")
    is_new = not log.exists()
    with log.open("a") as file:
        file.write("step,minutes\n" * is_new + f"{step.name},{(time.monotonic() - began_s) / 60:.1f}\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="of the minutes of all trainings (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="of a training; as many datasets are collected at once")
    parser.add_argument("--list", action="store_true", help="print the steps and what is done, and do nothing")
    options = parser.parse_args(arguments)
    planned = steps(options.out.resolve(), options.scale, options.threads)
    for number, step in enumerate(planned, start=1):
        print(f"[{number}/{len(planned)}] {step.name}{': done' if step.result.exists() else ''}", flush=True)
    if options.list:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "recipe.csv"
    waiting = [step for step in planned if not step.result.exists()]
    with ThreadPoolExecutor(options.threads) as pool:
        list(pool.map(lambda step: run(step, log), [step for step in waiting if not step.alone]))
    for step in waiting:
        if step.alone:
            print(f"{step.name} ...", flush=True)
            run(step, log)
    print(f"checkpoint: {options.out / 'checkpoint'}; judge it with: premotor eval --task all --checkpoint ...")


if __name__ == "__main__":
    main()
