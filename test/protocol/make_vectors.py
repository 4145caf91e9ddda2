"""Writes protocol/vectors.json from the tables of protocol/README.md: a third reading of the prose, beside frames.c and bridge-frames.ts.

Run it when the prose changes: python3 test/protocol/make_vectors.py > protocol/vectors.json
"""
import json
import struct
import zlib


def crc16(data, crc=0xFFFF):
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def sealed(identifier, body):
    return {"id": identifier, "data": (body + struct.pack("<H", crc16(struct.pack("<H", identifier) + body))).hex()}


def vector(name, kind, fields, frames):
    return {"name": name, "kind": kind, "fields": fields, "frames": frames}


SHORT = {  # kind: (identifier, struct format, field names)
    "estop": (0x010, "<6x", []),
    "disarm": (0x011, "<6x", []),
    "silence": (0x012, "<6x", []),
    "fault": (0x040, "<BBBBH", ["fault", "axis", "detail", "later_count", "age_ms"]),
    "heartbeat": (0x050, "<BBI", ["version_and_state", "fault", "clock_us"]),
    "hello": (0x200, "<BBBB2x", ["version_min", "version_max", "wishes", "axis_count"]),
    "welcome": (0x201, "<BBBBH", ["version", "version_max", "agreed", "axis_count", "boot"]),
    "arm_request": (0x210, "<IBB", ["host_nonce", "version", "axis_count"]),
    "arm_challenge": (0x211, "<I2x", ["bridge_nonce"]),
    "arm_response": (0x212, "<I2x", ["answer"]),
    "arm_result": (0x213, "<BBH2x", ["result", "axis", "session"]),
    "limit_write": (0x220, "<BBi", ["axis", "field", "value"]),
    "limit_read": (0x221, "<BB4x", ["axis", "field"]),
    "limit_value": (0x222, "<BBi", ["axis", "field", "value"]),
    "limit_commit": (0x223, "<BxH2x", ["axis_count", "checksum"]),
    "limit_result": (0x224, "<BBBxH", ["result", "axis", "field", "checksum"]),
    "fault_clear": (0x230, "<B5x", ["fault"]),
    "counter": (0x240, "<BxI", ["counter", "value"]),
    "indicate": (0x250, "<B5x", ["pattern"]),
    "firmware_ask": (0x300, "<B5x", ["fact"]),
    "firmware_fact": (0x301, "<BxI", ["fact", "value"]),
    "update": (0x302, "<BBI", ["operation", "flags", "value"]),
    "update_status": (0x303, "<BBI", ["operation_and_state", "result", "offset"]),
    "update_word": (0x304, "<HI", ["word_index", "word"]),
}


def short(name, kind, *values):
    identifier, form, names = SHORT[kind]
    return vector(name, kind, dict(zip(names, values)), [sealed(identifier, struct.pack(form, *values))])


def slots(rows):
    return b"".join(struct.pack("<ihh", *row) for row in rows)


def padded(rows):
    return rows + [[0, 0, 0]] * (6 - len(rows))


def setpoint(name, part, sequence, session, token, due_us, flags, axis_count, rows):
    rows = padded(rows)
    body = struct.pack("<BBHHHIBB", 1, part, sequence, session, token, due_us, flags, axis_count) + slots(rows)
    fields = {"part": part, "sequence": sequence, "session": session, "token": token, "due_us": due_us,
              "has_torque": flags == 1, "axis_count": axis_count, "slots": rows}
    return vector(name, "setpoint", fields, [sealed(0x080 + part, body)])


def feedback(name, part, sequence, accepted, state, fault, clock_us, valid, axis_count, rows):
    rows = padded(rows)
    body = struct.pack("<BBHHBBIBB", 1, part, sequence, accepted, state, fault, clock_us, valid, axis_count) + slots(rows)
    fields = {"part": part, "sequence": sequence, "accepted_sequence": accepted, "state": state, "fault": fault,
              "clock_us": clock_us, "valid": valid, "axis_count": axis_count, "slots": rows}
    return vector(name, "feedback", fields, [sealed(0x100 + part, body)])


def classic(name, sequence, token, due, session, axis_count, values):
    parts = -(-2 * axis_count // 3)
    filled = values + [0] * (3 * parts - len(values))
    head = struct.pack("<HHH", sequence, token, due)
    packed = struct.pack(f"<{len(filled)}h", *filled)
    checksum = crc16(struct.pack("<HBH", 0x090, 1, session) + head + packed)
    frames = [{"id": 0x090, "data": (head + struct.pack("<H", checksum)).hex()}]
    for k in range(1, parts + 1):
        frames.append({"id": 0x090 + k, "data": (bytes([sequence & 255, 0x10 | k]) + packed[6 * k - 6:6 * k]).hex()})
    fields = {"sequence": sequence, "token": token, "due_100us": due, "session": session, "axis_count": axis_count,
              "values": values}
    return vector(name, "classic_set", fields, frames)


def axis_feedback(name, axis, position_e6, velocity, is_valid):
    body = struct.pack("<i", position_e6)[:3] + struct.pack("<hB", velocity, 1 if is_valid else 0)
    fields = {"axis": axis, "position_e6": position_e6, "velocity": velocity, "is_valid": is_valid}
    return vector(name, "axis_feedback", fields, [sealed(0x110 + axis, body)])


def update_block(name, offset, data):
    body = struct.pack("<BBI", 1, len(data), offset) + data + bytes(56 - len(data))
    return vector(name, "update_block", {"offset": offset, "bytes": len(data), "data": data.hex()}, [sealed(0x305, body)])


def broken(name, kind, identifier, data):
    return {"name": name, "kind": kind, "id": identifier, "data": data.hex()}


def resealed(name, kind, identifier, base, changes, seal_as=None):
    """A frame with some bytes changed and a checksum that is right for them: what must be refused for its content."""
    body = bytearray(bytes.fromhex(base["data"])[:-2])
    for at, value in changes.items():
        body[at] = value
    return broken(name, kind, identifier, bytes.fromhex(sealed(identifier if seal_as is None else seal_as, bytes(body))["data"]))


def flipped(name, kind, frame, at):
    data = bytearray(bytes.fromhex(frame["data"]))
    data[at] ^= 0x10
    return broken(name, kind, frame["id"], bytes(data))


MAX = {"i16": 32767, "i32": 2147483647, "i24": 8388607}
nonces = (0x11223344, 0xA1B2C3D4)
pair = struct.pack("<II", *nonces)
answer = crc16(pair[4:] + pair[:4]) << 16 | crc16(pair)
limits = [[-31415927, 31415927, 3000, 20000, 200000, 9000], [-1, 1, 1, 2, 3, 4]]

valid = [
    short("the prose's DISARM", "disarm"), short("e-stop", "estop"), short("silence", "silence"),
    short("feedback lost on axis 5, 300 ms ago", "fault", 7, 5, 0, 2, 300),
    short("disarmed, no fault, clock near its wrap", "heartbeat", 0x11, 0, 0xFFFFFF00),
    short("versions 1 to 3, FD, 14 axes", "hello", 1, 3, 1, 14), short("version 1, FD, boot 515", "welcome", 1, 1, 1, 14, 515),
    short("host nonce", "arm_request", nonces[0], 1, 14), short("bridge nonce", "arm_challenge", nonces[1]),
    short("the prose's answer", "arm_response", answer), short("armed", "arm_result", 0, 255, answer & 0xFFFF),
    short("lowest position of axis 3 is -pi", "limit_write", 3, 0, -31415927),
    short("a negative value", "limit_value", 13, 0, -1), short("read jerk of axis 1", "limit_read", 1, 4),
    short("commit 14 axes", "limit_commit", 14, 0xBEEF), short("committed", "limit_result", 0, 255, 255, 0xBEEF),
    short("clear feedback lost", "fault_clear", 7), short("counter 4 wrapped", "counter", 4, 0xFFFFFFFF),
    short("the lamp says waiting", "indicate", 1), short("which version runs", "firmware_ask", 0),
    short("version 1.2.3", "firmware_fact", 0, 0x01020003), short("begin, an older one is meant", "update", 5, 1, 0),
    short("the image has 30 KiB", "update", 1, 0, 30720), short("receiving, go on at 4660", "update_status", 2, 6, 0x1234),
    short("the last word of 256 KiB", "update_word", 65535, 0xDEADBEEF),
    update_block("the first block", 0, bytes(range(1, 57))), update_block("four bytes at the end", 0x00012340, b"\1\2\3\4"),
    setpoint("one radian on axis 0 of one", 0, 1, 0x993E, 7, 1000000, 0, 1, [[10000000, 0, 0]]),
    setpoint("six axes, torques, extremes", 0, 65535, 65535, 65535, 0xFFFFFFFF, 1, 14,
             [[MAX["i32"], MAX["i16"], MAX["i16"]], [-MAX["i32"], -MAX["i16"], -MAX["i16"]], [-1, -1, -1], [1, 2, 3],
              [-10000000, 1500, -250], [0, 0, 0]]),
    setpoint("the last part of fourteen axes", 2, 258, 772, 1286, 0x0A0B0C0D, 0, 14, [[123456789, -1000, 0], [-123456789, 1000, 0]]),
    feedback("following, axis 2 of the part silent", 1, 9, 258, 3, 0, 0x01020304, 0b111011, 14,
             [[5, -5, 1], [6, -6, 2], [0, 0, 0], [8, -8, 4], [9, -9, 5], [10, -10, 6]]),
    feedback("a position that is not a number", 0, 0, 0, 6, 7, 0, 0, 1, [[-MAX["i32"] - 1, -MAX["i16"] - 1, 0]]),
    classic("one axis: 1 rad, 0.5 rad/s", 0x0102, 3, 4, 0x993E, 1, [4000, 500]),
    classic("fourteen axes", 0xFFFE, 0xFFFF, 0xFFFF, 1, 14, [(-1) ** i * (1000 * i + i) for i in range(28)]),
    classic("three axes fill two parts", 5, 5, 5, 5, 3, [1, -1, MAX["i16"], -MAX["i16"], 0, 256]),
    axis_feedback("axis 13 at -1 rad", 13, -1000000, 250, True), axis_feedback("axis 0 unknown", 0, -MAX["i24"] - 1, 0, False),
]
by_name = {v["name"]: v["frames"][0] for v in valid}
one = by_name["one radian on axis 0 of one"]
block = by_name["four bytes at the end"]
six = by_name["six axes, torques, extremes"]
spoken = by_name["following, axis 2 of the part silent"]
invalid = [
    flipped("a flipped bit in a payload", "fault", by_name["feedback lost on axis 5, 300 ms ago"], 1),
    flipped("a flipped bit in a checksum", "disarm", by_name["the prose's DISARM"], 7),
    flipped("a flipped bit in a setpoint", "setpoint", one, 15), flipped("a flipped bit in the padding", "setpoint", one, 40),
    broken("DISARM's bytes as ESTOP", "estop", 0x010, bytes.fromhex(by_name["the prose's DISARM"]["data"])),
    broken("seven bytes", "disarm", 0x011, bytes(7)), broken("a short setpoint", "setpoint", 0x080, bytes(48)),
    resealed("a reserved byte is set", "disarm", 0x011, by_name["the prose's DISARM"], {3: 1}),
    resealed("a reserved byte of a read is set", "limit_read", 0x221, by_name["read jerk of axis 1"], {2: 1}),
    resealed("version 2", "setpoint", 0x080, one, {0: 2}), resealed("part 1 of one axis", "setpoint", 0x081, one, {1: 1}),
    resealed("part 0 under part 1's identifier", "setpoint", 0x081, six, {}),
    resealed("fifteen axes", "setpoint", 0x080, one, {13: 15}), resealed("no axes", "setpoint", 0x080, one, {13: 0}),
    resealed("an unknown flag", "setpoint", 0x080, one, {12: 2}),
    resealed("a torque without its flag", "setpoint", 0x080, one, {20: 1}),
    resealed("a slot beyond the axes", "setpoint", 0x080, one, {22: 1}),
    resealed("a velocity beyond the axes", "setpoint", 0x080, one, {26: 1}),
    resealed("a position that is not a number", "setpoint", 0x080, one, {14: 0, 15: 0, 16: 0, 17: 0x80}),
    resealed("a velocity that is not a number", "setpoint", 0x080, one, {18: 0, 19: 0x80}),
    resealed("a torque that is not a number", "setpoint", 0x080, one, {12: 1, 20: 0, 21: 0x80}),
    resealed("a valid bit of a seventh slot", "feedback", 0x101, spoken, {12: 0x40}),
    resealed("a valid byte of 2", "axis_feedback", 0x11D, by_name["axis 13 at -1 rad"], {5: 2}),
    resealed("a reserved byte of INDICATE is set", "indicate", 0x250, by_name["the lamp says waiting"], {5: 1}),
    resealed("a reserved byte of a question is set", "firmware_ask", 0x300, by_name["which version runs"], {1: 1}),
    resealed("version 2 of a block", "update_block", 0x305, block, {0: 2}), resealed("an empty block", "update_block", 0x305, block, {1: 0}),
    resealed("a block of six bytes", "update_block", 0x305, block, {1: 6}), resealed("a block of 60 bytes", "update_block", 0x305, block, {1: 60}),
    resealed("a block at an odd offset", "update_block", 0x305, block, {2: 0x42}),
    resealed("a block with bytes beyond its own", "update_block", 0x305, block, {10: 1}),
    flipped("a flipped bit in a block", "update_block", block, 6),
    resealed("axis 14", "axis_feedback", 0x11E, by_name["axis 13 at -1 rad"], {}),
]
checksums = [{"bytes": b.hex(), "crc": crc16(b)} for b in (b"", b"123456789", b"\0", pair, bytes(range(256)))]
crc32 = [{"bytes": b.hex(), "crc": zlib.crc32(b)} for b in (b"", b"123456789", b"\0", bytes(range(256)))]
quantise = [  # value, scale, max, expected
    [1.0, 1e7, MAX["i32"], 10000000], [-0.00000005, 1e7, MAX["i32"], -1], [0.00000004, 1e7, MAX["i32"], 0], [300.0, 1e7, MAX["i32"], MAX["i32"]],
    [-300.0, 1e7, MAX["i32"], -MAX["i32"]], ["nan", 1e3, MAX["i16"], -32768], [32.767, 1e3, MAX["i16"], 32767], ["inf", 1e3, MAX["i16"], 32767],
    ["-inf", 1e3, MAX["i16"], -32767], [0.5, 1.0, MAX["i16"], 1], [-0.5, 1.0, MAX["i16"], -1], [-8.5, 1e6, MAX["i24"], -MAX["i24"]]]
document = {
    "about": "Made by test/protocol/make_vectors.py; data is hex, identifiers and values are decimal.", "valid": valid, "invalid": invalid,
    "checksums": checksums, "crc32": crc32, "quantise": quantise,
    "arm_answer": {"host_nonce": nonces[0], "bridge_nonce": nonces[1], "answer": answer},
    "limits": {"values": limits, "checksum": crc16(b"".join(struct.pack("<6i", *row) for row in limits))},
}
parts = []
for key, value in document.items():
    is_rows = isinstance(value, list)
    text = "[\n" + ",\n".join("    " + json.dumps(row) for row in value) + "\n  ]" if is_rows else json.dumps(value)
    parts.append(f'  "{key}": {text}')
print("{\n" + ",\n".join(parts) + "\n}")
