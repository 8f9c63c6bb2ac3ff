"""Threads that wait at known places. Each prints the frames that it has, as
Python itself tells them: thread id, then name, line and file of each frame, the
innermost first."""

import sys
import threading


class Worker:
    def run(self, depth):
        if depth:
            return self.run(
                depth - 1,
            )
        return [self.wait(x) for x in (1,)]

    def wait(self, x):
        def innermost_ünïcode(y):
            report()
            hold.wait()
            return y

        return innermost_ünïcode(x)


def generator(n):
    for i in range(n):
        # 漢字
        yield (lambda: Worker().run(i))()


def report():
    frame = sys._getframe(1)
    out = ["thread %d" % threading.get_native_id()]
    while frame:
        code = frame.f_code
        out.append("%s\t%d\t%s" % (code.co_qualname, frame.f_lineno, code.co_filename))
        frame = frame.f_back
    out.append("end")
    with lock:
        print("\n".join(out), flush=True)


def sort_key(x):
    # Called from C: the interpreter's loop is entered once more.
    for y in generator(1):
        return y


lock = threading.Lock()
hold = threading.Event()
threads = [
    threading.Thread(target=lambda: sorted([1], key=sort_key)),
    threading.Thread(target=Worker().run, args=(150,)),
]
for t in threads:
    t.daemon = True
    t.start()
exec("def from_exec():\n\n  report(); sys.stdin.read()")
from_exec()
