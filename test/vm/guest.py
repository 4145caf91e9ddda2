"""What our SocketcanBus does against a kernel that has CAN, judged by others: candump, cansend, cangen, cangw, canplayer, python-can.

Runs as root inside the guest of `npm run test:vm` (setup/test-vm.mjs) and nowhere else: it creates and deletes interfaces. Prints TAP. Our bus is at the
other end of a pipe (test/vm/socketcan_peer.cpp). Nothing here asserts a time; waits have bounds, so that a failure ends.
"""
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
import traceback

import can

NODE, MODULES, PROGRAMS = (os.environ[name] for name in ("NODE", "MODULES", "PROGRAMS"))
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
WAIT_S = 30  # the longest that anything is waited for, and
NODE_WAIT_S = 120  # for a process of Node

CLASSIC = ["123#DEADBEEF", "000#", "7FF#0011223344556677", "12345678#AA", "1FFFFFFF#0102030405060708", "123#R", "12345678#R4"]
FD = ["123##1" + bytes(range(64)).hex().upper(), "7FF##0AABB", "1ABCDEF0##1000102030405060708090A0B", "001##3" + "5A" * 8, "123##0"]

count = failures = 0


def ok(passed, name, found=None):
    global count, failures
    count += 1
    print(f"{'' if passed else 'not '}ok {count} - {name}")
    if not passed:
        failures += 1
        print(f"# found: {found!r}"[:2000])
    return passed


def same(found, expected, name):
    return ok(found == expected, name, f"{found!r}, expected {expected!r}")


def skip(name, reason):
    global count
    count += 1
    print(f"ok {count} - {name} # SKIP {reason}")


def shell(command, check=True):
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    if check and result.returncode != 0:
        raise RuntimeError(f"{command}: {result.stdout} {result.stderr}")
    return result.stdout + result.stderr


def wait_until(condition, seconds=WAIT_S):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def plain(frame):
    """A frame as text, without the FDF bit that kernels since 6.1 set in the flags of every FD frame, and that is no property of a frame."""
    return re.sub(r"##(.)", lambda match: f"##{int(match[1], 16) & 3:X}", frame)


def listeners(interface):
    with open("/proc/net/can/rcvlist_all") as file:
        return sum(interface in line.split() for line in file)


class Dump:
    """candump -L on one interface, listening when the constructor returns."""

    def __init__(self, interface, options=""):
        before = listeners(interface)
        self.process = subprocess.Popen(f"exec candump -L {options} {interface}", shell=True, stdout=subprocess.PIPE, text=True)
        self.frames = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        if not wait_until(lambda: listeners(interface) > before):
            raise RuntimeError(f"candump does not listen on {interface}")

    def _read(self):
        for line in self.process.stdout:
            self.frames.append(plain(line.split()[2]))

    def take(self, frames):
        """So many frames, or fewer when they do not come."""
        wait_until(lambda: len(self.frames) >= frames)
        taken, self.frames[:frames] = self.frames[:frames], []
        return taken

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.thread.join()
        return self.frames


class Peer:
    """Our bus: commands and answers of socketcan_peer.cpp."""

    def __init__(self, interface, kind="fd", confirmation="plain", stale_us=5000):
        self.process = subprocess.Popen([f"{PROGRAMS}/socketcan_peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.opened = self.ask(f"open {interface} {kind} {confirmation} {stale_us}")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def send(self, *frames):
        return self.ask("send " + " ".join(frames)).split()

    def receive(self, most, wait_ms=WAIT_S * 1000):
        """Frames and the last result."""
        *frames, result = self.ask(f"receive {most} {wait_ms}").split()
        return frames, result

    def poll(self):
        return self.receive(1, 0)[1]

    def counters(self):
        return {key: int(value) for key, value in (pair.split("=") for pair in self.ask("counters").split())}

    def code(self, command):
        """`ok`, or the code of the error."""
        answer = self.ask(command).split()
        return answer[0] if answer[0] == "ok" else answer[1]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def cansend(interface, *frames):
    for frame in frames:
        shell(f"cansend {interface} {frame}")


def test_sent_frames():
    dump, peer = Dump("vcan0"), Peer("vcan0")
    same(peer.opened, "ok", "sent: the bus opens with FD")
    frames = CLASSIC + FD
    same(peer.send(*frames), ["ok"] * len(frames), "sent: classic, FD with BRS and ESI, 29 bits, remote")
    for frame, found in zip(frames, dump.take(len(frames)) + [None] * len(frames)):
        same(found, frame, f"sent: candump sees {frame[:30]}")
    same(peer.counters()["sent"], len(frames), "sent: counted")
    same(peer.poll(), "empty", "sent: own frames do not come back unasked")
    same(dump.stop(), [], "sent: candump sees nothing else")
    classic = Peer("vcan0", "classic")
    same(classic.send("123##1AA", "123#AA"), ["refused", "ok"], "sent: a classic bus refuses FD frames")
    peer.close()
    classic.close()


def test_received_frames():
    peer, classic = Peer("vcan0"), Peer("vcan0", "classic")
    cansend("vcan0", *CLASSIC, *FD)
    frames, _ = peer.receive(len(CLASSIC + FD))
    for frame, found in zip(CLASSIC + FD, frames + [None] * 20):
        same(found, frame, f"received: from cansend {frame[:30]}")
    same(classic.receive(99, 50)[0], CLASSIC, "received: a classic bus does not see FD frames")
    peer.close()
    classic.close()


def test_cangen():
    frames = 400
    dump, peer = Dump("vcan0"), Peer("vcan0")
    generator = subprocess.Popen(f"exec cangen vcan0 -m -g 1 -n {frames}", shell=True)
    found, _ = peer.receive(frames)
    generator.wait()
    expected = dump.take(frames)
    ok(len(expected) == frames and found == expected, f"cangen: {frames} random frames, classic and FD, as candump sees them",
       [(a, b) for a, b in zip(found, expected) if a != b][:3] or (len(found), len(expected)))
    kinds = {(len(frame.split("#")[0]), "##" in frame) for frame in found}
    same(len(kinds), 4, "cangen: of 11 and 29 bits, classic and FD")
    dump.stop()
    peer.close()


def test_cangw():
    shell("cangw -A -s vcan0 -d vcan1 -e -f 123:7FF -m SET:D:0.0.1122334455667788")
    shell("cangw -A -s vcan0 -d vcan1 -e -f 200:7F0 -m XOR:I:00F.0.0000000000000000")
    shell("cangw -A -X -s vcan0 -d vcan1 -e -f 300:7FF -M SET:D:0.0.0." + "C3" * 64)
    sender, receiver = Peer("vcan0"), Peer("vcan1")
    sender.send("123#0000000000000000", "205#AB", "300##1" + "00" * 64, "400#01")
    expected = ["123#1122334455667788", "20A#AB", "300##1" + "C3" * 64]
    same(receiver.receive(3)[0], expected, "cangw: altered data and identifiers arrive as altered")
    same(receiver.receive(9, 50)[0], [], "cangw: what no rule forwards does not arrive")
    shell("cangw -F")
    sender.close()
    receiver.close()


def message_of(text):
    """python-can's message of a frame."""
    identifier, rest = text.split("#", 1)
    is_fd, remote = rest.startswith("#"), rest.startswith("R")
    flags, data = (int(rest[1]), rest[2:]) if is_fd else (0, "" if remote else rest)
    return can.Message(channel="vcan0", arbitration_id=int(identifier, 16), is_extended_id=len(identifier) == 8, is_remote_frame=remote, is_fd=is_fd,
                       bitrate_switch=bool(flags & 1), error_state_indicator=bool(flags & 2), data=bytes.fromhex(data),
                       dlc=int(rest[1:] or 0) if remote else len(data) // 2)


def test_python_can():
    peer = Peer("vcan0")
    with can.Bus(interface="socketcan", channel="vcan0", fd=True) as bus:
        for frame in CLASSIC + FD:
            bus.send(message_of(frame))
            same(peer.receive(1)[0], [frame], f"python-can: {frame[:30]} is received")
            peer.send(frame)
            found = bus.recv(WAIT_S)
            ok(found is not None and found.equals(message_of(frame), timestamp_delta=None, check_direction=False),
               "python-can: and receives the same from us", found)
    peer.close()


def test_confirmations():
    peer, other, dump = Peer("vcan0", "fd", "confirm"), Peer("vcan0", "fd", "confirm"), Dump("vcan0")
    sent = ["123#01", "12345678#02", "123##1AABB"]
    peer.send(*sent)
    cansend("vcan0", "055#AA")
    found, _ = peer.receive(4)
    same(found, [frame + "!" for frame in sent] + ["055#AA"], "confirmations: own frames come back, marked, in order; others are not marked")
    same(other.receive(4)[0], sent + ["055#AA"], "confirmations: for another socket they are frames like any other")
    counters = peer.counters()
    same((counters["sent"], counters["confirmed"], counters["received"]), (3, 3, 1), "confirmations: counted apart")
    dump.stop()
    peer.close()
    other.close()


def test_bus_off():
    peer, dump = Peer("vcan0"), Dump("vcan0")
    cansend("vcan0", "20000020#0000000000000000", "20000004#0008000000006000", "111#01")
    same(peer.receive(2, 100), (["111#01"], "empty"), "errors: error frames are no frames")
    same(peer.counters()["errors"], 2, "errors: they are counted")
    cansend("vcan0", "20000040#0000000000000000")
    same(peer.receive(1), ([], "bus_off"), "bus-off: seen when receiving")
    same(peer.send("123#01", "124#02"), ["bus_off"] * 2, "bus-off: nothing is sent")
    same(peer.code("problem"), "CAN_BUS_OFF", "bus-off: has a name")
    same(peer.code("recover"), "CAN_BUS_OFF", "bus-off: no recovery before the kernel has restarted the controller")
    same(peer.send("123#03"), ["bus_off"], "bus-off: nor anything sent after trying")
    cansend("vcan0", "20000100#0000000000000000", "222#02")
    same(peer.receive(1)[0], ["222#02"], "bus-off: others are heard again after the restart")
    same(peer.send("123#04"), ["bus_off"], "bus-off: the restart alone does not make the bus send")
    same(peer.code("recover"), "ok", "bus-off: recovery, once asked for")
    same(peer.send("123#05"), ["ok"], "bus-off: sends again")
    # candump without error frames: the wire saw what cansend and the recovered bus sent, and nothing between.
    same(dump.take(3), ["111#01", "222#02", "123#05"], "bus-off: the wire saw nothing in between")
    counters = peer.counters()
    same((counters["bus_off"], counters["refused"], counters["sent"]), (1, 4, 1), "bus-off: counted")
    cansend("vcan0", "20000040#0000000000000000", "20000100#0000000000000000", "20000040#0000000000000000")
    peer.receive(9, 50)
    same(peer.code("recover"), "CAN_BUS_OFF", "bus-off: a restart before the last bus-off does not count")
    dump.stop()
    peer.close()


def numbers_of(frames, identifier):
    return [int(frame.split("#")[1], 16) for frame in frames if frame.startswith(identifier)]


def test_full_queue():
    """A token bucket of one frame every 16 seconds: whoever blocks on it is stuck for hours."""
    frames, identifiers = 4000, ["101", "102", "103", "104"]
    shell("tc qdisc add dev vcan0 root tbf rate 8bit burst 16 limit 160")
    peer, dump = Peer("vcan0", "classic", "plain", 3_600_000_000), Dump("vcan0")
    found = dict(pair.split("=") for pair in peer.ask(f"burst {frames} {' '.join(identifiers)}").split())
    sent, queued = int(found["ok"]), int(found["queued"])
    ok(sent + queued == frames and 0 < sent < 100 and queued > 0, "ENOBUFS: never blocks: some sent, the others queued", found)
    counters = peer.counters()
    same((counters["sent"], counters["stale"], counters["errors"]), (sent, queued - 4, 0), "ENOBUFS: all but one per identifier dropped and counted")
    shell("tc qdisc del dev vcan0 root")
    peer.poll()
    cansend("vcan0", "7FF#")
    wait_until(lambda: "7FF#" in dump.frames)
    newest = [f"{name}#{frames - 4 + i:08X}" for i, name in enumerate(identifiers)]
    # The one whose place was taken first goes first.
    first = sent % 4
    same(dump.take(sent + 5)[-5:], newest[first:] + newest[:first] + ["7FF#"], "ENOBUFS: the newest of each is sent when there is room")
    counters = peer.counters()
    same((counters["sent"], counters["stale"]), (sent + 4, queued - 4), "ENOBUFS: counted")
    peer.close()
    # The same with frames that grow old.
    shell("tc qdisc add dev vcan0 root tbf rate 8bit burst 16 limit 160")
    peer = Peer("vcan0", "classic", "plain", 5000)
    found = dict(pair.split("=") for pair in peer.ask(f"burst 400 {' '.join(identifiers)}").split())
    time.sleep(0.05)
    peer.poll()
    counters = peer.counters()
    same(counters["stale"], int(found["queued"]), "ENOBUFS: frames that waited longer than allowed are dropped")
    shell("tc qdisc del dev vcan0 root")
    peer.send("105#01")
    sent = int(found["ok"])
    same(dump.take(sent + 1), [f"{identifiers[i % 4]}#{i:08X}" for i in range(sent)] + ["105#01"], "ENOBUFS: and never sent")
    dump.stop()
    peer.close()


def test_unread():
    """A socket that nobody reads overflows in the kernel."""
    peer, sender = Peer("vcan0", "classic"), Peer("vcan0", "classic")
    frames = 5000
    sender.ask(f"burst {frames} 101")
    found, _ = peer.receive(frames, 200)
    cansend("vcan0", "102#")
    same(peer.receive(1)[0], ["102#"], "unread: frames that come later are received")
    counters = peer.counters()
    ok(0 < len(found) < frames and counters["full"] == frames - len(found), "unread: what the kernel dropped is counted", (len(found), counters))
    peer.close()
    sender.close()


def test_log():
    path, frames = "/tmp/capture.log", CLASSIC + FD
    peer = Peer("vcan0")
    peer.ask(f"capture {path}")
    peer.send(*frames)
    cansend("vcan0", *frames)
    peer.receive(len(frames))
    peer.ask("problem")
    dump = Dump("vcan1")
    shell(f"canplayer -I {path} vcan1=vcan0")
    same(dump.take(2 * len(frames)), frames + frames, "log: canplayer plays our log, and candump sees the frames that were sent and received")
    same(len(open(path).readlines()), 2 * len(frames), "log: one line a frame")
    same(shell(f"log2asc -I {path} vcan0").count("DE AD BE EF"), 2, "log: log2asc reads it")
    dump.stop()
    peer.close()


def test_interface():
    same(Peer("vcan7").opened.split()[1], "CAN_INTERFACE_MISSING", "interface: a missing one has a name")
    shell("ip link set vcan1 down")
    same(Peer("vcan1").opened.split()[1], "CAN_INTERFACE_DOWN", "interface: one that is down too")
    shell("ip link set vcan1 up")
    peer, dump = Peer("vcan1"), Dump("vcan0")
    dump.stop()
    shell("ip link set vcan1 down")
    same(peer.receive(1), ([], "failed"), "interface: going down shows when receiving")
    same(peer.code("problem"), "CAN_INTERFACE_DOWN", "interface: the problem says so")
    same(peer.send("123#01"), ["failed"], "interface: nothing is sent")
    same(peer.code("recover"), "CAN_INTERFACE_DOWN", "interface: no recovery while it is down")
    shell("ip link set vcan1 up")
    dump = Dump("vcan1")
    same(peer.send("123#02"), ["failed"], "interface: up again, nothing is sent unasked")
    cansend("vcan1", "321#01")
    same(peer.receive(1)[0], ["321#01"], "interface: up again, frames are received")
    same(peer.send("123#03"), ["failed"], "interface: which does not end it either")
    same(peer.code("problem"), "CAN_INTERFACE_DOWN", "interface: nor the problem")
    same(peer.code("recover"), "ok", "interface: recovery, once asked for")
    same(peer.code("problem"), "ok", "interface: ends the problem")
    same(peer.send("123#04"), ["ok"], "interface: sends again")
    same(dump.take(2), ["321#01", "123#04"], "interface: the wire saw nothing in between")
    dump.stop()
    # Down seen by the sender first, as when nobody receives.
    shell("ip link set vcan1 down")
    same(peer.send("123#05"), ["failed"], "interface: going down shows when sending")
    shell("ip link set vcan1 up")
    same(peer.send("123#06"), ["failed"], "interface: and is latched there too")
    same(peer.code("recover"), "ok", "interface: until recovery")
    # A controller that went off the bus and was switched off and on has been restarted, without the kernel saying so.
    cansend("vcan1", "20000040#0000000000000000")
    peer.receive(1)
    shell("ip link set vcan1 down")
    peer.poll()
    shell("ip link set vcan1 up")
    same(peer.send("123#07"), ["bus_off"], "interface: down and up does not end bus-off")
    same(peer.code("recover"), "ok", "interface: but recovery then does, for that restarts the controller")
    same(peer.send("123#08"), ["ok"], "interface: and the bus sends")
    shell("ip link del vcan1")
    peer.poll()
    same(peer.send("123#09"), ["failed"], "interface: deleted, nothing can be sent")
    same(peer.code("problem"), "CAN_INTERFACE_MISSING", "interface: the problem says that it is gone")
    shell("ip link add vcan1 type vcan && ip link set vcan1 mtu 72 up")
    same(peer.code("recover"), "CAN_INTERFACE_MISSING", "interface: a new one of its name is another: the bus must be opened again")
    peer.close()


def test_controllers():
    """Two SJA1000 controllers on one bus: QEMU's model, the kernel's driver.

    Remote frames have length 0 here: QEMU's model stores the data bytes of a remote frame in its buffer and does not take them out again, after which
    every frame is garbled.
    """
    classic = [frame for frame in CLASSIC if "#R4" not in frame]
    for name in ("can0", "can1"):
        if not os.path.exists(f"/sys/class/net/{name}"):
            return skip("controllers", f"the guest has no {name}")
        shell(f"ip link set {name} type can bitrate 1000000 restart-ms 100 && ip link set {name} up")
    details = shell("ip -details link show can0")
    ok("bitrate 1000000" in details and "restart-ms 100" in details, "controllers: bit rate and restart time are set", details)
    same(Peer("can0", "fd").opened.split()[1], "CAN_UNSUPPORTED", "controllers: a classic one refuses FD")
    peer, other, dump = Peer("can0", "classic", "confirm", 3_600_000_000), Peer("can1", "classic"), Dump("can1")
    same(peer.opened, "ok", "controllers: our bus opens on one")
    same(peer.send(*classic), ["ok"] * len(classic), "controllers: sends classic frames")
    same(dump.take(len(classic)), classic, "controllers: candump sees them on the other")
    same(other.receive(len(classic))[0], classic, "controllers: and so does our bus there")
    same(peer.receive(len(classic))[0], [frame + "!" for frame in classic], "controllers: the controller confirms each")
    cansend("can1", *classic)
    same(peer.receive(len(classic))[0], classic, "controllers: frames of the other are received")
    frames = 100
    generator = subprocess.Popen(f"exec cangen can1 -g 10 -n {frames}", shell=True)
    found, _ = peer.receive(frames)
    generator.wait()
    expected = dump.take(len(classic) + frames)[len(classic):]
    ok(len(found) == frames and found == expected, f"controllers: {frames} frames of cangen",
       [pair for pair in zip(found, expected) if pair[0] != pair[1]][:5] or (len(found), len(expected)))
    # Faster than the driver, whose queue holds ten frames: the controller's confirmations say what went out. Fewer than the socket's buffer holds.
    burst = 400
    answer = peer.ask(f"burst {burst} 101 102")
    echoes, _ = peer.receive(burst, 1000)
    counters = peer.counters()
    print(f"# burst of {burst} on a controller: {answer}; errors on the other side: {other.counters()['errors']}")
    same(len(echoes), counters["sent"] - len(classic), "controllers: every frame of a burst that counts as sent is confirmed")
    same(counters["sent"] + counters["stale"], len(classic) + burst, "controllers: the others are counted as dropped")
    # In order for each identifier; between two identifiers the one that waited longer goes first.
    first, second = (numbers_of([echo.rstrip("!") for echo in echoes], name) for name in ("101", "102"))
    ok(first == sorted(first) and second == sorted(second), "controllers: in the order of sending", (first[-9:], second[-9:]))
    same((first[-1:], second[-1:]), ([burst - 2], [burst - 1]), "controllers: the newest of each identifier is sent")
    other.receive(burst, 200)
    cansend("can0", "7FF#")
    ok(wait_until(lambda: "7FF#" in dump.frames), "controllers: the other side goes on")
    dump.frames.clear()
    peer.receive(1)
    shell("ip link set can0 down")
    same((peer.receive(1)[1], peer.send("123#01")), ("failed", ["failed"]), "controllers: switched off, nothing is sent")
    shell("ip link set can0 up")
    same((peer.send("123#01"), peer.code("recover"), peer.send("123#02")), (["failed"], "ok", ["ok"]), "controllers: on again, sends after recovery only")
    same(dump.take(1), ["123#02"], "controllers: as the other side sees")
    dump.stop()
    peer.close()
    other.close()


class Command:
    """premotor can dump and send, the real processes, each on an interface of its own. Node takes long to start in an emulated machine: they start before
    the first test and are looked at after the last."""

    log = "/tmp/command.log"

    def __init__(self):
        self.candump = Dump("vcan3")
        self.dump, self.send = self._start("dump", "socketcan-fd:vcan2", "--log", self.log), self._start("send", "socketcan-fd:vcan3", *CLASSIC, *FD)

    @staticmethod
    def _start(*arguments):
        return subprocess.Popen([NODE, f"{ROOT}/bin/premotor.js", "can", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def judge(self):
        frames = CLASSIC + FD
        out, err = self.send.communicate(timeout=NODE_WAIT_S)
        same((out, err, self.send.returncode), (f"{len(frames)} frames sent on vcan3\n", "", 0), "command: send reports")
        same(self.candump.take(len(frames)), frames, "command: candump sees what send sent")
        self.candump.stop()
        ok(wait_until(lambda: listeners("vcan2") > 0, NODE_WAIT_S), "command: dump listens")
        cansend("vcan2", *frames)
        ok(wait_until(lambda: len(open(self.log).readlines()) == len(frames)), "command: dump writes its log as frames come")
        cansend("vcan2", "20000040#0000000000000000")
        warned = self.dump.stderr.readline() if select.select([self.dump.stderr], [], [], NODE_WAIT_S)[0] else ""
        ok("warning: vcan2 is off the bus" in warned, "command: dump warns of bus-off", warned)
        shell("ip link set vcan2 down")
        out, err = self.dump.communicate(timeout=NODE_WAIT_S)
        same(len(out.splitlines()), len(frames), "command: dump shows each")
        ok(self.dump.returncode == 1 and f"{len(frames)} shown, {len(frames)} received" in err and ", 1 times bus-off" in err and "error CAN_INTERFACE_DOWN" in err,
           "command: an interface that goes down ends dump, with its counters", err)
        candump = Dump("vcan1")
        shell(f"canplayer -I {self.log} vcan1=vcan2")
        same(candump.take(len(frames)), frames, "command: canplayer plays its log")
        candump.stop()


def test_native():
    result = subprocess.run([f"{PROGRAMS}/can_buses_test"], capture_output=True, text=True, timeout=100)
    lines = [line for line in result.stdout.splitlines() if re.match(r"(not )?ok \d+", line)]
    for line in lines:
        ok(line.startswith("ok"), "can_buses_test: " + line.split(" - ", 1)[1])
    ok(result.returncode == 0 and not any("# SKIP" in line for line in lines), "can_buses_test: runs to its end, nothing skipped", result.stdout[-500:])


# The 75 % colour bars of the kernel's vivid driver: white, yellow, cyan, green, magenta, red, blue, black.
BARS = [[191, 191, 191], [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191], [191, 0, 0], [0, 0, 191], [0, 0, 0]]


class Eye:
    """A camera of the kernel: vivid, which is a driver like any other, with a picture of its own."""

    def __init__(self):
        before = set(os.listdir("/dev"))
        # One device that only captures, its first input a webcam.
        shell(f"modprobe -d {MODULES} vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0")
        found = sorted(name for name in set(os.listdir("/dev")) - before if name.startswith("video"))
        self.device = f"/dev/{found[0]}"

    def node(self, *arguments):
        result = subprocess.run([NODE, *arguments], capture_output=True, text=True, timeout=NODE_WAIT_S)
        return result.stdout, result.stderr, result.returncode

    def premotor(self, *arguments):
        return self.node(f"{ROOT}/bin/premotor.js", "camera", *arguments)

    def test_list(self):
        out, err, code = self.premotor("list", "--json")
        cameras = json.loads(out)["cameras"]
        own = [one for one in cameras if one["path"] == self.device]
        ok(code == 0 and err == "" and len(own) == 1 and own[0]["isCapture"] and own[0]["driver"] == "vivid", "camera: list finds it", (out[:500], err))
        formats = {one["code"]: one["sizes"] for one in own[0]["formats"]}
        sizes = [(one["width"], one["height"]) for one in formats.get("YUYV", [])]
        ok((640, 360) in sizes and all(one["ratesHz"] for one in formats["YUYV"]), "camera: with the sizes and rates of YUYV", sizes)

    def test_frames(self):
        out, err, code = self.node(f"{ROOT}/test/vm/camera.mjs", ROOT, self.device, "640", "360", "12")
        if not ok(code == 0, "camera: opens and gives frames", err[-1500:]):
            return
        got = json.loads(out)
        same((got["width"], got["height"], got["bytes"]), (640, 360, 640 * 360 * 3), "camera: of the size that was asked for")
        ok(got["frames"] >= 12 and got["isMonotonic"] and got["isAfterOpen"] and got["isPast"], "camera: stamped by the monotonic clock, each later", got)
        same((got["agreed"]["rateHz"], got["agreed"]["format"]), (15, "yuyv"), "camera: with the rate and format that were asked for")
        worst = max(abs(found - expected) for bar, want in zip(got["bars"], BARS) for found, expected in zip(bar, want))
        ok(worst <= 4, "camera: its colour bars are the right colours", (worst, got["bars"]))
        print(f"# colour bars at worst {worst} of 255 off; counts {got['counts']}; ms between frames {got['periodsMs']}")
        same(got["refused"], "CAMERA_FORMAT", "camera: a size that it does not have is refused")
        same(got["second"], "CAMERA_DEVICE_BUSY", "camera: has one user at a time")

    def test_show(self):
        out, err, code = self.premotor("show", self.device, "--size", "320x180", "--out", "/tmp/eye.png", "--json")
        ok(code == 0 and json.loads(out)["width"] == 320 and open("/tmp/eye.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n", "camera: show writes a PNG", (out, err))

    def judge(self):
        self.test_list()
        self.test_frames()
        self.test_show()


def run(name, test):
    started = time.monotonic()
    try:
        test()
    except Exception:  # noqa: BLE001: whatever a test ends with is its failure, and the next ones run
        ok(False, f"{name} runs to its end", traceback.format_exc())
    print(f"# {name}: {time.monotonic() - started:.1f} s")


def main():
    for module in ("vcan", "can-raw", "can-gw", "can-dev", "kvaser_pci", "sch_tbf"):
        shell(f"modprobe -d {MODULES} {module}")
    for name in ("vcan0", "vcan1", "vcan2", "vcan3"):
        shell(f"ip link add {name} type vcan && ip link set {name} mtu 72 up")
    command = Command()
    for name, test in [(name, test) for name, test in globals().items() if name.startswith("test_")]:
        run(name, test)
    run("premotor can", command.judge)
    run("premotor camera", lambda: Eye().judge())
    print(f"1..{count}")
    return 0 if failures == 0 else 1


sys.exit(main())
