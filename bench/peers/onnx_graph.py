"""One denoising pass as an ONNX graph, for ONNX Runtime: video and action, in float32 and with int8 matrix products.

The graph is what the engine computes for one guidance row: text keys and values and the time embedding come in ready
made, the cache comes in as it lies (without gathering), and its operators are the fused ones that ONNX Runtime has for
this (MultiHeadAttention, RotaryEmbedding, LayerNormalization with the modulation as its scale and bias). Text keys and
values are those of all padded rows, of which the engine keeps one; they are few beside the cache.

int8 is what ONNX Runtime's own dynamic quantisation makes: activations through DynamicQuantizeLinear (per tensor,
unsigned), weights per output channel and symmetric, the product through MatMulInteger.
"""

import json
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto, helper, save
from safetensors.torch import save_file

from reference import MODALITIES, Bench

CONTRIB = "com.microsoft"
GENERATION = 1


class Weights:
    """A file of raw tensors that graphs share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("wb")
        self.known: dict[str, TensorProto] = {}

    def add(self, name: str, value: np.ndarray) -> TensorProto:
        if name in self.known:
            return self.known[name]
        kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int8): TensorProto.INT8, np.dtype(np.int64): TensorProto.INT64}
        tensor = TensorProto(name=name, data_type=kinds[value.dtype], dims=value.shape)
        if value.nbytes < 1024:
            tensor.raw_data = value.tobytes()
        else:
            self.file.write(bytes(-self.file.tell() % 4096))
            entries = {"location": self.path.name, "offset": self.file.tell(), "length": value.nbytes}
            tensor.data_location = TensorProto.EXTERNAL
            for key, entry in entries.items():
                tensor.external_data.add(key=key, value=str(entry))
            self.file.write(np.ascontiguousarray(value).data)
        self.known[name] = tensor
        return tensor


class Graph:
    """Nodes of one pass over [tokens, width] activations."""

    def __init__(self, bench: Bench, weights: Weights, is_int8: bool) -> None:
        self.model, self.weights, self.is_int8 = bench.model, weights, is_int8
        self.nodes, self.inputs = [], []
        self.used: dict[str, TensorProto] = {}
        self.quantized: dict[str, list[str]] = {}

    def node(self, op: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: object) -> list[str]:
        names = [f"{op}.{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names

    def one(self, op: str, inputs: list[str], domain: str = "", **attributes: object) -> str:
        return self.node(op, inputs, 1, domain, **attributes)[0]

    def constant(self, name: str, value: np.ndarray) -> str:
        self.used[name] = self.weights.add(name, value)
        return name

    def stored(self, name: str) -> str:
        value = self.model.weights[name].float().numpy()
        return self.constant(name, value.reshape(-1, value.shape[-1]) if "table" in name else value)

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def reshape(self, x: str, shape: list[int]) -> str:
        return self.one("Reshape", [x, self.constant("shape." + "x".join(map(str, shape)), np.array(shape, np.int64))])

    def linear(self, name: str, x: str) -> str:
        bias = self.stored(f"{name}.bias")
        if not self.is_int8:
            weight = self.model.weights[f"{name}.weight"]
            transposed = f"{name}.weight.t"
            known = self.weights.known.get(transposed)
            if known is None:
                self.constant(transposed, weight.t().contiguous().numpy())
            else:
                self.used[transposed] = known
            return self.one("Gemm", [x, transposed, bias])
        return self.one("Add", [self.integer_product(name, x), bias])

    def integer_product(self, name: str, x: str) -> str:
        weight = self.model.weights[f"{name}.weight"].float()
        scale = weight.abs().amax(dim=1).clamp_min(1e-30) / 127
        codes = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        matrix = self.constant(f"{name}.int8", codes.t().contiguous().numpy())
        scales = self.constant(f"{name}.scale", scale.numpy())
        if x not in self.quantized:
            self.quantized[x] = self.node("DynamicQuantizeLinear", [x], 3)
        values, x_scale, x_zero = self.quantized[x]
        zero = self.constant("int8.zero", np.zeros((), np.int8))
        product = self.one("Cast", [self.one("MatMulInteger", [values, matrix, x_zero, zero])], to=TensorProto.FLOAT)
        return self.one("Mul", [product, self.one("Mul", [x_scale, scales])])

    def modulated_norm(self, h: str, scale: str, shift: str) -> str:
        """(1 + scale) and shift [width] as the norm's own weight and bias."""
        one = self.constant("one", np.ones((), np.float32))
        return self.one("LayerNormalization", [h, self.one("Add", [scale, one]), shift], epsilon=self.model.eps)

    def rms_norm(self, name: str, x: str) -> str:
        return self.one("SimplifiedLayerNormalization", [x, self.stored(name)], epsilon=self.model.eps, axis=-1)

    def attend(self, q: str, k: str, v: str, tokens: int) -> str:
        """q [1, tokens, width], k and v [1, head, entries, dim] -> [tokens, width]."""
        out = self.one("MultiHeadAttention", [q, k, v], CONTRIB, num_heads=self.model.heads)
        return self.reshape(out, [tokens, -1])

    def rows(self, table: str, count: int) -> list[str]:
        """The rows of [count, width], each [width]."""
        axis = self.constant("axis", np.zeros(1, np.int64))
        return [self.one("Squeeze", [row, axis]) for row in self.node("Split", [table], count, axis=0, num_outputs=count)]

    def heads_first(self, x: str, tokens: int) -> str:
        split = self.reshape(x, [1, tokens, self.model.heads, self.model.head_dim])
        return self.one("Transpose", [split], perm=[0, 2, 1, 3])

    def block(self, layer: int, h: str, tokens: int, projection: str, rope: list[str], history: tuple, text: tuple) -> str:
        name = f"blocks.{layer}"
        table = self.one("Add", [self.stored(f"{name}.scale_shift_table"), projection])
        shift, scale, gate, c_shift, c_scale, c_gate = self.rows(table, 6)

        x = self.modulated_norm(h, scale, shift)
        q = self.reshape(self.rms_norm(f"{name}.attn1.norm_q.weight", self.linear(f"{name}.attn1.to_q", x)), [1, tokens, -1])
        k = self.reshape(self.rms_norm(f"{name}.attn1.norm_k.weight", self.linear(f"{name}.attn1.to_k", x)), [1, tokens, -1])
        v = self.heads_first(self.linear(f"{name}.attn1.to_v", x), tokens)
        q, k = (self.one("RotaryEmbedding", [part, *rope], CONTRIB, interleaved=1) for part in (q, k))
        keys = self.one("Concat", [history[0], self.heads_first(k, tokens)], axis=2)
        values = self.one("Concat", [history[1], v], axis=2)
        out = self.linear(f"{name}.attn1.to_out.0", self.attend(q, keys, values, tokens))
        h = self.one("Add", [h, self.one("Mul", [out, gate])])

        x = self.one("LayerNormalization", [h, self.stored(f"{name}.norm2.weight"), self.stored(f"{name}.norm2.bias")], epsilon=self.model.eps)
        q = self.rms_norm(f"{name}.attn2.norm_q.weight", self.linear(f"{name}.attn2.to_q", x))
        out = self.attend(self.reshape(q, [1, tokens, -1]), *text, tokens)
        h = self.one("Add", [h, self.linear(f"{name}.attn2.to_out.0", out)])

        x = self.modulated_norm(h, c_scale, c_shift)
        up = self.one("Gelu", [self.linear(f"{name}.ffn.net.0.proj", x)], approximate="tanh")
        return self.one("Add", [h, self.one("Mul", [self.linear(f"{name}.ffn.net.2", up), c_gate])])

    def whole(self, modality: str, bench: Bench) -> None:
        model, size = self.model, bench.size
        is_video = modality == "video"
        tokens, features = bench.x[modality].shape
        width, half = model.heads * model.head_dim, model.head_dim // 2
        h = self.linear("patch_embedding_mlp" if is_video else "action_embedder", self.input("x", (tokens, features)))
        temb, projection = self.input("temb", (1, width)), self.input("projection", (6, width))
        position = self.constant("position", np.zeros(1, np.int64))
        rope = [position, self.input("cos", (tokens, half)), self.input("sin", (tokens, half))]
        for layer in range(model.layers):
            history, text = (
                tuple(self.input(f"{kind}.{layer}.{part}", (1, model.heads, entries, model.head_dim)) for part in "kv")
                for kind, entries in (("history", size.history), ("text", size.text_rows))
            )
            h = self.block(layer, h, tokens, projection, rope, history, text)
        shift, scale = self.rows(self.one("Add", [self.stored("scale_shift_table"), temb]), 2)
        out = self.linear("proj_out" if is_video else "action_proj_out", self.modulated_norm(h, scale, shift))
        self.nodes.append(helper.make_node("Identity", [out], ["velocity"]))

    def save(self, path: Path) -> None:
        velocity = helper.make_tensor_value_info("velocity", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, [velocity], list(self.used.values()))
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB, 1)]
        save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def write_inputs(bench: Bench, folder: Path) -> None:
    """What the passes of one guidance row take in, as bench.denoise has it."""
    model, size = bench.model, bench.size
    shared = {}
    for layer in range(model.layers):
        for part, history, text in zip("kv", (bench.cache.keys, bench.cache.values), bench.kept[layer], strict=True):
            entries = history[layer][:1, : size.history]  # the history takes the first slots
            shared[f"history.{layer}.{part}"] = entries.transpose(1, 2).contiguous()
            shared[f"text.{layer}.{part}"] = text[:1].transpose(1, 2).contiguous()
    save_file(shared, folder / "cache.safetensors")
    for modality in MODALITIES:
        temb, projection = model.time_embedding(modality, torch.full((1, 1), 500.0))
        rope = bench.rope[modality]
        save_file(
            {
                "x": bench.x[modality].contiguous(),
                "temb": temb[0].contiguous(),
                "projection": projection[0, 0].contiguous(),
                "cos": rope.real.float().contiguous(),
                "sin": rope.imag.float().contiguous(),
            },
            folder / f"{modality}.safetensors",
        )


def write_graphs(bench: Bench, folder: Path) -> None:
    marker = folder / "graphs.json"
    if marker.exists() and json.loads(marker.read_text()).get("generation") == GENERATION:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(bench, folder)
    for precision in ("f32", "int8"):
        weights = Weights(folder / f"weights-{precision}.data")
        for modality in MODALITIES:
            graph = Graph(bench, weights, precision == "int8")
            graph.whole(modality, bench)
            graph.save(folder / f"{modality}-{precision}.onnx")
        weights.file.close()
    marker.write_text(json.dumps({"generation": GENERATION}))
