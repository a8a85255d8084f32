package main

func vector(g *gen) {
	g.function("scale"+g.isa, "func(dst *float32, f float32, n int)", "is Scale.")
	dst, f, n := g.arg("dst"), g.broadcastArg("f"), g.arg("n")
	g.each(n, 4, func(l []lanes) {
		for _, l := range l {
			y := l.load(dst)
			g.VMULPS(f, y, y)
			l.store(y, dst)
		}
	})
	g.ret()

	g.function("add"+g.isa, "func(dst, a, b *float32, n int)", "is Add.")
	dst, left, right, n := g.arg("dst"), g.arg("a"), g.arg("b"), g.arg("n")
	g.each(n, 4, func(l []lanes) {
		for _, l := range l {
			y := l.load(left)
			g.VADDPS(l.load(right), y, y)
			l.store(y, dst)
		}
	})
	g.ret()
}
