"""Writes what train.py made as a policy for the runtime's `onnx` backend: model.onnx (weights inside) and job.json (docs/ONNX.md).

    python act/export.py RUN models/act-touch

Compares the exported network with PyTorch on the way; a difference above 1e-5 is an error.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from model import HORIZON, JOINTS, TEXT_LENGTH, WORDS, ActTouch  # noqa: E402
from train import PIXEL_MEAN, PIXEL_STD  # noqa: E402

OPSET = 18
LATENT_FRAMES, ACTIONS_PER_FRAME = 2, 8
SIDE = 96
TOLERANCE = 1e-5


def job_of(numbers: dict) -> dict:
    return {
        "format": "premotor-onnx",
        "version": 1,
        "frame_chunk_size": LATENT_FRAMES,
        "action_per_frame": ACTIONS_PER_FRAME,
        "inputs": {
            "image": {
                "from": "camera",
                "camera": "observation.images.cam_front",
                "layout": "NCHW",
                "height": SIDE,
                "width": SIDE,
                "dtype": "f32",
                "scale": 1 / 255,
                "mean": [PIXEL_MEAN] * 3,
                "std": [PIXEL_STD] * 3,
            },
            "joints": {"from": "state", "mean": numbers["state_mean"], "std": numbers["state_std"]},
            "tokens": {"from": "instruction", "words": WORDS, "length": TEXT_LENGTH, "padding": 0},
        },
        "output": {
            "name": "actions",
            "layout": "1HD",
            "channels": list(range(JOINTS)),
            "values": "absolute",
            "mean": numbers["action_mean"],
            "std": numbers["action_std"],
        },
        "prompt": "touch the red button",
    }


def example(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(1, TEXT_LENGTH, dtype=torch.int64)
    tokens[0, :4] = torch.tensor([1, 2, 3 + seed % 3, 6])
    return torch.randn(1, 3, SIDE, SIDE, generator=random), torch.randn(1, JOINTS, generator=random), tokens


def export(run: Path, out: Path) -> None:
    model = ActTouch()
    model.load_state_dict(torch.load(run / "model.pt", weights_only=True))
    model.eval()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example(0),
            file,
            input_names=["image", "joints", "tokens"],
            output_names=["actions"],
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
        )
    strip(file)
    check(model, file)
    numbers = json.loads((run / "numbers.json").read_text())
    (out / "job.json").write_text(json.dumps(job_of(numbers), indent=2) + "\n")
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB, {sum(p.numel() for p in model.parameters())} parameters")


def strip(file: Path) -> None:
    """Drops what exporters note about the machine and the source: names of files, stacks."""
    graph = onnx.load(file)
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]
    del graph.graph.metadata_props[:], graph.metadata_props[:]
    graph.doc_string = graph.graph.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, file)


def check(model: ActTouch, file: Path) -> None:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for seed in range(6):
        inputs = example(seed)
        with torch.no_grad():
            expected = model(*inputs).numpy()
        (found,) = session.run(None, {one.name: value.numpy() for one, value in zip(session.get_inputs(), inputs, strict=True)})
        assert found.shape == (1, HORIZON, JOINTS), found.shape
        worst = float(np.abs(found - expected).max())
        if not worst < TOLERANCE:
            raise SystemExit(f"{file}: expected the network of PyTorch to {TOLERANCE}, found a difference of {worst}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    export(options.run, options.out)


if __name__ == "__main__":
    main()
