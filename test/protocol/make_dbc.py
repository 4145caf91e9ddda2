"""Writes protocol/premotor-bridge.dbc; the frames of eight bytes come from the table in make_vectors.py, the long ones are spelt here.

Run it when the prose changes: python3 test/protocol/make_dbc.py > protocol/premotor-bridge.dbc
DBC cannot say that a classic set's checksum spans frames, nor what makes a set fresh: that stays in the prose.
"""
import ast
import pathlib
import re
import struct

source = (pathlib.Path(__file__).parent / "make_vectors.py").read_text()
SHORT = ast.literal_eval(re.search(r"SHORT = (\{.*?\n\})", source, re.S).group(1).replace("# kind: (identifier, struct format, field names)", ""))
UNITS = {"clock_us": "us", "due_us": "us", "age_ms": "ms", "due_100us": "100us"}
FROM_HOST = {"estop", "disarm", "silence", "hello", "arm_request", "arm_response", "limit_write", "limit_read", "limit_commit", "fault_clear",
             "indicate", "firmware_ask", "update", "update_word"}
lines = []


def message(identifier, name, size, is_from_host):
    lines.append("")
    lines.append(f"BO_ {identifier} {name}: {size} {'host' if is_from_host else 'bridge'}")
    return "bridge" if is_from_host else "host"


def signal(name, start, length, receiver, signed=False, factor="1", unit=""):
    lines.append(f" SG_ {name} : {start}|{length}@1{'-' if signed else '+'} ({factor},0) [0|0] \"{unit}\" {receiver}")


def slot(axis, at, receiver):
    signal(f"axis{axis}_position", at, 32, receiver, True, "1e-07", "rad")
    signal(f"axis{axis}_velocity", at + 32, 16, receiver, True, "0.001", "rad/s")
    signal(f"axis{axis}_torque", at + 48, 16, receiver, True, "0.01", "Nm")


for kind, (identifier, form, names) in sorted(SHORT.items(), key=lambda item: item[1][0]):
    receiver = message(identifier, kind.upper(), 8, kind in FROM_HOST)
    bit, rest = 0, list(names)
    for count, code in re.findall(r"(\d*)([xBHIi])", form):
        size = 8 * struct.calcsize("<" + code) * int(count or 1)
        if code != "x":
            name = rest.pop(0)
            if name == "version_and_state":
                signal("state", 0, 4, receiver)
                signal("version", 4, 4, receiver)
            else:
                signal(name, bit, size, receiver, code == "i", "1", UNITS.get(name, ""))
        bit += size
    signal("crc", 48, 16, receiver)

for base, name, is_from_host, head in (
        (0x080, "SETPOINT", True, [("sequence", 16, 16), ("session", 32, 16), ("token", 48, 16), ("due_us", 64, 32), ("has_torque", 96, 1)]),
        (0x100, "FEEDBACK", False, [("sequence", 16, 16), ("accepted_sequence", 32, 16), ("state", 48, 8), ("fault", 56, 8),
                                    ("clock_us", 64, 32), ("valid", 96, 8)])):
    for part in range(3):
        receiver = message(base + part, f"{name}_{part}", 64, is_from_host)
        for field, start, length in [("version", 0, 8), ("part", 8, 8), *head, ("axis_count", 104, 8)]:
            signal(field, start, length, receiver, unit=UNITS.get(field, ""))
        for axis in range(6 * part, min(6 * part + 6, 14)):
            slot(axis, 8 * (14 + 8 * (axis - 6 * part)), receiver)
        signal("crc", 496, 16, receiver)

receiver = message(0x305, "UPDATE_BLOCK", 64, True)
for field, start, length in (("version", 0, 8), ("bytes", 8, 8), ("offset", 16, 32), ("crc", 496, 16)):
    signal(field, start, length, receiver)

receiver = message(0x090, "SETPOINT_HEAD", 8, True)
for field, start in (("sequence", 0), ("token", 16), ("due_100us", 32), ("set_crc", 48)):
    signal(field, start, 16, receiver, unit=UNITS.get(field, ""))
for part in range(1, 11):
    receiver = message(0x090 + part, f"SETPOINT_PART_{part}", 8, True)
    signal("sequence_low", 0, 8, receiver)
    signal("part", 8, 4, receiver)
    signal("version", 12, 4, receiver)
    for i in range(3):
        index = 3 * (part - 1) + i
        if index < 28:
            is_velocity = index % 2 == 1
            signal(f"axis{index // 2}_{'velocity' if is_velocity else 'position'}", 16 + 16 * i, 16, receiver, True,
                   "0.001" if is_velocity else "0.00025", "rad/s" if is_velocity else "rad")
for axis in range(14):
    receiver = message(0x110 + axis, f"AXIS_FEEDBACK_{axis}", 8, False)
    signal("position", 0, 24, receiver, True, "1e-06", "rad")
    signal("velocity", 24, 16, receiver, True, "0.001", "rad/s")
    signal("is_valid", 40, 8, receiver)
    signal("crc", 48, 16, receiver)

print('VERSION "1"\n\nNS_ :\n\nBS_:\n\nBU_: host bridge')
print("\n".join(lines))
print('\nCM_ "premotor bridge protocol, version 1: protocol/README.md owns the bytes; made by test/protocol/make_dbc.py";')
for kind in ("HEARTBEAT", "FEEDBACK_0", "FEEDBACK_1", "FEEDBACK_2"):
    identifier = int(re.search(rf"^BO_ (\d+) {kind}:", "\n".join(lines), re.M).group(1))
    print(f'VAL_ {identifier} state 0 "silent" 1 "disarmed" 2 "holding" 3 "following" 4 "slowing" 5 "stopping" 6 "fault" ;')
