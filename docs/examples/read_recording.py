#!/usr/bin/env python3
"""Prints the events of a recording as JSON lines, by docs/recording-format.md
alone. Needs Python 3.9 and the program zstd.

    read_recording.py FILE.sbx
"""
import json
import struct
import subprocess
import sys

MAGIC = b"\x89SBX\r\n\x1a\n"
HEADER = struct.Struct("<8sHBBIQQIIQQqIIQIIII")
ENTRY, EXIT, PSEUDO = 1, 2, 0xF0
GO_STACK, TAIL_JUMPS = 1, 2


class Cursor:
    """Reads numbers from bytes."""

    def __init__(self, data=b""):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def uint(self):
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                return value

    def int(self):
        v = self.uint()
        return (v >> 1) ^ -(v & 1)

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def left(self):
        return self.at < len(self.data)

    def table(self, entry):
        return [entry() for _ in range(self.uint())] if self.data else []


def signed(v):
    """The 64 bits of v as a signed number: stack pointers compare as such."""
    return (v + (1 << 63)) % (1 << 64) - (1 << 63)


def blocks(data):
    """The headers and payloads of the blocks of a file."""
    at = 0
    while at + HEADER.size <= len(data) and data[at:at + 8] == MAGIC:
        h = HEADER.unpack_from(data, at)
        stored = data[at + HEADER.size:at + HEADER.size + h[7]]
        if len(stored) < h[7]:
            return  # the writer was killed
        zstd = ["zstd", "-dcq"]
        yield h[2], subprocess.run(zstd, input=stored, stdout=subprocess.PIPE, check=True).stdout if h[3] & 1 else stored
        at += HEADER.size + h[7]


def sections(payload):
    c, found = Cursor(payload), {}
    while c.left():
        section, size = c.uint(), c.uint()
        found[section] = c.take(size)
    return found


def events(payload):
    sec = sections(payload)
    col = {i: Cursor(sec.get(i, b"")) for i in range(1, 17)}
    c = col[1]
    strings = [""] + c.table(lambda: c.take(c.uint()).decode("utf-8", "replace"))
    text = lambda c: strings[c.uint()]
    f, t, s, n, misc = col[2], col[5], col[7], col[14], col[16]
    names = dict(f.table(lambda: (f.uint(), [text(f)] + [f.uint() for _ in range(8)])))
    tasks = t.table(lambda: (t.uint(), t.uint(), t.uint()))
    shapes = s.table(lambda: (s.byte(), s.uint(), s.uint(), s.byte(), s.int(), s.uint(), s.byte()))
    addr, nodes = 0, []
    for _ in range(n.uint() if n.data else 0):
        parent, addr = n.uint(), (addr + n.int()) % (1 << 64)
        nodes.append((parent, addr))

    time, run, task, lanes, last = 0, 0, None, {}, {}
    while col[8].left():
        kind, flags, fn, sp_mode, delta, fields, nargs = shapes[col[8].uint()]
        if kind >= PSEUDO:  # tick, region, end, mark: no events
            if kind == 0xF1:
                misc.uint(), misc.uint(), misc.uint(), misc.byte()
            else:
                misc.int()
            if kind == 0xF3:
                misc.byte(), misc.uint()
            continue
        if run == 0:
            task, run = tasks[col[9].uint()], col[9].uint()
        run -= 1
        d = col[10].byte() | col[11].uint() << 8
        time = (time + ((d >> 1) ^ -(d & 1))) % (1 << 64)
        pid, tid, goid = task
        e = {"time": time, "kind": kind, "flags": flags, "pid": pid, "tid": tid, "goid": goid}

        if sp_mode:
            key = (pid, goid if flags & GO_STACK and goid else tid, flags & GO_STACK)
            lane = lanes.setdefault(key, {"open": [], "base": 0})
            calls = lane["open"]
            if sp_mode == 2:  # the exit of a call that is open
                sp, fn, _ = calls[-1 - delta]
                del calls[len(calls) - 1 - delta:]
            else:
                sp = calls[-1][0] if calls else lane["base"]
                sp = (sp + (delta if sp_mode == 1 else col[12].int())) % (1 << 64)
            if kind == ENTRY:
                while calls and (signed(calls[-1][0]) < signed(sp) or calls[-1][0] == sp and not calls[-1][2]):
                    calls.pop()
                if len(calls) >= 1 << 16:
                    calls.clear()
                if not calls:
                    lane["base"] = sp
                calls.append((sp, fn, flags & TAIL_JUMPS))
            e["sp"] = sp
        e["func"] = fn
        if fn in names:
            e["name"] = names[fn][0]

        values = last.setdefault(fn, [0] * 33)  # 32 arguments, return value
        for i in ([32] if fields & 1 else []) + (list(range(nargs)) if fields & 2 else []):
            values[i] = (values[i] + col[13].int()) % (1 << 64)
        if fields & 1:
            e["ret"] = values[32]
        if fields & 2:
            e["args"] = values[:nargs]
        for bit, name in ((4, "stack"), (512, "kernel")):
            at = col[15].uint() + 1 if fields & bit else 0
            while at:
                at, addr = nodes[at - 1]
                e.setdefault(name, []).append(addr)
        for bit, name, read in ((8, "unread", misc.uint), (16, "child", misc.uint), (16, "child_pid", misc.uint),
                                (32, "comm", lambda: text(misc)), (64, "count", misc.uint),
                                (128, "cpu", misc.int), (128, "cause", misc.byte),
                                (256, "texts", lambda: misc.table(lambda: text(misc))), (1024, "stack_id", misc.uint),
                                (1024, "waker", misc.uint), (1024, "weight", misc.uint), (1024, "cut", misc.byte),
                                (1024, "count", misc.uint), (1024, "cpu", misc.int), (2048, "status", misc.uint)):
            if fields & bit:
                e[name] = read()
        yield e


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        for kind, payload in blocks(file.read()):
            if kind == 1:
                print(json.dumps({"session": json.loads(payload)}))
            elif kind == 2:
                for event in events(payload):
                    print(json.dumps(event))
