# Calls of every kind that has an end of its own. The test knows their order.
def leaf(x):
    return x + 1

def rec(n):
    return n and rec(n - 1)

def gen():
    yield 1
    yield 2

def catching():
    try:
        yield 1
    except ValueError:
        yield 2

def delegating():
    yield from gen()

def failing():
    raise ValueError

def rescuing():
    try:
        failing()
    except ValueError:
        return leaf(0)

def closure():
    def inner():
        return leaf(1)
    return inner

class Thing:
    def __init__(self):
        self.value = leaf(2)

    @property
    def prop(self):
        return self.value

    def __add__(self, other):
        return self.value

async def sub():
    return 1

async def coro():
    return await sub()

def keywords(a, *, b=1, **c):
    return a

def main():
    for i in range(3):
        leaf(i)
    rec(2)
    for _ in gen():
        pass
    c = catching()
    next(c)
    c.throw(ValueError())
    c.close()
    list(delegating())
    rescuing()
    closure()()
    t = Thing()
    t.prop
    t + t
    list(map(leaf, [1, 2]))
    sorted([2, 1], key=leaf)
    [leaf(i) for i in range(2)]
    (lambda: leaf(3))()
    try:
        coro().send(None)
    except StopIteration:
        pass
    keywords(1, b=2, x=3)
    keywords(*[1], **{})

main()
