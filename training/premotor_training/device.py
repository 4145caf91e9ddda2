"""Where a training computes: the --device option."""

import argparse

import torch


def add_device_option(parser: argparse.ArgumentParser) -> None:
    help_text = "default: auto, the GPU where PyTorch finds one"
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto", help=help_text)


def pick_device(name: str) -> torch.device:
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise SystemExit("--device cuda: expected a GPU that PyTorch can use, found none")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
