struct shared { int a, b, c; long d; char name[40]; struct shared *next; };
static inline __attribute__((always_inline)) int shared_leaf(struct shared *s, int factor, int addend) {
  int product = s->a * factor; int sum = s->b + addend; long wide = s->d; return product ^ sum ^ (int)wide;
}
static inline __attribute__((always_inline)) int shared_stem(struct shared *s, int factor) { int x = shared_leaf(s, factor, 7); return x * 2; }
int NAME(struct shared *s) { return shared_stem(s, 3) + s->c; }
