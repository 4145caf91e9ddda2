"""A client of the policy server that was written from the protocol's text (docs/SERVER.md), with Python's standard library alone.

It plays back an episode whose pictures and executed actions were recorded beforehand and writes down the actions that the server answered with. It
knows nothing of premotor's code: framing, masking, msgpack and arrays are its own.

    independent_client.py PORT EPISODE.json EPISODE.bin ANSWERS.bin [TOKEN]

EPISODE.json: {"prompt", "cameras": [...], "picture": [height, width], "chunks": [{"moments": N, "state": [used, F, H]}]}, in which the first
observation stands before the chunks. EPISODE.bin: all pictures in that order, uint8, then all states, float32. ANSWERS.bin: every action, float32.
"""

import base64
import hashlib
import json
import os
import socket
import struct
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Array:
    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, list(shape), bytes(data)


def pack(value):
    """The subset of msgpack that requests need. Keys of arrays are bin, all others str."""
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">B", value) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, str):
        text = value.encode()
        return (struct.pack(">B", 0xA0 | len(text)) if len(text) < 32 else b"\xdb" + struct.pack(">I", len(text))) + text
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, Array):
        fields = [(b"__ndarray__", True), (b"data", value.data), (b"dtype", value.dtype), (b"shape", value.shape)]
        return b"\x84" + b"".join(pack(key) + pack(one) for key, one in fields)
    if isinstance(value, (list, tuple)):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(pack(one) for one in value)
    return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pack(key) + pack(one) for key, one in value.items())


class Unpacker:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        part = self.data[self.at : self.at + count]
        assert len(part) == count, "the message ends too early"
        self.at += count
        return part

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]

    def value(self):
        tag = self.number("B")
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 256
        if tag < 0x90:
            return self.map(tag & 15)
        if tag < 0xA0:
            return [self.value() for _ in range(tag & 15)]
        if tag < 0xC0:
            return self.take(tag & 31).decode()
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in (0xC4, 0xC5, 0xC6):
            return self.take(self.number("BHI"[tag - 0xC4]))
        if 0xCA <= tag <= 0xD3:
            return self.number("fdBHIQbhiq"[tag - 0xCA])
        if tag in (0xD9, 0xDA, 0xDB):
            return self.take(self.number("BHI"[tag - 0xD9])).decode()
        if tag in (0xDC, 0xDD):
            return [self.value() for _ in range(self.number("HI"[tag - 0xDC]))]
        if tag in (0xDE, 0xDF):
            return self.map(self.number("HI"[tag - 0xDE]))
        raise ValueError(f"tag {tag:#x}")

    def map(self, count):
        fields = {}
        for _ in range(count):
            key = self.value()
            fields[key] = self.value()
        if b"__ndarray__" in fields:
            return Array(fields[b"dtype"], fields[b"shape"], fields[b"data"])
        return fields


class Websocket:
    def __init__(self, port, token):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=240)
        self.buffer = b""
        key = base64.b64encode(os.urandom(16))
        lines = [b"GET / HTTP/1.1", b"Host: 127.0.0.1", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: " + key]
        lines += [b"Sec-WebSocket-Version: 13"] + ([b"Authorization: Api-Key " + token.encode()] if token else [])
        self.socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        status = head.split(b"\r\n")[0].decode()
        assert " 101 " in status, status
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        assert b"sec-websocket-accept: " + accept.lower() in head.lower(), "the server's proof is wrong"
        assert b"extensions" not in head.lower(), "nobody asked for compression"

    def more(self):
        part = self.socket.recv(1 << 16)
        assert part, "the server hung up"
        self.buffer += part

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        part, self.buffer = self.buffer[:count], self.buffer[count:]
        return part

    def send(self, opcode, payload):
        size = len(payload)
        length = struct.pack(">B", 0x80 | size) if size < 126 else struct.pack(">BH", 0xFE, size) if size < 65536 else struct.pack(">BQ", 0xFF, size)
        mask = os.urandom(4)
        stream = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
        self.socket.sendall(struct.pack(">B", 0x80 | opcode) + length + mask + masked)

    def receive(self):
        """The next message: (opcode, bytes). Pings are answered."""
        message, kind = b"", None
        while True:
            first, second = self.take(2)
            size = second & 0x7F
            assert not second & 0x80, "a server must not mask"
            if size == 126:
                size = struct.unpack(">H", self.take(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.take(8))[0]
            payload = self.take(size)
            opcode = first & 15
            if opcode == 9:
                self.send(10, payload)
            elif opcode == 8:
                return 8, payload
            elif opcode != 10:
                kind = opcode if opcode else kind
                message += payload
                if first & 0x80:
                    return kind, message


def ask(websocket, request):
    websocket.send(2, pack(request))
    kind, payload = websocket.receive()
    if kind != 2:
        raise SystemExit(f"the server answered with a frame of kind {kind}: {payload.decode(errors='replace')}")
    answer = Unpacker(payload).value()
    assert answer["server_timing"]["infer_ms"] >= 0
    return answer


def main():
    port, about, recorded, out = int(sys.argv[1]), json.load(open(sys.argv[2])), open(sys.argv[3], "rb").read(), sys.argv[4]
    height, width = about["picture"]
    cameras, size, at = about["cameras"], height * width * 3, 0
    states_at = (1 + sum(chunk["moments"] for chunk in about["chunks"])) * len(cameras) * size

    def moment():
        nonlocal at
        pictures = {}
        for camera in cameras:
            pictures[camera] = Array("|u1", [height, width, 3], recorded[at : at + size])
            at += size
        # Clients send more than the server needs.
        pictures["observation.state"] = Array("<f8", [2], struct.pack("<2d", 0.5, -0.5))
        pictures["task"] = about["prompt"]
        return pictures

    websocket = Websocket(port, sys.argv[5] if len(sys.argv) > 5 else "")
    kind, payload = websocket.receive()
    assert kind == 2 and isinstance(Unpacker(payload).value(), dict), "the first frame is a map of metadata"
    answer = ask(websocket, {"reset": True, "prompt": about["prompt"], "save_visualization": False})
    assert set(answer) == {"server_timing"}, answer
    first = moment()
    answers = []
    for chunk in about["chunks"]:
        # The first pictures come again with every prediction, as LingBot-VA's own clients send them.
        answer = ask(websocket, {"obs": first, "prompt": about["prompt"], "video_guidance_scale": 5, "action_guidance_scale": 1})
        action = answer["action"]
        assert action.dtype == "<f4" and "prev_total_ms" in answer["server_timing"], answer
        answers.append(action.data)
        seen = [moment() for _ in range(chunk["moments"])]
        count = 4
        for length in chunk["state"]:
            count *= length
        state = Array("<f4", chunk["state"], recorded[states_at : states_at + count])
        states_at += count
        answer = ask(websocket, {"obs": seen, "compute_kv_cache": True, "imagine": False, "state": state})
        assert set(answer) == {"server_timing"}, answer
    websocket.send(8, struct.pack(">H", 1000))
    assert websocket.receive()[0] == 8, "the closing frame is answered"
    with open(out, "wb") as file:
        file.write(b"".join(answers))
    print(f"{len(answers)} chunks")


main()
