"""Reads the LeRobot v2.1 datasets that `premotor sim collect` writes: pictures, states, actions and texts by episode.

Row i of an episode holds the picture and the joint state at time i / fps and the action that is reached at
(i + 1) / fps. The model's video runs at half that rate: its frames are every second row.

Pictures are decoded once into `.cache/<camera>.npy` inside the dataset's folder and memory-mapped from then on.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS_PER_FRAME = 2  # of the model's video


@dataclass(frozen=True)
class Episode:
    """One line of meta/episodes.jsonl."""

    index: int
    length: int  # rows
    tasks: list[str]
    fields: dict  # the whole line, with what the collector added


def load_info(root: str | Path) -> dict:
    """meta/info.json."""
    return json.loads((Path(root) / "meta" / "info.json").read_text())


def load_tasks(root: str | Path) -> list[str]:
    """The texts of meta/tasks.jsonl; a row's task_index is a position in this list."""
    lines = _read_lines(Path(root) / "meta" / "tasks.jsonl")
    return [line["task"] for line in sorted(lines, key=lambda line: line["task_index"])]


def load_episodes(root: str | Path) -> list[Episode]:
    """All episodes in order of their index."""
    lines = sorted(_read_lines(Path(root) / "meta" / "episodes.jsonl"), key=lambda line: line["episode_index"])
    return [Episode(line["episode_index"], line["length"], line.get("tasks", []), line) for line in lines]


def load_actions(root: str | Path) -> list[np.ndarray]:
    """Of each episode [rows, action channels] float32."""
    return _load_vectors(Path(root), "action")


def load_states(root: str | Path) -> list[np.ndarray]:
    """Of each episode [rows, joints] float32."""
    return _load_vectors(Path(root), "observation.state")


def cameras_of(root: str | Path) -> list[str]:
    """The names of the picture columns, such as observation.images.cam_front."""
    return [name for name, feature in load_info(root)["features"].items() if feature["dtype"] == "image"]


def load_pictures(root: str | Path, camera: str) -> list[np.ndarray]:
    """Of each episode [rows, height, width, 3] uint8, memory-mapped. `camera`: of cameras_of, or its last part."""
    root = Path(root)
    column = camera if camera.startswith("observation.images.") else f"observation.images.{camera}"
    if column not in cameras_of(root):
        raise ValueError(f"{root}: expected one of the cameras {cameras_of(root)}, found {camera}")
    episodes = load_episodes(root)
    cache = root / ".cache" / f"{column.rsplit('.', 1)[1]}.npy"
    if not _is_fresh(cache, root):
        _decode_pictures(root, column, episodes, cache)
    pictures = np.load(cache, mmap_mode="r")  # [rows of all episodes, height, width, 3]
    ends = np.cumsum([episode.length for episode in episodes])
    if len(pictures) != ends[-1]:
        raise ValueError(f"{cache}: expected {ends[-1]} pictures, found {len(pictures)}; delete the file")
    return [pictures[end - episode.length : end] for episode, end in zip(episodes, ends, strict=True)]


def video_rows(rows: int, first: int = 0, temporal_factor: int = 4) -> np.ndarray:
    """The rows that are the frames of the longest clip from row `first`: 1 + n * temporal_factor of them."""
    frames = (rows - 1 - first) // ROWS_PER_FRAME + 1
    frames -= (frames - 1) % temporal_factor
    return first + ROWS_PER_FRAME * np.arange(frames)


def _read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _episode_file(root: Path, info: dict, index: int) -> Path:
    return root / info["data_path"].format(episode_chunk=index // info.get("chunks_size", 1000), episode_index=index)


def _load_vectors(root: Path, column: str) -> list[np.ndarray]:
    info, vectors = load_info(root), []
    for episode in load_episodes(root):
        table = pq.read_table(_episode_file(root, info, episode.index), columns=[column])
        flat = pa.concat_arrays(table[column].chunks).flatten().to_numpy(zero_copy_only=False)
        vectors.append(flat.reshape(table.num_rows, -1).astype(np.float32))
        if table.num_rows != episode.length:
            raise ValueError(f"{root}, episode {episode.index}: expected {episode.length} rows, found {table.num_rows}")
    return vectors


def _is_fresh(cache: Path, root: Path) -> bool:
    return cache.exists() and cache.stat().st_mtime >= (root / "meta" / "episodes.jsonl").stat().st_mtime


def _decode_pictures(root: Path, column: str, episodes: list[Episode], cache: Path) -> None:
    info = load_info(root)
    height, width = info["features"][column]["shape"][:2]
    total = sum(episode.length for episode in episodes)
    cache.parent.mkdir(exist_ok=True)
    unfinished = cache.with_suffix(".unfinished")
    pictures = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=(total, height, width, 3))
    row = 0
    for episode in episodes:
        table = pq.read_table(_episode_file(root, info, episode.index), columns=[column])
        for cell in table[column].to_pylist():
            pictures[row] = np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
            row += 1
    pictures.flush()
    if row != total:
        raise ValueError(f"{root}: episodes.jsonl counts {total} rows, the files hold {row}")
    unfinished.rename(cache)
