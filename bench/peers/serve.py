"""Runs passes of reference.py on request, for bench/peers.ts:

    python serve.py TRANSFORMER FOLDER f32|bf16 THREADS

reads lines `FORM video BATCH`, `FORM action BATCH`, `FORM commit`, `FORM chunk VIDEO-STEPS ACTION-STEPS`, FORM being
reference or kept (text keys and values computed beforehand), each with an optional file for the result in float32, and
answers each with a line of JSON. With `--graph NAME` it writes the ONNX graphs of onnx_graph.py there instead.
"""

import json
import sys
import time
from pathlib import Path

import torch
from reference import Bench


def run(bench: Bench, words: list[str]) -> tuple[torch.Tensor, list[str]]:
    """The result and the words that are left."""
    form, what, *rest = words
    keeps_text = {"reference": False, "kept": True}[form]
    if what == "commit":
        return bench.commit(bench.x["video"], bench.x["action"], keeps_text), rest
    if what == "chunk":
        return bench.chunk(int(rest[0]), int(rest[1]), keeps_text), rest[2:]
    return bench.denoise(what, int(rest[0]), keeps_text), rest[1:]


def main(transformer: str, folder: str, precision: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    bench = Bench(Path(transformer), Path(folder), {"f32": torch.float32, "bf16": torch.bfloat16}[precision])
    print(json.dumps({"ready": True, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        result, rest = run(bench, line.split())
        ms = 1e3 * (time.perf_counter() - began)
        if rest:
            Path(rest[0]).write_bytes(result.float().contiguous().numpy().tobytes())
        print(json.dumps({"ms": ms}), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        if sys.argv[-2:-1] == ["--graph"]:
            from onnx_graph import write_graphs

            bench = Bench(Path(sys.argv[1]), Path(sys.argv[2]), torch.float32)
            write_graphs(bench, Path(sys.argv[-1]))
        else:
            main(*sys.argv[1:])
